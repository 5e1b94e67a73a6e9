"""`narthex doctor` with and without a gateway: exit codes, JSON, and that it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli
from narthex.testing import FakeServer
from tests.conftest import StartGateway


def doctor(file: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", "--config", str(file), *options])


def findings(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.stdout)["findings"]
    return found


CONFIG = """version: 1
listen: 127.0.0.1:0
admin: {listen: 127.0.0.1:0}
grants: [{name: all, allow: ["*"]}]
servers: {shell: {command: sh}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "narthex.yaml"
    path.write_text(CONFIG)
    path.chmod(0o600)
    return path


def test_nothing_is_wrong(file: Path) -> None:
    done = doctor(file, "--json")
    assert done.exit_code == 0, done.output
    assert {one["verdict"] for one in findings(done) if one["area"] != "versions"} == {"ok"}
    assert sorted(file.parent.iterdir()) == [file], "nothing was made"
    assert "0 faults" in doctor(file).stdout or "Nothing is wrong." in doctor(file).stdout


def test_a_configuration_that_cannot_be_used(file: Path) -> None:
    file.write_text("version: 1\nsevers: {}\n")
    done = doctor(file)
    assert done.exit_code == 1
    assert "did you mean 'servers'" in done.stdout
    assert "1 fault" in done.stdout


def test_strict_counts_warnings(file: Path) -> None:
    file.chmod(0o666)
    assert doctor(file, "--offline").exit_code == 0
    assert doctor(file, "--offline", "--strict").exit_code == 1


def test_offline_asks_nobody(file: Path) -> None:
    file.write_text(CONFIG.replace("{shell: {command: sh}}", "{web: {url: 'http://127.0.0.1:9/mcp'}}"))
    assert not [one for one in findings(doctor(file, "--json", "--offline")) if one["area"] == "network"]
    assert [one["verdict"] for one in findings(doctor(file, "--json")) if one["area"] == "network"] == ["warn"]


@pytest.mark.e2e
def test_beside_a_gateway_that_runs(start_gateway: StartGateway) -> None:
    with FakeServer() as server:
        gateway = start_gateway(
            {"version": 1, "servers": {"one": {"url": server.url}}, "audit": {"dir": "audit"},
             "grants": [{"name": "all", "allow": ["*"]}]}
        )  # fmt: skip
        gateway.client().ask("tools/list")
        file = gateway.folder / "narthex.yaml"
        found = {(one["area"], one["name"]): one for one in findings(doctor(file, "--json", "--admin", gateway.admin))}
        assert found["gateway", "readyz"]["said"] == "ready"
        assert found["limits", "open files"]["said"].startswith("the gateway that runs")
        assert found["network", "servers.one"]["verdict"] == "ok"
        assert found["journal", str(gateway.folder / "audit")]["said"].startswith("whole")
        assert ("addresses", "listen") not in found, "it has them"
        file.write_text(file.read_text().replace('"all"', '"everything"'))
        found = {(one["area"], one["name"]): one for one in findings(doctor(file, "--json", "--admin", gateway.admin))}
        assert found["gateway", "readyz"]["said"] == "ready"
