"""Secrets in files: read as they are meant, seen when another file stands there, refused in words otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from narthex.authority.files import MOST, FileProblem, mark_of, read_secret


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"ghp_1", "ghp_1", id="as Kubernetes mounts it"),
        pytest.param(b"ghp_1\n", "ghp_1", id="as echo writes it"),
        pytest.param(b"ghp_1\r\n", "ghp_1", id="as Windows does"),
        pytest.param(b"a\nb\n\n", "a\nb\n", id="several lines"),
        pytest.param(b" x ", " x ", id="blanks belong to it"),
    ],
)
def test_read(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "pat").write_bytes(data)
    assert read_secret(str(tmp_path / "pat")) == text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\n", "is empty", id="an empty line"),
        pytest.param(b"secret\xff", "not UTF-8", id="no text"),
        pytest.param(b"secret\0", "holds a NUL", id="a NUL"),
        pytest.param(b"secret" * MOST, "larger than 64 KiB", id="too large"),
    ],
)
def test_refused_without_a_word_of_what_is_in_it(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "pat").write_bytes(data)
    with pytest.raises(FileProblem, match=says) as refused:
        read_secret(str(tmp_path / "pat"))
    assert "secret" not in str(refused.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, says in (("fifo", "not a file"), (".", "director"), ("missing", "No such file")):
        with pytest.raises(FileProblem, match=says):
            read_secret(str(tmp_path / name))


def test_a_mounted_volume_swaps_a_link(tmp_path: Path) -> None:
    """The layout of a Kubernetes secret volume: `pat -> ..data/pat`, `..data -> ..2026_1`."""
    for version in ("1", "2"):
        (tmp_path / f"..2026_{version}").mkdir()
        (tmp_path / f"..2026_{version}" / "pat").write_text(f"value-{version}")
    (tmp_path / "..data").symlink_to("..2026_1")
    (tmp_path / "pat").symlink_to("..data/pat")
    path = str(tmp_path / "pat")
    first = mark_of(path)
    assert read_secret(path) == "value-1" and mark_of(path) == first
    (tmp_path / "..tmp").symlink_to("..2026_2")
    os.rename(tmp_path / "..tmp", tmp_path / "..data")
    assert mark_of(path) != first and read_secret(path) == "value-2"
    (tmp_path / "..data").unlink()
    assert mark_of(path) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=64))
def test_any_file_is_a_value_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "any").write_bytes(data)
    try:
        text = read_secret(str(tmp_path / "any"))
    except FileProblem:
        return
    assert data.decode() in (text, text + "\n", text + "\r\n", text + "\r") and text
