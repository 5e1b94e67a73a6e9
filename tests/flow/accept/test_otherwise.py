"""A limit that is spent, between a real client and a real server: another tool answers, a person lets the call through,
other limits are lowered; and whatever does not fit is refused as ever."""

from __future__ import annotations

from typing import Any

import pytest

from narthex.errors import RateLimited
from narthex.flow.limit.limiter import Limiter
from narthex.flow.limit.spending import Spent
from narthex.telemetry.record import Entry
from narthex.testing import FakeServer
from narthex.types import (
    LOCAL,
    ApprovalSpec,
    CacheRule,
    CacheSpec,
    Grant,
    HoldTerms,
    LimitRule,
    PriceRule,
    Principal,
    WhenSpent,
)
from tests.flow.accept.asking import META_ABLE, retry_of
from tests.flow.accept.test_exchange import ERAS
from tests.flow.accept.test_holding import READS, YES, waits
from tests.flow.accept.test_holding import gateway as keeping
from tests.flow.gateway import Answer, Running, run, spec, until

MINUTE = 60_000_000
SCHEMA = {"type": "object"}
OUTPUT = {"type": "object", "properties": {"n": {"type": "integer"}}}
TOOLS = [
    {"name": "dear", "inputSchema": SCHEMA, "outputSchema": OUTPUT},
    {"name": "cheap", "inputSchema": SCHEMA, "outputSchema": OUTPUT},
    {"name": "poor", "inputSchema": SCHEMA},
]
ANSWERS = {
    name: {"content": [{"type": "text", "text": name}], "structuredContent": {"n": 1}}
    for name in ("dear", "cheap", "poor")
}
CALL = {"name": "one__dear", "arguments": {"q": "x"}}


def limit(use: str = "", name: str = "spend", tools: str = "one__dear", **then: Any) -> LimitRule:
    return LimitRule(name, "calls", 1, window=MINUTE, tools=(tools,), when_spent=WhenSpent(use=use, **then))


def gateway(server: FakeServer, *rules: LimitRule, grants: tuple[Grant, ...] = ()) -> Running:
    return Running({"one": spec("one", server.url)}, settings={"quotas": rules, "grants": grants})


@ERAS
@pytest.mark.parametrize(("use", "output"), [("one__cheap", "same"), ("one__poor", "differs")])
def test_another_tool_answers_and_says_so(modern: bool, use: str, output: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS, answers=ANSWERS) as server, gateway(server, limit(use)) as running:
            records: list[Entry] = []
            running.front.record = records.append
            client = await running.client(session=not modern)
            ask = client.modern if modern else client.legacy
            first = (await ask("tools/call", CALL)).result
            assert first["content"][0]["text"] == "dear"
            assert "io.narthex/instead" not in first.get("_meta", {})
            got = (await ask("tools/call", CALL)).result
            assert got["content"][0]["text"] == use.removeprefix("one__")
            assert got["_meta"]["io.narthex/instead"] == {
                "asked": "one__dear", "answers": use, "limit": "spend", "output": output,
            }  # fmt: skip
            entry = records[-1]
            assert (entry.name, entry.instead_of, entry.limit) == (use.removeprefix("one__"), "one__dear", "spend")
            (_, sent) = server.requests("tools/call")
            assert sent.params["arguments"] == {"q": "x"}

    run(main)


@pytest.mark.parametrize(
    ("rules", "grants"),
    [
        pytest.param((limit("one__nothing"),), (), id="there is no such tool"),
        pytest.param((limit("two__cheap"),), (), id="nor such a server here"),
        pytest.param((limit("one__dear"),), (), id="itself"),
        pytest.param(
            (limit("one__cheap"), LimitRule("plain", "calls", 1, window=MINUTE)), (), id="another limit says no"
        ),
        pytest.param(
            (limit("one__cheap"),),
            (Grant("all", "allow", tools=("*",)), Grant("no", "deny", tools=("one__cheap",))),
            id="the caller may not see it",
        ),
        pytest.param(
            (limit("one__cheap"),),
            (Grant("all", "allow", tools=("*",)), Grant("no", "deny", tools=("one__cheap",), when="args.q == 'x'")),
            id="the caller may not call it so",
        ),
    ],
)
def test_where_there_is_no_other_way_it_is_refused(rules: tuple[LimitRule, ...], grants: tuple[Grant, ...]) -> None:
    async def main() -> None:
        async with (
            FakeServer(tools=TOOLS, answers=ANSWERS) as server,
            gateway(server, *rules, grants=grants) as running,
        ):
            client = await running.client()
            assert (await client.modern("tools/call", CALL)).result
            error = (await client.modern("tools/call", CALL)).error
            assert error["data"]["reason"] == "rate_limited"
            assert len(server.requests("tools/call")) == 1

    run(main)


