"""Records that say, but for a few members, what others have said: the rest of their text is kept ready.

In: the `Entry` of a call, on the path of it. Out: a `Short`, which holds numbers and texts and nothing of the call, and
whose line is the one that `line_of` would give; or None: then the entry is kept and `line_of` does it, off the path.
What a caller's calls of one tool have in common is most of a record, and making it anew for each costs more than all
the rest of the journal.
Cases: `tests/telemetry/test_frames.py`, which compares both.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

import msgspec

from narthex.telemetry.record import LONGEST, NO_TRACE, Entry, line_of
from narthex.telemetry.stamps import stamp

MOST: Final = 4096
"""Frames that are kept, of a kilobyte or two each; when there are more, all begin anew, at most every so often."""
RENEW_S: Final = 10.0
FILLED: Final = frozenset(
    {
        *("request", "bytes_in", "bytes_out", "seconds", "server_seconds", "admission_seconds", "answer_seconds"),
        *("arguments_digest", "result_digest", "trace", "at", "seq", "id"),
    }
)
"""Members of an entry that a frame leaves open. All others are part of what it is found by: a member that is new makes
records no less true, at most dearer."""
_REFERENCES: Final = frozenset({"principal", "check", "dialect"})
"""What it is found by as the object that it is: equal ones are not looked for."""
_RARE: Final[dict[str, str | None]] = {
    **dict.fromkeys(("call", "trial", "begun", "done", "keep", "notes", "tokens", "waits")),
    **dict.fromkeys(("reason", "decision_id"), ""),
}
"""An entry that has something else here is a record of its own."""
_rare: Final = attrgetter(*_RARE)
_PLAIN: Final = tuple(_RARE.values())
_common: Final = attrgetter(*(set(Entry.__struct_fields__) - FILLED - _REFERENCES - _RARE.keys()))
_encode: Final = msgspec.json.Encoder().encode


class Frame:
    """The text around what differs, as a format, and the objects by which it was found: as long as it is kept, they
    are."""

    __slots__ = ("_of", "text")

    def __init__(self, text: str, of: tuple[Any, ...]) -> None:
        self.text: Final = text
        self._of: Final = of


class Short:
    """What differs in one record, for which nobody waits. `at`: seconds since 1970."""

    __slots__ = (
        "_admission", "_answer", "_bytes_in", "_bytes_out", "_digest", "_frame", "_more", "_request", "_result",
        "_seconds", "_server", "at",
    )  # fmt: skip

    def __init__(self, frame: Frame, entry: Entry) -> None:
        self._frame = frame
        self._request = entry.request
        self._bytes_in = entry.bytes_in
        self._bytes_out = entry.bytes_out
        self._seconds = entry.seconds
        self._server = entry.server_seconds
        self._admission = entry.admission_seconds
        self._answer = entry.answer_seconds
        self._digest = entry.arguments_digest
        self._result = entry.result_digest
        self._more = entry.trace
        self.at = entry.at

    @property
    def done(self) -> None:
        """Nobody."""

    def line(self, id_: str) -> bytes:
        """The record, an object of JSON without line ends."""
        request = self._request
        text = request.decode() if request.isdigit() else _encode(request.decode(errors="replace"))[1:-1].decode()
        server, admission = self._server, self._admission
        if admission < 0.0:
            admission = 0.0
        said: tuple[Any, ...] = (id_, stamp(self.at), self._bytes_in, self._bytes_out, self._seconds)
        if server > 0.0:
            said += (server, admission, server, self._answer, text, self._digest, self._result)
        else:
            said += (admission, self._answer, text, self._digest, self._result)
        if self._more is not NO_TRACE:
            said += tuple([one for one in self._more if one])
        return (self._frame.text % said).encode()


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
        check = entry.check
        taken = entry.taken
        if _rare(entry) != _PLAIN or (taken is not None and not taken.usual) or entry.answer_seconds <= 0.0:
            return None
        if not entry.arguments_digest or not entry.result_digest or not 0 < len(entry.request) <= LONGEST:
            return None
        decision = target = None
        kind = ""
        if check is not None:
            decision, target, kind = check.decision, check.target, check.kind
        place = (target.server, target.name) if target is not None else None
        shape = tuple(map(bool, entry.trace)) if entry.trace is not NO_TRACE else None
        key = (
            id(entry.principal), id(decision), id(entry.dialect), kind, place, shape, entry.server_seconds > 0,
            _common(entry),
        )  # fmt: skip
        known = self._known.get(key, self)
        if isinstance(known, Frame):
            return Short(known, entry)
        if known is None:
            frame = self._known[key] = self._made(entry, (entry.principal, decision, entry.dialect))
            return Short(frame, entry) if frame is not None else None
        if len(self._known) < MOST:
            self._known[key] = None  # most callers of a crowd come once
        elif not 0.0 <= entry.at - self._renewed < RENEW_S:
            self._known.clear()
            self._renewed = entry.at
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
        seconds, server, admission, answer = ((f"{number:.6f}", "%.6f") for number in numbers[2:])
        marks = [(id_, "%s"), (stamp(entry.at), "%s"), (str(numbers[0]), "%d"), (str(numbers[1]), "%d"), seconds]
        marks += [server, admission, server, answer] if sent else [admission, answer]
        marks += [(mark, "%s") for mark in (request, arguments, result, place, above, told) if mark]
        text = ""
        try:
            rest = line_of(blank, id_).decode()
        except Exception:  # text that is no Unicode, say: it is said where the entry itself is written
            return None
        for mark, form in marks:
            before, found, rest = rest.partition(mark)
            if not found:
                return None
            text += before.replace("%", "%%") + form
        return Frame(text + rest.replace("%", "%%"), of)
