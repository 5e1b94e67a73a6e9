"""Stores in which the same must hold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from narthex.store.database import Where
from narthex.store.port import Store
from tests.counterparts.postgres import Databases
from tests.store.opened import at, memory, sqlite

Opened = Callable[[], AbstractAsyncContextManager[Store]]


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    """A database of each kind, empty."""
    if request.param == "sqlite":
        return tmp_path / "narthex.db"
    databases: Databases = request.getfixturevalue("databases")
    return databases.new()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """A store of each kind, empty."""
    if request.param == "memory":
        return memory
    if request.param == "sqlite":
        return lambda: sqlite(tmp_path)
    databases: Databases = request.getfixturevalue("databases")
    spec = databases.new()
    return lambda: at(spec)
