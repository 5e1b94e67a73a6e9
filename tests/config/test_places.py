"""Where the state and the store of a configuration lie, also where a gateway would refuse the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.compile import load_snapshot
from narthex.config.places import find_places
from narthex.errors import ConfigError

SERVER = "servers: {one: {url: 'http://127.0.0.1:1/mcp'}}\n"


@pytest.mark.parametrize(
    ("text", "store"),
    [
        pytest.param("version: 1\n", ".narthex/narthex.db", id="by default in the state directory"),
        pytest.param("version: 1\nstore: sqlite:///a/b.db\n", "a/b.db", id="relative to the file"),
        pytest.param("version: 1\nstore: sqlite:///../b.db\n", "../b.db", id="relative and above"),
        pytest.param("version: 1\nstore: sqlite:////var/b.db\n", "/var/b.db", id="absolute"),
    ],
)
def test_the_store(tmp_path: Path, text: str, store: str) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text(text + SERVER)
    places = find_places(path, env={})
    assert places.store == (tmp_path / store).resolve()
    assert places.state_dir == tmp_path / ".narthex"
    snapshot = load_snapshot(path, env={})
    assert (snapshot.store, snapshot.state_dir) == (str(places.store), str(places.state_dir))


def test_a_clients_file_has_its_state_with_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {"one": {"url": "http://127.0.0.1:1/mcp"}}}')
    places = find_places(path, env={"HOME": str(tmp_path / "home"), "XDG_DATA_HOME": str(tmp_path / "data")})
    assert places.store.parent == places.state_dir
    assert places.state_dir.parent == tmp_path / "data" / "narthex"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("version: 1\nstore: [\n", id="cannot be read"),
        pytest.param("", id="empty"),
        pytest.param("version: 1\nstore: nothing://\n", id="its store is wrong"),
    ],
)
def test_a_file_that_does_not_say_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        find_places(path, env={})
    with pytest.raises(ConfigError):
        find_places(tmp_path / "missing.yaml", env={})
