"""`narthex audit verify`: a folder of the journal, and nothing else, is enough."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from stat import S_IMODE
from typing import get_args

import pytest
from click.testing import CliRunner, Result

from narthex.cli.audit_search import EVENTS
from narthex.cli.main import cli
from narthex.telemetry.acts import Event as ActEvent
from narthex.telemetry.audit.checkpoints import load_signer
from narthex.telemetry.audit.heads import Heads
from narthex.telemetry.audit.segments import Segments
from narthex.telemetry.record import Event
from tests.telemetry.audit.writing import AT, journal, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "audit", 5)
    return tmp_path / "audit"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["audit", "verify", *map(str, words)])


def test_a_whole_journal(folder: Path) -> None:
    found = run(folder)
    assert found.exit_code == 0 and "Whole: 7 records in 1 chain" in found.output
    assert "5 of them say what happened, and are what a search finds, 2 the journal's own" in found.output
    assert "5 found" in do("search", folder).stderr, "the two counts agree"
    assert "found in the folder itself" in found.output, "whoever writes there may have signed anew"
    (key,) = folder.glob("audit-*.pub")
    assert "found in the folder" not in run(folder, "--key", key).output
    document = json.loads(run(folder, "--json", "--key", key).stdout)
    assert document["whole"] and document["keys_given"] and document["chains"][0]["signed"] == 7
    assert (document["records"], document["own"]) == (7, 2)


def test_the_first_bad_record_is_named(folder: Path) -> None:
    (path,) = journal(folder)
    path.write_bytes(path.read_bytes().replace(b'"n":3', b'"n":4'))
    found = run(folder)
    assert found.exit_code == 1 and f"{path.name}:5: record 5: its hash" in found.output
    assert "what a search finds" not in found.output, "it finds those behind the fault, too"
    document = json.loads(run(folder, "--json").stdout)
    assert not document["whole"] and [one["what"] for one in document["faults"]] == ["changed"]


def test_a_call_without_an_end_is_told_from_one_whose_end_was_not_reached(tmp_path: Path) -> None:
    def add(one: Segments, number: int) -> None:
        one.add(b'{"v":1,"id":"b%d","time":"2023-11-14T22:13:20Z","event":"begin"}' % number)

    folder = tmp_path / "audit"
    write(folder, 2, step=add)
    found = run(folder)
    assert found.exit_code == 0 and found.output.count("has begun and no end of it is recorded") == 2
    (path,) = journal(folder)
    path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":4'))
    found = run(folder)
    assert (
        found.exit_code == 1 and "call b0 of 2023-11-14T22:13:20Z has begun and no end of it was read" in found.output
    )


def test_a_journal_signed_with_another_key_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pub"
    other.write_bytes(load_signer(tmp_path).pem())
    found = run(folder, "--key", other)
    assert found.exit_code == 1 and "which is not known" in found.output


def test_without_a_folder_it_is_the_one_of_the_configuration(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run().exit_code == 2, "no configuration here"
    config = tmp_path / "narthex.yaml"
    config.write_text("version: 1\naudit: {dir: audit, checkpoints: second}\n")
    assert run().exit_code == 0
    shutil.copytree(folder, tmp_path / "second")
    (path,) = journal(folder)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    for one in folder.glob("checkpoints-*"):
        one.unlink()
    found = run()
    assert found.exit_code == 1 and "cut off" in found.output, "the second place is looked at, too"
    config.write_text("version: 1\n")
    assert run().exit_code == 1


def test_the_head_beside_the_store_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, state = tmp_path / "audit", tmp_path / ".narthex"
    folder.mkdir()
    state.mkdir()
    write(folder, 5, heads=Heads(state, folder), step=lambda one, number: one.commit(AT, answers=True))
    config = tmp_path / "narthex.yaml"
    config.write_text("version: 1\naudit: {dir: audit}\n")
    monkeypatch.chdir(tmp_path)
    assert run().exit_code == 0 and json.loads(run("--json").stdout)["heads_given"]
    (path,) = journal(folder)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    for one in folder.glob("checkpoints-*"):
        one.unlink()
    assert run(folder).exit_code == 0, "of the folder alone nobody knows"
    (head,) = state.glob("audit-*.heads")
    for found in (run(), run(folder, "--heads", head)):
        assert found.exit_code == 1 and "the last 4 records, 4 to 7, are cut off" in found.output


def test_a_folder_with_no_journal_is_not_whole(tmp_path: Path) -> None:
    found = run(tmp_path)
    assert found.exit_code == 1 and "no journal in" in found.output
    assert run(tmp_path / "nowhere").exit_code == 2


def do(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["audit", *map(str, words)])


def test_search_and_export(folder: Path, tmp_path: Path) -> None:
    found = do("search", folder)
    assert found.exit_code == 0 and found.stdout.startswith("time") and "5 found" in found.stderr
    document = json.loads(do("search", folder, "--limit", "2", "--json").stdout)
    assert [one["n"] for one in document["records"]] == [3, 4] and (document["found"], document["unread"]) == (5, 0)
    assert do("search", folder, "--principal", "nobody").exit_code == 1
    lines = do("export", folder).stdout.splitlines()
    assert [json.loads(line)["n"] for line in lines] == [0, 1, 2, 3, 4]
    out = tmp_path / "records.csv"
    assert do("export", folder, "--format", "csv", "--out", out).exit_code == 0
    assert out.read_text().splitlines()[0].startswith("time,id,event") and len(out.read_text().splitlines()) == 6
    assert S_IMODE(out.stat().st_mode) == 0o600, "as private as the records"
    for form in ("ocsf", "cef"):
        told = do("export", folder, "--format", form, "--principal", "nobody")
        assert told.exit_code == 0 and told.stderr == "0 records\n"
        assert len(do("export", folder, "--format", form).stdout.splitlines()) == 5


@pytest.mark.parametrize("command", ["search", "export"])
def test_a_folder_with_no_journal_is_no_empty_answer(tmp_path: Path, command: str) -> None:
    out = tmp_path / "out.csv"
    found = do(command, tmp_path, *(("--out", out) if command == "export" else ()))
    assert found.exit_code == 1 and "no records in" in found.stderr and not found.stdout and not out.exists()


def whole(record: int, decision: int) -> dict[str, str]:
    return {
        "id": f"019ac4b2-7f10-7000-8d3e-{record:012x}",
        "decision_id": f"{decision:08x}-4c5b-4a55-9d25-3a0bd1c2c0a4",
    }


def test_half_an_id_is_enough(tmp_path: Path) -> None:
    def add(one: Segments, number: int) -> None:
        one.add(json.dumps({"event": "call", **whole(number * 16**8, number), "n": number}).encode())

    folder = tmp_path / "audit"
    write(folder, 3, step=add)

    def found(half: str) -> list[int]:
        return [one["n"] for one in json.loads(do("search", folder, "--id", half, "--json").stdout)["records"]]

    ids = whole(16**8, 1)
    for half in (ids["id"], "019ac4b2-7f10-7000-8d3e-0001", "00000001", "00000001-4c5b"):
        assert found(half) == [1], half
    assert found("0000000") == [], "seven characters are no half"
    assert found("deadbeef") == []
    several = do("search", folder, "--id", "019ac4b2-7f10")
    assert several.exit_code == 1 and several.stderr.count("019ac4b2-7f10-7000-8d3e-") == 3, several.output
    assert do("payload", "00000001", "--dir", folder).exit_code == 1, "found, and nothing was kept"
    assert "nothing of it was kept" in do("payload", "00000001", "--dir", folder).stderr
    missing = do("payload", "deadbeef", "--dir", folder)
    assert missing.exit_code == 1 and "no record deadbeef" in missing.stderr and "decisionId" in missing.stderr


WHO = {"subject": "ann", "client": "bot"}
ROWS = [
    {"event": "begin", "time": "t1", "principal": WHO, "server": "git", "name": "git__push", "decision": "allow"},
    {"event": "call", "time": "t2", "principal": WHO, "server": "git", "name": "push", "decision": "allow",
     "outcome": "ok"},
    {"event": "call", "time": "t3", "principal": WHO, "name": "git__push", "decision": "deny", "outcome": "denied",
     "policy": {"resource": "git__push"}},
    {"event": "approval", "time": "t4", "principal": WHO, "server": "git", "name": "push", "step": "asked"},
    {"event": "approval", "time": "t5", "principal": WHO, "server": "git", "name": "push", "step": "approved",
     "by": "bob"},
    {"event": "lost", "time": "t6", "count": 3},
    {"event": "command", "time": "t7", "action": "keys.create", "by": "root at the terminal", "name": "ci"},
    {"event": "erase", "time": "t8", "by": "root at the terminal", "reason": "x"},
    {"event": "hold", "time": "t9", "step": "placed",
     "hold": {"id": "h1", "by": "root at the terminal", "reason": "Doe v. Roe"}},
    {"event": "config", "time": "ta", "step": "started", "revision": "c0ffee1234567890"},
    {"event": "config", "time": "tb", "step": "applied", "by": "file", "revision": "c0ffee",
     "changes": ["servers.git", "+grants.large"]},
]  # fmt: skip


def test_rows_can_be_told_apart(tmp_path: Path) -> None:
    def add(one: Segments, number: int) -> None:
        one.add(json.dumps(ROWS[number], separators=(",", ":")).encode())

    folder = tmp_path / "audit"
    write(folder, len(ROWS), step=add)
    shown = [[cell for cell in line.split("   ") if cell] for line in do("search", folder).stdout.splitlines()]
    rows = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in shown if row[0].startswith("t")}
    who = "ann by bot"
    assert rows["time"] == ["event", "who", "what", "decision", "outcome", "id"]
    assert rows["t1"] == ["begin", who, "git__push", "allow", "-", "-"]
    assert rows["t2"] == ["call", who, "git__push", "allow", "ok", "-"]
    assert rows["t3"] == ["call", who, "git__push", "deny", "denied", "-"]
    assert rows["t4"] == ["approval: asked", who, "git__push", "-", "-", "-"]
    assert rows["t5"] == ["approval: approved", f"bob, for {who}", "git__push", "-", "-", "-"]
    assert rows["t6"] == ["lost: 3", "-", "-", "-", "-", "-"]
    assert rows["t7"] == ["command: keys.create", "root at the terminal", "ci", "-", "-", "-"]
    assert rows["t8"] == ["erase", "root at the terminal", "x", "-", "-", "-"]
    assert rows["t9"] == ["hold: placed", "root at the terminal", "Doe v. Roe", "-", "-", "-"]
    assert rows["ta"] == ["config: started", "-", "revision c0ffee123456", "-", "-", "-"]
    assert rows["tb"] == ["config: applied", "file", "servers.git, +grants.large", "-", "-", "-"]
    assert "5 found" in do("search", folder, "--tool", "git__push").stderr


@pytest.mark.parametrize("command", ["search", "export"])
@pytest.mark.parametrize(
    ("option", "word", "said"),
    [
        pytest.param("--since", "yesterday", "'yesterday' is no time such as 2026-11-27", id="no time"),
        pytest.param("--until", "27.11.2026", "'27.11.2026' is no time such as 2026-11-27", id="another calendar"),
        pytest.param("--outcome", "fine", "'tool_error'", id="no outcome"),
        pytest.param("--event", "calls", "'approval'", id="no event"),
    ],
)
def test_what_is_misspelt_is_no_empty_answer(folder: Path, command: str, option: str, word: str, said: str) -> None:
    found = do(command, folder, option, word)
    assert found.exit_code == 2 and said in found.stderr and not found.stdout


def test_an_offset_is_counted(folder: Path) -> None:
    assert "5 found" in do("search", folder, "--since", "2023-11-14T23:00+01:00").stderr, "they are of 22:13 UTC"
    assert "0 found" in do("search", folder, "--since", "2023-11-14T22:00-01:00").stderr


def test_every_event_can_be_asked_for() -> None:
    assert set(EVENTS) == {*get_args(Event), *get_args(ActEvent), "alert", "approval", "lost"}
