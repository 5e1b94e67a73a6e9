"""A child process on three pipes, and its end: never a shell, never a zombie, never a survivor.

In: a command and its environment. Out: its stdout in pieces, the last of its stderr, and one word when it is over.
Cases: `tests/flow/upstream/test_stdio.py` (the children there fork, hang and ignore signals).

Every child leads a session, so that its whole process group can be ended. Three things see to it that a group ends
with us. `Child.end` is the usual way. If we are killed with -9, the kernel closes the child's stdin, at which a server
ends by itself (MCP, stdio transport, shutdown). For one that does not, a guard ends the group: one `sh` for the whole
gateway, which reads our groups from a pipe and acts when that pipe closes. Weighed against it: PR_SET_PDEATHSIG exists
on Linux alone, spares grandchildren (a server behind `npx` is one), and needs a launcher for each start (`python -m`:
some 15 ms) or a `preexec_fn`, which is unsafe beside threads. The guard starts in 1 ms, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from narthex.errors import UpstreamUnavailable

INHERITED = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR")
"""What a server gets of our environment, beside `LC_*` (design §6). Anything else may be a secret of ours."""
STDERR_KEPT = 16 * 1024
STDERR_LINE = 1024
SETTLE_S = 0.5
"""After the first sign of an end, wait this long for the rest: the exit code, and what is still in the pipes."""
TERM_S = 1.0
"""Between SIGTERM and SIGKILL."""
_log = logging.getLogger("narthex.upstream")


def child_environment(named: Sequence[tuple[str, str]], inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a server: a fixed list of ours, then what its entry names."""
    ours = os.environ if inherited is None else inherited
    found = {name: value for name, value in ours.items() if name in INHERITED or name.startswith("LC_")}
    found.setdefault("PATH", os.defpath)
    found.update(named)
    return found


class Guard:
    """Ends the process groups that we hold when we are gone. Nothing runs before the first `hold`."""

    SCRIPT = r"""
    trap '' HUP INT QUIT TERM
    groups=' '
    while read -r verb group; do
        case "$verb$groups" in
            "+"*) groups="$groups$group " ;;
            *" $group "*) groups="${groups%% $group *} ${groups#* $group }" ;;
        esac
    done
    survivors=''
    for group in $groups; do kill -s TERM -- "-$group" && survivors=yes; done
    if [ -n "$survivors" ]; then sleep 1; fi
    for group in $groups; do kill -s KILL -- "-$group"; done
    """

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._missing = False

    def hold(self, group: int) -> None:
        self._groups.add(group)
        self._tell(b"+ %d\n" % group)

    def release(self, group: int) -> None:
        if group in self._groups:
            self._groups.discard(group)
            self._tell(b"- %d\n" % group)

    def _tell(self, line: bytes) -> None:
        if self._missing:
            return
        if self._process is None or self._process.poll() is not None:
            line = b"".join(b"+ %d\n" % group for group in self._groups)
            self._start()
        if self._process is not None and self._process.stdin is not None:
            # BrokenPipeError: it has just been killed; the next line starts another. BlockingIOError: it was stopped.
            with contextlib.suppress(OSError):
                os.write(self._process.stdin.fileno(), line)

    def _start(self) -> None:
        null = subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", self.SCRIPT, "narthex-guard"],
                stdin=subprocess.PIPE,
                stdout=null,
                stderr=null,
                cwd="/",
                env={"PATH": os.defpath},
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            self._missing = True
            _log.warning("no /bin/sh: if the gateway is killed, a server that ignores a closed stdin stays (%s)", error)
            return
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)


GUARD = Guard()


