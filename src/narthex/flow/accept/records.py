"""Records of calls are made at the end of a turn of the event loop, one behind the other.

In: exchanges that have ended, as they are accounted for. Out: what `Front.record` or `Front.frames` takes. What makes a
record is long, and has left the processor's caches when the next call has ended: made together, records cost less than
half. Measured in `docs/decisions/records-in-frames.md`. Cases: `tests/flow/accept/test_records.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from narthex.errors import GatewayError
from narthex.flow.accept.likeness import learn, likeness_of, put_short
from narthex.flow.accept.recording import entry_of
from narthex.flow.policy.evidence.again import Again
from narthex.types import Snapshot

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange

_log: Final = logging.getLogger("narthex.call")


def _at_the_end_of_this_turn(flush: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_soon(flush)


class Ended:
    """A call that was answered, and the configuration by which it was. Members as the arguments of `entry_of`."""

    __slots__ = ("one", "outcome", "seconds", "size", "snapshot", "trial")

    def __init__(
        self, one: Exchange, snapshot: Snapshot, trial: Again | None, outcome: int, seconds: float, size: int
    ) -> None:
        self.one: Final = one
        self.snapshot: Final = snapshot
        self.trial: Final = trial
        self.outcome: Final = outcome
        self.seconds: Final = seconds
        self.size: Final = size


class Records:
    """Those of one front.

    Args:
        schedule: Arranges that what it is given runs once, soon; for a test also at once.
    """

    __slots__ = ("_ended", "_schedule")

    def __init__(self, schedule: Callable[[Callable[[], None]], object] = _at_the_end_of_this_turn) -> None:
        self._ended: list[Ended] = []
        self._schedule = schedule

    def put(self, ended: Ended, error: GatewayError | None, decision_id: str) -> None:
        """Record a call: at once, if what is said of it may be another thing a moment later."""
        one = ended.one
        one.stop_waiting()
        if error is not None or one.front.frames is None or not _stays(one):
            _record(ended, error, decision_id)
            return
        waiting = self._ended
        waiting.append(ended)
        if len(waiting) == 1:
            self._schedule(self.flush)

    def flush(self) -> None:
        """Record those that have ended; one that cannot be recorded costs the others nothing."""
        waiting, self._ended = self._ended, []
        for ended in waiting:
            try:
                _record(ended, None, "")
            except Exception:
                _log.exception("a call could not be recorded")


def _stays(one: Exchange) -> bool:
    """Is the exchange at the end of the turn what it is now? Not where its client may come back, somebody waits for its
    record, or it leaves something behind that is looked at."""
    metered = one.metered
    return (
        one.lasting is None
        and one.caching is None
        and one.inputs is None
        and one.approved is None
        and (metered is None or metered.tokens is None)
    )


def _record(ended: Ended, error: GatewayError | None, decision_id: str) -> None:
    one, snapshot, outcome, seconds, size = ended.one, ended.snapshot, ended.outcome, ended.seconds, ended.size
    front = one.front
    record, frames = front.record, front.frames if error is None else None
    if record is None:
        return
    likeness = likeness_of(one, snapshot, outcome) if frames is not None else None
    if frames is not None and likeness is not None and put_short(one, frames, likeness, outcome, seconds, size):
        return
    entry = entry_of(one, snapshot, ended.trial, outcome, seconds, size, error, decision_id)
    if one.lasting is not None:
        one.lasting.ended(entry)
    if frames is not None and likeness is not None:
        learn(one, frames, likeness, entry, front.clock())
    record(entry)
