"""Where what belongs to a configuration lies: its state directory and its store. Design §6.

In: a configuration file. Out: `Places`, also for a file that a gateway would refuse for other reasons: a key must be
revoked even while a variable is not set. Cases: `tests/config/test_places.py`.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from narthex.config.client import workspace_of
from narthex.config.load import Loaded, load
from narthex.config.store import compile_store
from narthex.errors import ConfigError
from narthex.stores import PostgresSpec

STORE_FILE = "narthex.db"


class Places(msgspec.Struct, frozen=True):
    """Absolute. `state_dir` holds the keys, the journal and, unless `store` says otherwise, the store."""

    state_dir: Path
    store: Path | PostgresSpec


def find_places(path: Path, *, env: Mapping[str, str] | None = None) -> Places:
    """The places of a configuration.

    Raises:
        ConfigError: The file cannot be read at all, or what it says of its store is wrong.
    """
    environment = os.environ if env is None else env
    loaded = load(path, env=environment)
    marks, problems = loaded.reading.marks, loaded.reading.problems
    store = loaded.settings.store
    if problems and (not marks or (("store",) in marks and (store is None or store.url is None))):
        raise ConfigError([str(problem) for problem in problems])
    already = len(problems)
    places = places_of(loaded, environment)
    if found := problems[already:]:
        raise ConfigError([str(problem) for problem in found])
    return places


def places_of(loaded: Loaded, env: Mapping[str, str]) -> Places:
    """The places of a file that was read. What is wrong with `store` is a fault of the reading."""
    state_dir = _state_dir(loaded, env)
    settings, base = loaded.settings, loaded.path.absolute().parent
    store = compile_store(settings.store, settings.secrets, loaded.reading, base)
    return Places(state_dir, state_dir / STORE_FILE if store is None else store)


def _state_dir(loaded: Loaded, env: Mapping[str, str]) -> Path:
    """Beside our own file; for a client's, in the user's data directory."""
    path = loaded.path.absolute()
    if not loaded.client:
        return path.parent / ".narthex"
    home = Path(env.get("HOME") or Path.home())
    data = home / ("Library/Application Support" if sys.platform == "darwin" else ".local/share")
    if (xdg := env.get("XDG_DATA_HOME", "")).startswith("/"):
        data = Path(xdg)
    mark = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    return data / "narthex" / f"{workspace_of(loaded.path).name or 'root'}-{mark}"
