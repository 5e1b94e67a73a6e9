"""What calls said: read, erased, held back, grown old; and the journal is whole after each of it."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from narthex.authority.envelope import Envelopes
from narthex.cli.client import as_it_was
from narthex.cli.main import cli
from narthex.flow.codec.seal import MasterKey
from narthex.keys import load_keys
from narthex.telemetry.audit import upkeep
from narthex.telemetry.audit.by_hand import record_by_hand
from narthex.telemetry.audit.chain import Chain
from narthex.telemetry.audit.checkpoints import load_signer, read_keys
from narthex.telemetry.audit.folder_lock import alone
from narthex.telemetry.audit.heads import heads_in
from narthex.telemetry.audit.verify import Report, verify
from narthex.telemetry.journal import Journal
from narthex.telemetry.payloads import erasing, resealing
from narthex.telemetry.payloads.reading import Reader, files_in
from narthex.telemetry.payloads.rules import KeptParts
from narthex.telemetry.payloads.writing import Payloads
from narthex.types import Principal
from tests.telemetry.payloads.test_entries import entry
from tests.telemetry.payloads.test_lines import OURS, SEALS

DAY = 86_400.0
NOW = time.time()
if NOW % DAY > DAY - 600:  # files of a day that is over are treated otherwise: it must not end while these tests run
    NOW += 600
CONFIG = (
    "version: 1\naudit: {dir: audit, retention: {records: 10d, payloads: 5d, restricted: 1d}, compress_after: 1m}\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "narthex.yaml").write_text(CONFIG)
    return tmp_path / "audit"


def write(folder: Path, *subjects: str, days_ago: float = 0.0, group: str = "confidential", **options: Any) -> None:
    """One run of a gateway, with a call of each."""
    at = NOW - days_ago * DAY
    journal = Journal(folder, load_signer(folder.parent / ".narthex"), now=lambda: at)
    journal.payloads = Payloads(folder, **options)
    for number, subject in enumerate(subjects):
        journal.add(entry(number, KeptParts("full", "full", group), principal=Principal("acme", "sso", subject, "bot")))
    journal.close()
    for path in folder.iterdir():
        if path.stat().st_mtime > at:
            os.utime(path, (at, at))


def run(*words: str, code: int | None = 0) -> Result:
    found = CliRunner().invoke(cli, ["audit", *words])
    assert code is None or found.exit_code == code, found.output
    return found


def records(folder: Path, event: str = "call") -> list[dict[str, Any]]:
    found = []
    for path in sorted(folder.glob("calls-*")):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found += [json.loads(line) for line in data.splitlines()]
    return [one for one in found if one["event"] == event]


def states(folder: Path) -> list[str]:
    return [one.state for record in records(folder) for one in Reader(folder).of(record)]


def look(folder: Path) -> Report:
    report = verify(folder, read_keys(folder.glob("audit-*.pub")))
    assert not report.faults, report.faults[:3]
    return report


# --- reading


def test_what_was_kept_is_shown(folder: Path) -> None:
    write(folder, "ada")
    (record,) = records(folder)
    found = json.loads(run("payload", record["id"], "--json").stdout)
    assert [(one["part"], one["state"]) for one in found["payloads"]] == [("arguments", "here"), ("result", "here")]
    assert found["payloads"][1]["body"] == {"n": 0, "password": "x"}
    assert '"password":"x"' in run("payload", record["id"]).output
    run("payload", "nothing", code=1)


def test_blanks_are_shown_as_they_were_and_nothing_steers_the_terminal() -> None:
    assert as_it_was('{"a":"x  y\x1b[2J\u202e"}') == '{"a":"x  y [2J "}'


# --- erasing


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        (("--principal", "ada"), {"ada"}),
        (("--principal", "ada", "--client", "other"), set()),
        (("--client", "bot"), {"ada", "bob"}),
        (("--tenant", "acme", "--until", "2020"), set()),
        (("--since", "2020"), {"ada", "bob"}),
    ],
)
def test_it_is_erased_and_the_journal_stays_whole(folder: Path, words: tuple[str, ...], gone: set[str]) -> None:
    write(folder, "ada", "bob", "ada")
    before = {path: path.read_bytes() for path in folder.glob("calls-*")}
    run("erase", *words, "--reason", "GDPR 17", code=0 if gone else 1)
    for record in records(folder):
        wanted = "erased" if record["principal"]["subject"] in gone else "here"
        assert [one.state for one in Reader(folder).of(record)] == [wanted] * 2
    assert all(path.read_bytes() == data for path, data in before.items()), "no record is touched"
    report = look(folder)
    assert report.payloads.erased == 2 * sum(one["principal"]["subject"] in gone for one in records(folder))
    assert not report.payloads.unfinished
    if gone:
        (act,) = records(folder, "erase")
        assert (
            act["reason"] == "GDPR 17"
            and act["by"].endswith("at the terminal")
            and len(act["records"]) == 3 - (gone == {"ada"})
        )


def test_of_one_call_it_is_erased_by_its_id(folder: Path) -> None:
    write(folder, "ada", "ada")
    run("erase", "--id", records(folder)[1]["id"], "--reason", "x")
    assert states(folder) == ["here", "here", "erased", "erased"] and look(folder).payloads.erased == 2


def test_what_is_erased_without_a_record_is_a_fault(folder: Path) -> None:
    write(folder, "ada", "bob")
    erasing.erase(list(erasing.find(folder, erasing.Concerned(subject="ada"))))
    report = verify(folder, read_keys(folder.glob("audit-*.pub")))
    assert [one.what for one in report.faults] == ["payload", "payload"] and "no record says" in report.faults[0].text


@pytest.mark.parametrize("change", [b"changed", b"gone"])
def test_what_was_changed_or_cut_off_is_a_fault(folder: Path, change: bytes) -> None:
    write(folder, "ada", "bob")
    (path,) = files_in(folder)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'{"n":1}', b'{"n":2}') if change == b"changed" else data[: data.rindex(b'{"v":1')])
    report = verify(folder, read_keys(folder.glob("audit-*.pub")))
    assert [one.what for one in report.faults] == ["payload"]
    assert run("verify", code=1).output.count("record") >= 1


def test_a_folder_without_payloads_proves_the_records_and_says_so(folder: Path) -> None:
    write(folder, "ada")
    for path in files_in(folder):
        path.unlink()
    assert look(folder).payloads.elsewhere == 2 and "2 not in this folder" in run("verify").output


def test_what_a_crash_took_before_its_record_was_signed_is_no_fault(folder: Path) -> None:
    """Both were on their way to the disk, and the machine failed between them."""
    write(folder, "ada", "bob")
    (path,), (calls,), (points,) = files_in(folder), folder.glob("calls-*"), folder.glob("checkpoints-*")
    path.write_bytes(path.read_bytes()[:-20])
    points.write_bytes(b"")
    calls.write_bytes(b"".join(calls.read_bytes().splitlines(keepends=True)[:-1]))  # nor had it ended
    assert (look(folder).payloads.here, look(folder).payloads.lost) == (3, 1)
    assert "1 lost by a crash" in run("verify").output


def test_compressed_ones_are_erased_too(folder: Path) -> None:
    write(folder, "ada", "bob", days_ago=2)
    run("upkeep")
    assert files_in(folder)[0].suffix == ".gz"
    run("erase", "--principal", "ada", "--reason", "x")
    assert states(folder) == ["erased", "erased", "here", "here"] and look(folder).payloads.erased == 2


def test_sealed_ones_are_erased_without_their_key(folder: Path) -> None:
    write(folder, "ada", "bob", seals=SEALS)
    assert states(folder) == ["sealed"] * 4
    run("erase", "--principal", "ada", "--reason", "x")
    assert states(folder) == ["erased", "erased", "sealed", "sealed"]
    report = look(folder)
    assert (report.payloads.erased, report.payloads.sealed) == (2, 2)


def test_sealed_ones_of_a_copy_are_proved_with_the_key_of_a_configuration(folder: Path) -> None:
    keys = load_keys(folder.parent / ".narthex", os.environ)
    write(folder, "ada", seals=Envelopes(keys, os.urandom))
    assert "payloads: 2 sealed, and not proved: --config names the configuration" in run("verify", "audit").output
    assert "payloads: 2 as they were recorded" in run("verify", "audit", "--config", "narthex.yaml").output
    assert "payloads: 2 as they were recorded" in run("verify").output


def test_what_was_broken_off_is_ended_by_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "ada", "bob", "ada")
    real, left = os.pwrite, [2]

    def crash(file: int, data: bytes, at: int) -> int:
        if "payloads-" in os.readlink(f"/proc/self/fd/{file}"):
            left[0] -= 1
            if not left[0]:
                return real(file, data[:90], at)
            if left[0] < 0:
                raise KeyboardInterrupt
        return real(file, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", crash)
        run("erase", "--principal", "ada", "--reason", "x", code=None)
    report = look(folder)
    assert report.payloads.unfinished == 1 and "erase them again" in run("verify").output
    run("erase", "--principal", "nobody", "--reason", "x", code=1)
    assert states(folder) == ["erased", "erased", "here", "here", "erased", "erased"]
    assert not look(folder).payloads.unfinished and b'"subject":"ada"' not in files_in(folder)[0].read_bytes()


def test_a_hold_that_was_placed_since_stands_against_what_was_broken_off(folder: Path) -> None:
    write(folder, "ada", "bob")
    before = files_in(folder)[0].read_bytes()
    run("erase", "--principal", "ada", "--reason", "x")
    files_in(folder)[0].write_bytes(before)  # as if nothing but the record of it had come to the disk
    erasing.begins(folder)
    id_ = json.loads(run("hold", "place", "--principal", "ada", "--reason", "Doe v. Roe", "--json").stdout)["id"]
    run("upkeep")
    run("erase", "--principal", "bob", "--reason", "x")
    assert states(folder) == ["here", "here", "erased", "erased"] and look(folder).payloads.unfinished == 1
    run("hold", "release", id_, "--reason", "settled")
    run("upkeep")
    assert states(folder) == ["erased"] * 4 and not erasing.is_under_way(folder)
    look(folder)


def test_nothing_is_erased_because_somebody_wrote_that_it_is(folder: Path) -> None:
    write(folder, "ada")
    (record,) = records(folder)
    chain = Chain("evil/cli/b")
    head = {
        "v": 1,
        "id": "e",
        "time": record["time"],
        "event": "open",
        "chain": "evil/cli/b",
        "key": "k",
        "gateway": "0",
    }
    lines = (head, {"v": 1, "event": "erase", "records": [record["id"]]})
    data = b"".join(chain.seal(json.dumps(one, separators=(",", ":")).encode()) for one in lines)
    (folder / "calls-20200101T000000000-cli.jsonl").write_bytes(data)
    erasing.begins(folder)
    run("upkeep")
    run("erase", "--principal", "nobody", "--reason", "x", code=1)
    assert states(folder) == ["here", "here"]


def test_what_a_copy_had_when_it_was_broken_off_is_erased_too(folder: Path) -> None:
    write(folder, "ada", "bob", days_ago=2)
    (path,) = files_in(folder)
    twin, begun = path.with_name(path.name + ".gz"), folder / f".{path.name}.77.gz"
    for copy in (twin, begun):
        copy.write_bytes(gzip.compress(path.read_bytes()))
    run("erase", "--principal", "ada", "--reason", "x")
    assert not twin.exists() and not begun.exists() and states(folder) == ["erased", "erased", "here", "here"]


def test_half_a_wrapped_key_is_written_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "ada", "bob", seals=SEALS)
    other = MasterKey(bytes(range(1, 33)))
    real, left = erasing.write_at, [3]

    def fails(file: int, data: bytes, place: int) -> None:
        left[0] -= 1
        if not left[0]:
            real(file, data[:40], place)
            raise OSError("power")
        real(file, data, place)

    with monkeypatch.context() as patch:
        patch.setattr(erasing, "write_at", fails)
        with pytest.raises(OSError, match="power"):
            resealing.reseal(folder, Envelopes([other, OURS], os.urandom))
    with alone(folder):
        assert not (folder / resealing.UNDER_WAY).exists()
    report = verify(folder, read_keys(folder.glob("audit-*.pub")), (), Envelopes([other], os.urandom))
    assert (report.faults, report.payloads.here) == ([], 4)


def test_it_says_whom_it_concerns_and_why(folder: Path) -> None:
    write(folder, "ada")
    run("erase", "--reason", "x", code=2)
    run("erase", "--principal", "ada", code=2)


# --- legal holds


def test_a_hold_stands_against_erasing_and_age(folder: Path) -> None:
    write(folder, "ada", "bob", days_ago=30)
    write(folder, "carl")
    id_ = json.loads(run("hold", "place", "--principal", "ada", "--reason", "Doe v. Roe", "--json").stdout)["id"]
    listed = run("hold", "list").output
    assert "subject=ada" in listed and "Doe v. Roe" in listed and "records" not in listed
    run("erase", "--client", "bot", "--reason", "x", code=1)
    assert "erased" not in states(folder), "all or nothing"
    found = json.loads(run("upkeep", "--json").stdout)
    assert found["removed"] == {"files": 0, "payloads": 2}, "bob's, and no record of a segment that has ada's"
    assert states(folder) == ["here", "here", "missing", "missing", "here", "here"]
    assert look(folder).payloads.removed == 2
    assert "narthex audit hold list" in run("hold", "release", "nobody", "--reason", "x", code=1).stderr
    run("hold", "release", id_[:6], "--reason", "settled")
    assert [one["step"] for one in records(folder, "hold")] == ["placed", "released"]
    assert json.loads(run("upkeep", "--json").stdout)["removed"] == {"files": 1, "payloads": 2}
    assert len(records(folder)) == 1
    look(folder)
    run("hold", "release", id_, "--reason", "again", code=1)


def test_holds_that_cannot_be_read_hold_everything(folder: Path) -> None:
    write(folder, "ada", days_ago=30)
    (folder / "holds.json").write_text("[{")
    for words in (("erase", "--principal", "ada", "--reason", "x"), ("hold", "list")):
        assert "cannot be read" in run(*words, code=1).output
    run("upkeep", code=1)
    assert states(folder) == ["here", "here"]


# --- growing old


def test_each_group_stays_as_long_as_it_is_to_stay(folder: Path) -> None:
    for days in (3, 2, 0):
        for group in ("restricted", "confidential"):
            write(folder, "ada", days_ago=days, group=group)
    write(folder, "ada", days_ago=7)
    found = json.loads(run("upkeep", "--json").stdout)
    assert found["removed"] == {"files": 0, "payloads": 6}
    groups = [record["payload"]["result"]["file"].split("-")[1] for record in records(folder)]
    kept = [one.state for record in records(folder) for one in Reader(folder).of(record)[:1]]
    assert sorted(zip(groups, kept, strict=True)) == [
        *[("confidential", "here")] * 3, ("confidential", "missing"), ("restricted", "here"),
        *[("restricted", "missing")] * 2,
    ]  # fmt: skip
    assert look(folder).payloads.removed == 6
    assert json.loads(run("upkeep", "--json").stdout)["removed"] == {"files": 0, "payloads": 0}


def test_old_records_go_and_what_is_left_is_proved(folder: Path) -> None:
    for days in (40, 30, 20, 2, 0):
        write(folder, "ada", "bob", days_ago=days)
    assert json.loads(run("upkeep", "--json").stdout)["removed"] == {"files": 3, "payloads": 12}
    report = look(folder)
    assert len(records(folder)) == 4 and any("removed by their age" in note for note in report.notes)
    (act,) = records(folder, "retention")
    assert len(act["files"]) == 3 and act["payloads"] == {"confidential": 12}
    for path in sorted(folder.glob("calls-*"))[:1]:
        path.unlink()
    assert verify(folder, read_keys(folder.glob("audit-*.pub"))).faults, "what no record says is missed"


def test_what_was_removed_long_ago_is_still_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of a removal is removed itself in time; what is left may still name what went before."""
    for days in (30, 2):
        write(folder, "ada", days_ago=days)
    run("upkeep")
    for path in folder.iterdir():
        os.utime(path, (NOW - 1, NOW - 1))
    later = [NOW]
    monkeypatch.setattr(time, "time", lambda: later[0])
    for _ in range(4):
        later[0] += 9 * DAY
        write(folder, "bob", days_ago=-(later[0] - NOW) / DAY)
        run("upkeep")
        look(folder)
    assert {one["principal"]["subject"] for one in records(folder)} == {"bob"}


