"""The admin token is its owner's alone, and stays the same until somebody else could have read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from narthex.admin.token import FILE_NAME, load_token
from narthex.errors import ConfigError


def test_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    token = load_token(state)
    assert len(token) >= 43
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / FILE_NAME).stat().st_mode) == 0o600
    assert load_token(state) == token
    assert os.listdir(state) == [FILE_NAME]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_file_that_others_could_read_is_replaced(tmp_path: Path, mode: int) -> None:
    token = load_token(tmp_path)
    (tmp_path / FILE_NAME).chmod(mode)
    assert load_token(tmp_path) != token
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "short\n", "x" * 20 + "\0" * 40])
def test_what_is_no_token_is_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(text)
    path.chmod(0o600)
    assert load_token(tmp_path) != text.strip()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("o" * 43)
    other.chmod(0o600)
    state = tmp_path / "state"
    state.mkdir()
    (state / FILE_NAME).symlink_to(other)
    assert load_token(state) != "o" * 43
    assert other.read_text() == "o" * 43
    assert not (state / FILE_NAME).is_symlink()


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_token(tmp_path / "file" / "state")
    assert "admin.token" in caught.value.problems[0]
