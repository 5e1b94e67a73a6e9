"""What a policy lets a call through for, kept: arguments rewritten, results redacted and capped, or nothing goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narthex.errors import ContentBlocked
from narthex.flow.codec.jsonrpc import Incoming, Raw
from narthex.flow.policy.engines.obligations import BadObligation, Duties, read, rewritten


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def test_a_patch_as_deep_as_it_may_be_is_applied() -> None:
    (patch,) = read({"rewrite": nested(64)})
    assert rewritten({}, patch.value) == nested(64)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("redact", []),
        ("redact", ["a"]),
        ("redact", [1]),
        ("redact", ["/a"] * 65),
        ("redact", "/*" * 65),
        ("require_approval", 1),
        ("max_results", -1),
        ("max_results", True),
        ("rewrite", []),
        ("rewrite", nested(65)),
        ("step_up_scope", ""),
        ("step_up_scope", [""]),
        ("cache_ttl_s", -1),
        ("cache_ttl_s", "5"),
        ("log", "all"),
        ("nothing", True),
    ],
)
def test_refused(kind: str, value: Any) -> None:
    with pytest.raises(BadObligation):
        read({kind: value})


@pytest.mark.parametrize(
    ("arguments", "patch", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 5}, {"a": 5, "b": 2}),
        ({"a": 1}, {"a": None}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None, "d": 3}}, {"a": {"c": 2, "d": 3}}),
        ({"a": [1]}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        (None, {"a": {"x": None}}, {"a": {}}),
        ({}, {}, {}),
    ],
)
def test_arguments_are_merged_as_rfc_7396_says(arguments: Any, patch: dict[str, Any], expected: Any) -> None:
    before = json.dumps(arguments)
    assert rewritten(arguments, patch) == expected
    assert json.dumps(arguments) == before, "the call is as it was"


SAID = {"rows": [{"name": "a", "ssn": "1"}, {"name": "b", "ssn": "2"}], "total": 2}
RESULT = {
    "content": [{"type": "text", "text": json.dumps(SAID)}, {"type": "text", "text": "two rows"}],
    "structuredContent": SAID,
}


def applied(duties: Duties, result: Any = RESULT) -> Any:
    message = Incoming("2.0", 1, result=Raw(json.dumps(result).encode()))
    kept = duties.kept(message)
    assert kept is not None
    return json.loads(bytes(kept.result))


def test_what_is_redacted_is_nowhere_in_the_result() -> None:
    found = applied(Duties(redact=("/structuredContent/rows/*/ssn",)))
    assert found["structuredContent"]["rows"][0] == {"name": "a", "ssn": "[redacted]"}
    assert json.loads(found["content"][0]["text"]) == found["structuredContent"]
    assert found["content"][1] == RESULT["content"][1]


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("/content/1/text", [RESULT["content"][0], {"type": "text", "text": "[redacted]"}]),
        ("/content/*", ["[redacted]", "[redacted]"]),
        ("/content/7/text", RESULT["content"]),
        ("/content/text", RESULT["content"]),
    ],
)
def test_pointers(pointer: str, expected: Any) -> None:
    assert applied(Duties(redact=(pointer,)))["content"] == expected


def test_names_in_pointers_are_escaped() -> None:
    assert applied(Duties(redact=("/a~1b/c~0d",)), {"a/b": {"c~d": 1}}) == {"a/b": {"c~d": "[redacted]"}}


def test_results_are_capped_in_both_forms() -> None:
    found = applied(Duties(max_results=1))
    assert found["content"] == [
        {"type": "text", "text": json.dumps({**SAID, "rows": SAID["rows"][:1]}, separators=(",", ":"))}
    ]
    assert found["structuredContent"]["rows"] == SAID["rows"][:1]


def test_errors_pass() -> None:
    message = Incoming("2.0", 1, error=Raw(b'{"code":1,"message":"x"}'))
    assert Duties(max_results=1).kept(message) is message


def test_what_comes_beside_the_result_is_not_passed_on() -> None:
    assert Duties(max_results=1).kept(Incoming("2.0", method="notifications/message", params=Raw(b"{}"))) is None


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(Incoming("2.0", 7, method="elicitation/create", params=Raw(b"{}")), id="a question"),
        pytest.param(Incoming("2.0", 1, result=Raw(b'{"x":"' + b"a" * 1024 * 1024 + b'"}')), id="too large"),
        pytest.param(Incoming("2.0", 1, result=Raw(b"[1]")), id="no object"),
        pytest.param(Incoming("2.0", 1, result=Raw(b'{"resultType":"input_required"}')), id="a result that asks"),
        pytest.param(Incoming("2.0", 1, result=Raw(b'{"resultType":"task"}')), id="a task"),
    ],
)
def test_what_cannot_be_looked_at_does_not_go_on(message: Incoming) -> None:
    with pytest.raises(ContentBlocked):
        Duties(redact=("/a",)).kept(message)
