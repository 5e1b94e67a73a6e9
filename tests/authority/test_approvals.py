"""Held calls of a gateway: asked once, decided by others, told once, sealed at rest, and cheap to ask about again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.authority.approvals import Approvals, OwnCall, document
from narthex.errors import Overloaded, StoreError
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.codec.seal import MasterKey
from narthex.flow.policy.approvals.approval import Approval, NotOpen, Step, ToApprove, approve
from narthex.store.sqlite import SqliteStore
from narthex.testing import FakeClock
from narthex.types import ApprovalSpec, HoldTerms, Principal

ANN = Principal("default", "https://idp", "ann", "bot", actors=("svc",))
BOB = Principal("default", "https://idp", "bob", "console")
CALL = ToApprove(
    ANN, "default", "tools", "billing", "refund", "large refunds", HoldTerms(wait_s=60, use_within_s=30), "place", "r1",
    {"arguments": Raw(b'{"amount":500,"note":"PLANTED"}')},
)  # fmt: skip


class Outside:
    """One process with a store; `other` opens the same file as a command does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "narthex.db"
        self.clock = FakeClock(1000.0)
        self.keys = [MasterKey(b"k" * 32)]
        self.told: list[tuple[str, Step]] = []
        ids = itertools.count(1)
        self.inside = Approvals(
            master_keys=lambda: self.keys, now=self.clock, random=lambda size: b"r" * size,
            new_id=lambda: f"a{next(ids)}", say=lambda approval, step: self.told.append((approval.id, step)),
        )  # fmt: skip

    async def start(self, **spec: Any) -> SqliteStore:
        self.store = await SqliteStore.open(self.path)
        await self.inside.take(self.store, ApprovalSpec(**spec))
        return self.store

    async def decide(self, change: Callable[[Approval], Approval], id_: str = "a1") -> None:
        """What a command does."""
        other = await SqliteStore.open(self.path)
        await other.change_approval(id_, change)
        await other.close()

    @property
    def steps(self) -> list[str]:
        return [step[0] for _, step in self.told]


Case = Callable[[Outside], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Case], None]:
    async def main(case: Case) -> None:
        outside = Outside(tmp_path)
        await outside.start()
        try:
            await case(outside)
        finally:
            await outside.store.close()

    return lambda case: asyncio.run(main(case))


Run = Callable[[Case], None]


def test_a_call_waits_passes_once_and_waits_again(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside = outside.inside
        assert (await inside.ask(CALL))[0] == "asked"
        assert (await inside.ask(CALL))[0] == "pending"
        assert await inside.decide("a1", "bob", yes=True, principal=BOB) is not None
        outcome, used = await inside.ask(CALL)
        assert (outcome, used.id, used.approved_by) == ("passes", "a1", "bob")
        outcome, then = await inside.ask(CALL)
        assert outcome == "asked" and then.id != "a1"
        await inside.look()
        assert outside.steps == ["asked", "approved", "used", "asked"]
        await inside.look()
        assert len(outside.told) == 4, "each step is told once"

    run(case)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(CALL, params={"arguments": Raw(b'{"amount":501,"note":"PLANTED"}')}), id="one byte"),
        pytest.param(replace(CALL, principal=BOB), id="another principal"),
        pytest.param(replace(CALL, principal=replace(ANN, client="other")), id="another agent"),
        pytest.param(replace(CALL, principal=replace(ANN, tenant="acme")), id="another tenant"),
        pytest.param(replace(CALL, endpoint="support"), id="another endpoint"),
        pytest.param(replace(CALL, server="other"), id="another server"),
        pytest.param(replace(CALL, where="elsewhere"), id="another server of this name"),
        pytest.param(replace(CALL, name="refund_all"), id="another tool"),
        pytest.param(replace(CALL, kind="prompts"), id="another kind"),
        pytest.param(replace(CALL, rule="other"), id="held by another rule"),
        pytest.param(replace(CALL, terms=HoldTerms(by="user")), id="others may approve it now"),
    ],
)
def test_nothing_else_passes(run: Run, other: ToApprove) -> None:
    async def case(outside: Outside) -> None:
        await outside.inside.ask(CALL)
        await outside.inside.decide("a1", "bob", yes=True)
        assert (await outside.inside.ask(other))[0] == "asked"
        assert (await outside.inside.ask(CALL))[0] == "passes"

    run(case)


