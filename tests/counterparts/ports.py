"""A port that is this test's from now until it ends, for a program that cannot take any free one or must come back to
the same.

A port that was free a moment ago may be somebody's when the program binds it. So it stays bound here, without anybody
listening: the system gives it to nobody, connections to it are refused, and a program that sets SO_REUSEADDR, as all
servers do, may bind it beside this and listen (Linux and BSD).
"""

from __future__ import annotations

import socket


class Port:
    """Held as long as this object lives."""

    def __init__(self) -> None:
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.number: int = self._held.getsockname()[1]

    def __del__(self) -> None:
        self._held.close()
