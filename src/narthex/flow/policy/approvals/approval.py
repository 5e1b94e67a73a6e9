"""A held call and what people said of it: what exactly they are asked, and how often their yes counts: once.

In: a call that a rule holds, times, answers. Out: an `Approval`, as the store keeps it, and its next form; or why there
is none. What an approval is for is a digest: of whose call it is, where it goes, by which rule it was held,
and of every parameter as decoded. So the same call opens it, whatever its spacing and the order of its keys, and no
other does. Pure: the store runs these within a transaction, so that of two calls at once one passes.
Cases: `tests/flow/policy/approvals/test_approval.py`; as a state machine: `test_approval_machine.py`.

    pending ── approve ──> approved ── the same call ──> used
       │ └───── deny ──────> denied <── deny ──┘
       └──── its time ─────> expired <── its time (approved too); used ── nothing was sent ──> approved
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from narthex.errors import Denied, InvalidParams
from narthex.flow.codec.crowds import refuse_crowd
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap
from narthex.types import HoldTerms, Principal

MOST_BYTES = 64 * 1024
"""Of a held call's parameters: nobody reads more before they say yes, and more would hold up other calls."""
GOES_ON_S = 3600
"""How long a call may go on that has passed: as long as a modern server's state opens in our seal."""
TOO_LARGE = "too_large_to_approve"
DENIED_BY_PERSON = "approval_denied"
_BESIDE = frozenset({"_meta", "inputResponses", "requestState"})
"""Parameters that differ each time the same call is made: what a client says of itself, and of rounds of questions."""

State = Literal["pending", "approved", "denied", "used", "expired"]
Outcome = Literal["asked", "pending", "denied", "passes"]
HeldBy = Literal["rule", "engine", "limit"]
"""What holds a call. They may bear the same name, and an approval for one is none for another."""
Step = tuple[Literal["asked", "approved", "denied", "used", "expired"], int, str]
"""What happened, when (Unix seconds), and who did it: empty where it was the caller, or time."""


class Approval(msgspec.Struct, frozen=True):
    """A held call, as it is kept. Times are Unix seconds, whole.

    `digest` is what it is for; `params` the parameters as JSON, sealed, for whoever decides: gone once it has ended.
    """

    id: str
    digest: bytes
    tenant: str
    issuer: str
    subject: str
    client: str
    actors: tuple[str, ...]
    endpoint: str
    kind: str
    server: str
    name: str
    rule: str
    by: Literal["approver", "user"]
    """Who may say yes: somebody else than the caller, or the caller's own user too."""
    config: str
    """Revision of the configuration that held it."""
    params: bytes
    size: int
    """Bytes of the parameters."""
    asked_at: int
    ends_at: int
    """When nobody may approve it any more; once approved, when the call may be made no more."""
    use_within: int
    """Seconds that the call may be made in after it was approved."""
    approved_at: int | None = None
    approved_by: str = ""
    denied_at: int | None = None
    denied_by: str = ""
    used_at: int | None = None
    rounds: int = 0
    """How often it has let the call pass: more than once where the server has asked something, and the call went on."""
    told: int = 0
    """How many of its steps are in the record."""
    sent: int = 0
    """How many of them the webhook has taken; as many as are in the record where nobody is told."""

    def state(self, now: float) -> State:
        """What it is at this moment."""
        if self.used_at is not None:
            return "used"
        if self.denied_at is not None:
            return "denied"
        if now >= self.ends_at:
            return "expired"
        return "approved" if self.approved_at is not None else "pending"

    def is_open(self, now: float) -> bool:
        """May it still let a call pass?"""
        return self.state(now) in ("pending", "approved")

    def is_told(self, now: float) -> bool:
        """Is every step of it in the record, and told to whoever is told?"""
        return min(self.told, self.sent) >= self.count(now)

    def count(self, now: float) -> int:
        """How many steps it has had so far."""
        ended = self.used_at is not None or self.denied_at is not None or now >= self.ends_at
        return 1 + (self.approved_at is not None) + ended

    def steps(self, now: float) -> list[Step]:
        """All that has happened so far, in order."""
        found: list[Step] = [("asked", self.asked_at, "")]
        if self.approved_at is not None:
            found.append(("approved", self.approved_at, self.approved_by))
        if self.denied_at is not None:
            found.append(("denied", self.denied_at, self.denied_by))
        if self.used_at is not None:
            found.append(("used", self.used_at, ""))
        if self.state(now) == "expired":
            found.append(("expired", self.ends_at, ""))
        return found


class ToApprove(msgspec.Struct, frozen=True):
    """A call that is held: by a rule, an engine or a limit; `rule` names it for people. `params` as `exactly` gave
    them; `where` says where its server is, so that an approval is for that one and no other of its name."""

    principal: Principal
    endpoint: str
    kind: str
    server: str
    name: str
    rule: str
    terms: HoldTerms
    where: str
    config: str
    params: RawMap
    held_by: HeldBy = "rule"

    @property
    def slot(self) -> str:
        """What tells the holds of one call apart."""
        return f"{self.held_by} {self.rule}"

    @property
    def digest(self) -> bytes:
        """What an approval of it is for."""
        place = (self.endpoint, self.kind, self.server, self.where, self.name)
        who = self.principal
        by = self.rule if self.held_by == "rule" else (self.held_by, self.rule)
        return digest_of((*who.key, *place, by, self.terms.by, *who.actors), self.params)


