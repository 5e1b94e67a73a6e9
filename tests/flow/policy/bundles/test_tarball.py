"""A tarball is read as its author's program wrote it, or refused: never half, never without bounds."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.policy.bundles.tarball import NoTarball, unpack

names = st.text(st.characters(categories=("L", "N"), include_characters="._- "), min_size=1, max_size=300)
paths = st.lists(names.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3).map("/".join)
files = st.dictionaries(paths.filter(lambda path: len(path) <= 1000), st.binary(max_size=1500), max_size=6)


def packed(entries: list[tuple[str | tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as archive:
        for name, data in entries:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def special(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("one")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@given(files, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_every_file_comes_out_as_it_went_in(files: dict[str, bytes], form: int) -> None:
    assert unpack(packed(list(files.items()), form)) == files


@given(files.filter(bool), st.data())
def test_a_part_of_an_archive_is_refused(files: dict[str, bytes], data: st.DataObject) -> None:
    whole = packed(list(files.items()))
    with pytest.raises(NoTarball):
        unpack(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(files, st.data())
def test_damage_is_seen(files: dict[str, bytes], data: st.DataObject) -> None:
    whole = bytearray(packed(list(files.items())))
    place = data.draw(st.integers(10, len(whole) - 1))  # before that: time, system, flags of gzip
    whole[place] ^= data.draw(st.integers(1, 255))
    with suppress(NoTarball):
        assert unpack(bytes(whole)) == files  # the last bits of a byte may mean nothing


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        pytest.param(lambda: packed([("a/../../b", b"")]), "path", id="a path that leads out"),
        pytest.param(lambda: packed([("..", b"")]), "path", id="the folder above"),
        pytest.param(lambda: packed([("a\\b", b"")]), "path", id="a path for another system"),
        pytest.param(lambda: packed([("a\nb", b"")]), "path", id="a path that would spoil a log line"),
        pytest.param(lambda: packed([("a", b"1"), ("./a", b"2")]), "twice", id="a file twice, written otherwise"),
        pytest.param(lambda: packed([(special(tarfile.SYMTYPE), b"")]), "no plain file", id="a symbolic link"),
        pytest.param(lambda: packed([(special(tarfile.LNKTYPE), b"")]), "no plain file", id="a hard link"),
        pytest.param(lambda: packed([(special(tarfile.CHRTYPE), b"")]), "no plain file", id="a device"),
        pytest.param(lambda: packed([(special(tarfile.FIFOTYPE), b"")]), "no plain file", id="a pipe"),
        pytest.param(lambda: packed([("a", bytes(200_000))]), "larger than", id="a bomb"),
        pytest.param(lambda: packed([(str(n), b"") for n in range(11)]), "more than", id="too many files"),
        pytest.param(lambda: gzip.compress(b"x" * 600), "header", id="gzip, and no tar in it"),
        pytest.param(lambda: b"module", "gzip", id="no gzip"),
        pytest.param(lambda: b"", "short", id="nothing"),
        pytest.param(lambda: packed([("a", b"")]) + b"more", "behind its end", id="something behind the end"),
        pytest.param(lambda: gzip.compress(zlib.decompress(packed([("a", b"1")]), 31)[:1024]), "short",
                     id="whole gzip around half a tar"),
    ],
)  # fmt: skip
def test_what_is_refused(archive: Callable[[], bytes], said: str) -> None:
    with pytest.raises(NoTarball, match=said):
        unpack(archive(), most_bytes=100_000, most_files=10)


def test_a_bomb_is_not_unpacked_to_its_end() -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    tracemalloc.start()
    with pytest.raises(NoTarball, match="larger than"):
        unpack(bomb, most_bytes=1024 * 1024)
    assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    tracemalloc.stop()


def test_folders_and_leading_slashes_are_what_go_writes() -> None:
    folder = tarfile.TarInfo("policy")
    folder.type = tarfile.DIRTYPE
    assert unpack(packed([(folder, b""), ("/policy/a.rego", b"1"), ("./b.rego", b"2")])) == {
        "policy/a.rego": b"1",
        "b.rego": b"2",
    }
