"""What `narthex top` shows of two looks, and that it works without a terminal, with one, and without a gateway."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from narthex.cli.main import cli
from narthex.cli.top_frame import frame, quantile, unused_lines
from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import ROOT, Gateway, wait_for

BOUNDS = [0.001, 0.002, 0.004]


def row(name: str, **given: Any) -> dict[str, Any]:
    return {
        "tenant": "default", "subject": "ada", "client": "helpdesk-bot", "server": "git", "name": name, "ok": 10,
        "failed": 0, "held": 0, "refused": 0, "seconds": 1.0, "runs": 1, "retries": 0, "repeats": 0, "loops": 0,
        "cost": [],
    } | given  # fmt: skip


def look(*rows: dict[str, Any], at: float = 1000.0, **given: Any) -> dict[str, Any]:
    names = ("ok", "failed", "held", "refused", "runs", "retries", "repeats", "loops")
    times = {"bounds": BOUNDS, "counts": [5, 4, 1, 0]}
    return {
        "at": at, "started_at": 900.0, "open_calls": 2, "latency": {"call": times, "gateway": times}, "more": False,
        "totals": {name: sum(one[name] for one in rows) for name in names}, "rows": list(rows), "servers": [],
    } | given  # fmt: skip


def plain(lines: list[str]) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines))


def test_one_look_shows_sums() -> None:
    paid = [{"amount": "0.20", "currency": "USD"}]
    shown = plain(frame(None, look(row("log", ok=8, failed=2, retries=1, cost=paid)), "calls", 200, 50))
    assert "since the start, 1m 40s ago" in shown
    assert "0.1 calls/s" in shown
    assert re.search(r"helpdesk-bot +ada +git__log +10 +80% +100.0 ms +0.2 USD +1$", shown, re.MULTILINE)
    assert "in all <1ms <4ms <4ms" in shown


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        pytest.param(200, ["p50 p95 p99: in all <1ms <4ms <4ms   in the gateway <1ms <4ms <4ms"], id="in a row"),
        pytest.param(
            60, ["p50 p95 p99: in all <1ms <4ms <4ms", " " * 13 + "in the gateway <1ms <4ms <4ms"], id="below"
        ),
    ],
)
def test_latency_is_whole_in_a_narrow_terminal(width: int, lines: list[str]) -> None:
    shown = frame(None, look(row("log")), "calls", width, 50)
    assert [one for one in shown if "<1ms" in one] == lines


def test_calls_of_what_is_not_there_are_of_no_tool() -> None:
    refused = {"ok": 0, "refused": 3, "seconds": 0.003}
    shown = plain(frame(None, look(row("log", **refused), row("(unknown)", server="", **refused)), "calls", 200, 50))
    assert re.search(r"ada +git__log +3 +0%", shown)
    assert re.search(r"ada +\(unknown\) +3 +0%", shown)


def test_two_looks_show_what_came_in_between() -> None:
    before = look(row("log", ok=8, seconds=1.0), row("idle"))
    now = look(row("log", ok=28, seconds=2.0, repeats=3, loops=1), row("idle"), row("new", ok=5), at=1010.0)
    shown = plain(frame(before, now, "calls", 200, 50))
    assert re.search(r"git__log +2.0 +100% +50.0 ms +- +3 \(1 in a loop\)$", shown, re.MULTILINE)
    assert "git__new" in shown
    assert "git__idle" not in shown
    assert "2.5 calls/s" in shown


@pytest.mark.parametrize(
    ("order", "first"), [("calls", "a"), ("failed", "b"), ("latency", "c"), ("cost", "d"), ("loops", "e")]
)
def test_what_stands_first(order: str, first: str) -> None:
    rows = [
        row("a", ok=99), row("b", failed=5), row("c", seconds=60.0),
        row("d", cost=[{"amount": "1.00", "currency": "USD"}]), row("e", loops=4, repeats=4),
    ]  # fmt: skip
    shown = plain(frame(None, look(*rows), order, 200, 50))
    assert re.findall(r"git__(\w)", shown)[0] == first


def test_it_fits_into_the_terminal() -> None:
    lines = frame(None, look(*(row(f"t{number}", client="x" * 300) for number in range(100))), "calls", 60, 12)
    assert len(lines) <= 12
    assert all(len(line) <= 60 for line in lines if "\x1b" not in line)


@pytest.mark.parametrize(("width", "figures"), [(80, 3), (60, 3), (40, 2)])
def test_what_stands_in_a_narrow_terminal_are_who_what_and_figures(width: int, figures: int) -> None:
    """Columns in which nothing stands go first, then the ends of names; no line is longer than the terminal."""
    rows = (row("get_current_time", client="-", subject="x" * 40), row("log", client="", ok=2))
    lines = plain(frame(None, look(*rows), "calls", width, 12)).splitlines()
    assert all(len(line) <= width for line in lines if not line.startswith(("narthex top", "p50")))
    (head,) = (line for line in lines if "TOOL" in line)
    assert head.split() == ["WHO", "TOOL", "CALLS", "OK", "MEAN"][: 2 + figures]
    assert any(re.search(r"^xxx+… +git_.* +10 +100%( +100.0 ms)?$", line) for line in lines), lines


def test_what_waits_for_a_person_has_not_failed() -> None:
    lines = plain(frame(None, look(row("pay", ok=3, held=1), row("mail", ok=0, held=2)), "failed", 200, 50))
    assert "ended: 3 ok, 0 failed, 3 held, 0 refused" in lines
    assert re.search(r"git__pay +4 +100% ", lines) and re.search(r"git__mail +2 +held ", lines)
    assert "held" not in plain(frame(None, look(row("log")), "calls", 200, 50)), "where nothing ever waits"


def test_names_of_others_cannot_steer_the_terminal() -> None:
    hostile = "\x1b[2J\r\nname"
    shown = plain(frame(None, look(row(hostile, client=hostile, subject=hostile)), "calls", 200, 50))
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert "\x1b" not in "".join(unused_lines({"servers": [{"server": "s", "listed": 1, "tools": [hostile]}]}))


def test_servers_that_are_not_well_and_nothing_at_all() -> None:
    down = [{"name": "git", "health": "down", "breaker": "open", "in_flight": 0}]
    shown = plain(frame(None, look(servers=down, latency={}), "calls", 200, 50))
    assert "servers: 0 well; git down (breaker open)" in shown
    assert "Nothing was called." in shown


@pytest.mark.parametrize(
    ("counts", "share", "bound"),
    [([1, 1, 1, 0], 0.5, 0.002), ([0, 0, 0, 1], 0.5, float("inf")), ([4, 0, 0, 0], 0.99, 0.001)],
)
def test_quantiles(counts: list[int], share: float, bound: float) -> None:
    assert quantile(BOUNDS, counts, share) == bound


def test_where_no_gateway_answers_it_says_so(tmp_path: Path) -> None:
    file = tmp_path / "narthex.yaml"
    file.write_text("version: 1\nadmin: {listen: 127.0.0.1:1}\n")
    done = CliRunner().invoke(cli, ["top", "--once", "--config", str(file)])
    assert done.exit_code == 1
    assert "no gateway answers at http://127.0.0.1:1: Connection refused. Does it run (narthex serve)" in done.stderr


def command(gateway: Gateway, *arguments: str) -> list[str]:
    program = "import sys; from narthex.cli.main import main; sys.exit(main())"
    config = ("--config", str(gateway.folder / "narthex.yaml"), "--admin", gateway.admin)
    return [sys.executable, "-c", program, "top", *arguments, *config]


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Any:
    with FakeServer(tools=[{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "other")]) as server:
        started = start_gateway({"version": 1, "servers": {"one": {"url": server.url}}})
        client = started.client()
        for _ in range(4):
            client.call("one__echo", {"a": 1})
        yield started


ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm"}


@pytest.mark.e2e
def test_without_a_terminal(gateway: Gateway) -> None:
    done = subprocess.run(command(gateway), env=ENV, capture_output=True, text=True, check=True)
    assert re.search(r"local +one__echo +4 +100%", done.stdout)
    assert "\x1b" not in done.stdout and "…" not in done.stdout
    found = json.loads(subprocess.run(command(gateway, "--json"), env=ENV, capture_output=True, check=True).stdout)
    assert [(one["name"], one["ok"], one["loops"]) for one in found["rows"]] == [("echo", 4, 2)]
    unused = subprocess.run(command(gateway, "--unused"), env=ENV, capture_output=True, text=True, check=True).stdout
    assert unused == "one: 1 of 2 tools were not called\n  other\n"


class Terminal:
    """`narthex top` on a terminal of its own. `seen`: what it has written so far."""

    def __init__(self, gateway: Gateway) -> None:
        self.ours, theirs = pty.openpty()
        self.seen = bytearray()
        line = command(gateway, "--every", "0.2")
        self.process = subprocess.Popen(line, env=ENV, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)

    def shows(self, text: bytes) -> bool:
        if select.select([self.ours], [], [], 0)[0]:
            self.seen.extend(os.read(self.ours, 65536))
        return text in self.seen


@pytest.fixture
def terminal(gateway: Gateway) -> Iterator[Terminal]:
    one = Terminal(gateway)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()
        os.close(one.ours)


@pytest.mark.e2e
def test_on_a_terminal_it_renews_itself_and_leaves_it_as_it_was(terminal: Terminal) -> None:
    wait_for(lambda: terminal.shows(b"since the start"), "the first picture")
    wait_for(lambda: terminal.shows(b"the last "), "the second picture")
    os.write(terminal.ours, b"q")
    wait_for(lambda: terminal.shows(b"\x1b[?1049l"), "its end")
    assert terminal.process.wait(60) == 0
    assert terminal.seen.startswith(b"\x1b[?1049h")


@pytest.mark.e2e
def test_a_gateway_that_goes_meanwhile_is_said_where_it_can_be_read(gateway: Gateway, terminal: Terminal) -> None:
    wait_for(lambda: terminal.shows(b"since the start"), "the first picture")
    gateway.kill()
    wait_for(lambda: terminal.shows(b"no gateway answers"), "what has happened")
    assert terminal.process.wait(60) == 1
    assert terminal.seen.index(b"\x1b[?1049l") < terminal.seen.index(b"no gateway answers"), "behind the last picture"
