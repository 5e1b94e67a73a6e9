"""Traces and metrics of a gateway of its own, to a collector that reads them: both eras, both ways of a context in and
on, the log that names the same trace, exemplars, a reload, and a collector that goes and comes back."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.counterparts.otlp import Collector, said
from tests.counterparts.serving import served
from tests.e2e.harness import Era, Gateway, Wire, message, routing_headers, wait_for

pytestmark = pytest.mark.e2e
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER = "f" * 32
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "fail")]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    failing = {"content": [{"type": "text", "text": "canary-result"}], "isError": True}
    with FakeServer(tools=TOOLS, answers={"fail": failing}) as started:
        yield started


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    one = Collector()
    with served(one.app) as url:
        yield one, url


def config(server: FakeServer, url: str, ratio: str = "0%", **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "servers": {"one": {"url": server.url}},
        "telemetry": {
            "otlp": {"url": url, "every": "100ms", "metrics_every": "1s"},
            "traces": {"ratio": ratio, **more},
        },
        "log": {"calls": True, "format": "json"},
    }


def parent(trace: str, flags: str = "01") -> str:
    return f"00-{trace}-{SPAN}-{flags}"


def call(
    gateway: Gateway, tool: str = "echo", *, meta: dict[str, str] | None = None, headers: dict[str, str] | None = None
) -> Any:
    """A call of a modern client with these in its `_meta` and its headers."""
    body = message("tools/call", {"name": f"one__{tool}", "arguments": {"text": "canary-argument"}})
    body["params"]["_meta"] |= meta or {}
    with Wire(gateway.mcp) as wire:
        sent = [*routing_headers(body), *(headers or {}).items()]
        return wire.request("POST", "/mcp", sent, json.dumps(body).encode()).json


def told(server: FakeServer) -> tuple[str, str]:
    """What the server was told of the trace of the last call: in its `_meta`, and in its headers."""
    asked = [one for one in server.asked if one.method == "tools/call"][-1]
    return asked.params.get("_meta", {}).get("traceparent", ""), asked.headers.get("traceparent", "")


def logged(gateway: Gateway) -> list[Any]:
    """The lines of calls to tools in its log, which a thread of its own writes."""
    lines = [json.loads(line) for line in gateway.log().splitlines() if '"narthex.call"' in line]
    return [one for one in lines if one["method"] == "tools/call"]


def of_calls(collector: Collector) -> list[Any]:
    """The spans of calls to tools, as far as they are there."""
    return [span for span in collector.spans if said(span)["mcp.method.name"] == "tools/call"]


def pair(collector: Collector) -> list[Any]:
    """The spans of one call, the server's first, once they are there."""
    wait_for(lambda: len(of_calls(collector)) >= 2, "the spans")
    found = sorted(of_calls(collector), key=lambda one: one.kind)
    collector.spans = []
    return found


@pytest.mark.parametrize("eras", ["modern", "legacy"])
def test_a_context_goes_through_and_its_spans_are_one_tree(
    start_gateway: StartGateway, server: FakeServer, collector: tuple[Collector, str], eras: Any
) -> None:
    server.eras = eras
    one, url = collector
    gateway = start_gateway(config(server, url))
    call(gateway, meta={"traceparent": parent(TRACE), "tracestate": "a=1"}, headers={"traceparent": parent(OTHER)})
    ours, theirs = pair(one)
    assert ours.trace_id.hex() == theirs.trace_id.hex() == TRACE
    assert (ours.parent_span_id.hex(), theirs.parent_span_id) == (SPAN, ours.span_id)
    assert ours.links[0].trace_id.hex() == OTHER
    assert ours.trace_state == "a=1"
    assert (said(ours)["gen_ai.tool.name"], said(theirs)["server.address"]) == ("echo", "127.0.0.1")
    assert ours.start_time_unix_nano <= theirs.start_time_unix_nano
    assert theirs.start_time_unix_nano < theirs.end_time_unix_nano <= ours.end_time_unix_nano
    child = f"00-{TRACE}-{theirs.span_id.hex()}-01"
    assert told(server) == (child, child)
    wait_for(lambda: logged(gateway), "the line of the call")
    assert [one.get("trace_id") for one in logged(gateway)] == [TRACE]


def test_a_context_in_the_headers_alone(
    start_gateway: StartGateway, server: FakeServer, collector: tuple[Collector, str]
) -> None:
    one, url = collector
    gateway = start_gateway(config(server, url))
    call(gateway, headers={"traceparent": parent(TRACE), "tracestate": "a=1"})
    ours, theirs = pair(one)
    assert (ours.trace_id.hex(), ours.parent_span_id.hex()) == (TRACE, SPAN)
    assert told(server)[0].endswith(f"{theirs.span_id.hex()}-01")


