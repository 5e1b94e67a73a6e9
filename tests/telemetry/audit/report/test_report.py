"""The report says what the records say, shows the question behind each figure, and no text in it does anything."""

from __future__ import annotations

import json
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from narthex.cli.main import cli
from narthex.telemetry.audit.report.figures import Figure, Section, Table
from narthex.telemetry.audit.report.page import page
from narthex.telemetry.audit.report.period import read_period
from narthex.telemetry.audit.segments import Segments
from tests.telemetry.audit.writing import journal, write

HOSTILE = "<script>alert(1)</script>'\"&\u202e=HYPERLINK(1)<img src=x onerror=y>"
BASE = {"v": 1, "tenant": "default", "endpoint": "default", "config": "c0ffee", "method": "tools/call"}
ADA = {"issuer": "https://idp", "subject": "ada", "client": "helpdesk-bot"}
EVE = {"issuer": "https://idp", "subject": HOSTILE, "client": "bot"}
RULED = {"effect": "deny", "reason": "denied", "rule": "no deletes", "resource": "git__delete_it"}
RECORDS: list[dict[str, Any]] = [
    {**BASE, "event": "call", "principal": ADA, "server": "git", "name": "log", "outcome": "ok", "decision": "allow"},
    {**BASE, "event": "call", "principal": ADA, "server": "git", "name": "log", "outcome": "ok", "decision": "allow"},
    {**BASE, "event": "call", "principal": EVE, "name": "git__delete_it", "outcome": "denied", "decision": "deny",
     "policy": RULED},
    {**BASE, "event": "call", "principal": EVE, "name": HOSTILE, "outcome": "not_found", "decision": "deny"},
    {**BASE, "event": "admin", "principal": ADA, "method": "reload", "name": "/api/v1/reload", "outcome": "ok",
     "decision": "allow"},
    {**BASE, "event": "admin", "principal": ADA, "method": "audit.read", "name": "/api/v1/audit", "outcome": "ok",
     "decision": "allow"},
    {**BASE, "event": "approval", "principal": ADA, "server": "git", "name": "push", "step": "asked", "rule": "large"},
    {**BASE, "event": "approval", "principal": ADA, "server": "git", "name": "push", "step": "approved",
     "rule": "large", "by": HOSTILE},
    {"v": 1, "event": "lost", "count": 3},
    {"v": 1, "event": "config", "step": "applied", "by": "file", "before": "c0ffee", "revision": "beef" * 16,
     "changes": ["servers.git", "+grants.large"]},
    {"v": 1, "event": "command", "action": "keys.create", "by": "root at the terminal", "name": "ci", "ids": ["k1"],
     "tenant": "default"},
    {"v": 1, "event": "hold", "step": "placed", "hold": {"id": "h1", "by": "root at the terminal", "reason": HOSTILE,
     "concerned": {"records": [], "subject": "ada"}}},
    {"v": 1, "event": "hold", "step": "released", "hold": {"id": "h1"}, "by": "bob at the terminal", "reason": "over"},
    {"v": 1, "event": "erase", "by": "root at the terminal", "reason": "art. 17", "concerned": {"subject": "ada"},
     "records": ["r0", "r1"]},
]  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    def add(one: Segments, number: int) -> None:
        second = f"2023-11-14T22:13:{20 + number:02d}.000000Z"
        one.add(json.dumps({"id": f"r{number}", "time": second, **RECORDS[number]}, separators=(",", ":")).encode())

    write(tmp_path / "audit", len(RECORDS), step=add)
    path = tmp_path / "narthex.yaml"
    path.write_text("version: 1\naudit: {dir: audit}\n")
    return path


def report(config: Path, *words: str) -> Any:
    return CliRunner().invoke(cli, ["audit", "report", "--config", str(config), "--period", "2023-11", *words])


def figures(config: Path) -> dict[str, Any]:
    done = report(config, "--json")
    assert done.exit_code == 0, done.output
    return {one["label"]: one for section in json.loads(done.stdout)["sections"] for one in section["figures"]}


def tables(config: Path) -> dict[str, Any]:
    document = json.loads(report(config, "--json").stdout)
    return {one["title"]: one for section in document["sections"] for one in section["tables"]}


