"""Nothing that is done to a journal goes unseen; what a crash leaves is no fault."""

from __future__ import annotations

import gzip
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from narthex.telemetry.audit.chain import Chain
from narthex.telemetry.audit.checkpoints import Signer
from narthex.telemetry.audit.segments import Segments
from narthex.telemetry.audit.verify import verify
from tests.telemetry.audit.writing import AT, SIGNER, journal, look, points, record, whats, write


def commits(one: Segments, number: int) -> None:
    if number % 100 == 99:
        one.commit(AT)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chains, the first of them in several segments."""
    folder = tmp_path_factory.mktemp("journal")
    write(folder, 600, most_bytes=40_000, step=commits)
    write(folder, 50, boot="b2", at=AT + 1)
    assert not look(folder).faults
    return folder


@pytest.fixture
def copied(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copied"))


def edit(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def swap(lines: list[bytes]) -> list[bytes]:
    return [*lines[:5], lines[6], lines[5], *lines[7:]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda lines: lines[:5] + lines[6:], "is missing before it", id="a record left out"),
        pytest.param(lambda lines: lines[:5] + lines[9:], "are missing before it", id="several left out"),
        pytest.param(swap, "is missing before it", id="two swapped"),
        pytest.param(lambda lines: lines[:6] + lines[5:], "stands behind number", id="one twice"),
        pytest.param(lambda lines: [*lines[:5], record(7) + b"\n", *lines[5:]], "no line of a chain", id="one put in"),
        pytest.param(lambda lines: [*lines[:5], b"\n", *lines[5:]], "no line of a chain", id="an empty line"),
        pytest.param(lambda lines: [*lines[:5], lines[5].replace(b"call", b"cell"), *lines[6:]], "hash", id="a word"),
        pytest.param(lambda lines: lines[:-3], "are missing before it", id="the end of a segment cut off"),
        pytest.param(lambda lines: [*lines[:-1], lines[-1][:-9]], "no line of a chain", id="its last line torn"),
        pytest.param(lambda lines: lines[1:], "its first line is not that of a segment", id="its first line left out"),
    ],
)
def test_the_first_bad_record_is_named(copied: Path, change: Callable[[list[bytes]], list[bytes]], says: str) -> None:
    path = journal(copied)[1]
    edit(path, change)
    report = look(copied)
    assert any(says in one.text for one in report.faults), report.faults
    assert report.chains[0].whole is False and report.chains[1].whole


def test_a_flipped_bit_is_found_in_any_file(original: Path, tmp_path: Path) -> None:
    """A sample; all bits of the segments are in `test_forgeries.py`."""
    folder, chance = Path(shutil.copytree(original, tmp_path / "copied")), random.Random(1)
    for path in (*journal(folder), *points(folder)):
        data = path.read_bytes()
        for bit in chance.sample(range(len(data) * 8), 40):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            assert look(folder).faults, (path, bit)
        path.write_bytes(data)


def test_a_segment_that_is_missing(copied: Path) -> None:
    journal(copied)[1].unlink()
    assert whats(look(copied)) == ["missing"]


def test_the_first_segment_that_is_missing(copied: Path) -> None:
    journal(copied)[0].unlink()
    report = look(copied)
    assert whats(report) == ["missing"] and "records 1 to " in report.faults[0].text


@pytest.mark.parametrize("which", ["first", "last"])
def test_a_whole_chain_that_is_missing(copied: Path, which: str) -> None:
    for path in journal(copied)[:-1] if which == "first" else journal(copied)[-1:]:
        path.unlink()
    report = look(copied)
    assert whats(report) == ["missing"] and "the whole chain" in report.faults[0].text


def test_the_end_cut_off_is_found_back_to_the_last_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 30, close=False)
    edit(journal(tmp_path)[0], lambda lines: lines[:20])
    report = look(tmp_path)
    assert whats(report) == ["cut"] and report.faults[0].text.startswith("the last 11 records, 21 to 31, are cut off")


def test_an_end_cut_off_with_its_checkpoints_is_found_in_their_second_place(tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()

    def there(name: str, line: bytes) -> None:
        with (second / name).open("ab") as file:
            file.write(line)

    folder = tmp_path / "audit"
    write(folder, 30, close=False, step=lambda one, number: one.commit(AT), elsewhere=there)
    edit(journal(folder)[0], lambda lines: lines[:20])
    edit(points(folder)[0], lambda lines: lines[:19])
    assert not look(folder).faults, "this is what the second place is for"
    assert whats(look(folder, second)) == ["cut"]


def test_an_end_cut_off_is_found_by_the_chain_that_follows(tmp_path: Path) -> None:
    write(tmp_path, 30, close=False, step=lambda one, number: one.commit(AT))
    write(tmp_path, 1, boot="b2", at=AT + 1)
    edit(journal(tmp_path)[0], lambda lines: lines[:20])
    edit(points(tmp_path)[0], lambda lines: lines[:19])
    assert whats(look(tmp_path)) == ["cut"]


def test_a_chain_written_anew_needs_the_key(copied: Path) -> None:
    chain, path = Chain(f"{SIGNER.id}/0/b2"), journal(copied)[-1]
    edit(path, lambda lines: [chain.seal(line[: line.rindex(b',"seq"')] + b"}") for line in lines[:20]])
    report = look(copied)
    assert whats(report) == ["cut"], "its checkpoints name more"
    points(copied)[-1].unlink()
    edit(path, lambda lines: [*lines, chain.seal(b'{"event":"close"}')])
    assert whats(look(copied)) == ["unsigned"], "closed, and not signed"
    forger = Signer(Ed25519PrivateKey.generate())
    points(copied)[0].with_name("checkpoints-x.jsonl").write_bytes(forger.line(chain, "now"))
    assert "changed" in whats(look(copied)), "signed by nobody that is known"


def test_more_than_a_crash_leaves_unsigned_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path, 2_100, close=False)
    points(tmp_path)[0].unlink()
    report = look(tmp_path)
    assert whats(report) == ["unsigned"] and "2101 records" in report.faults[0].text


def test_records_of_a_minute_that_nobody_signed_are_a_fault(tmp_path: Path) -> None:
    one = write(tmp_path, 3, close=False)
    one.add(record(4).replace(b"22:13:20", b"22:14:20"))
    one.flush()
    assert not look(tmp_path).faults
    points(tmp_path)[0].unlink()
    assert whats(look(tmp_path)) == ["unsigned"]


def test_without_a_key_nothing_is_proved(copied: Path) -> None:
    report = verify(copied, {})
    assert {"changed", "unsigned"} <= set(whats(report)) and "is not known" in report.faults[0].text


def test_what_is_no_journal_is_named(copied: Path) -> None:
    (copied / "calls-20231114.jsonl").write_bytes(record(1) + b"\n")
    report = look(copied)
    assert [(one.what, one.file) for one in report.faults] == [("foreign", "calls-20231114.jsonl")]


def test_a_closed_segment_may_be_compressed(copied: Path) -> None:
    path = journal(copied)[1]
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert not look(copied).faults
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(packed.read_bytes()[:-20])
    assert look(copied).faults


def test_calls_that_have_begun_and_never_ended_are_listed_and_no_fault(tmp_path: Path) -> None:
    def begin(one: Segments, number: int) -> None:
        seq = one.add(b'{"id":"c-%d","time":"2023-11-14T22:13:20Z","event":"begin"}' % number)
        if number != 1:
            one.add(b'{"id":"e-%d","time":"2023-11-14T22:13:20Z","event":"call","begin":%d}' % (number, seq))

    write(tmp_path, 3, step=begin)
    report = look(tmp_path)
    assert not report.faults and report.unfinished_count == 1
    assert [(one.seq, one.id) for one in report.unfinished] == [(6, "c-1")]
