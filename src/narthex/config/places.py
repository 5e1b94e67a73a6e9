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
from narthex.errors import ConfigError

STORE_FILE = "narthex.db"


class Places(msgspec.Struct, frozen=True):
    """Absolute. `state_dir` holds the keys, the journal and, unless `store` says otherwise, the store."""

    state_dir: Path
    store: Path


def find_places(path: Path, *, env: Mapping[str, str] | None = None) -> Places:
    """The places of a configuration.

    Raises:
        ConfigError: The file cannot be read at all, or what it says of its store is wrong.
    """
    environment = os.environ if env is None else env
    loaded = load(path, env=environment)
    marks, problems = loaded.reading.marks, loaded.reading.problems
    if problems and (not marks or (("store",) in marks and loaded.settings.store is None)):
        raise ConfigError([str(problem) for problem in problems])
    return places_of(loaded, environment)


def places_of(loaded: Loaded, env: Mapping[str, str]) -> Places:
    """The places of a file that was read."""
    state_dir = _state_dir(loaded, env)
    store = loaded.settings.store
    if store is None:
        return Places(state_dir, state_dir / STORE_FILE)
    return Places(state_dir, Path(os.path.normpath(loaded.path.absolute().parent / store)))


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
