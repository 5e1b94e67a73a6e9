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
        "arguments_digest", "result_digest", "trace", "at", "seq", "id", "begun", "waits",
    }
)  # fmt: skip
"""Members of an entry that a frame leaves open; beside whether it was sent to a server, has arguments, which parts of a
trace it has, and whether its begin was recorded, which are part of what a frame is found by."""
DISK: Final = "disk"
"""What a call whose begin was recorded has waited for, and for nothing else."""
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
    """What differs in one record: sizes in bytes, durations in seconds; `at`, seconds since 1970, and `seq`, its number
    in the chain, are set by the journal.

    Args:
        begins: It says that a call begins: of the numbers it has `bytes_in` alone. begun: the record that has said so,
            and is sealed before this one; None where there is none. disk_seconds: what the call has waited for that.
        done: As of an entry.
    """

    __slots__ = (
        "admission_seconds", "answer_seconds", "arguments_digest", "at", "begins", "begun", "bytes_in", "bytes_out",
        "disk_seconds", "done", "frame", "request", "result_digest", "seconds", "seq", "server_seconds", "trace",
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
        begins: bool = False,
        begun: Any = None,
        disk_seconds: float = 0.0,
        done: Callable[[str], None] | None = None,
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
        self.begins: Final = begins
        self.begun: Final = begun
        self.disk_seconds: Final = disk_seconds
        self.done = done
        self.seq = 0

    def sealed(self, id_: str, seq: int) -> bytes:
        """The record as a line of the chain begins, up to its number."""
        request = self.request
        text = request.decode() if request.isdigit() else _encode(request.decode(errors="replace"))[1:-1].decode()
        said = [id_, stamp(self.at), str(self.bytes_in)]
        if not self.begins:
            self._say_how_it_went(said)
        said.append(text)
        if self.arguments_digest:
            said.append(self.arguments_digest)
        if self.result_digest:
            said.append(self.result_digest)
        if self.trace[0]:
            said += [one for one in self.trace if one]
        said.append(str(seq))
        pieces = self.frame.pieces.copy()
        pieces[1::2] = said  # a format would look at each character of what stands between
        return "".join(pieces).encode()

    def _say_how_it_went(self, said: list[str]) -> None:
        admission, answer, sent = self.admission_seconds, self.answer_seconds, self.server_seconds > 0.0
        said += (str(self.bytes_out), show_seconds(self.seconds))
        asked = upstream = show_seconds(self.server_seconds) if sent else ""
        if self.begun is not None:
            said.append(str(self.begun.seq))
            behind = self.seconds - answer - admission - self.disk_seconds
            upstream = show_seconds(behind if behind > 0.0 else 0.0)
        if sent:
            said.append(asked)
        said.append(show_seconds(admission if admission > 0.0 else 0.0))
        if self.begun is not None:
            said.append(show_seconds(self.disk_seconds))
        if sent:
            said.append(upstream)
        said.append(show_seconds(answer))


def seal_all(queue: deque[Any], most: int, ids: Ids, chain: Chain, lines: list[bytes], waiting: list[Short]) -> int:
    """Make lines of the records at the front of a queue that have a frame, `most` of them at most. Returns how many:
    they are no longer in the queue. Those that somebody waits for are added to `waiting`. Raises what making a line of
    one raises: it is at the front of the queue then."""
    count = 0
    while count < most and queue and isinstance(one := queue[0], Short):
        lines.append(chain.link(one.sealed(ids.next(one.at), chain.seq + 1)))
        queue.popleft()
        one.seq = chain.seq
        if one.done is not None:
            waiting.append(one)
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
        result = result if entry.result_digest else ""
        size_in, size_out, begin, server, admission, disk, upstream, answer = (
            1 << 49 | int.from_bytes(self._random(6), "big") for _ in range(8)
        )  # so that what four of them add up to is exact, also as a float
        sent, begun, begins = entry.server_seconds > 0, entry.begun is not None, entry.event == "begin"
        blank = msgspec.structs.replace(
            entry, bytes_in=size_in, request=request.encode(), arguments_digest=arguments, result_digest=result,
            trace=(place, above, told),
        )  # fmt: skip
        marks = [id_, stamp(entry.at), str(size_in)]
        if not begins:
            if begun:
                blank.begun, blank.waits = msgspec.structs.replace(entry, seq=begin), {DISK: disk}
            else:
                upstream = server
            blank.bytes_out, blank.server_seconds = size_out, server if sent else 0.0
            blank.admission_seconds, blank.answer_seconds = admission, answer
            blank.seconds = admission + disk + upstream + answer
            shown = [show_seconds(one) for one in (blank.seconds, server, admission, disk, upstream, answer)]
            there = (True, sent, True, begun, sent, True)
            times = [text for text, is_there in zip(shown, there, strict=True) if is_there]
            marks += [str(size_out), times[0], *([str(begin)] if begun else []), *times[1:]]
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
