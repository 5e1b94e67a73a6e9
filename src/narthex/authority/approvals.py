"""Held calls of a gateway: asked for, decided, used; what the store has of them, at hand.

In: held calls, answers of people, what other processes did with the store. Out: what becomes of a call, and each step
that was taken: once to whoever records it, at least once to whoever is told, over restarts. A call that is made again
while it waits is answered from memory: whoever asks in a loop costs no disk. That it passes once, the store decides.
Parameters are sealed at rest, for this installation's master keys, and gone when the approval has ended.
Cases: `tests/authority/test_approvals.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from narthex.authority.envelope import EnvelopeError, Envelopes
from narthex.errors import StoreError
from narthex.flow.codec.seal import MasterKey
from narthex.flow.policy.approvals.approval import (
    Approval,
    NotOpen,
    Outcome,
    Step,
    ToApprove,
    approve,
    deny,
    give_back,
    go_on,
    is_own,
    shown,
    user_says,
)
from narthex.store.port import Store
from narthex.telemetry.stamps import stamp
from narthex.types import ApprovalSpec, Principal

SWEEP_S = 60.0
SLICE = 20
"""Calls whose parameters are opened between two pauses."""
USER = "the caller's user"
_log = logging.getLogger("narthex.approvals")


class Telling(Protocol):
    """Who tells somebody of steps, and calls `was_told` then."""

    @property
    def room(self) -> int:
        """So many more of them at present."""

    def tell(self, approval: Approval, step: Step, number: int) -> None:
        """Take one, the `number`-th of its approval."""


class OwnCall(Exception):
    """Nobody approves their own call."""


class _Foreign(Exception):
    """It is another tenant's: for this principal it is not there."""


