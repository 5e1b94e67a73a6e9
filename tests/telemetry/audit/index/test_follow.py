"""The index is what the journal says, however often, whenever and by how many it is brought up to date."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from stat import S_IMODE
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex.telemetry.audit.index import follow
from narthex.telemetry.audit.index.find import Finder
from narthex.telemetry.audit.index.follow import Follower
from narthex.telemetry.audit.index.place import IndexTables, Where, place_of
from narthex.telemetry.audit.matching import Wanted
from narthex.telemetry.audit.segments import Segments
from narthex.telemetry.stamps import stamp
from tests.counterparts.postgres import Databases
from tests.telemetry.audit.writing import AT, journal, segments, write


def line(number: int, **more: Any) -> bytes:
    record = {"id": f"r{number}", "event": "call", "time": stamp(AT + number), "n": number, **more}
    return json.dumps(record, separators=(",", ":")).encode()


def add(one: Segments, number: int) -> None:
    one.add(line(number))
    one.flush()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "audit", 6, step=add, most_bytes=900)
    assert len(journal(tmp_path / "audit")) > 2
    return tmp_path / "audit"


@pytest.fixture(params=["sqlite", "postgres"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    if request.param == "sqlite":
        return tmp_path / "state" / "index.db"
    databases: Databases = request.getfixturevalue("databases")
    return IndexTables(databases.new(), "k1")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "index.db"


def found(folder: Path, index: Where, **wanted: Any) -> list[str]:
    """Ids by the index as it is, the oldest first."""
    connection = place_of(index).open(folder)
    ids = [str(one["id"]) for one in Finder(folder, index, connection).each(Wanted(**wanted)) if "id" in one]
    connection.close()
    return ids[::-1]


def ids(*numbers: int) -> list[str]:
    return [f"r{number}" for number in numbers]


def catch_up(folder: Path, index: Where) -> int:
    follower = Follower(folder, index)
    try:
        return follower.catch_up()
    finally:
        follower.close()


def test_every_record_is_noted_once(folder: Path, index: Where) -> None:
    assert catch_up(folder, index) == 12  # each step writes a second record, of another form
    assert found(folder, index) == ids(*range(6))
    assert not isinstance(index, Path) or S_IMODE(index.stat().st_mode) == 0o600
    assert catch_up(folder, index) == 0
    follower = Follower(folder, index)
    assert (follower.catch_up(), follower.catch_up()) == (0, 0)


def test_it_goes_on_where_it_has_stopped(tmp_path: Path, index: Where) -> None:
    folder = tmp_path / "audit"
    one, follower = segments(folder, most_bytes=700), None
    one.open(AT)
    for number in range(6):
        one.turn(AT)
        add(one, number)
        follower = follower or Follower(folder, index)
        assert follower.catch_up() == 1
    assert found(folder, index) == ids(*range(6))


def test_a_line_that_is_half_written_waits(tmp_path: Path, index: Where) -> None:
    folder = tmp_path / "audit"
    one = segments(folder)
    one.open(AT)
    add(one, 0)
    (path,) = journal(folder)
    whole = path.read_bytes()
    for cut in range(len(whole) - 150, len(whole), 1 if isinstance(index, Path) else 30):
        path.write_bytes(whole[:cut])
        catch_up(folder, index)
        assert found(folder, index) == []
    path.write_bytes(whole)
    assert catch_up(folder, index) == 1 and found(folder, index) == ids(0)


def test_what_a_crash_takes_back_is_taken_out(tmp_path: Path, index: Where) -> None:
    folder = tmp_path / "audit"
    one = segments(folder)
    one.open(AT)
    for number in range(4):
        one.add(line(number, run=f"u{number}"))
        one.flush()
    catch_up(folder, index)
    (path,) = journal(folder)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:40])
    assert catch_up(folder, index) == 0
    assert found(folder, index) == ids(0, 1) and found(folder, index, run="u3") == []
    write(folder, 1, boot="b2", at=AT + 60, step=lambda one, _: add(one, 9))
    catch_up(folder, index)
    assert [one for one in found(folder, index) if one[0] == "r"] == ids(0, 1, 9)


def test_a_crash_in_the_middle_of_a_batch_notes_nothing_twice(
    folder: Path, index: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "BATCH", 300)
    kept = Follower._rows
    for stop in range(1, 14):

        def rows(self: Follower, *given: Any, left: list[int] = [stop]) -> Any:  # noqa: B006 - one for each round
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return kept(self, *given)

        monkeypatch.setattr(Follower, "_rows", rows)
        follower = Follower(folder, index)
        with pytest.raises(KeyboardInterrupt):
            follower.catch_up()
            raise KeyboardInterrupt  # there was no more to do
        follower.close()
    monkeypatch.setattr(Follower, "_rows", kept)
    catch_up(folder, index)
    assert found(folder, index) == ids(*range(6))


def test_two_that_follow_at_once(folder: Path, index: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "BATCH", 200)
    first, second = Follower(folder, index), Follower(folder, index)
    kept = Follower._noted
    turns = iter([second, first, second, second, first])

    def noted(self: Follower, *given: Any) -> Any:
        if self is first and next(turns, None) is second:
            second.catch_up()
        return kept(self, *given)

    monkeypatch.setattr(Follower, "_noted", noted)
    first.catch_up()
    second.catch_up()
    assert found(folder, index) == ids(*range(6))


def test_a_segment_under_another_name_is_the_same(folder: Path, index: Where) -> None:
    catch_up(folder, index)
    first, second, *_ = journal(folder)
    packed = first.with_name(first.name + ".gz")
    packed.write_bytes(gzip.compress(first.read_bytes()))
    first.unlink()
    second.rename(second.with_name("calls-moved.jsonl"))
    assert catch_up(folder, index) == 0
    assert found(folder, index) == ids(*range(6))


def test_segments_that_are_gone_are_forgotten(folder: Path, index: Where) -> None:
    write(
        folder,
        1,
        boot="b2",
        at=AT + 60,
        step=lambda one, _: one.add(line(60, principal={"subject": "mallory"})) and None,
    )
    catch_up(folder, index)
    assert found(folder, index, principal="mallory") == ["r60"]
    last = journal(folder)[-1]
    whole = last.read_bytes()
    last.unlink()
    other = Follower(folder, index)
    other.catch_up()
    last.write_bytes(whole)
    other.catch_up()  # and remembers texts by their numbers
    last.unlink()
    catch_up(folder, index)
    assert found(folder, index, principal="mallory") == [] and found(folder, index) == ids(*range(6))
    last.write_bytes(whole)
    assert other.catch_up() and found(folder, index, principal="mallory") == ["r60"], "and it may come back"
    other.close()
    last.unlink()
    catch_up(folder, index)
    if isinstance(index, Path):
        assert b"mallory" not in index.read_bytes()
    else:
        connection = place_of(index).open(folder)
        assert connection.execute("SELECT * FROM texts WHERE text = 'mallory'").fetchall() == []
        connection.close()


def test_a_file_that_is_no_index_of_this_journal_is_made_anew(folder: Path, file: Path, tmp_path: Path) -> None:
    catch_up(folder, file)
    for spoil in (b"garbage" * 1000, file.read_bytes()[:5000], b""):
        file.write_bytes(spoil)
        assert catch_up(folder, file) == 12
        assert found(folder, file) == ids(*range(6))
    assert catch_up(tmp_path / "nowhere", file) == 0
    assert found(tmp_path / "nowhere", file) == []


@settings(max_examples=25, deadline=None)
@given(
    data=st.lists(st.sampled_from([b"\n", b"{}", b"[]", b'{"event":"call"}', b"\xff", b'{"time":7,"principal":[]}']))
)
def test_whatever_stands_in_a_segment_the_rest_is_noted(tmp_path_factory: Any, data: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("hostile") / "audit"
    write(folder, 3, step=add)
    (path,) = journal(folder)
    head, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(head + b"".join(data) + b"\n" + b"".join(rest))
    catch_up(folder, folder / "index.db")
    assert [one for one in found(folder, folder / "index.db") if one[0] == "r"] == ids(*range(3))