def test_the_end_of_a_chain_is_not_removed_by_saying_so(folder: Path) -> None:
    for days in (30, 2, 0):
        write(folder, "ada", days_ago=days)
    run("upkeep")
    second = sorted(folder.glob("calls-*-0.jsonl*"))[0]
    for path in (second, folder / second.name.replace("calls-", "checkpoints-")):
        path.unlink()
    assert [one.what for one in verify(folder, read_keys(folder.glob("audit-*.pub"))).faults][:1] == ["missing"]


def test_what_a_hold_has_kept_is_missed(folder: Path) -> None:
    """It is older than what a record says was removed, and still it was not."""
    for days in (40, 30, 20, 0):
        write(folder, "ada" if days == 30 else "bob", days_ago=days)
    run("hold", "place", "--principal", "ada", "--reason", "Doe v. Roe")
    assert json.loads(run("upkeep", "--json").stdout)["removed"]["files"] == 2
    look(folder)
    held, _ = sorted(folder.glob("calls-*-0.jsonl*"))
    held.unlink()
    assert "missing" in [one.what for one in verify(folder, read_keys(folder.glob("audit-*.pub"))).faults]


def test_closed_files_are_compressed_and_all_commands_read_them(folder: Path) -> None:
    write(folder, "ada", "bob", days_ago=3)
    write(folder, "carl", days_ago=2)
    whole = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    assert json.loads(run("upkeep", "--json").stdout)["compressed"] == 3
    assert len(list(folder.glob("calls-*.jsonl.gz"))) == 1, "the newest is left: the next start names its last record"
    for path in folder.glob("*.gz"):
        assert gzip.decompress(path.read_bytes()) == whole[path.name.removesuffix(".gz")]
        assert path.stat().st_mode & 0o777 == 0o600
    assert set(states(folder)) == {"here"} and look(folder).records == look(folder).records
    assert "3 found" in run("search", "--event", "call").stderr
    assert len(run("export", "--event", "call").stdout.splitlines()) == 3
    write(folder, "dora")
    look(folder)


