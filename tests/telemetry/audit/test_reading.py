"""Records are found by who, what and when; what is no record is counted and costs no other."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from narthex.telemetry.audit.matching import Wanted, what_of
from narthex.telemetry.audit.reading import Search, moment
from narthex.telemetry.audit.segments import Segments
from tests.telemetry.audit.writing import AT, journal, write

RECORDS: list[dict[str, Any]] = [
    {"id": f"r{number}", "event": "call", "time": f"2023-11-14T22:13:{20 + number}.000000Z", "tenant": "acme",
     "principal": {"subject": ("ada", "bob")[number % 2], "client": "bot"}, "endpoint": "default",
     "server": ("github", "time")[number % 2], "name": f"get_{number}", "decision": ("allow", "deny")[number == 3],
     "outcome": "ok", "decision_id": f"d{number}"}
    for number in range(6)
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    def add(one: Segments, number: int) -> None:
        one.add(json.dumps(RECORDS[number], separators=(",", ":")).encode())
        one.flush()

    write(tmp_path, len(RECORDS), step=add, most_bytes=1500)
    return tmp_path


def found(folder: Path, **wanted: Any) -> list[str]:
    return [one["id"] for one in Search(folder, Wanted(**wanted)) if "id" in one]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        pytest.param({}, "012345", id="everything, oldest first"),
        pytest.param({"principal": "ada"}, "024", id="who"),
        pytest.param({"principal": "ad"}, "", id="a whole name"),
        pytest.param({"principal": "bot"}, "", id="and not another member's"),
        pytest.param({"client": "bot", "decision": "deny"}, "3", id="both"),
        pytest.param({"tools": ("github__*",)}, "024", id="what"),
        pytest.param({"tools": ("time__get_1", "*__get_2")}, "12", id="one of several patterns"),
        pytest.param({"since": "2023-11-14T22:13:22", "until": "2023-11-14T22:13:24"}, "23", id="when"),
        pytest.param({"until": "2023-11-14"}, "", id="before that day"),
        pytest.param({"since": "2023-11-14"}, "012345", id="from that day on"),
        pytest.param({"id": "d4"}, "4", id="by the id that a client was told"),
        pytest.param({"tenant": "other"}, "", id="of another tenant"),
        pytest.param({"event": "call", "endpoint": "default", "outcome": "ok"}, "012345", id="where and how"),
    ],
)
def test_what_is_found(folder: Path, wanted: dict[str, Any], ids: str) -> None:
    assert [one for one in found(folder, **wanted) if one[0] == "r"] == [f"r{number}" for number in ids]


def test_the_journals_own_lines_are_no_records(folder: Path) -> None:
    assert len(journal(folder)) > 1
    assert {one["event"] for one in Search(folder, Wanted())} == {"call"}


def test_what_cannot_be_read_is_counted(folder: Path) -> None:
    path = journal(folder)[0]
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes() + b"no json\n[]\n"))
    path.unlink()
    looking = Search(folder, Wanted(principal=""))
    assert [one["id"] for one in looking if one.get("id", "").startswith("r")] == [f"r{n}" for n in range(6)]
    assert looking.unread == 2
    packed.write_bytes(packed.read_bytes()[:-200])
    looking = Search(folder, Wanted())
    assert len(list(looking)) < 12 and looking.unread


def test_segments_that_were_begun_later_are_not_opened(folder: Path) -> None:
    write(folder, 1, boot="b2", at=AT + 86_400)
    before = [path.name for path in Search(folder, Wanted(until="2023-11-15T00:00:00Z"))._files()]
    assert all(name.startswith("calls-20231114") for name in before) and len(before) == len(journal(folder)) - 1


SAID = {"resource": "git__diff"}


@pytest.mark.parametrize(
    ("record", "name"),
    [
        pytest.param({"server": "git", "name": "diff", "outcome": "ok", "policy": SAID}, "git__diff", id="sent"),
        pytest.param({"server": "git", "name": "diff", "outcome": "ok"}, "git__diff", id="sent, without rules"),
        pytest.param({"server": "git", "name": "git__x", "outcome": "ok"}, "git__git__x", id="a name like a prefix"),
        pytest.param({"event": "begin", "server": "git", "name": "git__diff"}, "git__diff", id="begins"),
        pytest.param({"event": "begin", "server": "git", "name": "diff"}, "git__diff", id="no prefix is shown"),
        pytest.param({"name": "diff", "outcome": "denied", "policy": SAID}, "git__diff", id="hidden"),
        pytest.param(
            {"server": "git", "name": "git__diff", "outcome": "approval_required", "policy": SAID},
            "git__diff", id="held",
        ),
        pytest.param({"name": "git__gone", "outcome": "not_found"}, "git__gone", id="led to nothing"),
        pytest.param({"event": "approval", "server": "git", "name": "git__x"}, "git__git__x", id="a step"),
        pytest.param(
            {"event": "admin", "name": "/api/v1/reload", "policy": {"resource": "narthex__reload"}},
            "/api/v1/reload", id="an admin action",
        ),
        pytest.param({"method": "tools/list"}, "", id="no name"),
        pytest.param({"server": ["x"], "name": 1, "policy": "p", "outcome": {}}, "['x']__1", id="not ours"),
    ],
)  # fmt: skip
def test_one_name_for_what_was_called(record: dict[str, Any], name: str) -> None:
    assert what_of(record) == name


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026", "2026-01-01T00:00:00.000000Z"),
        ("2026-11", "2026-11-01T00:00:00.000000Z"),
        ("2026-11-27T09", "2026-11-27T09:00:00.000000Z"),
        ("2026-11-27T09:30:01.5", "2026-11-27T09:30:01.500000Z"),
        ("2026-11-27T09:30:01.123456789Z", "2026-11-27T09:30:01.123456Z"),
        ("2026-11-27T00:30+01:00", "2026-11-26T23:30:00.000000Z"),
        ("2026-11-26T23:30:00-01:00", "2026-11-27T00:30:00.000000Z"),
    ],
)
def test_a_time_is_as_records_have_it(text: str, time: str) -> None:
    assert moment(text) == time == moment(time)


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "27.11.2026", "2026-13-01", "2026-02-30", "2026-11-27T24:30", "20261127", "2026-11-27 09",
     "2026-1", "2026-11-27Z", "2026-11-27T09+25:00", "0000-01-01", "0001-01-01T00+01:00", "9999-12-31T23:59-01:00",
     "٢٠٢٦"],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        moment(text)