def test_what_is_not_sampled_goes_on_and_leaves_nothing(
    start_gateway: StartGateway, server: FakeServer, collector: tuple[Collector, str]
) -> None:
    one, url = collector
    gateway = start_gateway(config(server, url, "100%"))
    call(gateway, meta={"traceparent": parent(TRACE, "00")})
    assert told(server) == (parent(TRACE, "00"), "")
    call(gateway, headers={"traceparent": parent(TRACE, "00")})
    assert told(server) == ("", parent(TRACE, "00"))
    call(gateway)
    ours, _ = pair(one)
    assert ours.trace_id.hex() != TRACE
    assert not ours.parent_span_id


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_call_without_a_context(
    start_gateway: StartGateway, server: FakeServer, collector: tuple[Collector, str], era: Era
) -> None:
    one, url = collector
    gateway = start_gateway(config(server, url, "100%"))
    client = gateway.client(era=era)
    client.call("one__echo", {"text": "canary-argument"})
    ours, theirs = pair(one)
    assert said(ours)["mcp.protocol.version"] == ("2026-07-28" if era == "modern" else "2025-11-25")
    assert ("mcp.session.id" in said(ours)) == (era == "legacy")
    client.ask("tools/call", {"name": "one__fail", "arguments": {}})
    ours, theirs = pair(one)
    assert said(ours)["error.type"] == said(theirs)["error.type"] == "tool_error"
    client.ask("tools/call", {"name": "one__missing", "arguments": {}})
    wait_for(lambda: of_calls(one), "the span of a call that went nowhere")
    assert [said(span)["narthex.outcome"] for span in of_calls(one)] == ["not_found"]
    assert [span.name for span in of_calls(one)] == ["tools/call"], "what a client may write is no span's name"
    assert not any(b"canary" in body for body in one.bodies)


