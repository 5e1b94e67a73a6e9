"""By the index the same is found as by reading every line, a page at a time, and few places are looked at."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex.telemetry.audit.index import find
from narthex.telemetry.audit.index.find import Finder, Page
from narthex.telemetry.audit.index.follow import Follower
from narthex.telemetry.audit.index.place import IndexTables, Where
from narthex.telemetry.audit.matching import Matcher, Wanted, facts_of
from narthex.telemetry.audit.reading import Search, moment
from narthex.telemetry.audit.segments import Segments
from narthex.telemetry.stamps import id_of, stamp
from tests.counterparts.postgres import Databases
from tests.telemetry.audit.writing import AT, journal, segments

COUNT = 400


def made(number: int) -> dict[str, Any]:
    """Records of all kinds, with what is frequent and what is rare; of a minute each, and many of one moment."""
    at = AT + number // 7 * 60 + (0.5 if number % 5 == 0 else 0.0)
    record: dict[str, Any] = {
        "v": 1, "id": id_of(int(at * 1000), number & 0xFFF, b"12345678"), "time": stamp(at), "event": "call",
        "tenant": "default" if number % 9 else "acme",
        "principal": {"subject": ("ada", "bob", "ann")[number % 3], "client": f"bot-{number % 2}"},
        "endpoint": "default", "method": "tools/call", "decision": "allow", "outcome": "ok",
        "server": ("git", "time")[number % 2], "name": f"get_{number % 11}", "run": f"run-{number // 10}",
        "trace": f"{number // 3:032x}", "session": "s1",
    }  # fmt: skip
    if number % 13 == 0:
        record |= {
            "decision": "deny",
            "outcome": "denied",
            "name": f"git__push_{number % 4}",
            "decision_id": f"d{number}",
        }
        record["policy"] = {"resource": record["name"], "rule": ("no pushes", "other")[number % 2], "effect": "deny"}
    if number % 50 == 7:
        record |= {"event": "admin", "name": "/api/v1/Reload", "method": "reload"}
    if number % 60 == 9:
        record |= {"event": "approval", "approval": f"a{number}", "rule": "large", "time": stamp(at - 3600)}
    if record["event"] == "call" and number % 3:
        record["definition_digest"] = f"sha256:{number % 5:064x}"
    if number % 20 == 3:
        record["upstream"] = {"protocol": "2026-07-28", "status": (200, 503)[number % 40 == 3]}
    if number == 31:
        record |= {"event": "recount", "call": made(30)["id"]}
    return record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("found") / "audit"
    one = segments(folder, most_bytes=40_000)
    one.open(AT)
    for number in range(COUNT):
        one.turn(AT + number // 7 * 60)
        one.add(json.dumps(made(number), separators=(",", ":")).encode())
        one.flush()
    one.close(AT)
    assert len(journal(folder)) > 3
    return folder


def found_in(folder: Path, where: Where) -> Iterator[Finder]:
    follower = Follower(folder, where)
    assert follower.catch_up() == COUNT
    yield Finder(folder, where, follower.connection)
    follower.close()


@pytest.fixture(scope="module")
def in_a_file(folder: Path) -> Iterator[Finder]:
    yield from found_in(folder, folder.parent / "index.db")


@pytest.fixture(scope="module")
def in_postgresql(folder: Path, databases: Databases) -> Iterator[Finder]:
    yield from found_in(folder, IndexTables(databases.new(), "k1"))


@pytest.fixture(params=["in_a_file", "in_postgresql"])
def finder(request: pytest.FixtureRequest) -> Finder:
    found: Finder = request.getfixturevalue(request.param)
    return found


def by_reading(folder: Path, wanted: Wanted) -> list[str]:
    """Steps of approvals may be of an earlier time than their segment, so every segment is read."""
    fits = Matcher(wanted)
    return [one["id"] for one in Search(folder, Wanted()) if fits(one)]


def pages(finder: Finder, wanted: Wanted, limit: int) -> Iterator[Page]:
    before = 0
    while True:
        page = finder.page(wanted, before=before, limit=limit)
        yield page
        if not page.next:
            return
        assert page.next < before or not before
        before = page.next


some = st.sampled_from
WANTED = st.fixed_dictionaries(
    {},
    optional={
        "principal": some(["ada", "bob", "nobody"]), "client": some(["bot-0", "bot-1"]),
        "tenant": some(["acme", "default"]), "endpoint": some(["default", "x"]),
        "server": some(["git", "time"]), "method": some(["tools/call", "reload"]),
        "decision": some(["allow", "deny"]), "outcome": some(["ok", "denied"]),
        "event": some(["call", "admin", "approval"]), "rule": some(["no pushes", "large"]),
        "tools": some([("git__*",), ("*_1",), ("git__push_?", "time__get_3"), ("x",)]),
        "text": some(["PUSH", "reload", "get_1", "%"]), "run": some(["run-3", "run-39"]), "trace": some([f"{5:032x}"]),
        "session": some(["s1", "s2"]), "approval": some(["a9"]), "call": some([made(30)["id"], "none"]),
        "upstream_status": some(["503", "404", "200"]),
        "definition": some([f"sha256:{3:064x}", f"{4:064x}", f"{9:064x}", "3"]),
        "id": some(["d13", made(30)["id"], made(69)["id"], "d0000", made(30)["id"][:-1] + "0"]),
        "since": some([moment("2023-11-14T23"), stamp(AT + 600)]),
        "until": some([stamp(AT + 1200.5), "2023-11-14T23:1"]),
    },
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(wanted=WANTED, limit=st.integers(1, 60))
def test_the_same_is_found_as_by_reading_every_line(
    folder: Path, in_a_file: Finder, wanted: dict[str, Any], limit: int
) -> None:
    check_the_same(folder, in_a_file, Wanted(**wanted), limit)


@settings(max_examples=60, deadline=None)
@given(wanted=WANTED, limit=st.integers(5, 60))
def test_in_postgresql_the_same_is_found(
    folder: Path, in_postgresql: Finder, wanted: dict[str, Any], limit: int
) -> None:
    check_the_same(folder, in_postgresql, Wanted(**wanted), limit)


def check_the_same(folder: Path, finder: Finder, asked: Wanted, limit: int) -> None:
    found = [one for page in pages(finder, asked, limit) for one in page.records]
    expected = by_reading(folder, asked)
    assert Counter(one["id"] for one in found) == Counter(expected)
    times = [one["time"] for one in found]
    assert times == sorted(times, reverse=True)
    assert finder.count(asked) == len(expected)


def test_an_id_of_a_time_beyond_all_records_is_nobodys(finder: Finder) -> None:
    assert finder.page(Wanted(id="ffffffff-ffff-7fff-8fff-ffffffffffff")) == Page([])


def test_groups_are_counted(folder: Path, finder: Finder) -> None:
    wanted = Wanted(decision="deny")
    expected = Counter((facts_of(one)["subject"], facts_of(one)["rule"]) for one in Search(folder, wanted))
    assert {one.texts: one.count for one in finder.grouped(wanted, "subject", "rule")} == expected
    times = [one["time"] for one in Search(folder, wanted)]
    (all_,) = finder.grouped(wanted, "decision")
    assert (all_.first, all_.last, all_.count) == (min(times), max(times), len(times))
    assert finder.grouped(Wanted(principal="nobody"), "subject") == []


@pytest.mark.parametrize(
    ("wanted", "by"),
    [
        pytest.param(
            {"principal": "ada"}, "by_subject (subject=? AND rowid>? AND rowid<?)", id="who, in order of time"
        ),
        pytest.param({"tools": ("git__get_2",)}, "by_target (target=? AND rowid>? AND rowid<?)", id="what"),
        pytest.param({"decision": "deny", "principal": "ada"}, "by_decision (decision=?", id="the rarer of two"),
        pytest.param(
            {"tenant": "acme", "principal": "ada", "decision": "allow"}, "by_tenant (tenant=?", id="a rare tenant"
        ),
        pytest.param({"definition": f"{3:064X}"}, "by_definition (definition=?", id="as it was listed then"),
        pytest.param({"event": "admin"}, "by_event (event=?", id="what is no call"),
        pytest.param(
            {"decision": "allow"}, "records USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)", id="what most are"
        ),
        pytest.param({}, "records USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)", id="everything"),
        pytest.param({"run": "run-3"}, "marks USING PRIMARY KEY (mark=? AND at>? AND at<?)", id="a run"),
    ],
)
def test_it_is_looked_up_and_not_sorted(in_a_file: Finder, wanted: dict[str, Any], by: str) -> None:
    plan = in_a_file.explain(Wanted(**wanted))
    assert by in plan[0] and not any("TEMP B-TREE" in step for step in plan), plan


def test_few_places_are_looked_at(finder: Finder) -> None:
    page = finder.page(Wanted(principal="ada", since=stamp(AT + 600)), limit=10)
    assert len(page.records) == page.looked_at == 10 and page.next
    assert finder.page(Wanted(id=made(30)["id"])).looked_at < 60
    assert finder.page(Wanted(principal="nobody")) == Page([])


def test_a_page_ends_where_it_has_looked_long_enough(finder: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "MOST_LOOKED_AT", 25)
    found = [one["id"] for page in pages(finder, Wanted(text="push"), 100) for one in page.records]
    monkeypatch.undo()
    assert found == [one["id"] for one in finder.page(Wanted(text="push"), limit=COUNT).records]


def test_a_record_that_stands_there_no_more_is_counted(tmp_path: Path) -> None:
    one: Segments = segments(tmp_path / "audit")
    one.open(AT)
    for number in range(3):
        one.add(json.dumps(made(number)).encode())
    one.close(AT)
    follower = Follower(tmp_path / "audit", tmp_path / "index.db")
    follower.catch_up()
    (path,) = journal(tmp_path / "audit")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'{"v": 1', b'x"v": 1', 1))
    finder = Finder(tmp_path / "audit", tmp_path / "index.db", follower.connection)
    page = finder.page(Wanted())
    assert (len(page.records), page.unread) == (2, 1)
    path.write_bytes(whole.replace(b'"ada"', b'"bob"', 1))
    assert [one["id"] for one in finder.page(Wanted(principal="ada")).records] == [], "the record says what it is"
    path.unlink()
    assert finder.page(Wanted()).unread == 3
    follower.close()
