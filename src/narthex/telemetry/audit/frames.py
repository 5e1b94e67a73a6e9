"""What the gateway and the process beside its journal say to each other. Imports no database.

In: nothing. Out: `Task`, `Question`, `Answer`; each goes as JSON in a frame (`beside.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from narthex.stores import StorePlace
from narthex.telemetry.audit.exports.sink import SinkSpec, State
from narthex.telemetry.audit.index.place import IndexTables
from narthex.telemetry.audit.matching import Wanted


class Task(msgspec.Struct, frozen=True):
    """Which journal, and what is to be done with it. `journal` is what its chains begin with: who signs it. `index`
    empty: no index is kept."""

    folder: str
    store: StorePlace
    index: str | IndexTables = ""
    sinks: tuple[SinkSpec, ...] = ()
    journal: str = ""


class Question(msgspec.Struct, frozen=True):
    """A page of records; without `wanted` only how it goes."""

    wanted: Wanted | None = None
    cursor: str = ""
    limit: int = 100


class Answer(msgspec.Struct):
    """`records`, the newest first; `next`: the cursor of older ones. `error`: why there is no page; `refused`, because
    the question was wrong. `problem`: why the index is not up to date; empty while it is."""

    records: list[dict[str, Any]] = []
    next: str = ""
    unread: int = 0
    error: str = ""
    refused: bool = False
    problem: str = ""
    exports: list[State] = []


def index_of(store: StorePlace, state_dir: str) -> Path | IndexTables:
    """Where the index is: beside the store, `narthex.audit.db` for `narthex.db`; or in its database. Raises
    ConfigError."""
    if isinstance(store, str):
        return Path(store).with_suffix(".audit.db")
    return IndexTables(store, journal_of(store, state_dir))


def journal_of(store: StorePlace, state_dir: str) -> str:
    """What tells journals apart that share a database: who signs them. Empty for a file. Raises ConfigError."""
    if isinstance(store, str):
        return ""
    from narthex.telemetry.audit.checkpoints import load_signer

    return load_signer(Path(state_dir)).id