REF = {"type": "ref/prompt", "name": "one__greet"}
TASK = {"taskId": "of-nobody"}
# Method, parameters, and what the server is asked for it; a list only once, for it is kept.
REQUESTS = {
    "modern": [
        ("server/discover", {}, {"server/discover"}),
        ("tools/list", {}, {"tools/list"}),
        ("tools/list", {}, set()),
        ("tools/list", {"cursor": "none of ours"}, set()),
        ("prompts/list", {}, {"prompts/list"}),
        ("prompts/get", {"name": "one__greet"}, {"prompts/get"}),
        ("resources/list", {}, {"resources/list"}),
        ("resources/templates/list", {}, {"resources/templates/list"}),
        ("resources/read", {"uri": "file:///a"}, {"resources/read"}),
        ("completion/complete", {"ref": REF, "argument": {"name": "x", "value": ""}}, {"completion/complete"}),
        ("tasks/get", TASK, set()),
    ],
    "legacy": [
        ("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}, set()),
        ("ping", {}, set()),
        ("tools/list", {}, {"tools/list"}),
        ("prompts/get", {"name": "one__greet"}, {"prompts/list", "prompts/get"}),
        ("logging/setLevel", {"level": "info"}, set()),
        ("tasks/get", TASK, set()),
    ],
}


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_every_request_is_a_span_and_so_is_what_its_server_is_asked(
    start_gateway: StartGateway, collector: tuple[Collector, str], era: Era
) -> None:
    one, url = collector
    listed = {"prompts": [{"name": "greet"}], "resources": [{"name": "a", "uri": "file:///a"}]}
    with FakeServer(tools=TOOLS, eras=era, **listed) as server:
        client = start_gateway(config(server, url)).client(era=era)
        for number, (method, params, asked) in enumerate(REQUESTS[era]):
            trace = f"{number + 1:032x}"
            meta = {"_meta": {"traceparent": parent(trace), "tracestate": "a=1"}}
            ask(client, method, {**params, **meta})

            def its(trace: str = trace, most: int = len(asked)) -> list[Any]:
                found = [span for span in one.spans if span.trace_id.hex() == trace]
                return found if len(found) > most else []

            ours, *theirs = sorted(wait_for(its, f"the spans of {method}"), key=lambda span: span.kind)
            assert (ours.name.split()[0], ours.kind, said(ours)["mcp.method.name"]) == (method, 2, method)
            assert (ours.parent_span_id.hex(), ours.trace_state) == (SPAN, "a=1")
            assert {span.name.split()[0] for span in theirs} == asked
            assert {(span.kind, span.parent_span_id) for span in theirs} <= {(3, ours.span_id)}
            assert all(said(span)["server.address"] == "127.0.0.1" for span in theirs)
            heard = {span.span_id.hex() for span in theirs} - {
                seen.params["_meta"]["traceparent"].split("-")[2]
                for seen in server.asked
                if trace in seen.params.get("_meta", {}).get("traceparent", "")
            }
            assert not heard or asked & {"initialize", "server/discover"}, "the server is told of each but a handshake"
        assert len({span.span_id for span in one.spans}) == len(one.spans)
        before = len(one.spans)
        ask(client, "tools/list", {"_meta": {"traceparent": parent(OTHER, "00")}})
        ask(client, "prompts/list", {"_meta": {"traceparent": parent(TRACE)}})
        wait_for(lambda: len(one.spans) > before, "the span of a later request")
        assert OTHER not in {span.trace_id.hex() for span in one.spans}, "what is not sampled has none"


def ask(client: Any, method: str, params: dict[str, Any]) -> None:
    """Ask, whatever the answer is."""
    client.post(method, params)


def test_metrics_arrive_with_exemplars_at_prometheus(
    start_gateway: StartGateway, server: FakeServer, collector: tuple[Collector, str]
) -> None:
    one, url = collector
    gateway = start_gateway(config(server, url))
    call(gateway, meta={"traceparent": parent(TRACE)})
    with Wire(gateway.admin) as wire:
        answer = wire.request("GET", "/metrics", [("accept", "application/openmetrics-text;version=1.0.0")])
    families = {found.name: found for found in text_string_to_metric_families(answer.body.decode())}
    exemplars = [sample.exemplar for sample in families["narthex_call_seconds"].samples if sample.exemplar]
    assert [found.labels["trace_id"] for found in exemplars] == [TRACE]
    assert families["narthex_gateway_seconds"].samples
    ours = {name for name in families if name.startswith("narthex_agent")}
    assert ours
    wait_for(lambda: "mcp.client.operation.duration" in one.metrics, "the metrics")
    wait_for(lambda: {name.removesuffix("_total") for name in list(one.metrics)} >= ours, "what is counted of agents")


def test_sessions_of_clients_and_with_servers_are_durations_of_the_conventions(
    start_gateway: StartGateway, server: FakeServer, collector: tuple[Collector, str]
) -> None:
    server.eras = "legacy"
    one, url = collector
    gateway = start_gateway(config(server, url))
    client = gateway.client(era="legacy")
    client.call("one__echo")
    server.sessions.clear()  # it ends our session, so that there is another one
    client.call("one__echo")
    with Wire(gateway.mcp) as wire:
        assert wire.request("DELETE", "/mcp", [("mcp-session-id", str(client.session))]).status == 204

    def points(name: str) -> list[Any]:
        return list(one.metrics[name].histogram.data_points) if name in one.metrics else []

    (ours,) = wait_for(lambda: points("mcp.server.session.duration"), "the session of the client")
    (theirs,) = wait_for(lambda: points("mcp.client.session.duration"), "the session with the server")
    http = {"network.transport": "tcp", "network.protocol.name": "http", "network.protocol.version": "1.1"}
    assert said(ours) == {"mcp.protocol.version": "2025-11-25", "narthex.ended": "client", **http}
    place = said(theirs)
    assert place.pop("server.address") == "127.0.0.1" and "server.port" in place
    del place["server.port"]
    assert place == {
        "narthex.server": "one", "mcp.protocol.version": "2025-11-25", "error.type": "connection_lost", **http,
    }  # fmt: skip
    assert (ours.count, theirs.count) == (1, 1)


def test_a_collector_that_was_away_gets_what_happened_meanwhile(
    start_gateway: StartGateway, server: FakeServer, collector: tuple[Collector, str]
) -> None:
    one, url = collector
    one.status = 503
    gateway = start_gateway(config(server, url, "100%"))
    call(gateway)
    wait_for(lambda: json.loads(gateway.ready().body)["telemetry_problem"], "the first attempt to fail")
    assert one.asked
    assert gateway.ready().status == 200
    one.status = 200
    pair(one)
    wait_for(lambda: not json.loads(gateway.ready().body)["telemetry_problem"], "the end of the problem")


def test_a_reload_turns_it_off_and_the_last_spans_arrive_at_the_end(
    start_gateway: StartGateway, server: FakeServer, collector: tuple[Collector, str]
) -> None:
    one, url = collector
    slow = config(server, url, "100%")
    slow["telemetry"]["otlp"]["every"] = "1m"
    gateway = start_gateway(slow)
    call(gateway)
    gateway.write({key: value for key, value in slow.items() if key != "telemetry"})
    gateway.signal(signal.SIGHUP)
    pair(one)
    wait_for(lambda: call(gateway) and told(server) == ("", ""), "a call that nobody traces")
    gateway.write(slow)
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: call(gateway) and told(server)[0], "the telemetry to be on again")
    gateway.stop()
    wait_for(lambda: len(of_calls(one)) >= 2, "the last spans")