def test_the_other_tool_has_limits_of_its_own_and_may_lead_on() -> None:
    async def main() -> None:
        rules = (limit("one__cheap"), limit("one__poor", "two", "one__cheap"), limit("", "three", "one__poor"))
        async with FakeServer(tools=TOOLS, answers=ANSWERS) as server, gateway(server, *rules) as running:
            client = await running.client()
            said = [(await client.modern("tools/call", CALL)).result["content"][0]["text"] for _ in range(3)]
            assert said == ["dear", "cheap", "poor"]
            error = (await client.modern("tools/call", CALL)).error
            assert error["data"]["limit"] == "three"

    run(main)


def test_the_other_tool_has_its_own_price_and_no_other() -> None:
    """Of the tool that was asked for nothing is paid: it was not called."""

    async def main() -> None:
        spent: list[Spent] = []
        async with FakeServer(tools=TOOLS, answers=ANSWERS) as server, gateway(server, limit("one__cheap")) as running:
            metering = running.front.metering
            counted = LimitRule("counted", "calls", 9, window=MINUTE, tools=("one__cheap",))
            metering.limiter.apply(
                [limit("one__cheap"), counted], [PriceRule("USD", per_call=100, tools=("one__dear",))]
            )
            metering.book = spent.append
            client = await running.client()
            for _ in range(2):
                assert (await client.modern("tools/call", CALL)).result
            await until(running.settled)
            assert sum(one.amount for one in spent) == 100 and {one.subject.name for one in spent} == {"dear"}

    run(main)


def test_the_other_tool_costs_all_of_its_price_where_the_answer_of_the_first_was_kept() -> None:
    """What is given from memory may cost nothing; what goes to a server in its place does not."""

    async def main() -> None:
        cache = CacheSpec((CacheRule("all", 60.0, tools=("one__dear",), hit=0),))
        spent: list[Spent] = []
        settings = {
            "quotas": (limit("one__cheap"),), "cache": cache, "prices": (PriceRule("USD", per_call=100),),
        }  # fmt: skip
        async with FakeServer(tools=TOOLS, answers=ANSWERS) as server, Running(
            {"one": spec("one", server.url)}, settings=settings
        ) as running:  # fmt: skip
            running.front.metering.book = spent.append
            client = await running.client()
            said = [(await client.modern("tools/call", CALL)).result["content"][0]["text"] for _ in range(2)]
            assert said == ["dear", "cheap"]
            await until(running.settled)
            assert [(one.subject.name, one.amount) for one in spent] == [("dear", 100), ("cheap", 100)]

    run(main)


@ERAS
def test_a_person_lets_one_call_through_and_it_is_counted(modern: bool) -> None:
    async def main() -> None:
        rule = limit(hold=True)
        async with FakeServer(tools=TOOLS, answers=ANSWERS) as server, keeping(server, quotas=(rule,)) as running:
            client = await running.client(session=not modern)
            ask = client.modern if modern else client.legacy
            assert (await ask("tools/call", CALL)).result
            id_ = waits(await ask("tools/call", CALL))
            assert waits(await ask("tools/call", CALL)) == id_, "it is asked for once"
            (row,) = await running.keeper.all()
            assert (row.rule, row.name) == ("limit spend", "dear")
            await running.keeper.decide(id_, "bob", yes=True)
            assert (await ask("tools/call", CALL)).result["content"][0]["text"] == "dear"
            await until(running.settled)
            assert {one.limit: one.used for one in running.front.metering.limiter.states()} == {"spend": 2}
            assert waits(await ask("tools/call", CALL)) != id_, "the next one waits again"
            assert len(server.requests("tools/call")) == 2

    run(main)


NAMED = pytest.mark.parametrize("name", ["held", "limit spend", "rule limit spend"])
"""Of a rule that holds what the limit `spend` holds, too; whatever it is called, it is another one."""


@ERAS
@NAMED
def test_a_call_that_a_rule_holds_and_a_spent_limit_too_passes_when_both_are_approved(modern: bool, name: str) -> None:
    async def main() -> None:
        held = Grant(name, "hold", tools=("one__dear",), terms=HoldTerms("approver", 600, 300))
        rule = limit(hold=True)
        async with (
            FakeServer(tools=TOOLS, answers=ANSWERS) as server,
            keeping(server, held, READS, quotas=(rule,)) as running,
        ):
            client = await running.client(session=not modern)
            ask = client.modern if modern else client.legacy

            async def approved() -> str:
                id_ = waits(await ask("tools/call", CALL))
                await running.keeper.decide(id_, "bob", yes=True)
                return id_

            await approved()
            assert (await ask("tools/call", CALL)).result, "the limit has room"
            by_rule = await approved()
            by_limit = await approved()
            assert by_rule != by_limit
            assert (await ask("tools/call", CALL)).result["content"][0]["text"] == "dear"
            await until(running.settled)
            assert {one.id: one.rule for one in await running.keeper.all()}[by_limit] == "limit spend"
            assert all(one.used_at is not None for one in await running.keeper.all())
            assert len(server.requests("tools/call")) == 2
            assert waits(await ask("tools/call", CALL)) not in (by_rule, by_limit), "each has let one call pass"

    run(main)


