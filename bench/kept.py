"""What is asked of memory beside the way of a call: whose key this is, and the record of the call. For `steps.py`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from rooms import Rooms

from narthex.authority.api_keys import KeyTable
from narthex.flow.identity.api_keys import make_key
from narthex.flow.policy.admissions import Admissions
from narthex.store.port import ApiKey
from narthex.telemetry.audit.checkpoints import load_signer
from narthex.telemetry.journal import Journal
from narthex.types import Snapshot

KEYS = 10_000
Least = Callable[[Sequence[Callable[[], Any]], int], list[float]]


def looked_up(least: Least, repeats: int) -> dict[str, Any]:
    """Whose key is this, among ten thousand?"""
    made = [make_key(os.urandom) for _ in range(KEYS)]
    table = KeyTable(time.time)
    table.load([ApiKey(one.id, f"service-{number}", one.digest, 1) for number, one in enumerate(made)])
    presented = made[KEYS // 2].text.encode()
    assert table.find(presented) is not None
    (us,) = least([lambda: table.find(presented)], repeats)
    return {"room": "identity", "step": f"`KeyTable.find` among {KEYS:,}", "us": us}


def recorded(r: Rooms, least: Least, repeats: int, folder: Path) -> list[dict[str, Any]]:
    """What a call costs more when it is recorded, and with what was decided on; lines are written by another thread."""
    journal, front = Journal(folder, load_signer(folder.parent)), r.gateway.front
    plain, checking = front.snapshot, Admissions(None, {}, front.now)
    full = replace(plain, audit_inputs="full")

    def taken_by(record: Any, snapshot: Snapshot, admissions: Admissions | None = None) -> Callable[[], None]:
        def call() -> None:
            front.record, front.snapshot, front._admissions = record, snapshot, admissions
            front.frames = journal.frames
            r.connection.data_received(r.request)
            front.records.flush()

        return call

    try:
        calls = [taken_by(None, plain), taken_by(journal.add, plain), taken_by(journal.add, full, checking)]
        without, with_it, with_input = least(calls, max(repeats, 100))
    finally:
        front.record, front.snapshot, front._admissions = None, plain, None
        front.frames = None
        journal.close()
    return [
        {"room": "telemetry", "step": "the record of a call", "us": max(0.0, with_it - without)},
        {"room": "telemetry", "step": "the same with its input", "us": max(0.0, with_input - without)},
    ]
