"""Payloads in files: what is asked for and no more, in order, whatever the disk does; and read back from there."""

from __future__ import annotations

import errno
import gzip
import json
import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from narthex.telemetry.payloads import writing
from narthex.telemetry.payloads.lines import Kept, Note, erased
from narthex.telemetry.payloads.reading import Reader, files_in, lines_in
from narthex.telemetry.payloads.writing import Owner, Payloads
from tests.telemetry.audit.writing import AT
from tests.telemetry.payloads.test_lines import SEALS

DAY = 86_400.0


def id_of(number: int) -> str:
    return f"019ac4b2-7f10-7000-8d3e-{number:012d}"


def owner(number: int, subject: str = "ada") -> Owner:
    return Owner(id_of(number), "2023-11-14T22:13:20.000000Z", "default", "issuer", subject, "agent")


def put(
    one: Payloads, number: int, raw: bytes = b'{"a":1}', kept: Kept = "full", group: str = "default", now: float = AT
) -> dict[str, Any]:
    """What a record says of it."""
    note = one.put(owner(number), "arguments", raw, kept, group, now)
    return {"id": id_of(number), "payload": {"arguments": msgspec.to_builtins(note)}}


def payloads(folder: Path, **options: Any) -> Payloads:
    return Payloads(folder, **options)


def states(folder: Path, *records: dict[str, Any], **options: Any) -> list[str]:
    return [one.state for record in records for one in Reader(folder, **options).of(record)]


def test_what_was_put_is_read_back(tmp_path: Path) -> None:
    one = payloads(tmp_path)
    records = [put(one, number, b'{"n": %d}' % number) for number in range(50)]
    assert states(tmp_path, records[0]) == ["missing"], "nothing is in the file before it is written"
    one.commit()
    found = [Reader(tmp_path).of(record)[0] for record in records]
    assert [json.loads(each.body)["n"] for each in found] == list(range(50))
    (path,) = files_in(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(lines_in(path))) == 50


def test_redacted_it_is_hashed_as_it_is_kept(tmp_path: Path) -> None:
    one = payloads(tmp_path)
    record = put(one, 1, b'{"card":"4111111111111111"}', "redacted")
    one.commit()
    assert b"4111" not in files_in(tmp_path)[0].read_bytes()
    (found,) = Reader(tmp_path).of(record)
    assert (found.state, found.note.redacted, found.note.kept) == ("here", ("cards",), "redacted")


@pytest.mark.parametrize(
    ("raw", "kept", "reason"),
    [
        pytest.param(b'"' + b"x" * writing.MOST + b'"', "full", "too_large", id="too large"),
        pytest.param(b'{"a":1},"erased":true', "full", "unreadable", id="goes on beyond its place"),
        pytest.param(b'{"a":', "full", "unreadable", id="is cut off"),
        pytest.param(b'"\xff"', "full", "unreadable", id="no text"),
        pytest.param(b"[" * 5000 + b"]" * 5000, "redacted", "unreadable", id="too deep"),
    ],
)
def test_is_not_kept(tmp_path: Path, raw: bytes, kept: Kept, reason: str) -> None:
    one = payloads(tmp_path)
    record = put(one, 1, raw, kept)
    one.commit()
    assert record["payload"]["arguments"] == {"kept": "none", "reason": reason}
    assert states(tmp_path, record) == ["none"] and not any(list(lines_in(path)) for path in files_in(tmp_path))


def test_line_ends_between_values_are_worth_a_space(tmp_path: Path) -> None:
    one = payloads(tmp_path)
    record = put(one, 1, b'{\r\n"a":\n"\\n"}')
    one.commit()
    assert Reader(tmp_path).of(record)[0].body == b'{  "a": "\\n"}'


def test_each_group_and_each_day_has_a_file_of_its_own(tmp_path: Path) -> None:
    one = payloads(tmp_path, most_bytes=1000)
    records = [put(one, 1), put(one, 2, group="restricted"), put(one, 3, now=AT + DAY)]
    records += [put(one, 4 + number, now=AT + DAY) for number in range(5)]
    one.commit()
    names = [path.name for path in files_in(tmp_path)]
    assert [name[:25] for name in names[:2]] == ["payloads-default-20231114", "payloads-default-20231115"]
    assert "payloads-restricted-20231114T221320000-0.jsonl" in names and len(names) == 4
    assert set(states(tmp_path, *records)) == {"here"}


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    one = payloads(tmp_path)
    first = put(one, 1)
    one.commit()
    path = files_in(tmp_path)[0]
    path.rename(tmp_path / "elsewhere")
    second = put(one, 2)
    one.commit()
    assert states(tmp_path, first, second) == ["missing", "here"]


def test_what_a_disk_does_not_take_is_written_when_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = os.pwrite, [10]

    def full(file: int, data: bytes, at: int) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real(file, bytes(data)[: left[0]], at)
        left[0] -= count
        return count

    one = payloads(tmp_path)
    records = [put(one, 1), put(one, 2)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            one.flush()
        records.append(put(one, 3))
    one.commit()
    assert states(tmp_path, *records) == ["here"] * 3


def test_what_may_be_lost_in_a_sync_is_written_again(tmp_path: Path) -> None:
    fails = [True]

    def sync(file: int) -> None:
        if fails.pop() if fails else False:
            os.ftruncate(file, 0)  # its pages are gone
            raise OSError(errno.EIO, "Input/output error")

    one = payloads(tmp_path, sync=sync)
    records = [put(one, 1), put(one, 2)]
    with pytest.raises(OSError, match="Input"):
        one.commit()
    one.commit()
    assert states(tmp_path, *records) == ["here"] * 2


def test_a_file_that_cannot_be_made_takes_nothing(tmp_path: Path) -> None:
    one = payloads(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        put(one, 1)
    (tmp_path / "missing").mkdir()
    record = put(one, 1)
    one.commit()
    assert states(tmp_path / "missing", record) == ["here"]


def test_sealed_it_is_read_with_its_keys_only(tmp_path: Path) -> None:
    one = payloads(tmp_path, seals=SEALS)
    record = put(one, 1, b'{"a":"plain"}')
    one.commit()
    assert b"plain" not in files_in(tmp_path)[0].read_bytes()
    assert states(tmp_path, record) == ["sealed"] and states(tmp_path, record, seals=SEALS) == ["here"]


def test_compressed_or_moved_in_its_file_it_is_found(tmp_path: Path) -> None:
    one = payloads(tmp_path)
    records = [put(one, number) for number in range(3)]
    one.commit()
    path = files_in(tmp_path)[0]
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert states(tmp_path, *records) == ["here"] * 3
    lines = gzip.decompress(path.with_name(path.name + ".gz").read_bytes()).splitlines(keepends=True)
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(b"".join(lines[1:])))
    assert states(tmp_path, *records) == ["missing", "here", "here"]


def test_what_was_changed_or_erased_is_told_apart(tmp_path: Path) -> None:
    one = payloads(tmp_path)
    records = [put(one, number) for number in range(3)]
    one.commit()
    path = files_in(tmp_path)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0].replace(b'"a":1', b'"a":2') + erased(lines[1]) + lines[2])
    assert states(tmp_path, *records) == ["changed", "erased", "here"]


@pytest.mark.parametrize("file", ["/etc/passwd", "../x", "payloads-../x", "calls-1.jsonl", ""])
def test_a_record_cannot_make_anybody_read_another_file(tmp_path: Path, file: str) -> None:
    note = msgspec.to_builtins(Note("full", "sha256:00", 1, (), file, 0))
    assert states(tmp_path, {"id": id_of(1), "payload": {"arguments": note}}) == ["missing"]
