"""`narthex run list` shows which runs there are, by the index and in a folder alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from narthex.cli import run_list
from narthex.cli.main import cli
from narthex.telemetry.audit.segments import Segments
from narthex.telemetry.stamps import stamp
from tests.telemetry.audit.writing import AT, write

WHO = ({"subject": "ada", "client": "bot\x1b[31m"}, {"subject": "bob"})


def add(one: Segments, number: int) -> None:
    """Every third call is of trip-0, trip-1 or no run; what is of no run has a trace."""
    of = {"run": f"trip-{number % 3}"} if number % 3 < 2 else {"trace": "ab" * 16}
    record = {
        "id": f"r{number}", "event": "call", "time": stamp(AT + number), "server": "git", "name": "log",
        "principal": WHO[number % 2], "outcome": "ok", "decision": "allow", "cost": "0.01 USD", **of,
    }  # fmt: skip
    one.add(json.dumps(record, separators=(",", ":")).encode())


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write(tmp_path / "audit", 9, step=add)
    path = tmp_path / "narthex.yaml"
    path.write_text("version: 1\naudit: {dir: audit}\n")
    return path


def listed(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["run", "list", *map(str, words)])


def runs(*words: str | Path) -> list[tuple[str, str, int]]:
    document: dict[str, Any] = json.loads(listed(*words, "--json").stdout)
    return [(one["kind"], one["id"], one["sums"]["calls"]) for one in document["runs"]]


def test_the_latest_is_the_last_by_the_index_and_in_a_folder(config: Path) -> None:
    wanted = [("run", "trip-0", 3), ("run", "trip-1", 3), ("trace", "ab" * 16, 3)]
    assert runs("--config", config) == runs("--dir", config.parent / "audit") == wanted
    assert runs("--config", config, "--limit", "1") == wanted[-1:]
    bobs = runs("--config", config, "--principal", "bob", "--until", stamp(AT + 5))
    assert bobs == [("run", "trip-1", 1), ("run", "trip-0", 1)]


def test_for_people(config: Path) -> None:
    found = listed("--config", config)
    assert found.exit_code == 0 and found.stderr == "3 runs\n" and "\x1b[31m" not in found.stdout
    row = next(line for line in found.stdout.splitlines() if "trip-0" in line)
    assert row.split("   ")[0] == "2023-11-14T22:13:26" and "ada, bob with bot" in row and "0.03 USD" in row
    (shown,) = [one for one in found.stdout.splitlines() if "trip-1" in one]
    assert CliRunner().invoke(cli, ["run", "show", shown.split()[1], "--config", str(config)]).exit_code == 0
    assert listed("--config", config, "--principal", "eve").exit_code == 1
    assert "0 runs" in listed("--config", config, "--principal", "eve").stderr


def test_only_the_latest_records_are_looked_at(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_list, "LOOKED_AT", 1)
    for words in (("--config", config), ("--dir", config.parent / "audit")):
        found = listed(*words)
        assert "among the latest 1 records: --until TIME goes back further" in found.stderr
        assert "trip-" not in found.stdout and "ab" * 16 in found.stdout
