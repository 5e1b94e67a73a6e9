"""Logs for the operator: one line each on stderr, as text for people or JSON for machines.

In: records of the standard `logging`, and `Logs.call_line` for the line per call. Out: lines, in order, on stderr.
Lines are written by a thread of their own: stderr is often a pipe, and a reader that stands still must not stop the
gateway. The queue is bounded; when it is full lines are dropped and their number is logged as soon as there is room.
What comes from outside (names, messages of servers) can neither forge a line nor steer a terminal.
Cases: `tests/telemetry/test_log.py`.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, Literal

import msgspec

from narthex.telemetry.accounts import OUTCOMES

LogFormat = Literal["text", "json"]
_COLOURS = {"WARN": "\x1b[33m", "ERROR": "\x1b[31m", "FATAL": "\x1b[31;1m"}
_LEVELS = {"WARNING": "WARN", "CRITICAL": "FATAL"}
_MOST = 4096
_CAPACITY = 8192
_FLUSH_S = 0.02
_FRAMES = 6
_encode = msgspec.json.Encoder().encode


def clean(text: str, most: int = _MOST) -> str:
    """Text from outside made safe for one line: what does not print is escaped, what is too long is cut."""
    if len(text) > most:
        text = text[:most] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def field(text: str, most: int = 128) -> str:
    """A value between blanks: quoted where it could be taken for two, `-` where it is empty."""
    text = clean(text, most)
    if not text:
        return "-"
    return '"' + text.replace('"', '\\"') + '"' if " " in text or '"' in text else text


class Logs:
    """The way out for all lines of a process. `set_up` makes one; `close` writes what is left."""

    def __init__(
        self,
        stream: IO[str],
        format_: LogFormat,
        *,
        wall: Callable[[], float],
        capacity: int,
        hide: Callable[[str], str] = str,
    ) -> None:
        self.dropped = 0
        self.format: LogFormat = format_
        self.colour = format_ == "text" and stream.isatty() and not os.environ.get("NO_COLOR")
        self._fd = stream.fileno()
        self._wall = wall
        self._hide = hide
        self._capacity = capacity
        self._reported = 0
        self._lines: deque[bytes] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="narthex-log", daemon=True)
        self._thread.start()

    def emit(self, level: str, logger: str, message: str) -> None:
        """Queue one line; `level` as `logging` names it. Never waits, never raises for what the text holds."""
        level, message = _LEVELS.get(level, level), clean(self._hide(message))
        if self.format == "json":
            self._put({"at": _stamp(self._wall()), "level": level.lower(), "logger": logger, "message": message})
            return
        shown = f"{level:<5}"
        if self.colour and level in _COLOURS:
            shown = f"{_COLOURS[level]}{shown}\x1b[0m"
        self._put(f"{_stamp(self._wall())} {shown} {message}\n".encode())

    def call_line(
        self,
        *,
        endpoint: str,
        server: str,
        method: str,
        name: str,
        outcome: int,
        seconds: float,
        bytes_out: int,
        principal: str = "",
        decision_id: str = "",
        detail: str = "",
        trace_id: str = "",
    ) -> None:
        """Queue the line of one call; the caller asks `snapshot.log_calls` first.

        Args:
            outcome: Index in `accounts.OUTCOMES`.
            seconds: As counted: from the request read to the answer written.
            bytes_out: Size of the answer body.
            detail: Why it failed, for the operator; may hold text of others.
            trace_id: Of the trace that it is part of, sampled or not.
        """
        shown = (clean(endpoint, 128), clean(server, 128), clean(method, 128), clean(name, 128), OUTCOMES[outcome])
        shown_detail = clean(self._hide(detail), 1024) if detail else ""
        more = {
            "principal": clean(principal, 256), "decision_id": decision_id, "trace_id": trace_id,
            "detail": shown_detail,
        }  # fmt: skip
        at = _stamp(self._wall())
        if self.format == "json":
            line: dict[str, str | int | float] = {"at": at, "level": "info", "logger": "narthex.call"}
            line |= zip(("endpoint", "server", "method", "name", "outcome"), shown, strict=True)
            line |= {"seconds": round(seconds, 6), "bytes_out": bytes_out}
            self._put(line | {key: text for key, text in more.items() if text})
            return
        words = [*(field(text) for text in shown), f"{seconds * 1000:.1f}ms", f"out={bytes_out}"]
        words += [f"{key}={field(text, 1024)}" for key, text in more.items() if text]
        self._put(f"{at} CALL  {' '.join(words)}\n".encode())

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is queued, waiting at most `timeout_s` for a reader that stands still. Idempotent."""
        for handler in [h for h in logging.getLogger().handlers if isinstance(h, _Handler) and h.logs is self]:
            logging.getLogger().removeHandler(handler)
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _put(self, line: bytes | dict[str, str | int | float]) -> None:
        if len(self._lines) >= self._capacity:
            self.dropped += 1
            return
        self._lines.append(line if isinstance(line, bytes) else _encode(line) + b"\n")
        if not self._wake.is_set():
            self._wake.set()

    def _write_all(self) -> None:
        while not (self._closing.is_set() and not self._lines):
            self._wake.wait()
            self._wake.clear()
            self._write_queued()
            self._closing.wait(_FLUSH_S)  # so that many lines share one wake-up of this thread

    def _write_queued(self) -> None:
        lines = []
        for _ in range(len(self._lines)):
            lines.append(self._lines.popleft())
        if self.dropped != self._reported:
            lines.append(self._drop_line())
        data = memoryview(b"".join(lines))
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            self.dropped += len(lines)  # nobody reads any more: logs are no reason to stop serving

    def _drop_line(self) -> bytes:
        count, self._reported = self.dropped - self._reported, self.dropped
        message = f"{count} log lines dropped: the reader of stderr is too slow"
        if self.format == "json":
            line = {"at": _stamp(self._wall()), "level": "warn", "logger": "narthex.log", "message": message}
            return _encode(line) + b"\n"
        return f"{_stamp(self._wall())} WARN  {message}\n".encode()


