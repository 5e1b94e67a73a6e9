"""The journal is the spool: it is read on from any place, over segments, chains and what a crash has left."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex.telemetry.audit.exports.tail import Tail
from narthex.telemetry.audit.segments import Segments
from tests.telemetry.audit.writing import AT, journal, segments, write


def numbers(tail: Tail, most: int = 1000, most_bytes: int = 1 << 20) -> list[int]:
    return [int(one["n"]) for one in tail.read(most, most_bytes)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tail") / "audit"
    write(folder, 7, most_bytes=600)
    write(folder, 5, boot="b2", at=AT + 100, close=False, most_bytes=600)
    assert len(journal(folder)) > 5
    return folder


@settings(max_examples=50)
@given(most=st.integers(1, 9), most_bytes=st.integers(1, 800), stops=st.sets(st.integers(0, 12)))
def test_each_record_once_however_it_is_read(folder: Path, most: int, most_bytes: int, stops: set[int]) -> None:
    tail, found = Tail(folder, {}), []
    for turn in range(100):
        if turn in stops:
            tail = Tail(folder, tail.places)  # another process
        part = numbers(tail, most, most_bytes)
        assert len(part) <= most
        found += part
        if not part:
            break
    assert found == [*range(7), *range(5)]
    assert numbers(tail) == []


def test_going_back_reads_again(folder: Path) -> None:
    tail = Tail(folder, {})
    assert numbers(tail, 3) == [0, 1, 2]
    places = dict(tail.places)
    rest = numbers(tail)
    tail.go_back(places)
    assert numbers(tail) == rest
    tail.go_back({})
    assert numbers(tail, 2) == [0, 1]


def test_what_is_written_meanwhile_comes_next(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    tail = Tail(folder, {})
    assert numbers(tail) == []
    one: Segments = segments(folder, most_bytes=700)
    one.open(AT)
    for number in range(6):
        one.turn(AT)
        one.add(b'{"event":"call","n":%d}' % number)
        one.flush()
        assert numbers(tail) == [number]
    other = segments(folder, boot="b2")  # beside it, for a moment
    other.open(AT + 5)
    other.add(b'{"event":"call","n":100}')
    other.flush()
    one.add(b'{"event":"call","n":6}')
    one.flush()
    assert sorted(numbers(tail)) == [6, 100] and numbers(tail) == []


def test_a_line_that_is_half_written_waits(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    write(folder, 2, close=False)
    (path,) = journal(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    tail = Tail(folder, {})
    assert numbers(tail) == [0]
    path.write_bytes(whole)
    assert numbers(tail) == [1]


def test_compressed_moved_and_removed_segments(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    write(folder, 7, most_bytes=600)
    tail = Tail(folder, {})
    first, *rest = journal(folder)
    found = numbers(tail, 1)
    first.with_name(first.name + ".gz").write_bytes(gzip.compress(first.read_bytes()))
    first.unlink()
    found += numbers(tail, 2)
    rest[-1].unlink()
    rest[1].write_bytes(b"garbage\n\n")
    more = numbers(tail)
    assert found == [0, 1, 2] and more and set(more) < set(range(3, 7))
