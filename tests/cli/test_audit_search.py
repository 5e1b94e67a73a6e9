"""`narthex audit search` by the index: what a configuration records is found page by page, at once and later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click import unstyle
from click.testing import CliRunner, Result

from narthex.cli.audit_search import HEADING, _lines
from narthex.cli.main import cli
from narthex.telemetry.audit.segments import Segments
from narthex.telemetry.stamps import stamp
from tests.telemetry.audit.writing import AT, write

COUNT = 25


def add(one: Segments, number: int) -> None:
    record = {
        "id": f"r{number}", "event": "call", "time": stamp(AT + number), "server": "git", "method": "tools/call",
        "principal": {"subject": ("ada", "bob")[number % 2]}, "name": f"get_{number}", "outcome": "ok",
        "decision": "allow",
    }  # fmt: skip
    one.add(json.dumps(record, separators=(",", ":")).encode())


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write(tmp_path / "audit", COUNT, step=add)
    path = tmp_path / "narthex.yaml"
    path.write_text("version: 1\naudit: {dir: audit}\n")
    return path


def search(config: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["audit", "search", "--config", str(config), *words])


def test_pages_of_the_index(config: Path) -> None:
    seen, cursor = [], ""
    for _ in range(5):
        words = ["--principal", "ada", "--limit", "3", "--json", *(["--cursor", cursor] if cursor else [])]
        found = search(config, *words)
        assert found.exit_code == 0, found.output
        document = json.loads(found.stdout)
        assert document["found"] == 13 and document["unread"] == 0
        seen = [one["id"] for one in document["records"]] + seen
        cursor = document.get("next", "")
        if not cursor:
            break
    assert seen == [f"r{number}" for number in range(0, COUNT, 2)]
    assert (config.parent / ".narthex" / "narthex.audit.db").is_file()


def test_for_people(config: Path) -> None:
    found = search(config, "--text", "GET_2", "--limit", "2")
    assert found.exit_code == 0 and "6 found, the latest 2 are shown" in found.stderr
    assert "older ones: --cursor " in found.stderr
    assert found.stdout.splitlines()[-1].endswith("r24")
    assert search(config, "--run", "none").exit_code == 1


def test_half_an_id_leads_to_it_by_the_index_too(tmp_path: Path) -> None:
    def add(one: Segments, number: int) -> None:
        id_ = f"019ac4b2-7f10-7000-8d3e-{number:012x}"
        one.add(json.dumps({"id": id_, "event": "call", "time": stamp(AT), "name": f"n{number}"}).encode())

    write(tmp_path / "audit", 20, step=add)
    (tmp_path / "narthex.yaml").write_text("version: 1\naudit: {dir: audit}\n")
    found = search(tmp_path / "narthex.yaml", "--id", "019ac4b2-7f10-7000-8d3e-000000000011", "--json")
    assert [one["name"] for one in json.loads(found.stdout)["records"]] == ["n17"]
    half = search(tmp_path / "narthex.yaml", "--id", "019ac4b2-7f10-7000-8d3e-00000000001", "--json")
    assert half.exit_code == 1 and "which one is meant?" in half.stderr and half.stderr.count("8d3e-") == 5
    assert search(tmp_path / "narthex.yaml", "--id", "019ac4b2-7f10-7000-8d3e-0000000000").exit_code == 1


def test_in_a_narrow_terminal_a_record_has_two_lines_and_its_id_is_whole() -> None:
    id_ = "019ac4b2-7f10-7000-8d3e-5a0f4be0c9d1"
    who, what = "ada by helpdesk-bot", "time__get_current_time"
    rows = [HEADING, ("2026-11-27T09:38:36.120345Z", "call", who, what, "allow", "ok", id_)]
    wide = _lines(rows, 0)
    assert len(wide) == 2 and _lines(rows, 200) == wide and wide[1].endswith(f"ok        {id_}")
    narrow = [unstyle(line) for line in _lines(rows, 80)]
    assert narrow == [
        "time   id",
        "    event   who   what   decision   outcome",
        f"2026-11-27T09:38:36.120345Z   {id_}",
        f"    call   {who}   {what}   allow   ok",
    ]
    lost = ("-", "lost: 3", "-", "-", "-", "-", "-")
    assert _lines([HEADING, lost], 20)[-2:] == ["-   -", "    lost: 3"]
    assert all(len(line) <= 40 for line in _lines(rows, 40)[3:] if id_ not in line)


def test_an_alert_names_its_limit(tmp_path: Path) -> None:
    def alert(one: Segments, number: int) -> None:
        record = {"id": f"r{number}", "event": "alert", "time": stamp(AT + number), "limit": "spend", "share": 50}
        one.add(json.dumps(record, separators=(",", ":")).encode())

    write(tmp_path / "audit", 1, step=alert)
    (tmp_path / "narthex.yaml").write_text("version: 1\naudit: {dir: audit}\n")
    assert "spend" in search(tmp_path / "narthex.yaml").stdout


def test_what_is_written_meanwhile_is_found(config: Path) -> None:
    assert json.loads(search(config, "--server", "git", "--json").stdout)["found"] == COUNT
    write(config.parent / "audit", 1, boot="b2", at=AT + 60, step=lambda one, _: add(one, 60))
    document = json.loads(search(config, "--server", "git", "--json").stdout)
    assert document["found"] == COUNT + 1 and document["records"][-1]["id"] == "r60"


def test_a_cursor_of_another_question_is_refused(config: Path) -> None:
    cursor = json.loads(search(config, "--limit", "1", "--json").stdout)["next"]
    for words in (["--principal", "ada", "--cursor", cursor], ["--cursor", "x"]):
        found = search(config, *words)
        assert found.exit_code == 2 and "--cursor" in found.stderr and not found.stdout
    assert search(config, str(config.parent / "audit"), "--cursor", cursor).exit_code == 2


def test_it_is_said_where_nothing_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text("version: 1\naudit: {dir: audit}\n")
    found = search(path)
    assert found.exit_code == 1 and "nothing is recorded yet" in found.stderr


def test_while_the_index_cannot_be_reached_the_folder_is_named(config: Path) -> None:
    """A database that is away takes nothing from who reads the journal itself."""
    nowhere = config.parent / "no-socket"
    config.write_text(f'version: 1\naudit: {{dir: audit}}\nstore: "postgresql:///narthex?host={nowhere}"\n')
    found = search(config)
    folder = config.parent / "audit"
    assert found.exit_code == 1 and f"where its folder is named: {folder}" in found.stderr, found.output
    alone = CliRunner().invoke(cli, ["audit", "search", str(folder)])
    assert alone.exit_code == 0 and f"{2 * COUNT} found" in alone.stderr