def test_roles_times_and_another_revision_do_not_matter(run: Run) -> None:
    async def case(outside: Outside) -> None:
        await outside.inside.ask(CALL)
        await outside.inside.decide("a1", "bob", yes=True)
        later = replace(CALL, principal=replace(ANN, roles=("x",), expires_at=5.0), config="r2")
        assert (await outside.inside.ask(later))[0] == "passes"

    run(case)


def test_nobody_approves_their_own_call(run: Run) -> None:
    async def case(outside: Outside) -> None:
        await outside.inside.ask(CALL)
        for who in (
            ANN,
            replace(ANN, client="console"),
            Principal("default", "https://other", "svc"),
            replace(BOB, client="bot"),
        ):
            with pytest.raises(OwnCall):
                await outside.inside.decide("a1", who.subject, yes=True, principal=who)
        assert (await outside.inside.ask(CALL))[0] == "pending"
        denied = await outside.inside.decide("a1", "ann", yes=False, principal=ANN)
        assert denied is not None and denied.state(1000) == "denied", "but they may think better of it"
        assert (await outside.inside.ask(CALL))[0] == "denied"
        with pytest.raises(NotOpen):
            await outside.inside.decide("a1", "bob", yes=True, principal=BOB)
        assert await outside.inside.decide("nobody", "bob", yes=True) is None

    run(case)


