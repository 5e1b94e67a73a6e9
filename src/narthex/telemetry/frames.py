"""Records that say, but for a few members, what others have said: the rest of their text is kept ready.

In: the `Entry` of a call, on the path of it. Out: a `Short`, which holds numbers and texts and nothing of the call, and
whose line is the one that `line_of` would give; or None: then the entry is kept and `line_of` does it, off the path.
What a caller's calls of one tool have in common is most of a record, and making it anew for each costs more than all
the rest of the journal.
Cases: `tests/telemetry/test_frames.py`, which compares both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from narthex.flow.limit.spending import Taken
from narthex.flow.policy.check import Check
from narthex.telemetry.record import LONGEST, NO_TRACE, Entry, line_of
from narthex.telemetry.stamps import show_seconds, stamp

MOST: Final = 4096
"""Frames that are kept, of a kilobyte or two each; when there are more, all begin anew, at most every so often."""
RENEW_S: Final = 10.0
_OPEN: Final = (
    "request", "bytes_in", "bytes_out", "seconds", "server_seconds", "admission_seconds", "answer_seconds",
    "arguments_digest", "result_digest", "trace", "at",
)  # fmt: skip
FILLED: Final = frozenset({*_OPEN, "seq", "id"})
"""Members of an entry that a frame leaves open. All others are part of what it is found by: a member that is new makes
records no less true, at most dearer."""
_REFERENCES: Final = ("principal", "check", "dialect")
"""What it is found by as the object that it is: equal ones are not looked for."""
_RARE: Final[dict[str, object]] = {
    **dict.fromkeys(("call", "trial", "begun", "done", "keep", "notes", "tokens", "waits", "did")),
    **dict.fromkeys(("reason", "decision_id"), ""),
    "asked": (),
}
"""An entry that has something else here is a record of its own."""
_PLAIN: Final = tuple(_RARE.values())
_FIELDS: Final = Entry.__struct_fields__


def _getter(names: Iterable[str]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Takes these out of all members of an entry, as `astuple` gives them: to ask for each by name costs far more."""
    return itemgetter(*map(_FIELDS.index, names))


_rare: Final = _getter(_RARE)
_open: Final = _getter(_OPEN)
_references: Final = _getter((*_REFERENCES, "taken"))
_common: Final = _getter([one for one in _FIELDS if one not in FILLED.union(_REFERENCES, _RARE)])
_encode: Final = msgspec.json.Encoder().encode


class Frame:
    """The text around what differs, with room for that in every second place, and the objects by which it was found: as
    long as it is kept, they are."""

    __slots__ = ("_of", "pieces")

    def __init__(self, pieces: list[str], of: tuple[Any, ...]) -> None:
        self.pieces: Final = pieces
        self._of: Final = of


class Short:
    """What differs in one record, for which nobody waits. `at`: seconds since 1970."""

    __slots__ = ("_frame", "_open", "at")

    def __init__(self, frame: Frame, open_: tuple[Any, ...], at: float) -> None:
        self._frame: Final = frame
        self._open: Final = open_
        self.at: Final = at

    @property
    def done(self) -> None:
        """Nobody."""

    def line(self, id_: str) -> bytes:
        """The record, an object of JSON without line ends."""
        request, bytes_in, bytes_out, seconds, server, admission, answer, arguments, result, trace, _ = self._open
        text = request.decode() if request.isdigit() else _encode(request.decode(errors="replace"))[1:-1].decode()
        before, behind = show_seconds(admission if admission > 0.0 else 0.0), show_seconds(answer)
        said = [id_, stamp(self.at), str(bytes_in), str(bytes_out), show_seconds(seconds)]
        if server > 0.0:
            asked = show_seconds(server)
            said += (asked, before, asked, behind, text, arguments, result)
        else:
            said += (before, behind, text, arguments, result)
        if trace is not NO_TRACE:
            said += [one for one in trace if one]
        pieces = self._frame.pieces.copy()
        pieces[1::2] = said  # a format would look at each character of what stands between
        return "".join(pieces).encode()


class Frames:
    """Those of a journal. Belongs to the event loop.

    Args:
        random: So many bytes of chance: what marks the open places of a text stands nowhere else in it.
    """

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._known: dict[tuple[Any, ...], Frame | None] = {}
        self._renewed = 0.0

    def short(self, entry: Entry) -> Short | None:
        """The entry, if it says what others have said: from the second time on. Never raises."""
        values = astuple(entry)
        if _rare(values) != _PLAIN:
            return None
        principal, check, dialect, taken = _references(values)
        if isinstance(taken, Taken) and not taken.usual:
            return None
        open_ = _open(values)
        request, _, _, _, sent, _, answered, arguments, result, trace, at = open_
        if answered <= 0.0 or not arguments or not result or not 0 < len(request) <= LONGEST:
            return None
        decision = granted = admission = target = None
        kind = ""
        if isinstance(check, Check):
            if check.watched:
                return None  # what a rule says against its run, and a person has approved: that is rare
            decision, granted, admission = check.decision, check.granted, check.admission
            target, kind = check.target, check.kind
        place = (target.server, target.name) if target is not None else None
        shape = (trace[0] != "", trace[1] != "", trace[2] != "") if trace is not NO_TRACE else None
        key = (
            id(principal), id(decision), id(granted), id(admission), id(dialect), kind, place, shape, sent > 0,
            _common(values),
        )  # fmt: skip
        known = self._known.get(key, self)
        if isinstance(known, Frame):
            return Short(known, open_, at)
        if known is None:
            frame = self._known[key] = self._made(entry, (principal, decision, granted, admission, dialect))
            return Short(frame, open_, at) if frame is not None else None
        if len(self._known) < MOST:
            self._known[key] = None  # most callers of a crowd come once
        elif not 0.0 <= at - self._renewed < RENEW_S:
            self._known.clear()
            self._renewed = at
        return None

    def _made(self, entry: Entry, of: tuple[Any, ...]) -> Frame | None:
        id_, request, arguments, result, trace, parent, span = (self._random(8).hex() for _ in range(7))
        place, above, told = (mark if one else "" for mark, one in zip((trace, parent, span), entry.trace, strict=True))
        numbers = [1 << 62 | int.from_bytes(self._random(7), "big") for _ in range(6)]
        sent = entry.server_seconds > 0
        blank = msgspec.structs.replace(
            entry, bytes_in=numbers[0], bytes_out=numbers[1], seconds=numbers[2], request=request.encode(),
            arguments_digest=arguments, result_digest=result, trace=(place, above, told),
            server_seconds=numbers[3] if sent else 0.0, admission_seconds=numbers[4], answer_seconds=numbers[5],
        )  # fmt: skip
        seconds, server, admission, answer = map(show_seconds, numbers[2:])
        marks = [id_, stamp(entry.at), str(numbers[0]), str(numbers[1]), seconds]
        marks += [server, admission, server, answer] if sent else [admission, answer]
        marks += [mark for mark in (request, arguments, result, place, above, told) if mark]
        pieces: list[str] = []
        try:
            rest = line_of(blank, id_).decode()
        except Exception:  # text that is no Unicode, say: it is said where the entry itself is written
            return None
        for mark in marks:
            before, found, rest = rest.partition(mark)
            if not found:
                return None
            pieces += (before, "")
        return Frame([*pieces, rest], of)
