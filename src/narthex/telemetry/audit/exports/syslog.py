"""Records as syslog messages over TLS: RFC 5424 in the frames of RFC 5425.

In: records. Out: frames `LENGTH SP MESSAGE`. Syslog knows no answer, so a connection is closed to be sure: the other
side has read all that was sent before it hears of the end, and only then closes in turn. A connection that is reset
instead, or closed before all had come, has lost something, and what was sent on it is sent again. Does I/O.
Cases: `tests/telemetry/audit/exports/test_syslog.py`; with rsyslog: `tests/e2e/test_rsyslog.py`.
Source: RFC 5424 §6, RFC 5425 §4.3 (frames), §4.4 (`close_notify` from both).
"""

from __future__ import annotations

import fcntl
import re
import socket
import ssl
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from narthex import __version__
from narthex.telemetry.audit.exports.sink import TIMEOUT_S, SinkError, SinkSpec, context_of, words_of
from narthex.telemetry.audit.formats import FORMATS
from narthex.telemetry.audit.matching import Record

PORT = 6514
FACILITY = 13
"""`log audit`."""
NOTICE, WARNING = 5, 4
CLOSE_WAIT = 8
"""Of Linux: the other side has closed in order, and we have not yet."""
ACKNOWLEDGED_S = 10.0
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)
_ORIGIN = f'[origin software="Narthex" swVersion="{__version__}"]'


def message(record: Record, form: str, host: str) -> bytes:
    """One message. The header is made of what the record says, where that is what a header may have; else of `-`."""
    severity = WARNING if record.get("decision") == "deny" or record.get("event") == "lost" else NOTICE
    time = str(record.get("time", ""))
    head = (
        f"<{FACILITY * 8 + severity}>1", time if _TIME.fullmatch(time) else "-", _header(host, 255), "narthex", "-",
        _header(str(record.get("event") or ""), 32), _ORIGIN, FORMATS[form](record),
    )  # fmt: skip
    return " ".join(head).encode(errors="replace")


def framed(body: bytes) -> bytes:
    """A message in its frame."""
    return b"%d %b" % (len(body), body)


def _header(text: str, most: int) -> str:
    """A field of the header: printable ASCII without spaces, or nothing."""
    kept = "".join(char for char in text if "!" <= char <= "~")[:most]
    return kept or "-"


class SyslogSink:
    """See the module."""

    answers = False

    def __init__(self, spec: SinkSpec, *, timeout_s: float = TIMEOUT_S) -> None:
        self._spec, self._timeout_s = spec, timeout_s
        parts = urlsplit(spec.url)
        self._address = (parts.hostname or "", parts.port or PORT)
        self._host = socket.gethostname()
        self._line: ssl.SSLSocket | None = None

    def send(self, records: Sequence[Record]) -> int:
        line = self._opened()
        try:
            line.sendall(b"".join(framed(message(one, self._spec.form, self._host)) for one in records))
        except OSError as error:
            raise SinkError(words_of(error)) from None
        return 0

    def confirm(self) -> None:
        line, self._line = self._line, None
        if line is None:
            return
        try:
            _end(line)
        except OSError as error:
            raise SinkError(f"it has not read all that was sent: {words_of(error)}") from None
        finally:
            line.close()

    def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            with suppress(OSError):
                line.close()

    def _opened(self) -> ssl.SSLSocket:
        if self._line is None:
            context = context_of(self._spec)
            try:
                plain = socket.create_connection(self._address, self._timeout_s)
                try:
                    self._line = context.wrap_socket(plain, server_hostname=self._address[0])
                except BaseException:
                    plain.close()
                    raise
            except (OSError, ValueError) as error:
                raise SinkError(words_of(error)) from None
        return self._line


def _end(line: ssl.SSLSocket) -> None:
    """Say the end, and hear that of the other side. Raises OSError: it was not an orderly one."""
    plain: socket.socket = line
    try:
        plain = line.unwrap()
    except ssl.SSLEOFError as error:  # GnuTLS, of rsyslog say, closes without a word
        if not hasattr(socket, "TCP_INFO") or "UNEXPECTED_EOF" not in str(error):
            raise
    with plain:
        if plain is not line and plain.recv(1):
            raise OSError("it goes on talking")
        if not _was_read(plain):
            raise ConnectionResetError("the connection was reset")


def _was_read(plain: socket.socket) -> bool:
    """The other side has closed: had it read all? Its system sends a reset where anything was left, or came later.

    Source: RFC 9293 §3.6.1; `tcp(7)`, TCP_INFO, whose first byte is the state.
    """
    if not hasattr(socket, "TCP_INFO"):
        return True  # it has said `close_notify`, and closed
    until = time.monotonic() + ACKNOWLEDGED_S
    while time.monotonic() < until:
        state = plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        unacknowledged = bytearray(4)
        fcntl.ioctl(plain, termios.TIOCOUTQ, unacknowledged)
        if state != CLOSE_WAIT:
            return False
        if not int.from_bytes(unacknowledged, sys.byteorder):
            return True
        time.sleep(0.005)
    return False