class Approvals:
    """One for the process. Its store is given by `Upkeep`, where the configuration holds anything.

    Args:
        master_keys: Reads the master keys anew.
        now: Seconds since 1970. random: so many bytes of chance. new_id: a lower-case UUID.
        say: Told each step of each held call once, in order, also those that were taken elsewhere.
    """

    def __init__(
        self,
        *,
        master_keys: Callable[[], Sequence[MasterKey]],
        now: Callable[[], float],
        random: Callable[[int], bytes],
        new_id: Callable[[], str],
        say: Callable[[Approval, Step], None],
    ) -> None:
        self.spec = ApprovalSpec()
        self._master_keys, self._random, self._new_id, self._say = master_keys, random, new_id, say
        self.now = now
        self._store: Store | None = None
        self._known: dict[str, Approval] = {}
        self._by_digest: dict[bytes, Approval] = {}
        self._meanwhile: dict[str, Approval] = {}  # what has happened since the store was last read
        self._hook: Telling | None = None
        self._handed: dict[str, int] = {}  # steps that it has, or has had
        self._sent: dict[str, int] = {}  # steps that it has told, and the store does not know yet
        self._swept_at = 0.0

    # --- calls

    async def ask(self, call: ToApprove) -> tuple[Outcome, Approval]:
        """What becomes of a held call; where nothing stands for it, it is asked for from now on.

        Raises:
            StoreError: That cannot be known. Overloaded: Too many calls wait.
        """
        digest, now = call.digest, int(self.now())
        found = self._by_digest.get(digest)
        if found is not None and now < found.ends_at:
            state = found.state(now)
            if state == "pending" or state == "denied":
                return state, found
        id_, who, terms = self._new_id(), call.principal, call.terms
        said = shown(call.params)
        new = Approval(
            id_, digest, *who.key, who.actors, call.endpoint, call.kind, call.server, call.name, call.rule, terms.by,
            call.config, await asyncio.to_thread(self._seal, said.decode(), who.tenant, id_), len(said), now,
            now + int(terms.wait_s), int(terms.use_within_s),
        )  # fmt: skip
        store = self._opened()
        outcome, then = await store.ask_approval(new, most=self.spec.most, most_each=self.spec.most_each)
        self._keep(then)
        return outcome, then

    async def go_on(self, call: ToApprove, id_: str, rounds: int) -> Approval | None:
        """A call that has passed goes on, its server having asked for the `rounds`-th time. None: it may not."""
        change = partial(go_on, digest=call.digest, rounds=rounds, now=int(self.now()))
        return await self._change(id_, change)

    async def give_back(self, call: ToApprove, id_: str, rounds: int) -> None:
        """Nothing was sent of the call that has passed for the `rounds`-th time."""
        try:
            await self._change(id_, partial(give_back, digest=call.digest, rounds=rounds))
        except StoreError as error:
            _log.warning("approval %s stays used, although nothing was sent: %s", id_, error.problem)

    async def user_says(self, call: ToApprove, id_: str, *, yes: bool) -> None:
        """The caller's own user has answered. What comes too late changes nothing."""
        await self._change(id_, partial(user_says, digest=call.digest, by=USER, now=int(self.now()), yes=yes))

    async def _change(self, id_: str, change: Callable[[Approval], Approval]) -> Approval | None:
        try:
            then = await self._opened().change_approval(id_, change)
        except NotOpen:
            return None
        if then is not None:
            self._keep(then)
        return then

    @property
    def open(self) -> int:
        """How many may still let a call pass."""
        now = self.now()
        return sum(one.is_open(now) for one in self._known.values())

    def known(self, id_: str) -> Approval:
        """One of those at hand. Raises KeyError."""
        return self._known[id_]

    def left_s(self, found: Approval) -> float:
        """How long it stands."""
        return found.ends_at - self.now()

    # --- people

    async def decide(self, id_: str, by: str, *, yes: bool, principal: Principal | None = None) -> Approval | None:
        """Somebody says yes or no. None where there is no such call, in the tenant of who says it.

        Args:
            by: Who it is, for the record. principal: the same, where they have proved it.
        Raises:
            NotOpen: It is decided, or its time is over. OwnCall: It is their own call. StoreError: …
        """
        now = int(self.now())

        def change(found: Approval) -> Approval:
            if not is_for(found, principal):
                raise _Foreign
            if yes and principal is not None and is_own(found, principal):
                raise OwnCall
            return (approve if yes else deny)(found, by, now)

        try:
            then = await self._opened().change_approval(id_, change)
        except _Foreign:
            return None
        if then is not None:
            self._keep(then)
        return then

    async def all(self, principal: Principal | None = None) -> list[Approval]:
        """All that are kept, the oldest first; for a principal those of their tenant."""
        found = await self._store.approvals() if self._store is not None else []
        return [one for one in found if is_for(one, principal)]

    async def one(self, id_: str, principal: Principal | None = None) -> Approval | None:
        """One of them."""
        found = await self._store.approval(id_) if self._store is not None else None
        return found if found is not None and is_for(found, principal) else None

    async def read(self, rows: Sequence[Approval]) -> list[Any]:
        """The parameters of held calls; None for those that are gone, or do not open any more. In slices: calls that
        are made meanwhile do not wait for somebody who looks."""
        envelopes, found = await asyncio.to_thread(self._envelopes), []
        for number, row in enumerate(rows, 1):
            found.append(read_params(row, envelopes))
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return found

    async def parameters(self, found: Approval) -> Any:
        """The same of one that was told without them."""
        whole = await self.one(found.id)
        return (await self.read([whole]))[0] if whole is not None else None

    # --- upkeep

    async def take(self, store: Store | None, spec: ApprovalSpec) -> None:
        """Know what a store has; None where nothing is held."""
        self._store, self.spec = store, spec
        await self.load()

    def listen(self, hook: Telling | None) -> None:
        """Who is told of the steps that were not told yet; `was_told` says when that has been done. None: nobody."""
        self._hook, self._handed = hook, {}

    def was_told(self, approval: Approval, number: int) -> None:
        """So many steps of it need not be told again."""
        self._sent[approval.id] = max(number, self._sent.get(approval.id, 0))

    async def load(self) -> None:
        """Others have changed the store."""
        self._meanwhile = {}
        rows = await self._store.approvals(awaited_at=int(self.now())) if self._store is not None else []
        self._known = {one.id: one for one in rows} | self._meanwhile
        self._by_digest = {one.digest: one for one in self._known.values()}
        self._handed = {id_: number for id_, number in self._handed.items() if id_ in self._known}

    async def look(self) -> None:
        """Twice a second: tell what has happened, and forget what is over."""
        if self._store is None:
            return
        now = self.now()
        told = {one.id: self._tell(one, now) for one in list(self._known.values()) if one.told < one.count(now)}
        if self._hook is None:
            self._sent |= told
        await self._write(told)
        self._hand_on(now)
        for one in list(self._known.values()):
            if now >= one.ends_at and one.is_told(now):
                del self._known[one.id]
                self._handed.pop(one.id, None)
                self._meanwhile.pop(one.id, None)
                if self._by_digest.get(one.digest) is one:
                    del self._by_digest[one.digest]
        if now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            await self._store.sweep_approvals(int(now))

    def _tell(self, one: Approval, now: float) -> int:
        steps = one.steps(now)
        for step in steps[one.told :]:
            self._say(one, step)
        self._keep(replace(one, told=len(steps)))
        return len(steps)

    async def _write(self, told: Mapping[str, int]) -> None:
        """Have the store know what is in the record, and what was told."""
        sent, self._sent = self._sent, {}
        if not (told or sent) or self._store is None:
            return
        try:
            await self._store.told_approvals(told, sent)
        except StoreError:
            self._sent = sent | self._sent
            raise
        for id_, number in sent.items():
            if (one := self._known.get(id_)) is not None:
                self._keep(replace(one, sent=max(one.sent, number)))

    def _hand_on(self, now: float) -> None:
        """Give the hook the steps that it was not given, in the order in which they happened."""
        hook = self._hook
        if hook is None or not (room := hook.room):
            return
        waiting: list[tuple[int, int, Approval, Step]] = []
        for one in self._known.values():
            begun = max(one.sent, self._handed.get(one.id, 0))
            if begun < one.count(now):
                steps = enumerate(one.steps(now)[begun:], begun + 1)
                waiting += [(step[1], number, one, step) for number, step in steps]
        for _, number, one, step in sorted(waiting, key=itemgetter(0, 1))[:room]:
            hook.tell(one, step, number)
            self._handed[one.id] = number

    async def close(self) -> None:
        """Have the store know what was told, before it is let go."""
        await self._write({})

    def _keep(self, one: Approval) -> None:
        known = self._known.get(one.id)
        told, sent = (known.told, known.sent) if known is not None else (0, 0)
        one = replace(one, params=b"", told=max(one.told, told), sent=max(one.sent, sent))
        self._known[one.id] = self._meanwhile[one.id] = self._by_digest[one.digest] = one

    def _opened(self) -> Store:
        if self._store is None:
            raise StoreError("no store is open for held calls")
        return self._store

    def _seal(self, said: str, tenant: str, id_: str) -> bytes:
        return self._envelopes().seal(said, tenant, _name(id_))

    def _envelopes(self) -> Envelopes:
        return Envelopes(self._master_keys(), self._random)


