"""Each thing that `/metrics` is for has a figure in it after a gateway was used, and it is the right one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import Gateway, Wire, get, wait_for

pytestmark = pytest.mark.e2e
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "fail", "kept", "unused", "drop")]
FAILING = {"content": [{"type": "text", "text": "no"}], "isError": True}
DEAD = "http://127.0.0.1:9/mcp"
Samples = dict[str, list[tuple[dict[str, str], float]]]


def samples(gateway: Gateway) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(get(f"{gateway.admin}/metrics").body.decode()):
        for one in family.samples:
            found.setdefault(one.name, []).append((one.labels, one.value))
    return found


def value(found: Samples, metric: str, /, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    return sum(amount for said, amount in found.get(metric, ()) if labels.items() <= said.items())


@pytest.fixture(scope="module")
def used(module_gateway: StartGateway) -> Iterator[tuple[Gateway, FakeServer]]:
    """A gateway with which this was done: 3 echoes, a failure, one call answered twice, one denied, one of a dead
    server, one beyond a limit, a legacy session that was ended, and one that is open."""
    with FakeServer(tools=TOOLS, answers={"fail": FAILING}) as server:
        gateway = module_gateway({
            "version": 1,
            "servers": {"one": {"url": server.url}, "dead": {"url": DEAD}},
            "grants": [{"name": "all", "who": {}, "allow": ["*"]},
                       {"name": "not that", "who": {}, "deny": ["one__drop"], "when": "has(args.no) && args.no"}],
            "limits": [{"name": "eight", "per": ["principal"], "calls": 8, "window": "1h"},
                       {"name": "tokens", "per": ["tenant"], "tokens": 1_000_000, "window": "1h"}],
            "prices": [{"tools": ["one__echo"], "per_call": "0.01 USD"}],
            "cache": {"rules": [{"name": "kept", "tools": ["one__kept"], "ttl": "1h"}]},
            "audit": {"dir": "audit"},
        })  # fmt: skip
        modern, legacy = gateway.client(era="modern"), gateway.client(era="legacy")
        modern.tools()
        for client in (modern, modern, legacy):
            client.call("one__echo", {"text": "x"})
        modern.ask("tools/call", {"name": "one__fail", "arguments": {}})
        for _ in range(2):
            modern.call("one__kept", {"same": 1})
        modern.call_error("one__drop", {"no": True})
        modern.call_error("dead__any")
        for _ in range(2):
            modern.ask("tools/call", {"name": "one__drop", "arguments": {}})
        modern.call_error("one__drop")
        with Wire(gateway.mcp) as wire:
            assert wire.request("DELETE", "/mcp", [("mcp-session-id", str(legacy.session))]).status == 204
        gateway.client(era="legacy")
        yield gateway, server


TOOL = {"server": "one", "endpoint": "default", "method": "tools/call"}
ROWS: list[tuple[str, Callable[[Samples], object]]] = [
    ("calls by tool", lambda m: value(m, "narthex_named_calls_total", **TOOL, name="echo", outcome="ok") == 3),
    ("calls by era", lambda m: value(m, "narthex_calls_total", **TOOL, era="legacy") == 1),
    ("calls by outcome", lambda m: value(m, "narthex_calls_total", **TOOL, outcome="tool_error") == 1),
    ("errors by reason: denied",
     lambda m: value(m, "narthex_named_calls_total", name="drop", outcome="denied") == 1),
    ("errors by reason: limited",
     lambda m: value(m, "narthex_named_calls_total", name="drop", outcome="rate_limited") == 1),
    ("errors by reason: unavailable", lambda m: value(m, "narthex_calls_total", outcome="upstream_unavailable") == 1),
    ("latency", lambda m: value(m, "narthex_call_seconds_sum", **TOOL) > 0),
    ("latency outside", lambda m: 0 < value(m, "narthex_upstream_seconds_sum", **TOOL) < value(
        m, "narthex_call_seconds_sum", **TOOL)),
    ("latency in the gateway", lambda m: value(m, "narthex_gateway_seconds_count", **TOOL) >= 4),
    ("lists", lambda m: value(m, "narthex_calls_total", method="tools/list", server="") >= 1),
    ("bytes", lambda m: value(m, "narthex_call_request_bytes_total", **TOOL) > 100),
    ("tokens", lambda m: value(m, "narthex_tokens_total", server="one", direction="in") > 0),
    ("cost", lambda m: value(m, "narthex_cost_total", server="one", currency="USD") == pytest.approx(0.03)),
    ("cache", lambda m: (value(m, "narthex_cache_hits_total"), value(m, "narthex_cache_entries")) == (1, 1)),
    ("breaker", lambda m: value(m, "narthex_server_breaker", server="one", state="closed") == 1),
    ("queue", lambda m: (value(m, "narthex_server_in_flight", server="one"),
                         value(m, "narthex_server_max_in_flight", server="one")) == (0, 256)),
    ("limits", lambda m: value(m, "narthex_limited_total", limit="eight", reason="rate_limited") == 1),
    ("sessions", lambda m: value(m, "narthex_sessions_opened_total") == 2),
    ("ended sessions", lambda m: value(m, "narthex_session_seconds_count", ended="client") == 1),
    ("event-loop lag", lambda m: value(m, "narthex_event_loop_lag_seconds_count") > 0),
    ("the journal", lambda m: value(m, "narthex_records_written_total") >= 11),
    ("agents: success", lambda m: value(m, "narthex_agent_tool_calls_total", name="echo", result="ok") == 3),
    ("agents: refused", lambda m: value(m, "narthex_agent_tool_calls_total", name="drop", result="refused") == 2),
    ("agents: runs", lambda m: value(m, "narthex_agent_runs_total") == 2),
    ("agents: repeats", lambda m: value(m, "narthex_agent_repeats_total") >= 2),
    ("unused tools", lambda m: (value(m, "narthex_server_tools", server="one"),
                                value(m, "narthex_server_unused_tools", server="one")) == (5, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("what", "holds"), [pytest.param(*one, id=one[0]) for one in ROWS])
def test_there_is_a_figure(used: tuple[Gateway, Any], what: str, holds: Callable[[Samples], object]) -> None:
    gateway, _ = used
    wait_for(lambda: holds(samples(gateway)), what)


def test_the_tools_that_nobody_uses_are_named(used: tuple[Gateway, Any]) -> None:
    gateway, _ = used
    found = get(f"{gateway.admin}/api/v1/activity/unused").json["servers"]
    assert [(one["server"], one["tools"]) for one in found] == [("one", ["unused"]), ("dead", [])]
