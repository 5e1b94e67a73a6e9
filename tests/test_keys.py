"""Master keys: from the environment, or from a private file of our own; every fault says the way out."""

from __future__ import annotations

import base64
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from narthex.errors import ConfigError
from narthex.keys import load_keys

ONE, TWO = bytes(range(32)), bytes(range(200, 232))
B64_ONE, B64_TWO = (base64.b64encode(key).decode() for key in (ONE, TWO))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        pytest.param(B64_ONE, [ONE], id="base64"),
        pytest.param(base64.urlsafe_b64encode(TWO).decode().rstrip("="), [TWO], id="base64url without padding"),
        pytest.param(ONE.hex(), [ONE], id="hexadecimal"),
        pytest.param(f"{B64_TWO}, {ONE.hex().upper()}\n", [TWO, ONE], id="several, the first is current"),
    ],
)
def test_from_the_environment(tmp_path: Path, text: str, keys: list[bytes]) -> None:
    assert load_keys(tmp_path / "state", {"NARTHEX_KEY": text}) == keys
    assert not (tmp_path / "state").exists(), "nothing is written"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(" , ", id="only a comma"),
        pytest.param("hunter2-is-not-a-key", id="a password"),
        pytest.param(base64.b64encode(b"x" * 16).decode(), id="too short"),
        pytest.param("g" * 64, id="64 letters that are no hexadecimal"),
        pytest.param(f"{B64_ONE},nonsense", id="the second is none"),
        pytest.param("é" * 44, id="not ASCII"),
        pytest.param(B64_ONE[:-2] + "9=", id="stray bits at the end"),
    ],
)
def test_a_bad_variable_is_refused_and_never_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_keys(tmp_path, {"NARTHEX_KEY": text})
    message = caught.value.detail
    assert "NARTHEX_KEY" in message
    assert "openssl rand" in message
    assert not any(word in message for word in text.split(",") if len(word.strip()) > 3)
    assert list(tmp_path.iterdir()) == [], "a wrong variable never falls back to a new key"


def test_a_file_is_made_once_and_private(tmp_path: Path) -> None:
    state = tmp_path / ".narthex"
    umask = os.umask(0)
    try:
        first = load_keys(state, {})
    finally:
        os.umask(umask)
    assert len(first[0]) == 32
    assert load_keys(state, {}) == first
    assert [path.name for path in state.iterdir()] == ["narthex.key"]
    assert stat.S_IMODE((state / "narthex.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_two_installations_have_two_keys(tmp_path: Path) -> None:
    assert load_keys(tmp_path / "a", {}) != load_keys(tmp_path / "b", {})


def test_many_starting_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: load_keys(tmp_path / "state", {})[0], range(24)))
    assert len(set(found)) == 1
    assert len(list((tmp_path / "state").iterdir())) == 1


def test_a_rotated_file_has_the_current_key_in_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "narthex.key"
    path.write_text(f"{B64_TWO}\n{B64_ONE}\n")
    path.chmod(0o600)
    assert load_keys(tmp_path, {}) == [TWO, ONE]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666], ids=oct)
def test_a_file_that_others_reach_is_refused_with_the_way_out(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "narthex.key"
    path.write_text(B64_ONE)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="refused") as caught:
        load_keys(tmp_path, {})
    assert f"chmod 600 {path}" in caught.value.detail
    assert B64_ONE not in caught.value.detail


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"nonsense\n"], ids=["empty", "binary", "nonsense"])
def test_a_broken_file_is_an_error_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "narthex.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        load_keys(tmp_path, {})
    assert path.read_bytes() == content


def test_a_fifo_or_directory_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "narthex.key", 0o600)
    (tmp_path / "b" / "narthex.key").mkdir(parents=True)
    for state in ("a", "b"):
        with pytest.raises(ConfigError):
            load_keys(tmp_path / state, {})


def test_a_state_directory_that_cannot_be_made_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_keys(tmp_path / "file" / "state", {})
    assert "NARTHEX_KEY" in caught.value.detail
