"""The table in the docstring of `narthex.errors` is what the classes say; secrets stay in the operator's field."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from narthex import errors
from narthex.errors import (
    ConfigError,
    GatewayError,
    HeaderMismatch,
    HttpRefusal,
    NotVisible,
    Overloaded,
    UpstreamUnavailable,
)
from narthex.flow.codec.jsonrpc import encode_error

ROW = re.compile(r"^([│├└─ ]*)(\w+) +(-\d+) +(\d+|\(as given\)) +(\w+|\(as given\))$", re.MULTILINE)
Row = tuple[str, str, int, str, str]


def table() -> Iterator[Row]:
    """Name, parent, code, status and reason of each row; the indent says whose child it is."""
    above: list[str] = []
    for indent, name, code, status, reason in ROW.findall(inspect.getdoc(errors) or ""):
        depth = len(indent) // 4
        del above[depth:]
        yield name, above[-1] if above else "Exception", int(code), status, reason
        above.append(name)


ROWS = list(table())
CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, GatewayError) and kind.__module__ == errors.__name__
}
SPECIFIED = {-32700, -32600, -32601, -32602, -32603, -32020, -32021, -32022}


def test_every_class_has_its_row_and_every_row_its_class() -> None:
    assert [row[0] for row in ROWS] == list(dict.fromkeys(row[0] for row in ROWS)), "a row stands twice"
    assert {row[0] for row in ROWS} == set(CLASSES)


@pytest.mark.parametrize(("name", "parent", "code", "status", "reason"), ROWS, ids=[row[0] for row in ROWS])
def test_the_table_says_what_the_class_says(name: str, parent: str, code: int, status: str, reason: str) -> None:
    kind = CLASSES[name]
    assert kind.__base__ is not None and kind.__base__.__name__ == parent
    assert kind.code == code
    if status != "(as given)":
        assert kind.status == int(status)
    if reason != "(as given)":
        assert kind.reason == reason


@pytest.mark.parametrize("kind", CLASSES.values(), ids=list(CLASSES))
def test_codes_are_the_specifications_or_outside_its_range(kind: type[GatewayError]) -> None:
    assert kind.code in SPECIFIED or not -32768 <= kind.code <= -32000


@pytest.mark.parametrize("kind", CLASSES.values(), ids=list(CLASSES))
def test_every_class_says_what_it_means(kind: type[GatewayError]) -> None:
    assert kind.__doc__
    assert re.fullmatch("[a-z_]+", kind.reason)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(GatewayError("no", detail="s3cret"), id="plain"),
        pytest.param(HeaderMismatch("Mcp-Name", "s3cret", "s3cret too"), id="a header and the body"),
        pytest.param(HttpRefusal(421, "misdirected", "no", detail="s3cret"), id="a refusal of HTTP"),
        pytest.param(UpstreamUnavailable("no", detail="s3cret", retry_after_s=3), id="an upstream's text"),
        pytest.param(ConfigError(["narthex.yaml:1:1: s3cret"]), id="a line of the configuration"),
    ],
)
def test_detail_never_reaches_the_client(error: GatewayError) -> None:
    assert "s3cret" in error.detail
    assert b"s3cret" not in encode_error(1, error, "d")
    assert "s3cret" not in error.public and "s3cret" not in str(error)


def test_a_refusal_of_http_says_its_own_status_reason_and_headers() -> None:
    error = HttpRefusal(405, "method_not_allowed", "no", headers=(("Allow", "POST"),))
    assert (error.code, error.status, error.reason) == (-32600, 405, "method_not_allowed")
    assert error.headers == (("Allow", "POST"),)
    assert HttpRefusal.status == 500, "one refusal says nothing about the next"


@pytest.mark.parametrize(
    ("error", "data"),
    [
        pytest.param(UpstreamUnavailable("x"), {"sent": False}, id="nothing was sent, nobody knows when"),
        pytest.param(UpstreamUnavailable("x", sent=True), {"sent": True}, id="it may have acted"),
        pytest.param(
            UpstreamUnavailable("x", retry_after_s=29.6), {"sent": False, "retryAfterSeconds": 30}, id="whole seconds"
        ),
        pytest.param(
            UpstreamUnavailable("x", retry_after_s=0.0), {"sent": False, "retryAfterSeconds": 1}, id="never at once"
        ),
        pytest.param(Overloaded("x"), {"retryAfterSeconds": 1}, id="overloaded: a second by default"),
        pytest.param(Overloaded("x", retry_after_s=7.2), {"retryAfterSeconds": 7}, id="overloaded: as told"),
        pytest.param(NotVisible("x", data={"uri": "a:b"}), {"uri": "a:b"}, id="members as given"),
        pytest.param(GatewayError(), None, id="no members"),
    ],
)
def test_data(error: GatewayError, data: dict[str, object] | None) -> None:
    assert error.data == data


def test_a_configuration_keeps_its_problems_line_by_line() -> None:
    error = ConfigError(["a.yaml:1:2: one", "a.yaml:3:4: two"])
    assert error.problems == ["a.yaml:1:2: one", "a.yaml:3:4: two"]
    assert error.detail.splitlines() == error.problems