@pytest.mark.parametrize("at", ["replace", "unlink"])
def test_a_crash_while_compressing_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    write(folder, "ada", days_ago=3)
    write(folder, "bob", days_ago=2)

    def crash(self: Path, *rest: Any, **more: Any) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, at, crash)
        with pytest.raises(KeyboardInterrupt):
            upkeep.compress(folder, 0, NOW)
    assert set(states(folder)) == {"here"}
    look(folder)
    for path in folder.glob(".calls*"):
        path.unlink()  # what a crash has left of a file is nobody's
    assert upkeep.compress(folder, 0, NOW) >= 2
    assert not [path for path in folder.glob("*.jsonl") if path.with_name(path.name + ".gz").exists()]
    assert set(states(folder)) == {"here"}
    look(folder)


def test_sealed_files_stay_as_they_are(folder: Path) -> None:
    write(folder, "ada", days_ago=3, seals=SEALS)
    run("upkeep")
    assert files_in(folder)[0].suffix == ".jsonl"


def test_a_second_place_misses_nothing_that_was_removed(folder: Path) -> None:
    for days in (30, 20, 0):
        write(folder, "ada", days_ago=days)
    second = folder.parent / "second"
    second.mkdir()
    for path in folder.glob("checkpoints-*"):
        (second / path.name).write_bytes(path.read_bytes())
    run("upkeep")
    assert not verify(folder, read_keys(folder.glob("audit-*.pub")), [second]).faults