def test_what_is_not_decided_in_time_is_asked_anew(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside, clock = outside.inside, outside.clock
        await inside.ask(CALL)
        clock.advance(60)
        await inside.look()
        outcome, then = await inside.ask(CALL)
        assert (outcome, then.id) == ("asked", "a2")
        await inside.decide("a2", "bob", yes=True)
        clock.advance(30)
        outcome, then = await inside.ask(CALL)
        assert outcome == "asked", "approved, and not used in time"
        await inside.look()
        assert outside.steps == ["asked", "expired", "asked", "approved", "expired", "asked"]

    run(case)


def test_what_a_command_decides_is_seen_at_the_next_look(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside = outside.inside
        await inside.ask(CALL)
        await inside.look()
        await outside.decide(lambda found: approve(found, "terminal root", 1001))
        assert (await inside.ask(CALL))[0] == "pending", "known only at the next look"
        await inside.load()
        await inside.look()
        assert (await inside.ask(CALL))[0] == "passes"
        await inside.look()
        assert outside.told[1] == ("a1", ("approved", 1001, "terminal root"))
        assert outside.steps == ["asked", "approved", "used"]

    run(case)


def test_a_restart_forgets_nothing(run: Run) -> None:
    async def case(outside: Outside) -> None:
        await outside.inside.ask(CALL)
        await outside.inside.look()
        await outside.store.close()
        await outside.decide(lambda found: approve(found, "bob", 1001))
        again = Outside(outside.path.parent)
        await again.start()
        outside.store = again.store
        assert (await again.inside.ask(CALL))[0] == "passes"
        await again.inside.look()
        assert again.steps == ["approved", "used"], "what was told before the restart is not told again"

    run(case)


def test_what_expired_while_nobody_ran_is_told(run: Run) -> None:
    async def case(outside: Outside) -> None:
        await outside.inside.ask(CALL)
        await outside.store.close()
        again = Outside(outside.path.parent)
        again.clock.advance(3600)
        await again.start()
        outside.store = again.store
        await again.inside.look()
        assert again.steps == ["asked", "expired"]

    run(case)


class Listener:
    """Who is told of steps; `tell` needs room."""

    def __init__(self, outside: Outside, most: int = 1000) -> None:
        self.got: list[tuple[Approval, Step, int]] = []
        self.most = most
        self._approvals = outside.inside
        outside.inside.listen(self)

    @property
    def room(self) -> int:
        return self.most - len(self.got)

    def tell(self, approval: Approval, step: Step, number: int) -> None:
        self.got.append((approval, step, number))

    def took(self, count: int) -> None:
        for approval, _, number in self.got[:count]:
            self._approvals.was_told(approval, number)

    @property
    def steps(self) -> list[str]:
        return [f"{approval.id} {step[0]}" for approval, step, _ in self.got]


async def restarted(outside: Outside) -> Outside:
    await outside.inside.close()
    await outside.store.close()
    again = Outside(outside.path.parent)
    again.clock.advance(outside.clock() - again.clock())
    await again.start()
    outside.store = again.store
    return again


def test_what_was_not_told_before_a_restart_is_told_after_it(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside, listener = outside.inside, Listener(outside)
        await inside.ask(CALL)
        await inside.look()
        await inside.decide("a1", "bob", yes=True)
        assert (await inside.ask(CALL))[0] == "passes"
        await inside.look()
        await inside.look()
        assert listener.steps == ["a1 asked", "a1 approved", "a1 used"], "each is given once"
        listener.took(2)
        outside.clock.advance(3600)
        await inside.look()
        again = await restarted(outside)
        listener = Listener(again)
        for _ in range(3):
            await again.inside.look()
        assert listener.steps == ["a1 used"] and again.steps == [], "it is in the record already"
        listener.took(1)
        await again.inside.look()
        last = await restarted(again)
        listener = Listener(last)
        await last.inside.look()
        assert listener.steps == []
        outside.store = last.store

    run(case)


def test_a_crash_tells_twice_rather_than_never(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside, listener = outside.inside, Listener(outside)
        await inside.ask(CALL)
        await inside.look()
        listener.took(1)  # and before the store knows of it, the process is gone
        await outside.store.close()
        again = Outside(outside.path.parent)
        await again.start()
        outside.store = again.store
        listener = Listener(again)
        await again.inside.look()
        assert listener.steps == ["a1 asked"]

    run(case)


def test_who_is_named_later_is_not_told_what_was_before(run: Run) -> None:
    async def case(outside: Outside) -> None:
        await outside.inside.ask(CALL)
        for _ in range(2):
            await outside.inside.look()
        listener = Listener(outside)
        await outside.inside.look()
        assert listener.steps == []
        await outside.inside.decide("a1", "bob", yes=False)
        await outside.inside.look()
        assert listener.steps == ["a1 denied"]

    run(case)


def test_another_one_is_told_what_the_first_one_was_not(run: Run) -> None:
    async def case(outside: Outside) -> None:
        Listener(outside)
        await outside.inside.ask(CALL)
        await outside.inside.look()
        listener = Listener(outside)
        await outside.inside.look()
        assert listener.steps == ["a1 asked"]

    run(case)


def test_what_finds_no_room_comes_again_in_order(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside, listener = outside.inside, Listener(outside, most=2)
        others = [replace(CALL, name=name) for name in ("refund", "pay", "move")]
        for one in others:
            await inside.ask(one)
        for _ in range(2):
            await inside.look()
        assert listener.steps == ["a1 asked", "a2 asked"]
        listener.most = 10
        await inside.decide("a1", "bob", yes=True)
        await inside.look()
        assert listener.steps[2:] == ["a3 asked", "a1 approved"]

    run(case)


def test_who_asks_in_a_loop_costs_no_disk(run: Run) -> None:
    async def case(outside: Outside) -> None:
        await outside.inside.ask(CALL)
        await outside.store.close()  # whoever asked it now would fail
        for _ in range(3):
            assert (await outside.inside.ask(CALL))[0] == "pending"
        outside.store = await SqliteStore.open(outside.path)

    run(case)


def test_parameters_are_sealed_and_gone_at_the_end(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside = outside.inside
        await inside.ask(CALL)
        assert b"PLANTED" not in outside.path.read_bytes()
        kept = await inside.one("a1")
        assert kept is not None and await inside.read([kept]) == [{"arguments": {"amount": 500, "note": "PLANTED"}}]
        outside.keys[0] = MasterKey(b"x" * 32)
        assert await inside.read([kept]) == [None], "under another key nobody reads them"
        moved = replace(kept, id="a9")
        outside.keys[0] = MasterKey(b"k" * 32)
        assert await inside.read([moved]) == [None], "nor those of another call"
        await inside.decide("a1", "bob", yes=False)
        outside.clock.advance(61)
        await inside.look()
        gone = await inside.one("a1")
        assert gone is not None and gone.params == b"" and await inside.parameters(gone) is None

    run(case)


def test_so_many_may_wait(run: Run) -> None:
    async def case(outside: Outside) -> None:
        outside.inside.spec = ApprovalSpec(most_each=1)
        await outside.inside.ask(CALL)
        with pytest.raises(Overloaded):
            await outside.inside.ask(replace(CALL, name="other"))

    run(case)


def test_without_a_store_nothing_passes() -> None:
    async def main() -> None:
        inside = Approvals(master_keys=list, now=FakeClock(), random=bytes, new_id=str, say=print)
        with pytest.raises(StoreError):
            await inside.go_on(CALL, "a1", 1)
        assert (await inside.all(), await inside.one("a1")) == ([], None)
        await inside.look()

    asyncio.run(main())


def test_what_has_passed_goes_on_once_a_round(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside = outside.inside
        await inside.ask(CALL)
        assert not await inside.go_on(CALL, "a1", 1)
        await inside.decide("a1", "bob", yes=True)
        await inside.ask(CALL)
        went = [await inside.go_on(CALL, "a1", number) is not None for number in (1, 1, 2, 3, 2)]
        assert went == [True, False, True, True, False]
        assert not await inside.go_on(replace(CALL, name="other"), "a1", 4)
        assert not await inside.go_on(CALL, "nobody", 1)

    run(case)


def test_the_callers_own_user_is_heard_where_the_rule_says_so(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside, mine = outside.inside, replace(CALL, terms=HoldTerms(by="user", wait_s=60, use_within_s=30))
        await inside.ask(CALL)
        await inside.ask(mine)
        await inside.user_says(CALL, "a1", yes=True)
        await inside.user_says(mine, "a1", yes=True)
        assert (await inside.ask(CALL))[0] == "pending"
        await inside.user_says(mine, "a2", yes=True)
        assert (await inside.ask(mine))[1].approved_by == "the caller's user"
        await inside.user_says(mine, "a2", yes=False)
        await inside.user_says(mine, "nobody", yes=False)

    run(case)


def test_the_document_says_who_what_and_until_when() -> None:
    async def main() -> None:
        ids = iter(["a1"])
        inside = Approvals(master_keys=lambda: [MasterKey(b"k" * 32)], now=FakeClock(1000.0), random=bytes,
                           new_id=lambda: next(ids), say=print)  # fmt: skip
        from narthex.store.memory import MemoryStore

        await inside.take(MemoryStore(), ApprovalSpec())
        _, found = await inside.ask(CALL)
        shown = document(found, 1000)
        assert shown["principal"] == {"tenant": "default", "issuer": "https://idp", "subject": "ann", "client": "bot",
                                      "actors": ["svc"]}  # fmt: skip
        assert (shown["name"], shown["state"], shown["ends_at"]) == ("billing__refund", "pending", 1060)
        assert "params" not in shown and "PLANTED" not in str(shown)

    asyncio.run(main())


def test_what_an_agent_was_approved_for_is_no_yes_to_another_one() -> None:
    by_others = [(), ("svc", "other"), ("other",)]
    digests = {replace(CALL, principal=replace(ANN, actors=actors)).digest for actors in (ANN.actors, *by_others)}
    assert len(digests) == 4


def test_a_rule_an_engine_and_a_limit_of_one_name_are_three() -> None:
    found = [replace(CALL, rule="limit spend", held_by=by) for by in ("rule", "engine", "limit")]
    assert len({one.digest for one in found}) == len({one.slot for one in found}) == 3
