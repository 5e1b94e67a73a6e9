"""A call that waits for a person: what stands of it, whether its own user is asked, and how it goes on when it is back.

In: needs of its walk. Out: what became of it (`Standing`), and the result that asks a modern client, with a state that
only a retry of this very call opens. No connection waits here, but a legacy one whose user is being asked.
Cases: `tests/flow/accept/test_holding.py`, `tests/e2e/test_approvals.py`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

import msgspec

from narthex.errors import Denied
from narthex.flow.codec.bridge import client_bits
from narthex.flow.codec.capabilities import ClientCaps
from narthex.flow.codec.handles import Approving
from narthex.flow.codec.inputs import Ask, input_required, origin_of
from narthex.flow.codec.jsonrpc import RawMap
from narthex.flow.policy.approvals.approval import Approval, HeldBy, Outcome, ToApprove
from narthex.flow.policy.approvals.holding import Hold, Standing, said
from narthex.flow.policy.decision import APPROVAL_REQUIRED
from narthex.types import HoldTerms, Snapshot

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange

USED = "approval_used"
"""Reason of a call that its server has asked something, and that has gone on with that already."""

_giving: set[asyncio.Future[None]] = set()


class Approved:
    """What people have said of a call, by what held it (`ToApprove.slot`): a rule and a spent limit may both hold one,
    and each is approved by itself.

    `passed`: the approval that has let it pass, and how often. `earlier`: the same of the call that this one goes on,
    its server having asked something. `words`: an approval, and what a modern client's user has said of it. `waits`:
    the one that it waits for.
    """

    __slots__ = ("earlier", "passed", "waits", "words")

    def __init__(self) -> None:
        self.passed: dict[str, tuple[str, int]] = {}
        self.earlier: dict[str, tuple[str, int]] = {}
        self.words: dict[str, tuple[str, RawMap]] = {}
        self.waits = ""

    @property
    def ids(self) -> str:
        """Of the approvals that it has passed by, in the order in which it did; a space between two."""
        return " ".join(id_ for id_, _ in self.passed.values())


class Keeper(Protocol):
    """Who keeps approvals. Raises StoreError where it cannot tell: then nothing passes."""

    async def ask(self, call: ToApprove) -> tuple[Outcome, Approval]:
        """What becomes of a held call; it is asked for where nothing stands. Raises Overloaded: too many wait."""

    async def go_on(self, call: ToApprove, id_: str, rounds: int) -> Approval | None:
        """A call that has passed goes on, its server having asked for the `rounds`-th time. None: it may not."""

    async def give_back(self, call: ToApprove, id_: str, rounds: int) -> None:
        """Nothing was sent of the call that has passed for the `rounds`-th time."""

    async def user_says(self, call: ToApprove, id_: str, *, yes: bool) -> None:
        """The caller's own user has answered."""

    def left_s(self, found: Approval) -> float:
        """How long it stands."""


def terms_of(snapshot: Snapshot, rule: str, held_by: HeldBy) -> HoldTerms:
    """How a call that this holds is approved; a policy's and a limit's are approved as `approvals` says."""
    named = snapshot.grants if held_by == "rule" else ()
    return next((one.terms for one in named if one.name == rule), snapshot.approvals.terms)


async def stand(one: Exchange, need: Hold) -> Standing:
    """What becomes of a held call now.

    Raises:
        StoreError, Overloaded: That cannot be known. Denied: It has gone on before.
    """
    keeper, call = one.front.approvals, to_approve(one, need)
    if keeper is None:
        raise Denied(APPROVAL_REQUIRED, detail="nobody keeps approvals")
    said_before, word = one.approved, need.word
    if said_before is not None:
        if (earlier := said_before.earlier.pop(call.slot, None)) is not None:
            id_, rounds = earlier
            passed = await keeper.go_on(call, id_, rounds)
            if passed is None:
                raise Denied(USED, detail=f"approval {id_}: round {rounds} was answered before")
            return _passes(one, keeper, call, passed)
        word = word or said_before.words.pop(call.slot, None)
    if word is not None and (yes := said(word[1])) is not None:
        await keeper.user_says(call, word[0], yes=yes)
    asking = asyncio.ensure_future(keeper.ask(call))
    try:
        outcome, found = await asyncio.shield(asking)
    except asyncio.CancelledError:
        asking.add_done_callback(partial(_nobody_waits, keeper, call))
        raise
    if outcome == "passes":
        return _passes(one, keeper, call, found)
    one.approved = one.approved or Approved()
    one.approved.waits = found.id
    asks = outcome != "denied" and found.by == "user" and word is None and can_be_asked(one)
    return Standing(outcome, found, keeper.left_s(found), asks, call.slot)


def _passes(one: Exchange, keeper: Keeper, call: ToApprove, found: Approval) -> Standing:
    """It goes on; and if nothing of it is sent then, it may pass again."""
    one.approved = approved = one.approved or Approved()
    approved.passed[call.slot] = (found.id, found.rounds)
    assert one.check is not None
    one.check.unsent += (partial(_unsent, approved, keeper, call, found),)
    return Standing("passes", found, keeper.left_s(found))


def _nobody_waits(keeper: Keeper, call: ToApprove, asking: asyncio.Future[tuple[Outcome, Approval]]) -> None:
    """The client has gone while it was found out that its call passes."""
    if not asking.cancelled() and asking.exception() is None and asking.result()[0] == "passes":
        _give_back(keeper, call, asking.result()[1])


def _unsent(approved: Approved, keeper: Keeper, call: ToApprove, found: Approval) -> None:
    """Nothing is sent of the call: it has not passed."""
    approved.passed.pop(call.slot, None)
    _give_back(keeper, call, found)


def _give_back(keeper: Keeper, call: ToApprove, found: Approval) -> None:
    giving = asyncio.ensure_future(keeper.give_back(call, found.id, found.rounds))
    _giving.add(giving)
    giving.add_done_callback(_giving.discard)


def to_approve(one: Exchange, need: Hold) -> ToApprove:
    """What is asked about."""
    call, snapshot, decision, target = one.call, one.front.snapshot, need.decision, need.target
    where = sha256(msgspec.json.encode(one.front.fleet.servers[target.server].spec.target)).hexdigest()
    return ToApprove(
        call.principal, call.endpoint, need.kind, target.server, target.name, decision.rule or decision.engine,
        terms_of(snapshot, decision.rule, need.held_by), where, snapshot.revision, need.params, need.held_by,
    )  # fmt: skip


def can_be_asked(one: Exchange) -> bool:
    """Has this client said that it can put a form to its user, and can it be reached for that?"""
    call = one.call
    if not client_bits(call) & ClientCaps.ELICITATION_FORM:
        return False
    return call.era == "modern" or (call.session is not None and one.can_push())


def asking(one: Exchange, ask: Ask) -> bytes:
    """The result that asks a modern client's user whether they approve."""
    state = Approving(one.server_name, ask.about.approval.id, ask.about.slot)
    return input_required(ask.required.asked, one.front.handles.for_retry(one.call, origin_of(one.call), state))
