"""PostgreSQL itself, for tests: one server for the whole run, and clusters that a test may kill.

`Databases` gives each test a schema of its own on the shared server. A `Cluster` is a test's alone; with `tls` it
listens on a port, too, with a certificate for `localhost`.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from narthex.store.postgres.database import Postgres
from narthex.stores import PostgresSpec
from tests.counterparts import postgres_server as server
from tests.counterparts.shared import Shared, locked
from tests.e2e.certificates import Authority

PATIENCE_S = 120.0
"""Only a failure waits that long."""
READY = re.compile(r"socket in (\S+)\n[\s\S]*ready to accept connections")


class Databases:
    """The server of the run in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._shared = Shared(folder, "postgres", READY, PATIENCE_S)

    def start(self) -> None:
        """Unless another worker has; it takes some seconds, in which others go on."""
        self._shared.start([sys.executable, str(Path(server.__file__))], env={"LC_ALL": "C"})

    def empty(self) -> PostgresSpec:
        """A schema that nobody else has, without tables."""
        self.start()
        return PostgresSpec(self._shared.url(), sslmode="disable", schema=f"t_{uuid.uuid4().hex}")

    def new(self) -> PostgresSpec:
        """One with the tables of this version."""
        spec = self.empty()
        Postgres(spec).migrate()
        return spec


class Cluster:
    """A server of one test, in a folder of its own. `kill` is `kill -9`; `start` brings it up on the same data."""

    def __init__(self, run_folder: Path, *, auth: str = "trust", tls: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="narthex-pg-"))
        self._copy(run_folder / f"postgres-{auth}", auth)
        self._tls, self._port = tls, 5432
        self._process: subprocess.Popen[bytes] | None = None
        if tls:
            self._certify()

    @property
    def spec(self) -> PostgresSpec:
        """By its Unix socket."""
        return PostgresSpec(str(self.folder), self._port, sslmode="disable")

    @property
    def remote(self) -> PostgresSpec:
        """As from another machine, by TLS."""
        return PostgresSpec("localhost", self._port, password="secret", ca=str(self.ca))

    @property
    def ca(self) -> Path:
        return self.folder / "authority.pem"

    def start(self, settings: Sequence[str] = ()) -> None:
        """Wait until it takes connections."""
        if not self._tls:
            assert self._started(settings, "", self._port)
            return
        keys = ("ssl=on", f"ssl_cert_file={self.folder}/server.cert.pem", f"ssl_key_file={self.folder}/server.key.pem")
        for _ in range(50):  # it has no port 0; somebody else may have taken this one
            self._port = random.randrange(20_000, 32_000)
            if self._started((*keys, *settings), "127.0.0.1", self._port):
                return
        raise AssertionError("no port was free")

    def kill(self) -> None:
        """As the system kills it when memory runs out: the server and all that it has started."""
        if self._process is not None:
            children = _children(self._process.pid)  # each has a session of its own
            for pid in (self._process.pid, *children):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            while any(Path(f"/proc/{pid}").exists() for pid in children):
                time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """As an administrator stops it: whoever is connected is told."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            self._process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _copy(self, first: Path, auth: str) -> None:
        """The data of the first one of this run: `initdb` takes seconds, a copy does not."""
        with locked(first.with_suffix(".lock")):
            if not first.exists():
                server.make(self.folder, auth)
                (self.folder / "data").rename(aside := self.folder / "first")
                shutil.move(aside, first)
        subprocess.run(["cp", "-a", first, self.folder / "data"], check=True)
        who = server.as_whom()
        if who:
            os.chown(self.folder, int(str(who["user"])), int(str(who["group"])))

    def _started(self, settings: Sequence[str], listen: str, port: int) -> bool:
        log = self.folder / "log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(  # type: ignore[call-overload]
                server.command(self.folder, settings, listen=listen, port=port),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/", start_new_session=True,
                env={**os.environ, "LC_ALL": "C"}, **server.as_whom(),
            )  # fmt: skip
        end = time.monotonic() + PATIENCE_S
        while "ready to accept connections" not in (said := log.read_text(errors="replace")):
            if self._process.poll() is not None:
                assert "could not bind" in said, said
                return False
            assert time.monotonic() < end, said
            time.sleep(0.05)
        return True

    def _certify(self) -> None:
        pair = Authority(self.folder).issue("server", "localhost")
        who = server.as_whom()
        for file in (pair.cert, pair.key):
            if who:
                os.chown(file, int(str(who["user"])), int(str(who["group"])))
            Path(file).chmod(0o600)


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
