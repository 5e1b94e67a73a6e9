"""Decisions are logged at the service or in the file, and none is lost while there is room."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from narthex.authority.fetch import Fetcher
from narthex.engines.counts import Counts
from narthex.engines.decision_log import BATCH, DecisionLog, decoded_size, size_of
from narthex.engines.logged import Logged
from narthex.errors import SecretMissing
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.policy.decision import Decision
from narthex.flow.policy.document import Document
from narthex.types import DecisionLogSpec, Egress, SecretName, SecretText
from tests.counterparts.serving import served
from tests.engines.test_opa import document, listed
from tests.flow.policy.judge import Judge, sees_all

DENIED = Decision("deny", "denied_by_policy", engine="rego", bundle="r1")


@dataclass
class Service:
    """A log service, as the documentation of OPA's decision logs describes it."""

    status: int = 200
    events: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app = Starlette(routes=[Route("/logs", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        self.asked.append(dict(request.headers))
        if self.status == 200:
            self.events += json.loads(gzip.decompress(await request.body()))
        return Response(status_code=self.status)


Case = Callable[[DecisionLog], Awaitable[None]]


def run(spec: DecisionLogSpec, case: Case) -> None:
    async def main() -> None:
        fetcher, ids = Fetcher(Egress()), itertools.count(1)
        log = DecisionLog(
            spec, "narthex/decision", fetch=fetcher.fetch, secrets=secret, now=lambda: 0.0, chance=lambda: 0.0,
            new_id=lambda: f"id-{next(ids)}", counts=Counts(),
        )  # fmt: skip
        try:
            await asyncio.wait_for(case(log), 60)
        finally:
            await log.close()
            fetcher.close()

    def secret(name: str) -> str:
        if name == "logs":
            return "t0ken"
        raise SecretMissing(name, "set it")

    asyncio.run(main())


def with_service(service: Service, case: Case, **spec: Any) -> None:
    with served(service.app) as url:
        run(msgspec.structs.replace(DecisionLogSpec(url=f"{url}/logs"), **spec), case)


def test_a_batch() -> None:
    service = Service()

    async def case(log: DecisionLog) -> None:
        for amount in (1, 2):
            log.add(document(amount=amount), DENIED)
        assert await log.flush()
        assert [one["result"]["allow"] for one in service.events] == [False, False]
        assert len({one["decision_id"] for one in service.events}) == 2
        assert service.events[0]["labels"] == {
            "app": "narthex",
            "id": "id-1",
            "version": log._labels["version"],
            "a": "b",
        }
        assert service.events[0]["erased"] == ["/input/mcp/arguments"], "arguments stay here unless the operator says"
        (headers,) = service.asked
        assert headers["content-encoding"] == "gzip" and headers["authorization"] == "Bearer t0ken"
        assert log.counts.logged == 2 and log.problem == ""

    with_service(service, case, labels={"a": "b"}, token=SecretText((SecretName("logs"),)))


@pytest.mark.parametrize("trouble", ["status", "nobody", "secret"])
def test_what_cannot_be_sent_is_sent_later_in_its_order(trouble: str) -> None:
    service = Service()

    async def case(log: DecisionLog) -> None:
        good = log.spec
        if trouble == "status":
            service.status = 503
        elif trouble == "nobody":
            log.spec = msgspec.structs.replace(good, url="http://127.0.0.1:9/logs")
        else:
            log.spec = msgspec.structs.replace(good, token=SecretText((SecretName("other"),)))
        log.add(document(amount=1), DENIED)
        waits = []
        for _ in range(4):
            assert not await log.flush()
            waits.append(log._wait_s())
        assert log.problem and log.counts.lost == 0 and waits == [0.5, 1.0, 2.0, 4.0]
        log.add(document(amount=2), DENIED)
        service.status, log.spec = 200, good
        assert await log.flush() and log.problem == "" and log._wait_s() == good.every_s
        assert [one["input"]["mcp"]["arguments"]["amount"] for one in service.events] == [1, 2]

    with_service(service, case, mask=())


def test_many_go_in_batches() -> None:
    service = Service()

    async def case(log: DecisionLog) -> None:
        for number in range(BATCH + 10):
            log.add(document(amount=number), DENIED)
        assert await log.flush() and len(service.events) == BATCH
        await log.close()
        assert len(service.events) == BATCH + 10, "what is left goes when the process ends"

    with_service(service, case)


def test_a_full_buffer_loses_the_oldest_and_counts_them() -> None:
    service = Service(status=503)

    async def case(log: DecisionLog) -> None:
        for number in range(20):
            log.add(document(amount=number), DENIED)
            if number == 10:
                assert not await log.flush()
        assert log.counts.lost == 10
        service.status = 200
        assert await log.flush()
        assert [one["input"]["mcp"]["arguments"]["amount"] for one in service.events] == list(range(10, 20))

    with_service(service, case, mask=(), max_buffer=10 * size_of(document(amount=1)))


def test_what_else_a_request_holds_takes_room_too() -> None:
    async def case(log: DecisionLog) -> None:
        one = document(amount=1)
        assert one.call is not None
        for _ in range(10):
            log.add(copy_of(one, params={"_meta": Raw(b'"%s"' % (b"x" * 10_000))}), DENIED)
        assert log.counts.lost == 7

    with_service(Service(), case, max_buffer=3 * 12_000)


HOSTILE = {
    "lists in lists": b"[" * 500 + b"]" * 500,
    "many empty lists": b"[" + b",".join([b"[]"] * 10_000) + b"]",
    "many empty objects": b"[" + b",".join([b"{}"] * 10_000) + b"]",
    "objects in objects": b'{"a":' * 500 + b"1" + b"}" * 500,
    "many members": b"{%s}" % b",".join(b'"%d":1' % one for one in range(4000)),
    "numbers": b"[" + b",".join([b"999"] * 10_000) + b"]",
    "short texts": b"[" + b",".join([b'"ab"'] * 10_000) + b"]",
    "a wide text": ('"' + "x" * 50_000 + '\N{GRINNING FACE}"').encode(),
    "ordinary": b'{"amount": 5, "to": "c-17", "note": "for the broken lamp"}',
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
def test_a_buffer_holds_no_more_than_it_says(raw: bytes) -> None:
    def held(value: Any) -> int:
        size, waiting, seen = 0, [value], set()
        while waiting:
            one = waiting.pop()
            if id(one) in seen or (isinstance(one, int) and one < 257):  # CPython has one of each
                continue
            seen.add(id(one))
            size += sys.getsizeof(one)
            waiting += one if isinstance(one, list) else [*one, *one.values()] if isinstance(one, dict) else ()
        return size

    assert decoded_size(raw) >= held(msgspec.json.decode(raw))


def copy_of(one: Document, *, params: dict[str, Raw]) -> Document:
    assert one.call is not None
    call = one.call.but(params=params)
    return Document(one.principal, one.endpoint, one.kind, one.server, one.name, one.now, call, one.arguments, one.size)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"

    async def case(log: DecisionLog) -> None:
        log.add(document(amount=1), DENIED)
        assert await log.flush()
        path.rename(tmp_path / "old")
        log.add(document(amount=2), DENIED)
        assert await log.flush()
        assert path.stat().st_mode & 0o777 == 0o600
        for file in (path, tmp_path / "old"):
            (line,) = file.read_text().splitlines()
            assert json.loads(line)["result"]["reason"] == "denied_by_policy"
        path.unlink()
        path.mkdir()
        log.add(document(amount=3), DENIED)
        assert not await log.flush() and "directory" in log.problem
        path.rmdir()
        assert await log.flush()

    run(DecisionLogSpec(file=str(path)), case)


def test_it_sends_by_itself() -> None:
    service = Service()

    async def case(log: DecisionLog) -> None:
        log.start()
        log.add(document(amount=1), DENIED)
        while not service.events:
            await asyncio.sleep(0.01)

    with_service(service, case, every_s=0.01)


@pytest.mark.parametrize("slow", [False, True], ids=["from memory", "later"])
@pytest.mark.parametrize("lists", [False, True])
def test_every_decision_of_an_engine_is_logged_once(slow: bool, lists: bool) -> None:
    logged: list[tuple[str, str]] = []

    async def main() -> None:
        judge = Judge(sees_all(lambda asked: True), slow=slow)
        engine = Logged(judge, lambda one, said: logged.append((one.name, said.effect)), lists=lists)
        asked = document("pay")
        if engine.known(asked) is None:
            await engine.decide(asked)
        await engine.decide_all(listed("a", "b"))
        assert (engine.name, engine.bundle, engine.reads_arguments, engine.seen_s) == (
            judge.name, judge.bundle, judge.reads_arguments, judge.seen_s
        )  # fmt: skip

    asyncio.run(main())
    assert logged == [("pay", "allow")] + ([("a", "allow"), ("b", "allow")] if lists else [])
