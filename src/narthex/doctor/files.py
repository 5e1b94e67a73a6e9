"""Files: whose they are and who may read them, room on their disks, the store, the journal.

In: a snapshot. Out: findings. Reads only: the store is opened as read-only, and nothing is made that is not there.
Cases: `tests/doctor/test_files.py`.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from narthex.admin.token import FILE_NAME as TOKEN_FILE
from narthex.doctor.finding import Finding, fail, ok, warn
from narthex.errors import StoreError
from narthex.keys import FILE_NAME as KEY_FILE
from narthex.store.database import database_of
from narthex.store.file import APPLICATION_ID
from narthex.store.migrations import MIGRATIONS
from narthex.stores import PostgresSpec
from narthex.telemetry.audit.checkpoints import KEY_FILE as SIGNING_KEY_FILE
from narthex.types import Snapshot

LITTLE, TOO_LITTLE = 1024**3, 100 * 1024**2
"""Bytes that are free: below the one it is time, below the other it is late."""


def look_at_files(snapshot: Snapshot, *, chain: bool = True) -> Iterator[Finding]:
    """Everything that lies on a disk. `chain`: the whole journal is read, too (a million records take 20 s)."""
    state, source = Path(snapshot.state_dir), Path(snapshot.source)
    store = snapshot.store
    yield from look_at_rights(
        source, state, Path(store) if isinstance(store, str) else state, Path(snapshot.audit_dir or state)
    )
    yield from _room(snapshot)
    yield look_at_store(Path(store)) if isinstance(store, str) else look_at_database(store)
    if snapshot.audit_dir:
        yield from look_at_journal(
            Path(snapshot.audit_dir), snapshot.audit_checkpoints, Path(snapshot.state_dir), chain=chain
        )


def look_at_rights(source: Path, state: Path, store: Path, journal: Path) -> Iterator[Finding]:
    """Nobody else may write the configuration, nor read what is secret."""
    mode = _mode(source)
    if mode is not None and mode & (stat.S_IWGRP | stat.S_IWOTH):
        do = f"chmod go-w {source}"
        yield warn("files", str(source), "others may write the configuration: they decide what runs here", do)
    if not state.exists():
        yield ok("files", str(state), "not there yet; the gateway makes it at its first start")
        return
    wanted = {
        state: 0o700,
        state / KEY_FILE: 0o600,
        state / SIGNING_KEY_FILE: 0o600,
        state / TOKEN_FILE: 0o600,
        store: 0o600,
        journal: 0o700,
    } | {state: 0o700}  # where a database is the store, or nothing is recorded, they are the same folder
    for path, mode_wanted in wanted.items():
        yield from _private(path, mode_wanted)


def _private(path: Path, wanted: int) -> Iterator[Finding]:
    mode = _mode(path)
    if mode is None:
        return
    if hasattr(os, "geteuid") and path.stat().st_uid != os.geteuid():
        do = "run the gateway and its commands as the same user, or change the owner (chown)"
        yield fail("files", str(path), f"belongs to user {path.stat().st_uid}, not to this one", do)
    elif mode & 0o077:
        yield fail("files", str(path), f"others may use it (mode {mode:04o})", f"chmod {wanted:o} {path}")
    elif not os.access(path, os.R_OK | os.W_OK):
        yield fail("files", str(path), f"cannot be read and written (mode {mode:04o})", f"chmod {wanted:o} {path}")
    else:
        yield ok("files", str(path), f"for this user alone (mode {mode:04o})")


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def _room(snapshot: Snapshot) -> Iterator[Finding]:
    seen = set()
    store = str(Path(snapshot.store).parent) if isinstance(snapshot.store, str) else ""
    for place in (snapshot.state_dir, snapshot.audit_dir, snapshot.audit_checkpoints, store):
        folder = _there(Path(place)) if place else None
        if folder is None or folder.stat().st_dev in seen:
            continue
        seen.add(folder.stat().st_dev)
        yield look_at_room(folder, shutil.disk_usage(folder).free)


def look_at_room(folder: Path, free: int) -> Finding:
    said = f"{free / 1024**3:.1f} GiB free"
    do = "make room, or let the journal rotate to another disk; a full disk stops calls that must be recorded"
    if free < TOO_LITTLE:
        return fail("disk", str(folder), said, do)
    return warn("disk", str(folder), said, do) if free < LITTLE else ok("disk", str(folder), said)


def _there(path: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    while not path.exists():
        path = path.parent
    return path


def look_at_store(path: Path) -> Finding:
    """Is the store whole, ours, and of this version?"""
    if not path.exists():
        return ok("store", str(path), "not there; it is made when something needs it")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (whole,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        return fail("store", str(path), f"cannot be read: {error}", "see who locks it (lsof), or restore its copy")
    if application != APPLICATION_ID:
        return fail("store", str(path), "is another program's file", "name another file in `store`")
    if whole != "ok":
        return fail("store", str(path), f"is damaged: {whole}", "stop the gateway and restore a copy of it")
    if version > len(MIGRATIONS):
        do = "run that version, or restore the copy of before"
        return fail("store", str(path), "a newer Narthex has written it", do)
    if version < len(MIGRATIONS):
        do = "the next start copies it and brings it to this one's form"
        return warn("store", str(path), f"is of form {version}", do)
    return ok("store", str(path), f"whole, form {version}")


def look_at_database(place: PostgresSpec) -> Finding:
    """Does PostgreSQL let us in, and are its tables of this version?"""
    try:
        database = database_of(place)
        connection = database.open()
        with database.explained():
            (version,) = connection.execute("SELECT current_setting('server_version')").fetchone()
        connection.close()
    except StoreError as error:
        said, _, do = error.problem.removeprefix(f"{place.name}: ").partition("; ")
        return fail("store", place.name, said, do or "see the log of the server")
    return ok("store", place.name, f"PostgreSQL {version}, tables of this version")


def look_at_journal(
    folder: Path, second: str = "", state_dir: Path | None = None, *, chain: bool = True
) -> Iterator[Finding]:
    """Is the record of calls whole? `state_dir`: where its heads are kept."""
    from narthex.telemetry.audit.checkpoints import read_keys
    from narthex.telemetry.audit.heads import heads_in
    from narthex.telemetry.audit.verify import verify

    if not folder.exists():
        yield ok("journal", str(folder), "not there yet; the gateway makes it at its first start")
        return
    if second and not os.access(second, os.W_OK):
        do = "make the folder, writable for this user; without it an end that is cut off may go unseen"
        yield warn("journal", second, "the second place of checkpoints cannot be written", do)
    if not chain:
        yield ok("journal", str(folder), "not read (--quick)")
        return
    try:
        keys, heads = read_keys(sorted(folder.glob("audit-*.pub"))), heads_in(state_dir, folder) if state_dir else []
        report = verify(folder, keys, [Path(second)] if second else [], heads=heads)
    except (OSError, ValueError) as error:
        yield fail("journal", str(folder), f"cannot be read: {error}", "narthex audit verify")
        return
    chains = len(report.chains)
    said = f"{report.records} records in {chains} chain{'' if chains == 1 else 's'}"
    if report.fault_count:
        do = "narthex audit verify names each; keep the files as they are, they are evidence"
        yield fail("journal", str(folder), f"NOT WHOLE: {report.fault_count} faults in {said}", do)
    elif report.unfinished_count:
        do = "narthex audit verify lists them: calls that had begun when the process died, or are still under way"
        yield warn("journal", str(folder), f"whole: {said}; {report.unfinished_count} calls without an end", do)
    else:
        yield ok("journal", str(folder), f"whole: {said}")
