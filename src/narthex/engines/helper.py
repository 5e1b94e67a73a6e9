"""One helper process from the gateway's side: documents in a row, answers in the same order, a deadline for each.

In: a bundle, documents. Out: what the child says of each; or that it is over with it. The deadline is that of the
document which the child works on: who waits behind it waits for its end, or is taken elsewhere (`helpers.py`).
Cases: `tests/engines/test_helper.py`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from narthex.engines.frames import LOAD_S, Flawed, Loaded, Source
from narthex.flow.policy.engines.rego import Flaw, Uses

INHERITED = ("PATH", "HOME", "LANG", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""What a helper gets of our environment. Anything else may be a secret, and Rego could not read it anyway."""
COMMAND = (sys.executable, "-m", "narthex.engines.child")
MOST_ANSWER = 1024 * 1024
"""Bytes. A decision is small; more is garbage."""
Ending = Literal["deadline", "crashed"]


class HelperGone(Exception):
    """It did not start, or it ended."""


class Asked:
    """One document, and whoever waits for what is said of it."""

    __slots__ = ("answer", "document")

    def __init__(self, document: bytes, answer: asyncio.Future[bytes]) -> None:
        self.document = document
        self.answer = answer


class Helper(asyncio.Protocol):
    """One process, from `start` to its end.

    Args:
        deadline_s: For one document. patience_s: After that it counts as slow, and `slow` is called once a document.
        ended: Called once, with the reason, the document it was working on, and those that waited behind.
    """

    def __init__(
        self,
        deadline_s: float,
        patience_s: float,
        slow: Callable[[Helper], None],
        ended: Callable[[Helper, Ending, Asked | None, list[Asked]], None],
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._command = command
        self.deadline_s, self.patience_s = deadline_s, min(patience_s, deadline_s)
        self.ready = False
        self.answered = 0
        self.waiting: deque[Asked] = deque()
        self._slow, self._ended = slow, ended
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._loaded: asyncio.Future[bytes] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._told = False
        self._over = False

    async def start(self, source: Source) -> Uses:
        """Compile the bundle in a new process. Raises Flawed; HelperGone: it did not come up."""
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.to_thread(_spawn, [*self._command, str(self.deadline_s)], theirs)
            self._transport, _ = await self._loop.create_unix_connection(lambda: self, sock=ours)
        except OSError as error:
            ours.close()
            raise HelperGone(f"no helper process: {error}") from None
        finally:
            theirs.close()
        self._write(msgspec.json.encode(source))
        try:
            async with asyncio.timeout(LOAD_S):
                loaded = msgspec.json.decode(await self._loaded, type=Loaded)
        except (TimeoutError, msgspec.DecodeError) as error:
            raise HelperGone(f"the helper did not load the policy: {type(error).__name__}") from None
        finally:
            if not self.ready:
                self.close()
        if loaded.uses is None:
            self.close()
            raise Flawed(list(loaded.flaws))
        return loaded.uses

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def is_slow(self) -> bool:
        """Has it been working on one document for longer than others should wait?"""
        return bool(self.waiting) and self._loop.time() - self._since >= self.patience_s

    def ask(self, asked: Asked) -> None:
        """Send one more document."""
        self.waiting.append(asked)
        if len(self.waiting) == 1:
            self._begin()
        self._write(asked.document)

    def take_back(self) -> list[Asked]:
        """Those that wait behind the first: their answers are not heard any more."""
        first, *taken = self.waiting
        nobody = self._loop.create_future()
        nobody.cancel()
        self.waiting = deque([first, *(Asked(b"", nobody) for _ in taken)])
        return taken

    def close(self) -> None:
        """End it. Nobody is told."""
        self._over = True
        self._end()

    # --- the socket

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 4:
            size = int.from_bytes(buffer[:4])
            if size > MOST_ANSWER:
                self._finish("crashed")
                return
            if len(buffer) < 4 + size:
                return
            body = bytes(buffer[4 : 4 + size])
            del buffer[: 4 + size]
            self._take(body)

    def _take(self, body: bytes) -> None:
        if not self.ready:
            self.ready = True
            if not self._loaded.done():
                self._loaded.set_result(body)
            return
        if not self.waiting:
            self._finish("crashed")  # it answers what nobody asked
            return
        self.answered += 1
        asked = self.waiting.popleft()
        if self.waiting:
            self._begin()
        if not asked.answer.done():
            asked.answer.set_result(body)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._loaded.done():
            self._loaded.set_exception(HelperGone("the helper ended while it loaded the policy"))
            self._loaded.exception()  # looked at, whoever waits
        self._finish("crashed")

    def _write(self, body: bytes) -> None:
        if self._transport is not None and not self._over:
            self._transport.write(len(body).to_bytes(4) + body)

    # --- time

    def _begin(self) -> None:
        """It works on the next document from now on."""
        self._since, self._told = self._loop.time(), False
        if self._timer is None:
            self._timer = self._loop.call_later(self.patience_s, self._look)

    def _look(self) -> None:
        """One timer, set anew as long as there is work: none is made for a document that is answered in time."""
        self._timer = None
        if not self.waiting or self._over:
            return
        worked = self._loop.time() - self._since
        if worked >= self.deadline_s:
            self._finish("deadline")
            return
        if worked >= self.patience_s and not self._told:
            self._told = True
            self._slow(self)
        left = (self.deadline_s if self._told else self.patience_s) - worked
        self._timer = self._loop.call_later(max(left, 0.001), self._look)

    # --- the end

    def _finish(self, how: Ending) -> None:
        if self._over:
            return
        self._over = True
        self._end()
        first = self.waiting.popleft() if self.waiting else None
        rest = list(self.waiting)
        self.waiting.clear()
        self._ended(self, how, first, rest)

    def _end(self) -> None:
        self.ready = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
            self._loop.run_in_executor(None, process.wait)


def inherited() -> dict[str, str]:
    """The environment of a process that evaluates."""
    env = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith("LC_")}
    return env | {"RUST_BACKTRACE": "0", "RUST_LIB_BACKTRACE": "0", "NARTHEX_COMPILE": "0"}


def _spawn(command: Sequence[str], theirs: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=inherited(),
        start_new_session=True,
    )  # fmt: skip


def probe(source: Source) -> None:
    """Could a gateway decide by this bundle? In a process that ends, whatever the policy does. For threads, and where
    no loop runs: it takes some hundred milliseconds.

    Raises:
        Flawed: No, and why.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(LOAD_S)
        body = msgspec.json.encode(source)
        try:
            process = _spawn([*COMMAND, "1"], theirs)
            theirs.close()
            with process:
                try:
                    ours.sendall(len(body).to_bytes(4) + body)
                    with ours.makefile("rb") as incoming:
                        said = incoming.read(int.from_bytes(incoming.read(4)))
                finally:
                    process.kill()
            loaded = msgspec.json.decode(said, type=Loaded)
        except (OSError, msgspec.DecodeError) as error:
            flaw = Flaw("policy", 0, 0, f"its process ended while it loaded this ({type(error).__name__})")
            raise Flawed([flaw]) from None
    if loaded.uses is None:
        raise Flawed(list(loaded.flaws))
