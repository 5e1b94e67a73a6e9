"""What servers are asked for a traced request is told as spans of it, and nobody else's; and there is an end to it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from narthex.errors import UpstreamTimeout
from narthex.telemetry.asking import MOST, asking, on_behalf
from narthex.telemetry.otlp.spans import spans_of
from narthex.telemetry.traces import Trace
from narthex.trace import Context
from tests.telemetry.otlp.ended import CHILD, SPAN, TRACE, ended
from tests.telemetry.otlp.test_spans import said, spans


def trace(*, sampled: bool = True) -> Trace:
    numbers = iter(range(100, 1000))
    return Trace(TRACE, SPAN, None, None, Context(TRACE, CHILD, 1, "a=1"), sampled, lambda bits: next(numbers))


def run(of: Trace | None, coming: Coroutine[Any, Any, Any]) -> None:
    async def main() -> None:
        await asyncio.ensure_future(on_behalf(of, coming))

    asyncio.run(main())


async def ask(method: str = "tools/list", code: int = 0) -> Context | None:
    with asking("s", method, lambda: 1.5) as one:
        await asyncio.sleep(0)
        if one is not None:
            one.code = code
        return one.context if one is not None else None


async def late() -> None:
    with asking("s", "tools/list", lambda: 1.5):
        raise UpstreamTimeout("late")


def test_each_request_is_a_child_and_its_server_is_told_so() -> None:
    async def both() -> None:
        first, second = await asyncio.gather(ask(), ask("prompts/list"))
        assert first is not None
        assert second is not None
        assert (first.trace_id, first.flags, first.state) == (TRACE, 1, "a=1")
        assert [one.span_id for one in of.asked] == [first.span_id, second.span_id]

    of = trace()
    run(of, both())
    server, *clients = spans(ended(method="tools/list", server="", sent_at=0.0, trace=of))
    assert [one.name for one in clients] == ["tools/list", "prompts/list"]
    assert {one.parent_span_id for one in clients} == {server.span_id}
    assert said(clients[0])["mcp.method.name"] == "tools/list"
    assert said(clients[0])["server.address"] == "mcp.example.com"
    assert all(one.status.code == 0 for one in clients)


@pytest.mark.parametrize("of", [None, trace(sampled=False)], ids=["no trace", "a trace that is not sampled"])
def test_nothing_is_told_where_nobody_is_traced(of: Trace | None) -> None:
    async def one() -> None:
        assert await ask() is None

    run(of, one())
    assert of is None or of.asked == ()


def test_what_outlives_its_request_is_not_of_it() -> None:
    async def one() -> None:
        of.over = True
        assert await ask() is None

    of = trace()
    run(of, one())


def test_a_server_is_asked_much_and_told_little() -> None:
    async def many() -> None:
        for _ in range(2 * MOST):
            await ask()

    of = trace()
    run(of, many())
    assert len(of.asked) == MOST


def test_what_has_failed_says_why() -> None:
    of = trace()
    with pytest.raises(UpstreamTimeout):
        run(of, late())
    run(of, ask(code=-32603))
    assert b"upstream_timeout" in spans_of(ended(trace=of), 0.0, {})
    _, late_, refused, _ = spans(ended(trace=of))
    assert (said(late_)["error.type"], late_.status.code) == ("upstream_timeout", 2)
    assert (said(refused)["error.type"], said(refused)["rpc.response.status_code"]) == ("-32603", "-32603")
