"""A PostgreSQL of its own in a temporary folder: `python postgres_server.py [SETTING=VALUE …]`.

Prints the folder of its Unix socket, then becomes the server, whose log says when it is ready. It listens nowhere else.
The server refuses root, so as root it runs as `postgres`, or `nobody`. Whoever ends it ends it hard (`until.py`): the
folder is removed by a process that waits for that. Nothing is synced: this machine does not lose its power meanwhile.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

USER = "narthex"
QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=64MB", "max_connections=200")
REMOVE = """
import os, shutil, sys, time
while os.path.exists(f"/proc/{sys.argv[1]}"): time.sleep(0.2)
while os.path.exists(sys.argv[2]):  # its children end a little later
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    time.sleep(0.2)
"""
NEEDED = "apt-get install postgresql"


def programs() -> Path | None:
    """Where `initdb` and `postgres` are; Debian keeps them off the path."""
    found = shutil.which("postgres")
    if found:
        return Path(found).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda one: int(one.parts[-3]))
    return folders[-1].parent if folders else None


def as_whom() -> dict[str, object]:
    """Arguments of `subprocess` for a user whom the server takes."""
    if os.geteuid() != 0:
        return {}
    names = {one.pw_name: one for one in pwd.getpwall()}
    who = names.get("postgres") or names["nobody"]
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


def make(folder: Path, auth: str = "trust") -> None:
    """A cluster below a folder, of the superuser `narthex` with that database."""
    bin_ = programs()
    assert bin_ is not None, NEEDED
    who = as_whom()
    if who:
        os.chown(folder, int(str(who["user"])), int(str(who["group"])))
    command = [bin_ / "initdb", "-D", folder / "data", "-U", USER, "-A", auth, "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **who)  # type: ignore[call-overload]
    single = [bin_ / "postgres", "--single", "-D", folder / "data", "postgres"]
    subprocess.run(  # type: ignore[call-overload]
        single, check=True, input=b"CREATE DATABASE narthex;\n", stdout=subprocess.DEVNULL, cwd="/", **who
    )


def command(folder: Path, settings: Sequence[str] = (), *, listen: str = "", port: int = 5432) -> list[str]:
    """What runs it."""
    bin_ = programs()
    assert bin_ is not None, NEEDED
    said = [f"listen_addresses={listen}", f"port={port}", f"unix_socket_directories={folder}", *QUICK, *settings]
    return [str(bin_ / "postgres"), "-D", str(folder / "data"), *(part for one in said for part in ("-c", one))]


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="narthex-pg-"))
    subprocess.Popen(
        [sys.executable, "-c", REMOVE, str(os.getpid()), str(folder)],
        start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    make(folder)
    print(f"socket in {folder}", flush=True)
    who = as_whom()
    if who:
        os.setgroups([])
        os.setgid(int(str(who["group"])))
        os.setuid(int(str(who["user"])))
    os.chdir("/")
    told = command(folder, sys.argv[1:])
    os.execv(told[0], told)


if __name__ == "__main__":
    main()