def test_what_was_done_at_the_terminal_is_missed_by_the_second_place(folder: Path) -> None:
    (folder.parent / "narthex.yaml").write_text("version: 1\naudit: {dir: audit, checkpoints: second}\n")
    write(folder, "ada")
    run("hold", "place", "--principal", "ada", "--reason", "x")
    run("verify")
    for path in folder.glob("*-cli.jsonl"):
        path.unlink()
    assert "the whole chain" in run("verify", code=1).output


def of_the_latest_command(folder: Path) -> list[Path]:
    """Its segment and its checkpoints."""
    latest = sorted(folder.glob("calls-*-cli.jsonl"))[-1]
    return [latest, latest.with_name(latest.name.replace("calls-", "checkpoints-"))]


def test_what_was_done_last_at_the_terminal_is_missed_by_the_head_beside_the_store(folder: Path) -> None:
    """Without a second place: whoever can write to the folder takes the chain away whole, with all that names it."""
    write(folder, "ada")
    for who in ("ada", "bob"):
        run("hold", "place", "--principal", who, "--reason", "x")
    run("verify")
    for path in of_the_latest_command(folder):
        path.unlink()
    look(folder)  # nothing in the folder itself misses it
    assert "the whole chain" in run("verify", code=1).output
    run("hold", "place", "--principal", "eve", "--reason", "x")
    report = verify(folder, read_keys(folder.glob("audit-*.pub")))
    assert [fault.what for fault in report.faults] == ["missing"], "and the next command names it for ever"