@NAMED
def test_a_user_is_asked_for_the_rule_and_for_the_limit_one_after_the_other(name: str) -> None:
    async def main() -> None:
        by_user = HoldTerms("user", 600, 300)
        held = Grant(name, "hold", tools=("one__dear",), terms=by_user)
        rule = limit(hold=True)
        async with (
            FakeServer(tools=TOOLS, answers=ANSWERS) as server,
            keeping(server, held, READS, quotas=(rule,), approvals=ApprovalSpec(by_user)) as running,
        ):
            client = await running.client()

            async def asked(last: Answer | None = None) -> Answer:
                params = retry_of(CALL, last, {"approval": YES}) if last is not None else CALL
                return await client.modern("tools/call", params, meta=META_ABLE)

            first = await asked(await asked())
            assert first.result["content"][0]["text"] == "dear", "the limit has room"
            again = await asked()
            for_limit = await asked(again)
            assert for_limit.result["resultType"] == "input_required"
            assert len(server.requests("tools/call")) == 1
            assert (await asked(for_limit)).result["content"][0]["text"] == "dear"
            assert len(server.requests("tools/call")) == 2
            assert (await asked(for_limit)).result["resultType"] == "input_required", "nothing passes by them twice"
            assert len(server.requests("tools/call")) == 2

    run(main)


def test_what_a_limit_holds_is_approved_as_approvals_say_whatever_a_rule_is_called() -> None:
    """A user may not say yes to their own spending by the terms of a rule that has the name of the limit."""

    async def main() -> None:
        by_user = Grant("limit spend", "hold", tools=("one__other",), terms=HoldTerms("user", 600, 300))
        async with (
            FakeServer(tools=TOOLS, answers=ANSWERS) as server,
            keeping(server, by_user, READS, quotas=(limit(hold=True),)) as running,
        ):
            client = await running.client()
            assert (await client.modern("tools/call", CALL)).result
            waits(await client.modern("tools/call", CALL, meta=META_ABLE))
            (row,) = await running.keeper.all()
            assert (row.rule, row.by) == ("limit spend", "approver")

    run(main)


def test_a_limit_that_refuses_stays_a_bound_whatever_a_person_has_said_of_another() -> None:
    async def main() -> None:
        rules = (limit(hold=True), LimitRule("plain", "calls", 2, window=MINUTE))
        async with FakeServer(tools=TOOLS, answers=ANSWERS) as server, keeping(server, quotas=rules) as running:
            client = await running.client()
            assert (await client.modern("tools/call", CALL)).result
            id_ = waits(await client.modern("tools/call", CALL))
            await running.keeper.decide(id_, "bob", yes=True)
            assert (await client.modern("tools/call", {"name": "one__cheap"})).result
            error = (await client.modern("tools/call", CALL)).error
            assert error["code"] == -31002, "nobody was asked about the other one"
            assert len(server.requests("tools/call")) == 2

    run(main)


class TestLowering:
    RULES = (
        LimitRule("budget", "calls", 4, window=MINUTE, when_spent=WhenSpent(lower=(("rate", 50),))),
        LimitRule("rate", "calls", 8, window=MINUTE),
    )

    def limiter(self, rules: tuple[LimitRule, ...] = RULES) -> Limiter:
        self.now = 10**15
        return Limiter(rules, lambda: self.now)

    @staticmethod
    def take(limiter: Limiter, who: Principal = LOCAL) -> None:
        limiter.reserve(limiter.binding(who, "default", "tools", "one", "dear"))

    def used(self, limiter: Limiter) -> dict[str, int]:
        return {one.limit: one.used for one in limiter.states()}

    def test_what_is_spent_lowers_another_limit_and_refuses_nothing_itself(self) -> None:
        limiter = self.limiter((self.RULES[0], LimitRule("rate", "calls", 12, window=MINUTE)))
        for _ in range(6):
            self.take(limiter)
        with pytest.raises(RateLimited) as refused:
            self.take(limiter)
        assert refused.value.limit == "rate" and refused.value.data == {"limit": "rate", "retryAfterSeconds": 60}
        assert self.used(limiter) == {"budget": 6, "rate": 6}, "a refused call leaves no trace"
        self.now += MINUTE
        self.take(limiter)

    def test_the_order_of_limits_says_nothing(self) -> None:
        limiter = self.limiter(tuple(reversed(self.RULES)))
        for _ in range(4):
            self.take(limiter)
        with pytest.raises(RateLimited, match="rate"):
            self.take(limiter)
        assert self.used(limiter) == {"budget": 4, "rate": 4}
