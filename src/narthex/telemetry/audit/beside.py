"""The process beside the gateway that works on its journal: keeps the index up to date, searches in it, and sends
records elsewhere. Nothing of that costs the gateway's loop more than a frame.

`python -m narthex.telemetry.audit.beside`, its socket as stdin. In: frames of four bytes of length and a document:
first a `Task`, then `Question`s. Out: a frame with an `Answer` for each, in order. It ends when its socket does,
and is the first to wait where the machine is busy. Cases: `tests/telemetry/audit/test_keeper.py`.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from narthex.errors import StoreError
from narthex.telemetry.audit.exports.pump import Pump
from narthex.telemetry.audit.exports.sink import Sink, SinkSpec
from narthex.telemetry.audit.exports.tail import Tail
from narthex.telemetry.audit.frames import Answer, Question, Task
from narthex.telemetry.audit.index.cursors import read_cursor, show_cursor
from narthex.telemetry.audit.index.find import Finder
from narthex.telemetry.audit.index.follow import Follower
from narthex.telemetry.audit.index.place import Where

POLL_S = 0.5
LAST_S = 3.0
"""How long those that send get to hear that what they sent has come."""
NICE = 19
"""The last of all in the session, which is the gateway's."""


class Beside:
    """The work, on threads: one follows the journal, one for each sink; questions are answered on the caller's."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._stop = threading.Event()
        self._problem = ""
        self._asking: tuple[Follower, Finder] | None = None
        self._pumps = [self._pump(one) for one in task.sinks]
        work = [pump.run for pump in self._pumps] + ([self._follow] if task.index else [])
        self._threads = [threading.Thread(target=one, daemon=True) for one in work]

    def start(self) -> None:
        for one in self._threads:
            one.start()

    def stop(self) -> None:
        """Whatever is under way may end, for as long as `LAST_S`."""
        self._stop.set()
        for one in self._threads:
            one.join(LAST_S)

    def answer(self, question: Question) -> Answer:
        """Never raises."""
        answer = Answer(problem=self._problem, exports=[pump.state for pump in self._pumps])
        if question.wanted is None:
            return answer
        try:
            before = read_cursor(question.wanted, question.cursor) if question.cursor else 0
            if not self._task.index:
                raise StoreError("audit.index is off")
            follower, finder = self._opened()
            follower.catch_up()  # what was written since the last look
            page = finder.page(question.wanted, before=before, limit=question.limit)
        except ValueError as error:
            answer.error, answer.refused = str(error), True
        except StoreError as error:
            answer.error, self._asking = error.problem, None
        except Exception as error:
            answer.error, self._asking = f"{type(error).__name__}: {error}", None
        else:
            answer.records, answer.unread = page.records, page.unread
            answer.next = show_cursor(question.wanted, page.next)
        return answer

    def _opened(self) -> tuple[Follower, Finder]:
        if self._asking is not None and not self._asking[0].usable:
            self._asking = None
        if self._asking is None:
            folder, where = Path(self._task.folder), self._where()
            follower = Follower(folder, where)
            self._asking = follower, Finder(folder, where, follower.connection)
        return self._asking

    def _where(self) -> Where:
        return Path(self._task.index) if isinstance(self._task.index, str) else self._task.index

    def _follow(self) -> None:
        follower: Follower | None = None
        while not self._stop.is_set():
            try:
                if follower is None:
                    follower = Follower(Path(self._task.folder), self._where())
                follower.catch_up()
                self._problem = ""
            except StoreError as error:
                self._problem, follower = error.problem, None
            except Exception as error:  # it is followed on, whatever stands in it
                self._problem, follower = f"{type(error).__name__}: {error}", None
            self._stop.wait(POLL_S)

    def _pump(self, spec: SinkSpec) -> Pump:
        from narthex.store.exports import ExportBook

        book = ExportBook(self._task.store, spec.name, self._task.journal)
        tail = Tail(Path(self._task.folder), {})
        return Pump(spec.name, tail, sink_of(spec), book, stop=self._stop, chance=random.random)


def sink_of(spec: SinkSpec) -> Sink:
    """The sink that an address names."""
    if spec.url.startswith("syslog+tls://"):
        from narthex.telemetry.audit.exports.syslog import SyslogSink

        return SyslogSink(spec)
    from narthex.telemetry.audit.exports.otlp import OtlpSink

    return OtlpSink(spec)


def main(line: socket.socket) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the gateway drains, and ends us
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    incoming = line.makefile("rb")
    beside = Beside(msgspec.json.decode(read_frame(incoming), type=Task))
    beside.start()
    with suppress(OSError):  # whoever asked has gone
        while body := read_frame(incoming):
            answer = beside.answer(msgspec.json.decode(body, type=Question))
            send_frame(line, msgspec.json.encode(answer))
    beside.stop()
    os._exit(0)  # a thread that still waits for a receiver holds up nothing


def read_frame(incoming: BinaryIO) -> bytes:
    """The next frame; empty at the end."""
    size = incoming.read(4)
    return incoming.read(int.from_bytes(size)) if len(size) == 4 else b""


def send_frame(line: socket.socket, body: bytes) -> None:
    line.sendall(len(body).to_bytes(4) + body)


if __name__ == "__main__":
    main(socket.socket(fileno=0))