def test_what_it_says(config: Path) -> None:
    found = {label: one["value"] for label, one in figures(config).items()}
    assert (found["denied"], found["admin actions"], found["audit.read, times"]) == ("2", "2", "1")
    assert (found["asked"], found["approved"], found["records lost, in this period"]) == ("1", "1", "3")
    assert (found["the journal is whole"], found["faults"]) == ("yes", "0")
    shown = tables(config)
    assert ["ada", "helpdesk-bot", "default", "git", "git__log", "2"] in [
        row[:6] for row in shown["Principals by agent, server and tool"]["rows"]
    ]
    assert shown["By rule and outcome"]["rows"][0][:3] == ["", "not_found", "1"]
    assert shown["Admin actions"]["rows"] == [
        ["2023-11-14 22:13:24", "ada by helpdesk-bot", "reload", "/api/v1/reload", "ok"]
    ]
    assert [row[1:] for row in shown["Configurations applied"]["rows"]] == [
        ["applied", "file", "beefbeefbeef", "servers.git, +grants.large"]
    ]
    assert [row[1:] for row in shown["At the terminal"]["rows"]] == [
        ["root at the terminal", "keys.create", "ci", "k1"]
    ]
    assert [row[1:] for row in shown["Legal holds"]["rows"]] == [
        ["bob at the terminal", "released", "h1", "", "over"],
        ["root at the terminal", "placed", "h1", "subject=ada", HOSTILE],
    ]
    assert [row[1:] for row in shown["Payloads erased"]["rows"]] == [
        ["root at the terminal", "subject=ada", "2", "art. 17"]
    ]
    assert [row[1] for row in shown["Steps"]["rows"]] == ["approved", "asked"]
    assert ["c0ffee", "4"] in [row[:2] for row in shown["Configurations in force"]["rows"]]


def test_each_command_shows_what_is_behind_its_figure(config: Path) -> None:
    for one in figures(config).values():
        if one["query"].startswith("narthex audit search"):
            done = CliRunner().invoke(cli, [*shlex.split(one["query"])[1:], "--json"])
            count = json.loads(done.stdout)["found"]
            assert f"{count:,}" == one["value"] or one["label"].startswith("records lost"), one


def test_a_copied_folder_is_enough(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says the same, but for the keys, and its commands are of the folder. Nothing is left in it or beside it."""
    with_config = figures(config)
    (config.parent / "elsewhere").mkdir()
    copy = (config.parent / "audit").rename(config.parent / "elsewhere" / "the copy")
    monkeypatch.chdir(copy.parent)
    before = sorted(copy.parent.rglob("*"))
    done = CliRunner().invoke(cli, ["audit", "report", "the copy", "--period", "2023-11", "--json"])
    assert done.exit_code == 0, done.output
    sections = json.loads(done.stdout)["sections"]
    found = {one["label"]: one for section in sections for one in section["figures"]}
    assert {name: one["value"] for name, one in found.items()} == {
        name: one["value"] for name, one in with_config.items()
    }
    (keys,) = (one for section in sections for one in section["tables"] if one["title"] == "API keys")
    assert keys["rows"] == [] and keys["note"].startswith("Not in the folder of a journal")
    assert found["denied"]["query"].startswith("narthex audit search 'the copy' --since 2023-11")
    searched = CliRunner().invoke(cli, [*shlex.split(found["denied"]["query"])[1:], "--json"])
    assert json.loads(searched.stdout)["found"] == int(found["denied"]["value"])
    assert sorted(copy.parent.rglob("*")) == before
    empty = CliRunner().invoke(cli, ["audit", "report", ".", "--period", "2023-11"])
    assert empty.exit_code == 1 and "no records in" in empty.stderr


def test_another_period_has_nothing(config: Path) -> None:
    done = CliRunner().invoke(cli, ["audit", "report", "--config", str(config), "--period", "2024", "--json"])
    (denials,) = [one for one in json.loads(done.stdout)["sections"] if one["title"] == "Denials"]
    assert {one["value"] for one in denials["figures"]} == {"0"}


def test_a_journal_that_is_not_whole_is_said(config: Path) -> None:
    (path,) = journal(config.parent / "audit")
    path.write_bytes(path.read_bytes().replace(b'"name":"log"', b'"name":"lag"', 1))
    done = report(config)
    assert done.exit_code == 1 and '<div class="figure bad"><b>no</b>the journal is whole' in done.stdout


class Reader(HTMLParser):
    """What a browser would make of it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "dl", "dt", "dd", "nav", "a",
    "section", "div", "b", "code", "table", "thead", "tbody", "tr", "th", "td", "footer",
}  # fmt: skip


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.tags <= TAGS, reader.tags - TAGS
    assert reader.attributes <= {"lang", "charset", "http-equiv", "content", "name", "id", "class", "href", "scope"}
    assert all(link.startswith("#") for link in reader.links), "nothing is fetched"
    return reader


def test_no_text_does_anything(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert report(config, "--out", str(out)).exit_code == 0
    text = out.read_text()
    reader = read(text)
    assert HOSTILE.replace("\u202e", "\ufffd") in "".join(reader.texts) and "\u202e" not in text
    assert "<script" not in text and "default-src 'none'" in text
    assert out.stat().st_mode & 0o777 == 0o600


@given(words=st.lists(st.text(), min_size=8, max_size=8))
def test_whatever_the_texts_are(words: list[str]) -> None:
    table = Table(words[0], (words[1],), ((words[2],),), words[3], 1, words[4])
    section = Section(words[5], words[6], words[7], (Figure(words[0], words[1], words[2]),), (table,))
    reader = read(page([section], read_period("2026"), about={words[3]: words[4]}, made="now"))
    assert "script" not in reader.tags


def test_it_needs_a_period(config: Path) -> None:
    done = CliRunner().invoke(cli, ["audit", "report", "--config", str(config), "--period", "last month"])
    assert done.exit_code == 2 and "is no period such as 2026-Q4" in done.stderr
