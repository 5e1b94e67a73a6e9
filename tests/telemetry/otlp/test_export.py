"""What is gathered arrives once at a collector; what cannot be sent waits, and what is lost is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from narthex.authority.fetch import Fetcher
from narthex.errors import SecretMissing
from narthex.outlet import OtlpSpec
from narthex.secret import SecretName, SecretText
from narthex.telemetry.accounts import OUTCOME, Accounts
from narthex.telemetry.otlp.export import BATCH, Exporter
from narthex.telemetry.traces import Tracer
from narthex.types import Egress
from tests.counterparts.otlp import Collector, said
from tests.counterparts.serving import served
from tests.telemetry.otlp.ended import ended

TOKEN = (("Authorization", SecretText(("Bearer ", SecretName("otlp")))),)
Case = Callable[[Exporter, Tracer, Collector], Awaitable[None]]


def secret(name: str) -> str:
    if name != "otlp":
        raise SecretMissing(name, "narthex secrets set")
    return "canary-otlp"


def run(case: Case, *, capacity: int = 10_000, secrets: Callable[[str], str] = secret, url: str = "") -> Collector:
    """The case, with an exporter that sends only when it is told to."""

    async def main(collector: Collector, at: str) -> None:
        fetcher, accounts = Fetcher(Egress()), Accounts()
        accounts.counter("default", "s", "tools/call", "t", "modern").add(OUTCOME["ok"], 0.1, 1, 1, 0.05)
        tracer = Tracer(1.0, "follow", chance=lambda: 0.5, bits=lambda count: 1, capacity=capacity)
        exporter = Exporter(
            OtlpSpec(url or at, TOKEN), tracer, accounts, fetch=fetcher.fetch, servers=dict, secrets=secrets,
            instance="i-1", environment="test", now=lambda: 1_700_000_000.0, clock=lambda: 10.0, chance=lambda: 0.5,
        )  # fmt: skip
        try:
            await case(exporter, tracer, collector)
        finally:
            fetcher.close()

    collector = Collector()
    with served(collector.app) as at:
        asyncio.run(main(collector, at))
    return collector


def test_spans_arrive_in_batches_once() -> None:
    async def case(exporter: Exporter, tracer: Tracer, collector: Collector) -> None:
        tracer.ended.extend(ended(name=f"t{number}") for number in range(BATCH + 10))
        await exporter.flush()
        assert (exporter.sent, exporter.dropped, exporter.failures) == (BATCH + 10, 0, 0)

    collector = run(case)
    names = [said(one)["gen_ai.tool.name"] for one in collector.spans if one.kind == one.SPAN_KIND_SERVER]
    assert names == [f"t{number}" for number in range(BATCH + 10)]
    assert [one["path"] for one in collector.asked] == ["/v1/traces"] * 2
    assert {one["content-type"] for one in collector.asked} == {"application/x-protobuf"}
    assert {one["authorization"] for one in collector.asked} == {"Bearer canary-otlp"}
    assert collector.resource == {
        "service.name": "narthex", "service.version": collector.resource["service.version"],
        "service.instance.id": "i-1", "deployment.environment.name": "test",
    }  # fmt: skip
    assert not any(b"canary" in body for body in collector.bodies)


def test_metrics_arrive() -> None:
    async def case(exporter: Exporter, tracer: Tracer, collector: Collector) -> None:
        assert await exporter.send_metrics()

    metrics = run(case).metrics
    assert metrics["mcp.server.operation.duration"].histogram.data_points[0].count == 1
    assert metrics["narthex_calls_total"].sum.data_points[0].as_double == 1.0


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_be_tried_again_is_sent_once_more(status: int) -> None:
    async def case(exporter: Exporter, tracer: Tracer, collector: Collector) -> None:
        collector.status, collector.headers = status, {"Retry-After": "7"}
        tracer.ended.append(ended())
        await exporter.flush()
        assert (exporter.sent, exporter.dropped, exporter.failures) == (0, 0, 1)
        assert f"HTTP {status}" in exporter.problem
        assert exporter._wait_s == 7.0
        collector.status = 200
        await exporter.flush()
        assert (exporter.sent, exporter.problem, exporter._wait_s) == (1, "", 0.0)

    assert len(run(case).spans) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500])
def test_what_the_collector_will_never_take_is_counted_and_gone(status: int) -> None:
    async def case(exporter: Exporter, tracer: Tracer, collector: Collector) -> None:
        collector.status = status
        tracer.ended.append(ended())
        await exporter.flush()
        assert (exporter.sent, exporter.dropped, exporter.failures) == (0, 1, 1)
        assert not await exporter.send_metrics()

    run(case)


def test_pauses_grow_while_nobody_is_there() -> None:
    async def case(exporter: Exporter, tracer: Tracer, collector: Collector) -> None:
        tracer.ended.append(ended())
        waits = []
        for _ in range(9):
            await exporter.flush()
            waits.append(exporter._wait_s)
        assert waits == [0.75, 1.5, 3.0, 6.0, 12.0, 24.0, 45.0, 45.0, 45.0]
        assert (len(tracer.ended), exporter.dropped) == (1, 0)

    run(case, url="http://127.0.0.1:9")


def test_the_oldest_goes_where_there_is_no_room() -> None:
    queues: list[Tracer] = []

    def meanwhile(name: str) -> str:
        queues[0].ended.extend(ended(name=name) for name in "de")
        return "token"

    async def case(exporter: Exporter, tracer: Tracer, collector: Collector) -> None:
        collector.status = 503
        queues.append(tracer)
        tracer.ended.extend(ended(name=name) for name in "abc")
        await exporter.flush()
        assert [one.name for one in tracer.ended] == ["b", "c", "d", "e"]
        assert exporter.dropped == 1

    run(case, capacity=4, secrets=meanwhile)


def test_what_a_collector_leaves_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async def case(exporter: Exporter, tracer: Tracer, collector: Collector) -> None:
        collector.rejects = 3
        tracer.ended.append(ended())
        await exporter.flush()

    run(case)
    assert "has not taken 3 spans" in caplog.text


def test_a_secret_that_is_missing_is_a_problem_and_no_loss() -> None:
    def missing(name: str) -> str:
        raise SecretMissing(name, "narthex secrets set")

    async def case(exporter: Exporter, tracer: Tracer, collector: Collector) -> None:
        tracer.ended.append(ended())
        await exporter.flush()
        assert (len(tracer.ended), exporter.dropped) == (1, 0)
        assert exporter.problem
        assert not await exporter.send_metrics()

    run(case, secrets=missing)


def test_it_sends_by_itself_and_at_the_end() -> None:
    async def case(exporter: Exporter, tracer: Tracer, collector: Collector) -> None:
        exporter.spec = OtlpSpec(exporter.spec.url, TOKEN, every_s=0.01, metrics_every_s=0.01)
        exporter.start()
        tracer.ended.append(ended(name="first"))
        while not (collector.spans and collector.metrics):
            await asyncio.sleep(0.005)
        tracer.ended.append(ended(name="last"))
        await exporter.close()

    names = [said(one)["gen_ai.tool.name"] for one in run(case).spans]
    assert (names[0], names[-1]) == ("first", "last")
