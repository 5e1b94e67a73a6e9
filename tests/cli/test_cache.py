"""`narthex cache` without a gateway, and what it makes of a document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click import unstyle
from click.testing import CliRunner

from narthex.cli.cache import _lines
from narthex.cli.main import cli

ROW = {
    "tenant": "default", "endpoint": "default", "name": "crm__get", "kind": "tools", "rule": "lookups", "entries": 17,
    "bytes": 31744, "hits": 55, "oldest": 28.2,
}  # fmt: skip
WHOLE: dict[str, Any] = {"entries": 17, "bytes": 31744, "most_entries": 10_000, "most_bytes": 1 << 26}
ASKED = {"hits": 50, "stale": 5, "joined": 2, "misses": 17, "kept": 17}


@pytest.mark.parametrize("command", [["show"], ["clear"], ["clear", "crm__*"]])
def test_where_no_gateway_answers_it_says_so(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "narthex.yaml"
    file.write_text("version: 1\nadmin: {listen: 127.0.0.1:1}\n")
    done = CliRunner().invoke(cli, ["cache", *command, "--config", str(file)])
    assert done.exit_code == 1
    assert "no gateway answers at http://127.0.0.1:1" in done.stderr


def lines(**given: Any) -> list[str]:
    return [unstyle(line) for line in _lines({**WHOLE, "asked": {}, "rows": [], **given})]


def test_a_table() -> None:
    assert lines(rows=[ROW], asked=ASKED) == [
        "NAME       ENDPOINT   RULE      ENTRIES   SIZE       HITS   OLDEST",
        "crm__get   default    lookups   17        31.0 KiB   55     29s",
        "",
        "17 answers, 31.0 KiB of 64.0 MiB. Of 74 calls 55 were answered from memory, 5 of these stale, 2 waited for "
        "another's answer.",
    ]


def test_several_tenants_are_named() -> None:
    found = lines(rows=[ROW, {**ROW, "tenant": "acme"}])
    assert found[0].startswith("TENANT    NAME") and found[2].startswith("acme      crm__get")


def test_an_empty_one() -> None:
    assert lines(entries=0, bytes=0) == ["0 answers, 0 B of 64.0 MiB."]


def test_what_a_server_calls_itself_makes_no_lines_of_its_own() -> None:
    assert all("\n" not in line and "\x1b" not in line for line in lines(rows=[{**ROW, "name": "a__\x1b[2Jb\nc"}]))