def read_params(found: Approval, envelopes: Envelopes) -> Any:
    """The parameters of a held call, as they were asked about; None where they are gone, or do not open any more."""
    if not found.params:
        return None
    try:
        return msgspec.json.decode(envelopes.open(found.params, found.tenant, _name(found.id)))
    except (EnvelopeError, msgspec.DecodeError):
        return None


def _name(id_: str) -> str:
    """What the parameters are sealed as: no secret has a name with a blank."""
    return f"approval {id_}"


def is_for(found: Approval, principal: Principal | None) -> bool:
    """May they hear of it? Who is no principal, but has the gateway's token, may hear of all."""
    return principal is None or principal.tenant == found.tenant


def words_of(found: Approval, step: Step) -> str:
    """A step of a held call, for the log."""
    what, _, by = step
    until = f" until {stamp(float(found.ends_at))}" if what in ("asked", "approved") else ""
    words = {"asked": f"waits for approval{until}", "approved": f"is approved{until}"}.get(what, f"is {what}")
    who = f"{found.subject} ({found.client})" if found.client else found.subject
    return f"approval {found.id}: {found.server}__{found.name} by {who} {words}" + (f", by {by}" if by else "")


def document(found: Approval, now: float) -> dict[str, Any]:
    """A held call for people and programs, without its parameters. Times are Unix seconds."""
    who: Mapping[str, Any] = {"tenant": found.tenant, "issuer": found.issuer, "subject": found.subject}
    return {
        "id": found.id,
        "state": found.state(now),
        "principal": {**who, "client": found.client, "actors": list(found.actors)},
        "endpoint": found.endpoint,
        "kind": found.kind,
        "name": f"{found.server}__{found.name}",
        "rule": found.rule,
        "by": found.by,
        "asked_at": found.asked_at,
        "ends_at": found.ends_at,
        "approved_at": found.approved_at,
        "approved_by": found.approved_by or None,
        "denied_at": found.denied_at,
        "denied_by": found.denied_by or None,
        "used_at": found.used_at,
        "size": found.size,
        "config": found.config,
    }
