"""The head beside the store: no end that was answered is cut off unseen, and no crash is taken for a cut."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex.telemetry.audit import heads as module
from narthex.telemetry.audit.heads import PAGE, Heads, heads_in, read_places, write_place
from narthex.telemetry.audit.segments import BY_HAND, Segments
from tests.telemetry.audit.test_segments import read
from tests.telemetry.audit.writing import AT, journal, look, points, record, segments, whats, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "audit").mkdir()
    return tmp_path / "audit"


def begun(folder: Path, boot: str = "b1", **options: Any) -> tuple[Segments, Heads]:
    heads = Heads(folder.parent, folder, **options)
    one = segments(folder, boot, heads=heads)
    one.open(AT)
    return one, heads


def answer(one: Segments, count: int = 1) -> None:
    """So many records of answers, each on the disk with its head."""
    for _ in range(count):
        one.add(record(one.chain.seq))
        one.commit(AT, answers=True)


def crash(one: Segments, heads: Heads) -> None:
    """The process ends; what it has written is there."""
    one._let_go()
    heads.close()


def kept(folder: Path) -> list[Path]:
    return heads_in(folder.parent, folder)


def cut(path: Path, lines: int) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))


# --- what is found


def test_an_end_cut_off_at_any_record_behind_the_last_checkpoint_is_found(folder: Path, tmp_path: Path) -> None:
    one, heads = begun(folder)
    answer(one, 30)
    crash(one, heads)
    assert not points(folder)[0].read_bytes(), "no checkpoint was due"
    whole = look(folder, heads=kept(folder))
    assert not whole.faults and whole.chains[0].signed == whole.chains[0].last == 31
    for lines in range(1, 31):
        copied = tmp_path / f"cut-{lines}"
        shutil.copytree(folder, copied)
        cut(journal(copied)[0], lines)
        assert not look(copied).faults, "this is what the heads are for"
        (fault,) = look(copied, heads=kept(folder)).faults
        lost = 31 - lines
        says = f"the last {lost} records, {lines + 1} to 31, are" if lost > 1 else "the last record, number 31, is"
        assert (fault.what, fault.text) == ("cut", f"{says} cut off: {kept(folder)[0].name} names it")


def test_an_end_cut_off_within_a_record_is_found_too(folder: Path) -> None:
    one, heads = begun(folder)
    answer(one, 3)
    crash(one, heads)
    (path,) = journal(folder)
    path.write_bytes(path.read_bytes()[:-1])
    report = look(folder, heads=kept(folder))
    assert whats(report) == ["cut"] and report.chains[0].torn


def test_a_chain_that_is_missing_as_a_whole_is_found(folder: Path) -> None:
    write(folder, 3)
    one, heads = begun(folder, "b2")
    answer(one)
    crash(one, heads)
    journal(folder)[-1].unlink()
    assert whats(look(folder, heads=kept(folder))) == ["missing"]


@pytest.mark.parametrize("what", ["an end", "the newest chain", "everything"])
def test_what_was_cut_off_before_the_next_start_is_named_by_the_next_chain(
    folder: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    write(folder, 3, boot="b0", at=AT - 1)
    one, heads = begun(folder)
    answer(one, 9)
    crash(one, heads)
    for path in journal(folder) if what == "everything" else journal(folder)[1:]:
        cut(path, 5) if what == "an end" else path.unlink()
    two, heads = begun(folder, "b2")
    said = caplog.records[-1].getMessage()
    assert "was cut" in said and ("records 6 to 10 of" if what == "an end" else "of 10 records, is missing") in said
    answer(two, 5)
    crash(two, heads)
    opening = read(journal(folder)[-1])[0]
    assert opening["held"] == [{"chain": one.chain.name, "seq": 10, "hash": one.chain.head.hex()}]
    assert len(kept(folder)) == 1, "in the same file, which is another chain's now"
    assert set(whats(look(folder))) == ({"cut"} if what == "an end" else {"missing"}), "without the heads, for ever"


def test_where_nothing_was_cut_off_the_next_chain_says_nothing_of_it(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, heads = begun(folder)
    answer(one, 3)
    one.add(record(0))
    one.commit(AT)  # of a call that has begun: nobody has an answer
    crash(one, heads)
    two, heads = begun(folder, "b2")
    answer(two)
    two.close(AT)
    assert "held" not in read(journal(folder)[-1])[0] and not caplog.records
    report = look(folder, heads=kept(folder))
    assert not report.faults and [each.last for each in report.chains] == [5, 3]


# --- files


def test_files_are_private_and_each_folder_has_its_own(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, two = Heads(tmp_path, folder), Heads(tmp_path, tmp_path / "other")
    assert len(list(tmp_path.glob("*.heads"))) == 2 and one.found == two.found == ()
    (path,) = kept(folder)
    assert path.stat().st_mode & 0o777 == 0o600 and path.stat().st_size == 2 * PAGE
    one.close()
    one.close()
    two.close()


def test_the_last_two_stand_in_two_places(folder: Path) -> None:
    heads = Heads(folder.parent, folder)
    for number in range(5):
        heads.put(b'{"n":%d}\n' % number, through=number % 2 == 0)
        found = sorted(read_places(kept(folder)[0].read_bytes()))
        assert [line for _, line in found] == [b'{"n":%d}\n' % n for n in range(max(0, number - 1), number + 1)]
    heads.close()


def test_a_place_that_was_half_written_leaves_the_other(folder: Path) -> None:
    one, heads = begun(folder)
    answer(one, 4)
    crash(one, heads)
    (path,) = kept(folder)
    data = bytearray(path.read_bytes())
    newest = max(read_places(data))[0] % 2 * PAGE
    data[newest + 100 : newest + PAGE] = bytes(PAGE - 100)
    path.write_bytes(data)
    assert not look(folder, heads=[path]).faults, "a crash may leave that"
    cut(journal(folder)[0], 3)
    assert whats(look(folder, heads=[path])) == ["cut"], "the one before is still there"
    two, heads = begun(folder, "b2")
    assert [(each.chain, each.seq) for each in heads.found] == [(one.chain.name, 4)]
    two.close(AT)


@pytest.mark.parametrize("data", [b"x", b"1 {}\n", b"\xff" * 3 * PAGE], ids=["no head", "no checkpoint", "not ours"])
def test_a_file_without_any_head_is_a_fault_and_no_obstacle(folder: Path, data: bytes) -> None:
    write(folder, 1)
    path = folder.parent / f"{module.stem_of(folder)}-0.heads"
    path.write_bytes(data)
    assert "changed" in whats(look(folder, heads=[path]))
    one, heads = begun(folder, "b2")
    answer(one, 2)
    one.close(AT)
    assert not look(folder, heads=[path]).faults


def test_a_head_that_somebody_else_signed_is_a_fault(folder: Path) -> None:
    one, heads = begun(folder)
    answer(one)
    crash(one, heads)
    (path,) = kept(folder)
    path.write_bytes(path.read_bytes().replace(b'"seq":2', b'"seq":1'))
    assert whats(look(folder, heads=[path])) == ["changed"]


# --- several gateways


def test_gateways_that_overlap_keep_a_head_each_and_the_next_one_names_both(folder: Path) -> None:
    one, first = begun(folder)
    two, second = begun(folder, "b2")
    answer(one, 4)
    answer(two, 2)
    assert len(kept(folder)) == 2
    assert not look(folder, heads=kept(folder)).faults
    answer(one)
    crash(one, first)
    crash(two, second)
    three, heads = begun(folder, "b3")
    assert len(kept(folder)) == 2, "nothing is let go of before it is on the disk elsewhere"
    answer(three)
    assert len(kept(folder)) == 1
    named = {each["chain"]: each["seq"] for each in read(journal(folder)[-1])[0]["held"]}
    assert named == {one.chain.name: 6}, "the other is its predecessor"
    three.close(AT)
    assert not look(folder, heads=kept(folder)).faults
    cut(journal(folder)[0], 5)
    assert whats(look(folder)) == ["cut"]


def test_what_is_done_at_the_terminal_has_files_of_its_own(folder: Path) -> None:
    """A gateway that starts takes over what a gateway has left, and nothing else."""
    one, first = begun(folder)
    answer(one, 3)
    by_hand = Heads(folder.parent, folder, slot=BY_HAND)
    assert by_hand.found == ()
    two = segments(folder, "b2", slot=BY_HAND, heads=by_hand)
    two.open(AT)
    answer(two, 2)
    crash(two, by_hand)
    crash(one, first)
    assert [path.name.removeprefix(module.stem_of(folder)) for path in kept(folder)] == ["-0.heads", "-cli-0.heads"]
    next_gateway, next_by_hand = Heads(folder.parent, folder), Heads(folder.parent, folder, slot=BY_HAND)
    assert [each.chain for each in next_gateway.found] == [one.chain.name]
    assert [each.chain for each in next_by_hand.found] == [two.chain.name]
    next_gateway.close()
    next_by_hand.close()
    for path in (*journal(folder), *points(folder)):
        path.unlink()
    assert whats(look(folder, heads=kept(folder))) == ["missing", "missing"]


def test_more_gateways_than_there_may_be_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 2)
    some = [Heads(folder.parent, folder) for _ in range(2)]
    with pytest.raises(OSError, match="2 gateways"):
        Heads(folder.parent, folder)
    some.pop().close()
    Heads(folder.parent, folder).close()
    some.pop().close()


# --- a disk that fails


def test_a_head_that_cannot_be_kept_is_kept_later(folder: Path) -> None:
    broken = True

    def put(file: int, data: bytes, at: int, through: bool) -> None:
        if broken and through:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        write_place(file, data, at, through)

    one, heads = begun(folder, write=put)
    one.add(record(0))
    with pytest.raises(OSError, match=r"Input/output error \(.*\.heads\)"):
        one.commit(AT, answers=True)
    assert one.is_due(AT), "it is tried again although nobody waits any more"
    broken = False
    one.commit(AT)
    assert not one.is_due(AT)
    crash(one, heads)
    report = look(folder, heads=kept(folder))
    assert not report.faults and report.chains[0].signed == 2


class Machine:
    """A gateway, and what of its files has reached the disk."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "audit"
        self.folder.mkdir()
        self.synced: dict[str, int] = {}
        self.through: dict[int, bytes] = {}
        self.answered = 0
        self.refuses = ""
        self.heads = Heads(root, self.folder, write=self.put)
        self.one = segments(self.folder, heads=self.heads, sync=self.sync, most_bytes=1500)
        self.one.open(AT)
        self.now = AT

    def sync(self, file: int) -> None:
        if self.refuses == "segment":
            raise OSError(errno.EIO, "no")
        self.synced[Path(os.readlink(f"/proc/self/fd/{file}")).name] = os.fstat(file).st_size

    def put(self, file: int, data: bytes, at: int, through: bool) -> None:
        if self.refuses == "head":
            raise OSError(errno.EIO, "no")
        write_place(file, data, at, False)
        if through:
            self.through[at] = data

    def step(self, what: str) -> None:
        self.refuses = what.removeprefix("no ") if what.startswith("no ") else self.refuses
        one = self.one
        if what == "works":
            self.refuses = ""
        elif what == "a second":
            self.now += 1
        elif what == "record":
            one.add(record(one.chain.seq))
        elif what in ("commit", "answer"):
            try:
                if not one.pending:
                    one.turn(self.now)
                one.commit(self.now, answers=what == "answer")
            except OSError:
                return
            self.answered = one.chain.seq if what == "answer" else self.answered

    def fail(self, chance: Any) -> list[Path]:
        """The machine has lost what was not on the disk, or a part of it. Gives the files of the heads."""
        crash(self.one, self.heads)
        for path in (*journal(self.folder), *points(self.folder)):
            least, most = self.synced.get(path.name, 0), path.stat().st_size
            os.truncate(path, chance.draw(st.integers(min(least, most), most)))
        (path,) = kept(self.folder)
        data = bytearray(path.read_bytes())
        for at in (0, PAGE):
            if chance.draw(st.booleans()):
                data[at : at + PAGE] = self.through.get(at, bytes(PAGE)).ljust(PAGE, b"\0")
        path.write_bytes(data)
        return [path]