class _Handler(logging.Handler):
    """Takes records of `logging`; an exception becomes a part of its line."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self.logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                message = f"{message} ({brief(record.exc_info[1])})"
            self.logs.emit(record.levelname, record.name, message)
        except Exception:  # a log call with a wrong format must not break the caller
            self.logs.emit("ERROR", "narthex.log", f"unprintable record at {record.pathname}:{record.lineno}")


def brief(error: BaseException) -> str:
    """An exception in one line: what, then where, the innermost frame first."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    where = " < ".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in reversed(frames))
    return f"{type(error).__name__}: {error}" + (f"; at {where}" if where else "")


def set_up(
    format_: LogFormat = "text",
    *,
    stream: IO[str] | None = None,
    level: int = logging.INFO,
    wall: Callable[[], float] = time.time,
    capacity: int = _CAPACITY,
    hide: Callable[[str], str] = str,
) -> Logs:
    """Send all logging of this process to `stream` (stderr). Others' libraries are heard from warnings up.

    Args:
        format_: `text` (colours only on a terminal, and not with `NO_COLOR`) or `json`, one object a line.
        wall: Seconds since 1970, for the time of each line.
        capacity: Lines that may wait for the writer.
        hide: Cuts secrets out of messages and details.
    """
    logs = Logs(stream or sys.stderr, format_, wall=wall, capacity=capacity, hide=hide)
    root = logging.getLogger()
    root.addHandler(_Handler(logs))
    root.setLevel(logging.WARNING)
    logging.getLogger("narthex").setLevel(level)
    atexit.register(logs.close)
    return logs


def start_line(version: str, urls: Sequence[str], admin: str, servers: int) -> str:
    """The one line at start: what runs, and the addresses to put into a client, each as `mcp=…` and `admin=…`."""
    return f"narthex {version} is up: {' '.join(urls)} {admin} servers={servers}"


def _stamp(seconds: float) -> str:
    whole = int(seconds)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((seconds - whole) * 1000):03d}Z"
