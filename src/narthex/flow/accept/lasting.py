"""A call whose records wait for the disk: one that it begins, before anything is sent to a server, and one that it has
ended, before the client gets the last byte of its answer.

In: an exchange, and word from the journal. Out: the walk goes on, the answer is written; or neither, where what cannot
be recorded is not done. Cases: `tests/flow/accept/test_lasting.py`, `tests/e2e/test_durable.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from narthex.errors import AuditUnavailable
from narthex.flow.accept.likeness import learn, likeness_of, short_begin_of
from narthex.flow.accept.recording import begin_of
from narthex.flow.codec.failures import for_era
from narthex.flow.codec.jsonrpc import encode_error
from narthex.flow.route.target import Target
from narthex.telemetry.accounts import OUTCOME
from narthex.telemetry.frames import Short
from narthex.telemetry.record import Entry

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange

SLOW = "the disk takes too long"


class Lasting:
    """The two records of one exchange. Word comes on the event loop, once for each."""

    __slots__ = ("_begun", "_blocks", "_deadline", "_exchange", "_held_at", "_is_there", "_went_on", "_write", "begins")

    def __init__(self, exchange: Exchange, *, blocks: bool) -> None:
        self._exchange = exchange
        self._blocks = blocks
        self._begun: Entry | Short | None = None
        self._write: Callable[[], None] | None = None
        self._deadline = self._held_at = 0.0
        self._went_on = self._is_there = False
        self.begins = False
        """The walk waits for the first record."""

    # --- before anything is sent

    def begin(self, record: Callable[[Entry], None]) -> None:
        """Record that the call begins; the walk goes on when that is on the disk."""
        one = self._exchange
        self.begins = True
        until = one.front.clock() + one.front.snapshot.audit_wait_s  # the sweep looks once a second
        self._deadline, one.deadline = one.deadline, min(one.deadline, until)
        front = one.front
        frames, snapshot = front.frames, front.snapshot
        likeness = likeness_of(one, snapshot, OUTCOME["ok"], begins=True) if frames is not None else None
        if frames is not None and likeness is not None:
            short = short_begin_of(one, frames, likeness, self.begun)
            if short is not None:
                self._begun = short
                frames.put(short)
                return
        self._begun = entry = begin_of(one, snapshot)
        if frames is not None and likeness is not None:
            learn(one, frames, likeness, entry, front.clock())
        entry.done = self.begun
        record(entry)

    def begun(self, problem: str) -> None:
        """Word of the first record."""
        one = self._exchange
        if not self.begins:
            return
        self.begins = False
        if one.over:
            return
        one.deadline = self._deadline
        self._is_there = not problem
        if problem and self._blocks:
            one.fail(AuditUnavailable(problem), by_client=True)
        else:
            self._went_on = True
            one.go_on(None)

    # --- before the last byte of the answer

    @property
    def holds(self) -> bool:
        """An answer waits."""
        return self._write is not None

    def hold(self, write: Callable[[], None]) -> None:
        """Keep an answer back until its record, which is made next, is on the disk.

        The disk gets its whole time, even where the call's own is over: its error waits as well. The client has as
        long as ever to take the answer, from when it is written on.
        """
        one = self._exchange
        self._write, self._held_at = write, one.front.clock()
        self._deadline, one.deadline = one.deadline, self._held_at + one.front.snapshot.audit_wait_s

    @property
    def record(self) -> Entry | Short | None:
        """The first record, where it is on the disk."""
        return self._begun if self._is_there else None

    @property
    def done(self) -> Callable[[str], None] | None:
        """Who waits for the second one."""
        return self.recorded if self._write is not None else None

    def ended(self, entry: Entry) -> None:
        """The record of the end: whoever waits for it is told."""
        entry.begun = self._begun
        if self._begun is not None:
            entry.arguments = entry.task = None  # they were kept then
        entry.done = self.done

    def recorded(self, problem: str) -> None:
        """Word of the second record."""
        one, write = self._exchange, self._write
        if write is None:
            return  # it came too late
        self._write, one.deadline = None, self._deadline + one.front.clock() - self._held_at
        if problem and self._blocks:
            self._withhold(problem)
        else:
            write()
        if one.over:
            one.leave()

    def _withhold(self, problem: str) -> None:
        """Answer with an error in the place of an answer that could not be recorded."""
        one = self._exchange
        front, error = one.front, AuditUnavailable(problem, sent=self._went_on)
        id_ = front.decode_id(one.call.id_json)
        one.write_error(error, encode_error(id_, for_era(error, one.call.era), front.new_id()))

    def expire(self) -> bool:
        """The disk was waited for long enough. False where nothing waits for it."""
        if self._write is not None:
            self.recorded(SLOW)
        elif self.begins:
            self.begun(SLOW)
        else:
            return False
        return True


def lasting_of(one: Exchange, target: Target | None) -> Lasting | None:
    """None where its records wait for nothing. Raises AuditUnavailable: there is no room for any."""
    front = one.front
    if front.durability is None or front.record is None:
        return None
    rule = front.durability.get(one.call.endpoint) or front.durability[""]
    if rule.blocks and front.is_full():
        raise AuditUnavailable("the queue of records is full")
    return Lasting(one, blocks=rule.blocks) if rule.asks(one.call.method, target) else None


def when_recorded(lasting: Lasting | None, write: Callable[[], None]) -> None:
    """Write an answer: at once, or when the record that is made next is on the disk."""
    if lasting is None:
        write()
    else:
        lasting.hold(write)
