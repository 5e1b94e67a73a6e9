"""The process beside the gateway, from the gateway's side: started a moment after it, started again when it has ended,
asked one question at a time.

In: a `Task`, questions. Out: answers; `exports` says how it goes with what is sent elsewhere. Nothing here is on the
path of a call. Cases: `tests/telemetry/audit/test_keeper.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from narthex.telemetry.audit.exports.sink import SinkSpec, State
from narthex.telemetry.audit.frames import Answer, Question, Task, index_of, journal_of
from narthex.types import Snapshot, StorePlace

START_S = 1.0
"""A gateway that has just started has other things to do."""
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 60.0
"""Between two starts."""
ANSWER_S = 20.0
LOOK_S = 5.0
"""How often it is asked how it goes."""
MOST_ANSWER = 64 * 1024 * 1024
INHERITED = ("PATH", "HOME", "LANG", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV",
             "SSL_CERT_FILE", "SSL_CERT_DIR", "TMPDIR")  # fmt: skip
"""What it gets of our environment. Anything else may be a secret."""
COMMAND = (sys.executable, "-m", "narthex.telemetry.audit.beside")
_log = logging.getLogger("narthex.journal")


class Away(Exception):
    """The process is not there, or does not answer."""


class Keeper:
    """One process, from `start` to `close`.

    Args:
        task: What it is to do, asked for at each start: secrets in it may have changed.
    """

    def __init__(self, task: Callable[[], Task], *, start_s: float = START_S) -> None:
        self._task, self._start_s = task, start_s
        self.exports: list[State] = []
        """How it goes with each sink, as of a moment ago."""
        self.problem = ""
        """Why the index is not up to date; empty while it is."""
        self._sent: Task | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._asking = asyncio.Lock()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Soon."""
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """End the process; what it has under way it may end, for some seconds, by itself."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        self._hang_up()

    async def ask(self, question: Question) -> Answer:
        """Raises Away. Who gives up waiting leaves the line to the next one in order."""
        return await asyncio.shield(asyncio.ensure_future(self._ask(question)))

    async def _ask(self, question: Question) -> Answer:
        async with self._asking:
            if self._line is None:
                raise Away("the process that searches is not there; it is started again")
            reader, writer = self._line
            try:
                async with asyncio.timeout(ANSWER_S):
                    body = msgspec.json.encode(question)
                    writer.write(len(body).to_bytes(4) + body)
                    await writer.drain()
                    size = int.from_bytes(await reader.readexactly(4))
                    if size > MOST_ANSWER:
                        raise ValueError("too long an answer")
                    answer = msgspec.json.decode(await reader.readexactly(size), type=Answer)
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self._hang_up()
                raise Away(f"the process that searches does not answer: {type(error).__name__}") from None
            self._note(answer)
            return answer

    async def _run(self) -> None:
        pause = self._start_s
        failures = 0
        while True:
            await asyncio.sleep(pause)
            try:
                if self._line is not None and self._task() != self._sent:
                    self._hang_up()  # a secret was renewed
                if self._line is None:
                    await self._open()
                await self.ask(Question())
                failures, pause = 0, LOOK_S
            except Exception as error:
                self._hang_up()
                failures += 1
                pause = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10))
                _log.warning("the process beside the journal is started again in %g s: %s", pause, error)

    async def _open(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.to_thread(_spawn, theirs)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._sent = self._task()
        body = msgspec.json.encode(self._sent)
        writer.write(len(body).to_bytes(4) + body)
        self._line = reader, writer

    def _hang_up(self) -> None:
        """It ends when its line does."""
        if self._line is not None:
            self._line[1].close()
            self._line = None
        process, self._process = self._process, None
        if process is not None:
            with suppress(RuntimeError):  # no loop any more
                asyncio.get_running_loop().run_in_executor(None, _see_end, process)

    def _note(self, answer: Answer) -> None:
        """Keep how it goes; say what has changed."""
        before = {one.name: one.problem for one in self.exports}
        for one in answer.exports:
            if one.problem and one.problem != before.get(one.name):
                _log.error("records do not reach %s, and wait in the journal: %s", one.name, one.problem)
            elif not one.problem and before.get(one.name):
                _log.warning("records reach %s again", one.name)
        if answer.problem and answer.problem != self.problem:
            _log.error("the index of records is not up to date: %s", answer.problem)
        self.exports, self.problem = answer.exports, answer.problem


class Keeping:
    """The keeper that a configuration asks for, if it asks for one.

    Args:
        secret: The value of a secret by its name; raises SecretMissing.
    """

    def __init__(self, secret: Callable[[str], str]) -> None:
        self._secret = secret
        self._asked: tuple[object, ...] = ()
        self.keeper: Keeper | None = None

    @property
    def problem(self) -> str:
        """In words without details: what waits, or is behind; empty while all is well."""
        keeper = self.keeper
        waiting = [one.name for one in keeper.exports if one.problem] if keeper is not None else []
        if waiting:
            return f"waiting for {', '.join(waiting)}"
        return "index behind" if keeper is not None and keeper.problem else ""

    async def apply(self, snapshot: Snapshot) -> None:
        """Follow the configuration."""
        wanted = snapshot.audit_dir and (snapshot.audit_index or snapshot.audit_exports)
        places = (snapshot.audit_dir, snapshot.store, snapshot.audit_index, snapshot.audit_exports)
        asked = places if wanted else ()
        if asked == self._asked:
            return
        await self.close()
        self._asked = asked
        if asked:
            self.keeper = Keeper(lambda: self._task(snapshot))
            self.keeper.start()

    async def close(self) -> None:
        keeper, self.keeper, self._asked = self.keeper, None, ()
        if keeper is not None:
            await keeper.close()

    def _task(self, snapshot: Snapshot) -> Task:
        sinks = tuple(
            SinkSpec(
                one.name, one.url, one.format, tuple((key, text.fill(self._secret)) for key, text in one.headers),
                one.ca, one.cert, one.key,
            )
            for one in snapshot.audit_exports
        )  # fmt: skip
        store = _with_password(snapshot.store)
        index = index_of(store, snapshot.state_dir) if snapshot.audit_index else ""
        journal = journal_of(store, snapshot.state_dir)
        return Task(snapshot.audit_dir, store, str(index) if isinstance(index, Path) else index, sinks, journal)


def _with_password(store: StorePlace) -> StorePlace:
    """A variable of ours is none of the process beside us: it gets what stands in it."""
    if isinstance(store, str) or isinstance(store.password, str) or store.password.kind != "env":
        return store
    return replace(store, password=os.environ.get(store.password.where, ""))


def _spawn(theirs: socket.socket) -> subprocess.Popen[bytes]:
    env = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith("LC_")}
    env["NARTHEX_COMPILE"] = "0"
    # In a process group of its own, so that Ctrl-C is the gateway's alone, and not in a session: the kernel shares the
    # machine out among sessions first (sched(7), autogroup), and by how nice one is only within each.
    return subprocess.Popen(
        COMMAND,
        stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, process_group=0,
    )  # fmt: skip


def _see_end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