class StderrTail:
    """The last `STDERR_KEPT` bytes of lines, each cut at `STDERR_LINE`, made safe to print."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._open = b""

    def feed(self, data: bytes) -> None:
        *whole, rest = data.split(b"\n")
        for line in whole:
            self._add((self._open + line[:STDERR_LINE])[:STDERR_LINE])
            self._open = b""
        self._open = (self._open + rest[:STDERR_LINE])[:STDERR_LINE]

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line) + 1
        while self._size > STDERR_KEPT:
            self._size -= len(self._lines.popleft()) + 1

    def text(self) -> str:
        """Lines joined by LF. What could steer a terminal or forge a log line is replaced by `?`."""
        lines = [line.rstrip().decode(errors="replace") for line in (*self._lines, self._open)]
        return "\n".join("".join(c if c.isprintable() or c == "\t" else "?" for c in line) for line in lines if line)


class Child(asyncio.SubprocessProtocol):
    """One started process, leader of a session and a group with the id `pid`.

    Args:
        on_data: Gets its stdout.
        on_dying: Called at the first sign of its end: nothing may be sent any more, its last words may still come.
        on_end: Called once, when it is over or was given up, with how that came. Not after `end`.
    """

    _transport: asyncio.SubprocessTransport
    _stdin: asyncio.WriteTransport

    def __init__(
        self, on_data: Callable[[bytes], None], on_dying: Callable[[], None], on_end: Callable[[str], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_data = on_data
        self._on_dying = on_dying
        self._on_end: Callable[[str], None] | None = on_end
        self._exited = asyncio.Event()
        self._settle: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._reason = ""
        self.stderr = StderrTail()
        self.pid = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.pid = self._transport.get_pid()
        self._stdin = self._transport.get_pipe_transport(0)  # type: ignore[assignment]
        GUARD.hold(self.pid)

    def write(self, data: bytes) -> None:
        if not self._stdin.is_closing():
            self._stdin.write(data)

    def unwritten(self) -> int:
        """Bytes that the child has not taken yet, beyond what the pipe holds."""
        return self._stdin.get_write_buffer_size()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self.stderr.feed(data)
        elif self._on_end is not None:
            self._on_data(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd != 2:
            self._ending("closed its stdin" if fd == 0 else "closed its stdout")

    def process_exited(self) -> None:
        self._exited.set()
        self._reason = self._how_it_ended()
        self._ending(self._reason)

    def connection_lost(self, exc: Exception | None) -> None:
        """Exited, and every pipe is read to its end."""
        self._ended()

    def _how_it_ended(self) -> str:
        code = self._transport.get_returncode()
        if code is None or code >= 0:
            return f"exited with code {code}"
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"

    def _ending(self, reason: str) -> None:
        self._reason = self._reason or reason
        if self._settle is None and self._on_end is not None:
            self._on_dying()
            self._settle = self._loop.call_later(SETTLE_S, self._ended)

    def _ended(self) -> None:
        on_end = self._on_end
        if on_end is not None:
            self._on_dying()
            self.end(0.0)
            on_end(self._reason)

    def give_up(self, reason: str) -> None:
        """Its behaviour is not to be borne: over now, whatever it still does."""
        self._reason = reason
        self._ended()

    def end(self, grace_s: float) -> asyncio.Task[None]:
        """Close its stdin, give it `grace_s` to leave, then end its group: SIGTERM, `TERM_S` later SIGKILL.

        Nothing is reported any more from now on. The task is done when the group is gone; await it shielded.
        """
        self._on_end = None
        if self._settle is not None:
            self._settle.cancel()
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(grace_s))
        return self._closing

    async def _close(self, grace_s: float) -> None:
        try:
            self._stdin.close()
            await self._until(self._exited.is_set, grace_s)
            if self._signal(signal.SIGTERM):
                await self._until(self._gone, TERM_S)
        finally:
            # Also when the loop ends under us: nothing may be awaited here before the last signal is sent.
            self._signal(signal.SIGKILL)
            GUARD.release(self.pid)
            self._transport.close()
        await self._until(self._gone, TERM_S)

    async def _until(self, condition: Callable[[], bool], most_s: float) -> None:
        deadline = self._loop.time() + most_s
        pause_s = 0.002
        while not condition() and self._loop.time() < deadline:
            await asyncio.sleep(pause_s)
            pause_s = min(0.05, pause_s * 2)

    def _gone(self) -> bool:
        """True once the leader is reaped and its group is empty."""
        if not self._exited.is_set():
            return False
        # Where we are process 1 (a container without init) orphans of the group are ours to reap.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass
        return not self._signal(0)

    def _signal(self, number: int) -> bool:
        """Send to the whole group; False where nobody is left. The id is not reused while the group has a member."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):  # macOS: PermissionError where only zombies are left
            return False
        return True


def _find_program(command: str, path: str, cwd: str | None) -> str:
    """Raises FileNotFoundError, in the same words on every event loop. A command with a slash is relative to `cwd`."""
    if cwd is not None and not Path(cwd).is_dir():
        raise FileNotFoundError(f"its working directory {cwd!r} is no folder")
    program = command if "/" in command else shutil.which(command, path=path)
    if program is None:
        raise FileNotFoundError(f"not in PATH ({path})")
    return program


async def start_child(
    name: str,
    command: str,
    args: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None,
    on_data: Callable[[bytes], None],
    on_dying: Callable[[], None],
    on_end: Callable[[str], None],
) -> Child:
    """Start a process that leads a session of its own.

    Raises:
        UpstreamUnavailable: It cannot be started; `detail` says what is missing.
    """
    public = f"server {name} cannot be started"
    try:
        if any("\0" in text for text in (command, *args, cwd or "", *env, *env.values())):
            raise ValueError("a NUL in its command, arguments or environment")  # uvloop would cut the text there
        program = _find_program(command, env["PATH"], cwd)
        _, child = await asyncio.get_running_loop().subprocess_exec(
            lambda: Child(on_data, on_dying, on_end),
            program,
            *args,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise UpstreamUnavailable(public, detail=f"{command!r}: {error}") from None
    return child