STEPS = st.sampled_from(["record", "record", "commit", "answer", "a second", "no segment", "no head", "works"])


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEPS, max_size=40), chance=st.data())
def test_whenever_the_machine_fails_nothing_answered_is_cut_off_unseen_and_nothing_else_is_a_fault(
    steps: list[str], chance: Any
) -> None:
    with TemporaryDirectory() as name:
        machine = Machine(Path(name))
        for step in steps:
            machine.step(step)
        heads = machine.fail(chance)
        report = look(machine.folder, heads=heads)
        assert not report.faults, report.faults
        last = sum(each.last for each in report.chains)
        assert last >= machine.answered
        if machine.answered:
            cut_behind(machine.folder, chance.draw(st.integers(0, machine.answered - 1)))
            assert look(machine.folder, heads=heads).faults


def cut_behind(folder: Path, seq: int) -> None:
    """Somebody takes away all records from the one behind `seq` on, and what the folder says of them."""
    for path in journal(folder):
        lines = [line for line in whole_lines(path) if number_of(line) <= seq]
        path.write_bytes(b"".join(lines)) if lines else path.unlink()
    for path in points(folder):
        path.unlink()


def whole_lines(path: Path) -> Iterable[bytes]:
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def number_of(line: bytes) -> int:
    return int(line.rpartition(b'"seq":')[2].partition(b",")[0])
