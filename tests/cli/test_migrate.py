"""`narthex migrate`, and what other commands say before it was run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli
from narthex.store.migrations import MIGRATIONS
from narthex.store.postgres.migrations import MIGRATIONS as IN_POSTGRES
from tests.counterparts.postgres import Databases


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


def configured(folder: Path, store: str) -> str:
    path = folder / "narthex.yaml"
    path.write_text(f"version: 1\nstore: '{store}'\nservers: {{one: {{url: 'http://127.0.0.1:1/mcp'}}}}\n")
    return str(path)


def test_a_database_is_migrated_once_and_then_used(tmp_path: Path, databases: Databases) -> None:
    spec = databases.empty()
    config = configured(tmp_path, f"postgresql:///narthex?host={spec.host}&schema={spec.schema}")
    for command in (("keys", "list"), ("secrets", "list"), ("approvals", "list"), ("cost",)):
        refused = run(*command, "--config", config)
        assert refused.exit_code == 1 and "run `narthex migrate`" in refused.output
    first = run("migrate", "--config", config)
    assert (
        first.exit_code == 0 and f"had no tables of Narthex yet, and is of form {len(IN_POSTGRES)} now" in first.output
    )
    again = run("migrate", "--config", config, "--json")
    now = len(IN_POSTGRES)
    assert json.loads(again.output) == {"store": spec.name, "before": now, "now": now}
    made = json.loads(run("keys", "create", "ci", "--config", config, "--json").output)
    assert made["id"] in run("keys", "list", "--config", config).output
    assert run("cost", "--config", config).exit_code == 0


def test_a_file_is_migrated_too(tmp_path: Path) -> None:
    config = configured(tmp_path, "sqlite:///a.db")
    said = json.loads(run("migrate", "--config", config, "--json").output)
    assert said == {"store": str(tmp_path / "a.db"), "before": 0, "now": len(MIGRATIONS)}
    assert "already" in run("migrate", "--config", config).output


@pytest.mark.parametrize("command", [("migrate",), ("keys", "list")])
def test_a_server_that_is_away_is_said(tmp_path: Path, command: tuple[str, ...]) -> None:
    config = configured(tmp_path, f"postgresql:///narthex?host={tmp_path}")
    said = run(*command, "--config", config)
    assert said.exit_code == 1 and "cannot be reached" in said.output and "see whether it runs" in said.output
