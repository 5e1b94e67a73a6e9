"""A PgBouncer in front of a PostgreSQL, for one test: by Unix sockets alone, so that it needs no port.

Source: PgBouncer 1.18, pgbouncer.ini(5).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from narthex.stores import PostgresSpec
from tests.counterparts import postgres_server as server

NEEDED = "apt-get install pgbouncer"
PATIENCE_S = 60.0
PORT = 6432


def program() -> str | None:
    """Debian keeps it off the path of users."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def pooling(database: PostgresSpec, mode: str, size: int) -> Iterator[PostgresSpec]:
    """The same database through a pool of so many connections of the server; `mode`: session, transaction."""
    bouncer = program()
    assert bouncer is not None, NEEDED
    folder = Path(tempfile.mkdtemp(prefix="narthex-pb-"))
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\nnarthex = host={database.host} port={database.port} user=narthex\n"
        f"[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\nunix_socket_dir = {folder}\nauth_type = any\n"
        f"pool_mode = {mode}\ndefault_pool_size = {size}\nlogfile =\npidfile =\n"
    )
    who = server.as_whom()
    if who:
        os.chown(folder, int(str(who["user"])), int(str(who["group"])))
        settings.chmod(0o644)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # type: ignore[call-overload]
            [bouncer, str(settings)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **who
        )
    try:
        _wait(folder, process)
        yield replace(database, host=str(folder), port=PORT)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Until it takes connections."""
    end = time.monotonic() + PATIENCE_S
    while True:
        assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text(errors="replace")
        with socket.socket(socket.AF_UNIX) as one:
            try:
                one.connect(str(folder / f".s.PGSQL.{PORT}"))
                return
            except OSError:
                time.sleep(0.02)
