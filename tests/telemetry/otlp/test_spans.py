"""A call that has ended is two spans as the conventions have them, read by OTLP's own messages."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from narthex.flow.codec.trace_context import Context
from narthex.telemetry.otlp.spans import attributes_of_server, encode_traces
from narthex.telemetry.otlp.wire import attributes
from narthex.telemetry.traces import Ended, Trace
from narthex.types import HttpTarget, ServerSpec, StdioTarget
from tests.telemetry.otlp.ended import CHILD, PARENT, SPAN, TRACE, ended

SPEC = ServerSpec("s", HttpTarget("", "https", "mcp.example.com", 443, "/mcp?key=canary-path"), "http")
PEERS = {"s": attributes_of_server(SPEC), "p": attributes_of_server(ServerSpec("p", StdioTarget("x"), "stdio"))}
BASE = 1_700_000_000.0


def spans(*calls: Ended) -> list[Span]:
    body = encode_traces(calls, attributes(1, [("service.name", "narthex")]), BASE, PEERS, lambda: None)
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert resource.resource.attributes[0].value.string_value == "narthex"
    (scope,) = resource.scope_spans
    assert scope.scope.name == "narthex"
    return list(scope.spans)


def said(span: Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_call_is_a_server_span_and_a_client_span_in_it() -> None:
    server, client = spans(ended())
    assert (server.name, client.name) == ("tools/call t", "tools/call t")
    assert (server.kind, client.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert server.trace_id.hex() == client.trace_id.hex() == TRACE
    assert (server.span_id.hex(), client.span_id.hex()) == (SPAN, CHILD)
    assert (server.parent_span_id, client.parent_span_id.hex()) == (b"", SPAN)
    nanoseconds = [(one.start_time_unix_nano, one.end_time_unix_nano) for one in (server, client)]
    quarter = 250_000_000
    base = int(BASE) * 4
    assert nanoseconds == [
        ((base + 4) * quarter, (base + 8) * quarter), ((base + 5) * quarter, (base + 6) * quarter),
    ]  # fmt: skip
    assert server.status.code == client.status.code == Status.STATUS_CODE_UNSET


def test_names_are_those_of_the_conventions() -> None:
    server, client = map(said, spans(ended(session="abc", decision_id="d-1")))
    assert server == {
        "mcp.method.name": "tools/call", "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t",
        "mcp.protocol.version": "2026-07-28", "mcp.session.id": "abc", "jsonrpc.request.id": "7",
        "network.transport": "tcp", "network.protocol.name": "http", "network.protocol.version": "1.1",
        "client.address": "127.0.0.1", "narthex.endpoint": "default", "narthex.server": "s",
        "narthex.tenant": "acme", "narthex.client": "helpdesk-bot", "narthex.outcome": "ok",
        "narthex.decision.id": "d-1", "narthex.config.revision": "c0ffee", "narthex.request.bytes": 10,
        "narthex.response.bytes": 20,
    }  # fmt: skip
    assert client["server.address"] == "mcp.example.com"
    assert client["server.port"] == 443
    assert said(spans(ended(server="p"))[1])["network.transport"] == "pipe"
    assert "gen_ai.operation.name" not in said(spans(ended(method="resources/read", name="file:///x"))[0])
    assert said(spans(ended(method="prompts/get", name="p"))[0])["gen_ai.prompt.name"] == "p"
    assert spans(ended(method="resources/read", name="file:///x"))[0].name == "resources/read"


def test_a_parent_and_a_link() -> None:
    other = Context("f" * 32, "e" * 16, 0)
    trace = Trace(TRACE, SPAN, Context(TRACE, PARENT, 3, "a=1"), other, Context(TRACE, CHILD, 3, "a=1"), True)
    server, client = spans(ended(trace=trace))
    assert server.parent_span_id.hex() == PARENT
    assert server.trace_state == "a=1"
    assert server.flags == 0x303
    assert client.flags & 0x300 == 0x100
    assert (server.links[0].trace_id.hex(), server.links[0].span_id.hex()) == (other.trace_id, other.span_id)


@pytest.mark.parametrize(
    ("outcome", "given", "of_server", "of_client", "error"),
    [
        pytest.param("ok", {}, False, False, None, id="ok"),
        pytest.param("tool_error", {}, True, True, "tool_error", id="a result that says isError"),
        pytest.param("rpc_error", {"code": -32602}, False, True, "-32602", id="its caller's fault: CLIENT alone"),
        pytest.param("rpc_error", {"code": -32603}, True, True, "-32603", id="an internal error: both"),
        pytest.param("rpc_error", {"code": -32050}, True, True, "-32050", id="a reserved code: both"),
        pytest.param("cancelled", {}, False, False, None, id="cancelled"),
        pytest.param(
            "upstream_timeout", {"reason": "upstream_timeout", "code": -31006}, True, True, "-31006", id="late"
        ),
    ],
)
def test_what_has_failed(
    outcome: str, given: dict[str, Any], of_server: bool, of_client: bool, error: str | None
) -> None:
    server, client = spans(ended(outcome, **given))
    failed = [one.status.code == Status.STATUS_CODE_ERROR for one in (server, client)]
    assert failed == [of_server, of_client]
    assert said(server).get("error.type") == error
    assert said(server).get("rpc.response.status_code") == (str(given["code"]) if "code" in given else None)


def test_what_was_not_sent_on_has_no_client_span() -> None:
    (server,) = spans(ended("denied", sent_at=0.0, heard_at=0.0, reason="denied", code=-31001))
    assert said(server)["narthex.reason"] == "denied"
    assert server.status.code == Status.STATUS_CODE_UNSET


def test_what_a_server_is_reached_by_is_not_told() -> None:
    assert b"canary" not in encode_traces([ended()], b"", BASE, PEERS, lambda: None)


def test_hostile_texts_stay_texts() -> None:
    server, _ = spans(ended(name="\ud800" + "x" * 300, client="\0", request=b'"\xff"'))
    assert said(server)["gen_ai.tool.name"].startswith("?x")


def test_many_calls_breathe() -> None:
    breaths = [0]

    def breathe() -> None:
        breaths[0] += 1

    encode_traces([ended()] * 100, b"", BASE, PEERS, breathe)
    assert breaths[0] == 6