def test_an_end_of_what_was_done_at_the_terminal_that_is_cut_off_anywhere_is_missed(folder: Path) -> None:
    write(folder, "ada")
    run("hold", "place", "--principal", "ada", "--reason", "x")
    segment, points = of_the_latest_command(folder)
    whole = segment.read_bytes().splitlines(keepends=True)
    points.write_bytes(b"")
    for count in range(1, len(whole)):
        segment.write_bytes(b"".join(whole[:count]))
        look(folder)
        faults = json.loads(run("verify", "--json", code=1).stdout)["faults"]
        assert [fault["what"] for fault in faults] == ["cut"]
    segment.write_bytes(b"".join(whole))
    run("verify")


def test_a_copied_head_of_a_chain_that_was_removed_by_its_age_is_no_fault(folder: Path) -> None:
    write(folder, "ada")
    state, kept = folder.parent / ".narthex", folder.parent / "kept.heads"
    record_by_hand(folder, state, [("command", {"action": "keys.create"})], now=lambda: NOW - 30 * DAY)
    old, _ = of_the_latest_command(folder)
    (head,) = (one for one in heads_in(state, folder) if "-cli-" in one.name)
    kept.write_bytes(head.read_bytes())
    run("hold", "place", "--principal", "bob", "--reason", "x")
    run("upkeep")
    assert not old.exists()
    run("verify")
    assert not verify(folder, read_keys(folder.glob("audit-*.pub")), heads=[kept]).faults