class NotOpen(Exception):
    """It can be decided no more: its text is the state that it is in."""


def exactly(params: RawMap) -> RawMap:
    """The parameters of a held call as they are looked at, and as the server gets them: decoded and encoded again.

    Raises:
        InvalidParams: Not JSON. Denied: More than anybody reads.
    """
    asked = {key: raw for key, raw in params.items() if key not in _BESIDE}
    if sum(map(len, asked.values())) > MOST_BYTES:
        raise Denied(TOO_LARGE, detail=f"a held call may have {MOST_BYTES} bytes of parameters")
    for raw in asked.values():
        refuse_crowd(raw)
    return {key: Raw(msgspec.json.encode(_decoded(raw))) for key, raw in asked.items()}


def shown(params: RawMap) -> bytes:
    """What `exactly` gave, as one JSON object: what is kept for whoever decides."""
    return msgspec.json.encode(params)


def digest_of(bound: Sequence[str | tuple[str, ...]], params: RawMap) -> bytes:
    """What an approval is for.

    Canonical JSON as RFC 8785 has it, but for numbers: a whole one stands with all its digits, so that two of them
    which are one `double` are two.

    Args:
        bound: Whose call it is, where it goes, who may approve it; each a part of its own.
        params: As `exactly` gave them.
    """
    value = [list(bound), {key: _decoded(raw) for key, raw in params.items()}]
    return sha256(msgspec.json.encode(value, order="deterministic")).digest()


def _decoded(raw: Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except BAD_JSON:
        raise InvalidParams("the parameters cannot be read") from None


# --- what happens to it


def ask(found: Approval | None, new: Approval, now: int) -> tuple[Outcome, Approval]:
    """The call is made.

    Args:
        found: The last approval for the same call, if there is one.
        new: What is asked where none stands.
    Returns:
        What becomes of the call, and the approval that it is because of, as it is from now on.
    """
    state = found.state(now) if found is not None else "expired"
    if found is None or state in ("used", "expired") or now >= found.ends_at:
        return "asked", new
    if state == "approved":
        return "passes", replace(found, used_at=now, rounds=1)
    return ("denied" if state == "denied" else "pending"), found


def go_on(found: Approval, digest: bytes, rounds: int, now: int) -> Approval:
    """The call that has passed goes on with what its server has asked, once for each time that it was asked.

    Args:
        digest: Of the call that is to go on. rounds: how often it had passed when the server asked.
    Raises:
        NotOpen: It has gone on already, or never passed, or too long ago; or it is another call.
    """
    used_at = found.used_at
    if used_at is None or (found.digest, found.rounds) != (digest, rounds) or now >= used_at + GOES_ON_S:
        raise NotOpen(found.state(now))
    return replace(found, rounds=rounds + 1)


def give_back(found: Approval, digest: bytes, rounds: int) -> Approval:
    """Nothing was sent of the call that has passed: it may pass again, for as long as is left.

    Raises:
        NotOpen: It has gone on meanwhile, or it is another call.
    """
    if found.used_at is None or (found.digest, found.rounds) != (digest, rounds):
        raise NotOpen("used" if found.used_at is not None else "approved")
    return replace(found, used_at=found.used_at if rounds > 1 else None, rounds=rounds - 1)


def approve(found: Approval, by: str, now: int) -> Approval:
    """Somebody says yes. A second yes changes nothing: the time to use it begins with the first.

    Raises:
        NotOpen: It was denied or used, or its time is over.
    """
    state = found.state(now)
    if state == "approved":
        return found
    if state != "pending":
        raise NotOpen(state)
    return replace(found, approved_at=now, approved_by=by, ends_at=now + found.use_within)


def deny(found: Approval, by: str, now: int) -> Approval:
    """Somebody says no: also to what was approved, and not used yet. It stays so for as long as was left.

    Raises:
        NotOpen: It was used, or its time is over.
    """
    state = found.state(now)
    if state == "denied":
        return found
    if state not in ("pending", "approved"):
        raise NotOpen(state)
    return replace(found, denied_at=now, denied_by=by)


def user_says(found: Approval, digest: bytes, by: str, now: int, *, yes: bool) -> Approval:
    """The caller's own user says yes or no, where the rule leaves it to them.

    Raises:
        NotOpen: Too late; or they were not asked about this call, or not they.
    """
    if found.digest != digest or found.by != "user":
        raise NotOpen(found.state(now))
    return (approve if yes else deny)(found, by, now)


def is_own(found: Approval, principal: Principal) -> bool:
    """Is this the one whose call it is, by whatever client, or one who acts for them in it; or does one of these act
    for somebody else now? Or is it the very agent that made the call, with somebody else's token: it holds both."""
    same = (found.issuer, found.subject) == (principal.issuer, principal.subject)
    agent = bool(found.client) and (found.issuer, found.client) == (principal.issuer, principal.client)
    acting = {found.subject, *found.actors}
    return same or agent or principal.subject in found.actors or not acting.isdisjoint(principal.actors)
