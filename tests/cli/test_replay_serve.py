"""`narthex replay --serve`: what is misused, what is not there to be played, and what the report says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from narthex.cli.main import cli
from narthex.cli.replay_serve import report_lines
from narthex.playback.script import Change, Report, Told
from narthex.telemetry.journal import Journal
from narthex.telemetry.payloads.rules import KeptParts
from narthex.telemetry.payloads.writing import Payloads
from tests.telemetry.audit.writing import AT, SIGNER
from tests.telemetry.payloads.test_entries import entry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal with a run of one call."""
    found = tmp_path / "audit"
    journal = Journal(found, SIGNER, now=lambda: AT)
    journal.payloads = Payloads(found)
    journal.add(entry(1, KeptParts("full", "full", "public"), run="trip-7", endpoint="default", method="tools/call"))
    journal.close()
    return found


def replay(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["replay", *map(str, words)])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("--serve", "--shadow"), "goes with neither --against nor --shadow", id="nothing is decided"),
        pytest.param(("--port", "0"), "--port belongs to --serve", id="a port of nothing"),
        pytest.param(("--spent", "error"), "--spent belongs to --serve", id="spent calls of nothing"),
        pytest.param(("--keys",), "--keys belongs to --serve", id="keys of nothing"),
        pytest.param(("--serve", "--port", "70000"), "70000", id="no port"),
    ],
)
def test_misused(words: tuple[str, ...], said: str) -> None:
    done = replay(*words)
    assert done.exit_code == 2 and said in done.stderr, done.output


def test_two_folders_are_one_too_many(folder: Path) -> None:
    done = replay(folder, "--dir", folder, "--serve")
    assert done.exit_code == 2 and "which folder is meant" in done.stderr


def test_a_run_that_is_not_recorded(folder: Path) -> None:
    done = replay("trip-8\x1b[31m", "--dir", folder, "--serve", "--port", "0")
    assert done.exit_code == 1 and "is recorded of trip-8" in done.stderr and "\x1b" not in done.stderr
    assert "an ID is what the agent called its run" in done.stderr


def test_nothing_is_chosen(folder: Path) -> None:
    done = replay(folder, "--serve", "--principal", "nobody", "--port", "0")
    assert done.exit_code == 1 and "no call of a tool, prompt or resource is recorded" in done.stderr
    both = replay("trip-7", "--dir", folder, "--serve", "--since", "2026")
    assert both.exit_code == 2 and "--since chooses among all that is recorded" in both.stderr


def test_a_list_that_is_none(folder: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists.json"
    lists.write_text('{"tools": 7}')
    done = replay("trip-7", "--dir", folder, "--serve", "--lists", lists, "--port", "0")
    assert done.exit_code == 1 and "not what narthex list --json prints" in done.stderr, done.output


def test_the_report_for_people() -> None:
    report = Report(
        4, 1, (Change("one__buy\x1b[31m", "r1", ("amount", "no\u202ete")),), (Told("one__new", 2),),
        (Told("one__gone", 1),), (Told("one__find", 3),), (Told("one__old", 1, "its result was erased"),),
    )  # fmt: skip
    lines = "\n".join(report_lines(report))
    for text in (
        "1 of 4 recorded calls", "other arguments  one__buy", ": amount, no", "not recorded     one__new  2",
        "not made         one__gone  1", "made again       one__find  3",
        "no answer        one__old  1  (its result was erased)", "not as recorded",
    ):  # fmt: skip
        assert text in lines
    assert "\u202e" not in lines
    assert json.dumps(report_lines(Report(1, 1))[-1]).count("the agent did what is recorded") == 1
