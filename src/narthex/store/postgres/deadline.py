"""Sockets of which a whole conversation has an end, and not only each wait: whoever answers a byte at a time, or reads
one, keeps nobody longer.

In: a socket, seconds. Out: one that raises TimeoutError when they are over.
Cases: `tests/store/postgres/test_deadline.py`.
"""

from __future__ import annotations

import math
import socket
import ssl
import time
from typing import Any


class Deadline:
    """Shared by a connection and its sockets. None has begun: there is no end."""

    def __init__(self) -> None:
        self._ends = self._each = math.inf

    def begin(self, seconds: float, *, each: float = math.inf) -> None:
        """So long from now on, and so long at the most for each wait."""
        self._ends, self._each = time.monotonic() + seconds, each

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._ends

    def left(self) -> float | None:
        """Seconds that a wait may take; None: as many as it takes. Raises TimeoutError."""
        if self._ends == math.inf:
            return None
        if (left := self._ends - time.monotonic()) <= 0:
            raise TimeoutError("timed out")
        return min(left, self._each)


class TimedSocket(socket.socket):
    """Takes over `found`."""

    def __init__(self, found: socket.socket, deadline: Deadline) -> None:
        timeout = found.gettimeout()
        super().__init__(fileno=found.detach())
        self.settimeout(timeout)
        self._deadline = deadline

    def recv_into(self, *args: Any, **more: Any) -> int:
        self.settimeout(self._deadline.left())
        return super().recv_into(*args, **more)

    def send(self, *args: Any, **more: Any) -> int:
        self.settimeout(self._deadline.left())
        return super().send(*args, **more)


def timed_tls(deadline: Deadline) -> type[ssl.SSLSocket]:
    """The same of TLS: a class, because `ssl` makes the socket itself."""

    class TimedTls(ssl.SSLSocket):
        def recv_into(self, *args: Any, **more: Any) -> int:
            self.settimeout(deadline.left())
            return super().recv_into(*args, **more)

        def send(self, *args: Any, **more: Any) -> int:
            self.settimeout(deadline.left())
            return super().send(*args, **more)

    return TimedTls
