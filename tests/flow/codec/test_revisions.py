"""Which era a request speaks, and what that era asks of it: one row a rule."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import GatewayError, HeaderMismatch, InvalidParams, MethodNotFound, UnsupportedVersion
from narthex.flow.codec.jsonrpc import Raw, RawMap, decode_request
from narthex.flow.codec.revisions import (
    LEGACY,
    META_CAPABILITIES,
    META_VERSION,
    METHODS,
    MODERN,
    check_method,
    check_modern_meta,
    era_of,
    read_meta,
)
from narthex.types import Era

NOW = MODERN[0]
MODERN_META = {META_VERSION: NOW, META_CAPABILITIES: {}}


def era(header: bytes | None, params: dict[str, Any] | None = None, method: str = "tools/list") -> tuple[str, Era]:
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": method}
    if params is not None:
        message["params"] = params
    body = json.dumps(message).encode()
    return era_of(header, decode_request(body), body)


def raws(members: dict[str, Any]) -> RawMap:
    return {key: Raw(json.dumps(value).encode()) for key, value in members.items()}


# --- era_of -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "params", "method", "expected"),
    [
        pytest.param(b"2026-07-28", {"_meta": MODERN_META}, "tools/list", ("2026-07-28", "modern"), id="modern"),
        pytest.param(b"2026-07-28", None, "tools/list", ("2026-07-28", "modern"), id="the header alone decides"),
        *(
            pytest.param(version.encode(), None, "tools/list", (version, "legacy"), id=f"legacy {version}")
            for version in LEGACY
        ),
        pytest.param(None, None, "tools/list", ("2025-03-26", "legacy"), id="no header: 2025-03-26 is assumed"),
        pytest.param(None, {"_meta": {"a": 1}}, "tools/list", ("2025-03-26", "legacy"), id="no header, a legacy _meta"),
        pytest.param(
            None, {"arguments": {"q": META_VERSION}}, "tools/call", ("2025-03-26", "legacy"), id="the word elsewhere"
        ),
        pytest.param(None, {"_meta": [META_VERSION]}, "tools/call", ("2025-03-26", "legacy"), id="_meta is no object"),
        pytest.param(None, None, "initialize", ("2025-11-25", "legacy"), id="initialize is legacy"),
        pytest.param(
            b" 2026-07-28\t", None, "tools/list", ("2026-07-28", "modern"), id="spaces around it do not count"
        ),
        pytest.param(b"2026-07-28", None, "initialize", ("2025-11-25", "legacy"), id="initialize, whatever the header"),
        pytest.param(
            None, {"_meta": MODERN_META}, "initialize", ("2025-11-25", "legacy"), id="initialize, whatever its _meta"
        ),
        pytest.param(
            b"2025-11-25",
            {"_meta": MODERN_META},
            "initialize",
            ("2025-11-25", "legacy"),
            id="initialize, legacy header",
        ),
        pytest.param(
            b"2026-07-28 ",
            {"_meta": MODERN_META},
            "initialize",
            (NOW, "modern"),
            id="initialize that is modern in both",
        ),
        pytest.param(b"never", None, "initialize", ("2025-11-25", "legacy"), id="initialize negotiates in its body"),
    ],
)
def test_era(header: bytes | None, params: dict[str, Any] | None, method: str, expected: tuple[str, Era]) -> None:
    assert era(header, params, method) == expected


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"1900-01-01", id="before all of ours"),
        pytest.param(b"2027-01-01", id="after all of ours"),
        pytest.param(b"", id="empty"),
        pytest.param(b"2026-07-28\x00", id="a control character behind it"),
        pytest.param(b"2026-07-28, 2025-11-25", id="two in one line"),
        pytest.param(b"DRAFT-2026-v1", id="a draft"),
        pytest.param(b"\xff\x00" * 40, id="bytes"),
    ],
)
def test_another_version_is_refused_with_those_to_choose_from(header: bytes) -> None:
    with pytest.raises(UnsupportedVersion) as refused:
        era(header)
    data = refused.value.data
    assert data is not None
    assert data["supported"] == ["2026-07-28"]
    assert data["requested"] == header.decode("latin-1")[:64]


@pytest.mark.parametrize("version", ["2026-07-28", "2099-01-01", 7], ids=["ours", "unknown", "no string"])
def test_a_modern_body_without_its_header_is_a_mismatch(version: object) -> None:
    with pytest.raises(HeaderMismatch):
        era(None, {"_meta": {META_VERSION: version}})


# --- _meta --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        pytest.param({}, {}, id="none is empty"),
        pytest.param({"_meta": {}}, {}, id="empty"),
        pytest.param({"_meta": {"a": {"b": [1]}, "é": None}}, {"a": {"b": [1]}, "é": None}, id="one level is opened"),
    ],
)
def test_read_meta(params: dict[str, Any], expected: dict[str, Any]) -> None:
    assert {key: json.loads(bytes(value)) for key, value in read_meta(raws(params)).items()} == expected


@pytest.mark.parametrize("value", [None, [], "x", 1, True], ids=repr)
def test_meta_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(InvalidParams):
        read_meta(raws({"_meta": value}))


@pytest.mark.parametrize(
    ("meta", "error"),
    [
        pytest.param(MODERN_META, None, id="version and capabilities"),
        pytest.param({**MODERN_META, META_CAPABILITIES: {"sampling": {}}}, None, id="capabilities with members"),
        pytest.param({**MODERN_META, "com.example/x": 1}, None, id="unknown keys are nobody's business"),
        pytest.param({}, InvalidParams, id="nothing"),
        pytest.param({META_CAPABILITIES: {}}, InvalidParams, id="no version"),
        pytest.param({META_VERSION: NOW}, InvalidParams, id="no capabilities"),
        pytest.param({META_VERSION: NOW, META_CAPABILITIES: []}, InvalidParams, id="capabilities are a list"),
        pytest.param({META_VERSION: NOW, META_CAPABILITIES: None}, InvalidParams, id="capabilities are null"),
        pytest.param({**MODERN_META, META_VERSION: "2025-11-25"}, HeaderMismatch, id="another version than the header"),
        pytest.param({**MODERN_META, META_VERSION: 20260728}, HeaderMismatch, id="a version that is no string"),
    ],
)
def test_modern_meta(meta: dict[str, Any], error: type[GatewayError] | None) -> None:
    if error is None:
        check_modern_meta(raws(meta), NOW)
        return
    with pytest.raises(error):
        check_modern_meta(raws(meta), NOW)


# --- methods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "legacy", "modern"),
    [
        pytest.param("tools/call", True, True, id="tools in both"),
        pytest.param("tools/list", True, True, id="their list in both"),
        pytest.param("prompts/get", True, True, id="prompts in both"),
        pytest.param("prompts/list", True, True, id="their list too"),
        pytest.param("resources/read", True, True, id="resources in both"),
        pytest.param("resources/list", True, True, id="their list as well"),
        pytest.param("resources/templates/list", True, True, id="templates in both"),
        pytest.param("completion/complete", True, True, id="completion in both"),
        pytest.param("initialize", True, False, id="the handshake is legacy"),
        pytest.param("ping", True, False, id="ping is legacy"),
        pytest.param("server/discover", False, True, id="discovery is modern"),
        pytest.param("subscriptions/listen", False, True, id="listening is modern"),
        pytest.param("resources/subscribe", True, False, id="single subscriptions are legacy"),
        pytest.param("logging/setLevel", True, False, id="a level for all that follows is legacy"),
        pytest.param("tasks/get", True, True, id="tasks in both"),
        pytest.param("tasks/cancel", True, True, id="to end one in both"),
        pytest.param("tasks/update", False, True, id="answers to what a task asks are modern"),
        pytest.param("tasks/result", True, False, id="a task's result by itself is legacy"),
        pytest.param("tasks/list", True, False, id="a list of tasks is legacy"),
        pytest.param("Tools/Call", False, False, id="case counts"),
        pytest.param("tools/call ", False, False, id="nothing is trimmed"),
    ],
)
def test_methods(method: str, legacy: bool, modern: bool) -> None:
    served: tuple[tuple[Era, bool], ...] = (("legacy", legacy), ("modern", modern))
    for one, known in served:
        if known:
            check_method(method, one)
        else:
            with pytest.raises(MethodNotFound):
                check_method(method, one)


@given(method=st.text(max_size=200), one=st.sampled_from(["legacy", "modern"]))
def test_only_what_is_listed_is_served_and_the_refusal_stays_short(method: str, one: Era) -> None:
    try:
        check_method(method, one)
    except MethodNotFound as error:
        assert method not in METHODS[one]
        assert len(error.public) < 100
    else:
        assert method in METHODS[one]
