"""Records that say, but for a few members, what others have said: the rest of their text is kept ready.

In: on the path of a call, what its record has in common with others (`flow/accept/likeness.py`) and what it differs by.
Out: a `Short`, which holds numbers and texts and nothing of the call, and whose line is the one that `line_of` would
give; or no frame yet: then an `Entry` is made, and `line_of` does it, off the path. What a caller's calls of one tool
have in common is most of a record, and making it anew for each costs more than all the rest of the journal.
Cases: `tests/telemetry/test_frames.py`, which compares both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from narthex.telemetry.audit.chain import SEQ, Chain
from narthex.telemetry.record import NO_TRACE, Entry, line_of
from narthex.telemetry.stamps import Ids, show_seconds, stamp

MOST: Final = 4096
"""Frames that are kept, of a kilobyte or two each; when there are more, all begin anew, at most every so often."""
RENEW_S: Final = 10.0
OPEN: Final = frozenset(
    {
        "request", "bytes_in", "bytes_out", "seconds", "server_seconds", "admission_seconds", "answer_seconds",
        "arguments_digest", "result_digest", "trace", "at", "seq", "id",
    }
)  # fmt: skip
"""Members of an entry that a frame leaves open; beside whether it was sent to a server, has arguments, and which parts
of a trace it has, which are part of what a frame is found by."""
_encode: Final = msgspec.json.Encoder().encode
_SEQ: Final = SEQ.decode()
Likeness = tuple[Any, ...]
"""What records have in common that share a frame."""


class Frame:
    """The text around what differs, with room for that in every second place, and the objects by which it was found: as
    long as it is kept, they are."""

    __slots__ = ("_of", "pieces")

    def __init__(self, pieces: list[str], of: tuple[Any, ...]) -> None:
        self.pieces: Final = pieces
        self._of: Final = of


class Short:
    """What differs in one record, for which nobody waits: sizes in bytes, durations in seconds; `at`, seconds since
    1970, is set by the journal."""

    __slots__ = (
        "admission_seconds", "answer_seconds", "arguments_digest", "at", "bytes_in", "bytes_out", "frame", "request",
        "result_digest", "seconds", "server_seconds", "trace",
    )  # fmt: skip

    def __init__(
        self,
        frame: Frame,
        request: bytes,
        bytes_in: int,
        bytes_out: int,
        seconds: float,
        server_seconds: float,
        admission_seconds: float,
        answer_seconds: float,
        arguments_digest: str,
        result_digest: str,
        trace: tuple[str, str, str] = NO_TRACE,
        at: float = 0.0,
    ) -> None:
        self.frame: Final = frame
        self.request: Final = request
        self.bytes_in: Final = bytes_in
        self.bytes_out: Final = bytes_out
        self.seconds: Final = seconds
        self.server_seconds: Final = server_seconds
        self.admission_seconds: Final = admission_seconds
        self.answer_seconds: Final = answer_seconds
        self.arguments_digest: Final = arguments_digest
        self.result_digest: Final = result_digest
        self.trace: Final = trace
        self.at = at

    @property
    def done(self) -> None:
        """Nobody."""

    def sealed(self, id_: str, seq: int) -> bytes:
        """The record as a line of the chain begins, up to its number."""
        request = self.request
        text = request.decode() if request.isdigit() else _encode(request.decode(errors="replace"))[1:-1].decode()
        admission, behind = self.admission_seconds, show_seconds(self.answer_seconds)
        before = show_seconds(admission if admission > 0.0 else 0.0)
        said = [id_, stamp(self.at), str(self.bytes_in), str(self.bytes_out), show_seconds(self.seconds)]
        if self.server_seconds > 0.0:
            asked = show_seconds(self.server_seconds)
            said += (asked, before, asked, behind, text)
        else:
            said += (before, behind, text)
        if self.arguments_digest:
            said.append(self.arguments_digest)
        said.append(self.result_digest)
        if self.trace is not NO_TRACE:
            said += [one for one in self.trace if one]
        said.append(str(seq))
        pieces = self.frame.pieces.copy()
        pieces[1::2] = said  # a format would look at each character of what stands between
        return "".join(pieces).encode()


def seal_all(queue: deque[Any], most: int, ids: Ids, chain: Chain, lines: list[bytes]) -> int:
    """Make lines of the records at the front of a queue that have a frame, `most` of them at most. Returns how many:
    they are no longer in the queue."""
    count = 0
    while count < most and queue and isinstance(one := queue[0], Short):
        queue.popleft()
        lines.append(chain.link(one.sealed(ids.next(one.at), chain.seq + 1)))
        count += 1
    return count


class Frames:
    """Those of a journal. Belongs to the event loop.

    Args:
        random: So many bytes of chance: what marks the open places of a text stands nowhere else in it.
        put: Takes each record that was found a frame for.
    """

    def __init__(self, random: Callable[[int], bytes], put: Callable[[Short], None]) -> None:
        self.put: Final = put
        self._random = random
        self._known: dict[Likeness, Frame | None] = {}
        self._renewed = 0.0

    def find(self, likeness: Likeness) -> Frame | None:
        """The frame of all that are like this."""
        return self._known.get(likeness)

    def learn(self, likeness: Likeness, of: tuple[Any, ...], entry: Entry, now: float) -> None:
        """An entry that had no frame: from the second one on there is one for those that are like it. Never raises.

        Args:
            of: The objects that its likeness names as the objects that they are. now: seconds.
        """
        known = self._known
        if likeness in known:
            known[likeness] = self._made(entry, of)
        elif len(known) < MOST:
            known[likeness] = None  # most callers of a crowd come once
        elif not 0.0 <= now - self._renewed < RENEW_S:
            known.clear()
            self._renewed = now

    def _made(self, entry: Entry, of: tuple[Any, ...]) -> Frame | None:
        id_, request, arguments, result, trace, parent, span = (self._random(8).hex() for _ in range(7))
        place, above, told = (mark if one else "" for mark, one in zip((trace, parent, span), entry.trace, strict=True))
        arguments = arguments if entry.arguments_digest else ""
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
        return Frame([*pieces, rest[:-1] + _SEQ, "", ""], of)
