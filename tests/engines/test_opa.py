"""Whatever an agent does wrong is a denial with its own reason; the switch that opens is seen each time it acts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from narthex.authority.fetch import Fetcher
from narthex.call import Call
from narthex.engines.counts import Counts
from narthex.engines.opa import RemoteOpa
from narthex.errors import SecretMissing
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.policy.decision import Decision
from narthex.flow.policy.document import Document
from narthex.flow.policy.engines.opa import trace_of
from narthex.types import Egress, OpaSpec, Principal, SecretName, SecretText
from tests.counterparts.serving import served
from tests.engines.agent import UNDEFINED, Agent

ANN = Principal("default", "corp", "ann", roles=("support",))
SPEC = OpaSpec("", "narthex/decision", deadline_s=20.0, list_deadline_s=20.0)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Case = Callable[[RemoteOpa], Awaitable[None]]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def document(name: str = "pay", now: float = 0.0, meta: dict[str, Any] | None = None, **arguments: Any) -> Document:
    raw = {key: Raw(msgspec.json.encode(value)) for key, value in (meta or {}).items()}
    call = Call("tools/call", {}, raw, b"1", "modern", "2026-07-28", ANN, "default", name)
    return Document(
        ANN, "default", "tools", "bank", name, now, call, arguments, 2, "10.0.0.1", trace=trace_of(call.meta)
    )


def listed(*names: str) -> list[Document]:
    return [Document(ANN, "default", "tools", "bank", name, 0.0) for name in names]


def no_secret(name: str) -> str:
    raise SecretMissing(name, f"narthex secrets set {name}")


def run(agent: Agent, case: Case, secrets: Callable[[str], str] = no_secret, **spec: Any) -> None:
    async def main() -> None:
        with served(agent.app) as url:
            await with_engine(url, case, secrets, **spec)

    asyncio.run(main())


async def with_engine(url: str, case: Case, secrets: Callable[[str], str] = no_secret, **spec: Any) -> None:
    fetcher = Fetcher(Egress())
    asked = msgspec.structs.replace(SPEC, url=url, **spec)
    engine = RemoteOpa(asked, fetch=fetcher.fetch, secrets=secrets, clock=Clock(), counts=Counts())
    try:
        await asyncio.wait_for(case(engine), 60)
    finally:
        fetcher.close()


def said(decision: Decision) -> tuple[str, str]:
    return decision.effect, decision.reason


def test_what_is_asked_and_what_is_kept_of_the_answer() -> None:
    agent = Agent(lambda asked: {"allow": asked["mcp"]["arguments"]["amount"] < 10, "reasons": ["small"]})

    async def case(engine: RemoteOpa) -> None:
        found = await engine.decide(document(amount=5))
        assert said(found) == ("allow", "allowed_by_policy") and found.detail == "small"
        assert (found.engine, found.bundle, found.decision_id) == ("opa", "r1", "d-1")
        assert said(await engine.decide(document(amount=50))) == ("deny", "denied_by_policy")
        path, headers, body = agent.asked[0]
        assert path == "data/narthex/decision" and headers["content-type"] == "application/json"
        assert body["input"] == document(amount=5).input()
        assert engine.bundle == "r1" and engine.problem == ""

    run(agent, case)


@pytest.mark.parametrize(
    ("meta", "sent"),
    [
        pytest.param({"traceparent": TRACE, "tracestate": "a=b"}, (TRACE, "a=b"), id="both"),
        pytest.param({"traceparent": TRACE}, (TRACE, None), id="without state"),
        pytest.param({"traceparent": TRACE, "tracestate": "a\r\nX: y"}, (TRACE, None), id="a state of two lines"),
        pytest.param({"traceparent": TRACE + "\r\nX: y"}, (None, None), id="a header of two lines"),
        pytest.param({"traceparent": TRACE.replace("0af7", "0000").replace("b7", "zz")}, (None, None), id="none"),
        pytest.param({"traceparent": 5}, (None, None), id="a number"),
        pytest.param({}, (None, None), id="nothing"),
    ],
)
def test_the_trace_goes_on(meta: dict[str, Any], sent: tuple[str | None, str | None]) -> None:
    agent = Agent()

    async def case(engine: RemoteOpa) -> None:
        await engine.decide(document(meta=meta))
        headers = agent.asked[0][1]
        assert (headers.get("traceparent"), headers.get("tracestate")) == sent

    run(agent, case)


def test_a_bearer_token_that_is_not_there_denies() -> None:
    agent, known = Agent(), {}
    token = SecretText((SecretName("opa"),))

    def secrets(name: str) -> str:
        return known[name] if name in known else no_secret(name)

    async def case(engine: RemoteOpa) -> None:
        found = await engine.decide(document())
        assert said(found) == ("deny", "policy_failed") and "secrets set opa" in found.detail and not agent.asked
        known["opa"] = "t0ken-of-ours"
        assert (await engine.decide(document())).effect == "allow"
        assert agent.asked[0][1]["authorization"] == "Bearer t0ken-of-ours"

    run(agent, case, secrets, token=token)


def spoil(**state: Any) -> Callable[[Agent], None]:
    return lambda agent: [setattr(agent, name, value) for name, value in state.items()] and None


FAULTS = [
    pytest.param(spoil(policy=lambda asked: UNDEFINED), "policy_undefined", False, id="undefined"),
    pytest.param(spoil(policy=lambda asked: "yes"), "bad_policy_result", False, id="a text"),
    pytest.param(spoil(policy=lambda asked: {"allow": True, "alow": 1}), "bad_policy_result", False, id="misspelt"),
    pytest.param(spoil(policy=lambda asked: {"allow": True, "obligations": {"fly": 1}}), "unknown_obligation", False,
                 id="an obligation that nobody knows"),
    pytest.param(spoil(raw=b"<html>"), "bad_policy_result", False, id="a page"),
    pytest.param(spoil(raw=b"[]"), "bad_policy_result", False, id="another JSON"),
    pytest.param(spoil(raw=b'{"result": tru'), "bad_policy_result", False, id="half an answer"),
    pytest.param(spoil(raw=b'{"result": true, "x": "' + b"x" * 2**23 + b'"}'), "policy_failed", False, id="too large"),
    pytest.param(spoil(status=500), "policy_failed", False, id="a policy that fails"),
    pytest.param(spoil(status=400), "policy_failed", False, id="a request that is refused"),
    pytest.param(spoil(status=401), "policy_failed", False, id="a token that is refused"),
    pytest.param(spoil(status=503), "policy_failed", True, id="nobody behind the proxy"),
    pytest.param(spoil(hangs=True), "policy_timeout", True, id="slow"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "reason", "away"), FAULTS)
def test_what_goes_wrong_denies_with_its_own_reason(spoil: Callable[[Agent], None], reason: str, away: bool) -> None:
    agent = Agent()
    spoil(agent)

    async def case(engine: RemoteOpa) -> None:
        assert said(await engine.decide(document())) == ("deny", reason)
        assert {said(one) for one in await engine.decide_all(listed("a", "b"))} == {("deny", reason)}
        assert engine.counts.opened == 0
        agent.policy, agent.status, agent.raw, agent.hangs = (lambda asked: True), 200, None, False
        assert said(await engine.decide(document())) == ("allow", "allowed_by_policy")
        assert engine.problem == ""

    if agent.hangs:
        run(agent, case, deadline_s=0.3, list_deadline_s=0.3)
    else:
        run(agent, case)


@pytest.mark.parametrize(("spoil", "reason", "away"), FAULTS)
def test_the_switch_opens_only_while_the_agent_is_away(
    spoil: Callable[[Agent], None], reason: str, away: bool, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent()
    spoil(agent)

    async def case(engine: RemoteOpa) -> None:
        with caplog.at_level(logging.WARNING, "narthex.policy"):
            found = await engine.decide(document())
            await engine.decide(document())
        logged = [one for one in caplog.records if "on_error: allow" in one.getMessage()]
        if away:
            assert said(found) == ("allow", "allowed_without_policy") and found.detail.startswith(reason)
            assert len(logged) == engine.counts.opened == 2, "each time it acts"
        else:
            assert said(found) == ("deny", reason) and not logged and engine.counts.opened == 0

    run(agent, case, on_error="allow", **({"deadline_s": 0.3} if agent.hangs else {}))


@pytest.mark.parametrize(
    "spoil", [pytest.param(spoil(hangs=True), id="slow"), pytest.param(spoil(status=429), id="busy")]
)
def test_who_asks_what_takes_long_does_not_open_the_switch(spoil: Callable[[Agent], None]) -> None:
    agent = Agent(is_well=True)
    spoil(agent)

    async def case(engine: RemoteOpa) -> None:
        found = await asyncio.gather(*(engine.decide(document()) for _ in range(20)))
        assert {one.effect for one in found} == {"deny"} and "is there" in found[0].detail
        assert {one.effect for one in await engine.decide_all(listed("a", "b"))} == {"deny"}
        assert engine.counts.opened == 0 and engine.counts.undecided == 22

    run(agent, case, on_error="allow", deadline_s=0.3, list_deadline_s=0.3, max_in_flight=4)


def test_nobody_there_denies() -> None:
    async def case(engine: RemoteOpa) -> None:
        assert said(await engine.decide(document())) == ("deny", "policy_failed")
        assert {said(one) for one in await engine.decide_all(listed("a", "b"))} == {("deny", "policy_failed")}
        assert engine.counts.undecided == 3 and "127.0.0.1" in engine.problem

    asyncio.run(with_engine("http://127.0.0.1:9", case))


def test_a_slow_agent_holds_up_no_more_than_may_wait() -> None:
    agent, asking, most = Agent(hangs=True), set[int](), 0

    async def case(engine: RemoteOpa) -> None:
        fetch = engine._fetch

        async def counted(*given: Any, **how: Any) -> Any:
            nonlocal most
            number = engine.counts.asked
            asking.add(number)
            most = max(most, len(asking))
            try:
                return await fetch(*given, **how)
            finally:
                asking.remove(number)

        engine._fetch = counted
        found = await asyncio.gather(*(engine.decide(document()) for _ in range(50)))
        assert {said(one) for one in found} == {("deny", "policy_timeout")}
        assert most == 4, "the others waited for their turn in vain"

    run(agent, case, deadline_s=0.5, max_in_flight=4)


# --- lists


def allowed(found: Any) -> list[str]:
    return [one.effect for one in found]


ODD = ["allow", "deny", "allow"]


def by_name(asked: dict[str, Any]) -> bool:
    return asked["action"] == "list" and asked["resource"]["upstream_name"] != "b"


def test_a_list_is_asked_side_by_side_where_the_agent_has_no_batches() -> None:
    agent = Agent(by_name)

    async def case(engine: RemoteOpa) -> None:
        assert allowed(await engine.decide_all(listed("a", "b", "c"))) == ODD
        assert allowed(await engine.decide_all(listed("a", "b", "c"))) == ODD
        assert [path.split("/")[0] for path, _, _ in agent.asked] == ["batch", *["data"] * 6], "asked for them once"

    run(agent, case)


def test_a_list_is_one_request_where_the_agent_has_batches() -> None:
    agent = Agent(by_name, enterprise=True)

    async def case(engine: RemoteOpa) -> None:
        found = await engine.decide_all(listed("a", "b", "c"))
        assert allowed(found) == ODD and found[0].bundle == "r1" and found[0].decision_id
        assert [path for path, _, _ in agent.asked] == ["batch/data/narthex/decision"]
        agent.policy = lambda asked: RuntimeError("conflict") if asked["resource"]["upstream_name"] == "b" else True
        mixed = await engine.decide_all(listed("a", "b", "c"))
        assert [one.reason for one in mixed] == ["allowed_by_policy", "policy_failed", "allowed_by_policy"]

    run(agent, case)


def test_a_list_is_one_request_where_a_rule_of_the_policy_takes_many() -> None:
    agent = Agent(lambda asked: [by_name(one) for one in asked["documents"]])

    async def case(engine: RemoteOpa) -> None:
        assert allowed(await engine.decide_all(listed("a", "b", "c"))) == ODD
        assert [path for path, _, _ in agent.asked] == ["data/narthex/decisions"]
        agent.policy = lambda asked: [True]
        found = await engine.decide_all(listed("a", "b", "c"))
        assert {said(one) for one in found} == {("deny", "bad_policy_result")}, "not as many as were asked for"

    run(agent, case, batch="narthex/decisions")


# --- what may be used again


def test_a_decision_is_used_again_for_as_long_as_the_policy_says() -> None:
    agent = Agent(lambda asked: {"allow": True, "obligations": {"cache_ttl_s": 10}})

    async def case(engine: RemoteOpa) -> None:
        clock = engine._clock
        assert isinstance(clock, Clock)
        assert engine.known(document(amount=1)) is None
        await engine.decide(document(amount=1))
        known = engine.known(document(amount=1, now=5.0))
        assert known is not None and known.effect == "allow", "time alone asks nothing new"
        assert engine.known(document(amount=2)) is None
        clock.now = 10.0
        assert engine.known(document(amount=1)) is None
        clock.now = 0.0
        agent.revision = "r2"
        await engine.decide(document(amount=2))
        assert engine.known(document(amount=1)) is None, "another policy may say otherwise"

    run(agent, case)


def test_who_looks_the_same_sees_the_same() -> None:
    async def case(engine: RemoteOpa) -> None:
        def seen_by(principal: Principal, now: float = 0.0, endpoint: str = "default") -> object:
            return engine.seen_by(Document(principal, endpoint, "tools", "", "", now))

        other = Principal("default", "corp", "bob", roles=("support",))
        narrowed = RemoteOpa(
            msgspec.structs.replace(engine.spec, visible_by=(("subject", "roles"),)),
            fetch=engine._fetch, secrets=no_secret, clock=Clock(), counts=Counts(),
        )  # fmt: skip
        assert seen_by(ANN) == seen_by(ANN, now=99.0) != seen_by(other)
        assert seen_by(ANN) != seen_by(ANN, endpoint="other")
        asked = [Document(one, "default", "tools", "", "", 0.0) for one in (ANN, other)]
        assert narrowed.seen_by(asked[0]) == narrowed.seen_by(asked[1])

    asyncio.run(with_engine("http://127.0.0.1:9", case))
