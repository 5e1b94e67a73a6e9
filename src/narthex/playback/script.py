"""What the record answers to an agent, call by call; and what the agent did otherwise than the record.

A call is answered by the first recorded one that is the same and was not given yet: the same tool, prompt or resource
with the same arguments. Once all of them are given, the last one answers again, or none does. In: `Recorded` calls,
calls of an agent. Out: answers, a `Report`. Pure. Cases: `tests/playback/test_script.py`, its properties too.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from narthex.errors import NotRecorded
from narthex.flow.route.names import SEPARATOR
from narthex.playback.arguments import canonical, differing, digest, keys_of
from narthex.playback.recorded import REDACTED, Recorded
from narthex.types import Kind

MOST_OTHERS: Final = 10_000
"""Calls that the record does not have, of which each is told; further ones are counted."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""Of the arguments of those: an agent that goes in circles must not take the machine's memory."""
Redact = Callable[[bytes], bytes | None]
"""Arguments -> the same as they would have been kept; None for what cannot be read."""
Place = tuple[Kind, str, str]


class Given(msgspec.Struct, frozen=True):
    """An answer: the value of `result`, or of `error`."""

    body: bytes
    is_error: bool


class Other(msgspec.Struct, frozen=True):
    """A call that the record does not have."""

    what: str
    arguments: bytes = b""
    place: Place | None = None
    """None: it leads nowhere."""


class Change(msgspec.Struct, frozen=True):
    """A call that was made with other arguments than the recorded one in whose place it stands. `members`: the names of
    those that differ, as far as the recorded ones were kept."""

    what: str
    record: str
    members: tuple[str, ...] = ()


class Told(msgspec.Struct, frozen=True):
    """Calls of one name: `new` ones, those that are `missing`, or were made `again`; or why they have no answer."""

    what: str
    count: int
    why: str = ""


class Report(msgspec.Struct, frozen=True):
    """What an agent did, held against the record.

    `same`: calls that were answered by the record. `changed`, `new`, `missing`: see `Change` and `Told`. `again`: made
    more often than they are recorded. `unanswered`: recorded, and made, and the answer is not there.
    """

    recorded: int
    same: int
    changed: tuple[Change, ...] = ()
    new: tuple[Told, ...] = ()
    missing: tuple[Told, ...] = ()
    again: tuple[Told, ...] = ()
    unanswered: tuple[Told, ...] = ()

    @property
    def is_same(self) -> bool:
        """Did the agent just what is recorded, and was it answered?"""
        return not (self.changed or self.new or self.missing or self.again or self.unanswered)


class Script:
    """The recorded calls of one run.

    Args:
        repeats: Does the last of the same calls answer again, once all were given? Else that is an error.
        redact: How arguments are redacted that are recorded so.
    """

    def __init__(self, calls: Iterable[Recorded], redact: Redact, *, repeats: bool = True) -> None:
        self.calls: Final = tuple(calls)
        self._order = {id(one): at for at, one in enumerate(self.calls)}
        self._redact, self._repeats = redact, repeats
        self._same: dict[tuple[Place, str], deque[Recorded]] = {}
        self._nowhere: dict[tuple[str, str], deque[Recorded]] = {}
        self._others: list[Other] = []
        self._more = self._bytes = 0
        for one in self.calls:
            if one.server:
                for key in (*one.keys, *((one.loose,) if one.loose else ())):
                    self._same.setdefault((_place(one), key), deque()).append(one)
            if not one.server or not one.listed:
                self._nowhere.setdefault((one.method, one.shown or one.what), deque()).append(one)
        self._has_loose = {_place(one) for one in self.calls if one.loose}

    def answer(self, kind: Kind, server: str, name: str, arguments: bytes) -> Given:
        """What the record answers to this call.

        Raises:
            NotRecorded: It has no such call, or no answer to it.
        """
        place = (kind, server, name)
        found = self._next(place, arguments)
        what = f"{server}{SEPARATOR}{name}"
        if found is None:
            self._other(Other(what, arguments, place))
            raise NotRecorded(f"the record has no such call: {what[:256]} with these arguments")
        found.asked += 1
        if found.asked > 1 and not self._repeats:
            raise NotRecorded(f"the record has no more of these calls: {what[:256]} with these arguments")
        if found.why:
            raise NotRecorded(f"the record {found.id[:64]} of this call has no answer: {found.why}")
        return Given(found.answer, found.is_error)

    def refused(self, method: str, shown: str) -> None:
        """The agent has called what no list names: as recorded, or not."""
        same = self._nowhere.get((method, shown))
        if same is None:
            self._other(Other(shown))
        else:
            _foremost(same).asked += 1

    def _next(self, place: Place, arguments: bytes) -> Recorded | None:
        """The first of the same calls that was not given yet; else the last of them; None: there is none."""
        heads = [_foremost(same) for key in keys_of(arguments) if (same := self._same.get((place, key)))]
        if not heads and place in self._has_loose and (kept := self._redact(arguments)) is not None:
            same = self._same.get((place, REDACTED + digest(canonical(kept) or kept)))
            heads = [_foremost(same)] if same else []
        fresh = [one for one in heads if not one.asked]
        if fresh:
            return min(fresh, key=lambda one: self._order[id(one)])
        return max(heads, key=lambda one: self._order[id(one)]) if heads else None

    def _other(self, one: Other) -> None:
        self._bytes += len(one.what) + len(one.arguments)
        if len(self._others) < MOST_OTHERS and self._bytes <= MOST_BYTES:
            self._others.append(one)
        else:
            self._more += 1

    def report(self) -> Report:
        """What the agent did so far. What was called with other arguments is held against what was not called."""
        missing, changed, new = [one for one in self.calls if not one.asked], [], []
        left: dict[Place, deque[Recorded]] = {}
        for one in missing:
            if one.server:
                left.setdefault(_place(one), deque()).append(one)
        taken = set()
        for other in self._others:
            before = left.get(other.place) if other.place is not None else None
            if before:
                one = before.popleft()
                taken.add(id(one))
                changed.append(Change(other.what, one.id, differing(one.arguments, other.arguments)))
            else:
                new.append(other.what)
        more = (Told("further calls", self._more),) if self._more else ()
        return Report(
            len(self.calls),
            sum(1 for one in self.calls if one.asked and not one.why),
            tuple(changed),
            (*_told(new), *more),
            _told(one.what for one in missing if id(one) not in taken),
            tuple(Told(what, count) for what, count in _again(self.calls).items()),
            tuple(Told(one.what, one.asked, one.why) for one in self.calls if one.asked and one.why),
        )


def _place(one: Recorded) -> Place:
    return one.kind, one.server, one.name


def _foremost(same: deque[Recorded]) -> Recorded:
    """The first that was not given, else the last. Those before it are let go: nobody asks for them any more."""
    while len(same) > 1 and same[0].asked:
        same.popleft()
    return same[0]


def _told(names: Iterable[str]) -> tuple[Told, ...]:
    return tuple(Told(what, count) for what, count in Counter(names).items())


def _again(calls: Iterable[Recorded]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in calls:
        if one.asked > 1:
            found[one.what] += one.asked - 1
    return found