# --- another master key


def test_sealed_ones_are_brought_under_another_key_in_their_place(folder: Path) -> None:
    write(folder, "ada", "bob", seals=SEALS)
    other = MasterKey(bytes(range(1, 33)))
    both = Envelopes([other, OURS], os.urandom)
    size = files_in(folder)[0].stat().st_size
    assert resealing.reseal(folder, both) == (4, [])
    assert resealing.reseal(folder, both) == (0, []), "all are under it"
    assert files_in(folder)[0].stat().st_size == size
    report = verify(folder, read_keys(folder.glob("audit-*.pub")), (), Envelopes([other], os.urandom))
    assert (report.faults, report.payloads.here) == ([], 4)
    assert resealing.reseal(folder, Envelopes([MasterKey(bytes(32))], os.urandom))[0] == 0


def test_a_rotation_of_the_master_key_leaves_no_payload_behind(folder: Path) -> None:
    state = folder.parent / ".narthex"
    state.mkdir(mode=0o700)
    write(folder, "ada", seals=Envelopes(load_keys(state, {}), os.urandom))
    for _ in range(3):
        found = CliRunner().invoke(cli, ["secrets", "rotate-key", "--keep", "0s", "--json"])
        assert found.exit_code == 0 and json.loads(found.stdout)["payloads"] == 2, found.output
        assert json.loads(run("verify", "--json").stdout)["payloads"]["here"] == 2


# --- what is done at the terminal


def test_keys_and_secrets_are_recorded_without_their_values(folder: Path) -> None:
    def do(*words: str, text: str = "") -> None:
        assert CliRunner().invoke(cli, [*words], input=text).exit_code == 0

    do("keys", "create", "ci", "--role", "reader")
    do("keys", "rotate", "ci")
    do("keys", "revoke", "ci")
    do("secrets", "set", "pat", text="PLANTED-value")
    do("secrets", "rotate-key")
    do("secrets", "remove", "pat")
    acts = records(folder, "command")
    assert [one["action"] for one in acts] == [
        "keys.create", "keys.rotate", "keys.revoke", "secrets.set", "secrets.rotate-key", "secrets.remove",
    ]  # fmt: skip
    assert acts[0]["name"] == "ci" and acts[0]["roles"] == ["reader"] and acts[0]["by"].endswith("at the terminal")
    assert not any(word in path.read_bytes() for path in folder.iterdir() for word in (b"nx_", b"PLANTED"))
    look(folder)
