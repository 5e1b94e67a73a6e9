"""Do the tools of the benchmark work? Their figures are not looked at: no time decides a test.

The commands run as a user runs them, for a moment; what is pure is tested as tables.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
linux_with_two_cores = pytest.mark.skipif(
    sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="the bench needs Linux and two cores"
)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The bench's modules, which import each other as scripts do."""
    import importlib

    monkeypatch.syspath_prepend(str(BENCH))
    names = ("rig", "canned", "load", "report", "subjects", "clients", "run", "soak", "threads")
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        sys.modules.pop(name, None)


def message(method: str, params: dict[str, Any], *, modern: bool, id_: int | None = 7) -> bytes:
    if modern:
        params = params | {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(body if id_ is None else body | {"id": id_}).encode()


@pytest.mark.parametrize(
    ("era", "modern", "status", "text"),
    [
        pytest.param("modern", True, 200, b'"text":"hi"', id="modern to modern"),
        pytest.param("legacy", False, 200, b'"text":"hi"', id="legacy to legacy"),
        pytest.param(
            "dual", True, 200, b'"resultType":"complete"', id="a dual server answers a modern client in its era"
        ),
        pytest.param("legacy", True, 400, b"-32000", id="a legacy server refuses a modern client"),
        pytest.param("modern", False, 400, b"-32022", id="a modern server refuses a legacy client"),
    ],
)
def test_canned_call(bench: dict[str, ModuleType], era: str, modern: bool, status: int, text: bytes) -> None:
    said = bench["canned"].answer(
        message("tools/call", {"name": "echo", "arguments": {"text": "hi"}}, modern=modern), era, 10
    )
    assert said.status == status
    assert text in said.messages[0]
    assert json.loads(said.messages[0])["id"] == 7


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_canned_list_has_as_many_tools_as_asked(bench: dict[str, ModuleType], count: int) -> None:
    said = bench["canned"].answer(message("tools/list", {}, modern=True), "modern", count)
    tools = json.loads(said.messages[0])["result"]["tools"]
    assert len({tool["name"] for tool in tools}) == count


def test_canned_progress_comes_before_the_answer(bench: dict[str, ModuleType]) -> None:
    said = bench["canned"].answer(message("tools/call", {"name": "progress"}, modern=True), "modern", 10)
    assert [json.loads(one).get("method") for one in said.messages] == ["notifications/progress"] * 3 + [None]


def test_a_notification_is_accepted_and_not_answered(bench: dict[str, ModuleType]) -> None:
    said = bench["canned"].answer(message("notifications/initialized", {}, modern=False, id_=None), "legacy", 10)
    assert (said.status, said.messages) == (202, [])


def test_every_row_is_compared_to_a_row_that_is_there(bench: dict[str, ModuleType]) -> None:
    rows = {row.key: row for row in bench["run"].ROWS}
    assert len(rows) == len(bench["run"].ROWS)
    assert all(row.beside in rows for row in rows.values() if row.beside)


@pytest.mark.parametrize(
    ("only", "without", "keys"),
    [
        pytest.param({"nginx"}, {"list", "sse"}, {"nginx", "nginx-big"}, id="a subject, less two groups"),
        pytest.param({"big"}, set(), {"nginx-big", "big"}, id="a group"),
        pytest.param({"fastmcp"}, set(), {"nginx", "fastmcp"}, id="what it is compared to comes along"),
    ],
)
def test_rows_are_chosen_by_word(
    bench: dict[str, ModuleType], only: set[str], without: set[str], keys: set[str]
) -> None:
    assert {row.key for row in bench["run"].chosen(only, without)} == keys


def test_ratios_are_made_within_a_round(bench: dict[str, ModuleType]) -> None:
    def sample(cpu: float) -> Any:
        return bench["load"].Sample(1, 1, cpu, 1, 1, 1, 0)

    slow_middle = ([sample(20), sample(60), sample(20)], [sample(10), sample(30), sample(10)])
    assert bench["run"].ratio(*slow_middle, "cpu_us") == 2.0


def test_cpu_is_told_apart_by_thread_beside_nginx_in_the_same_round(bench: dict[str, ModuleType]) -> None:
    rounds = [{"loop": 40.0, "other": 0.01}, {"loop": 90.0}, {"loop": 44.0}]
    found = {"nginx": [Counter({"nginx": us}) for us in (20.0, 30.0, 20.0)], "limited": list(map(Counter, rounds))}
    first, *lines = bench["threads"].summary(found)
    assert first["us"] == 20.0
    assert [(one["part"], one["us"], one["ratio"]) for one in lines] == [("limited", 44.0, 2.2)]


@linux_with_two_cores
def test_a_process_has_the_cpu_of_what_its_threads_have_started(bench: dict[str, ModuleType]) -> None:
    program = """if True:
        import subprocess, sys, threading
        def start():
            print(subprocess.Popen([sys.executable, "-c", "input()"]).pid, flush=True)
            threading.Event().wait()
        threading.Thread(target=start, daemon=True).start()
        input()"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout is not None
        started = int(one.stdout.readline())
        assert bench["threads"].processes(one.pid) == [one.pid, started]
        one.communicate("\n\n")


@pytest.mark.parametrize(
    ("value", "target", "text"),
    [
        pytest.param(1.4, 1.6, "1.40 (≤ 1.60)", id="met"),
        pytest.param(1.6, 1.6, "1.60 (≤ 1.60)", id="just met"),
        pytest.param(1.9, 1.6, "1.90, short of 1.60", id="missed is said"),
    ],
)
def test_a_target_stands_beside_its_figure(
    bench: dict[str, ModuleType], value: float, target: float, text: str
) -> None:
    assert bench["report"].against(value, target, "{:.2f}".format) == text


def test_only_the_generated_part_of_the_page_changes(bench: dict[str, ModuleType]) -> None:
    report = bench["report"]
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.rewrite(page, "new")
    assert once == f"before\n{report.BEGIN}\n\nnew\n{report.END}\nafter\n"
    assert report.rewrite(once, "new") == once


def test_growth_compares_the_last_fifth_with_the_second(bench: dict[str, ModuleType]) -> None:
    flat = [(i, 100 if i else 50, 9) for i in range(10)]
    leaking = [(i, 100 + 10 * i, 9) for i in range(10)]
    assert (bench["soak"].growth(flat), bench["soak"].growth(leaking)) == (0, 60)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.needs("wrk", "nginx", "taskset")
@linux_with_two_cores
def test_run_measures_and_every_answer_is_right(tmp_path: Path) -> None:
    out = tmp_path / "calls.json"
    command = [sys.executable, str(BENCH / "run.py"), "--only", "call", "--rounds", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row["key"]: row for row in json.loads(out.read_text())["rows"]}
    bridged = {"bridge", "bridge-up", "pipe-bridge", "pipe-bridge-up"}
    assert {"nginx", "modern", "legacy", "pipe"} | bridged <= rows.keys()
    assert all(row["calls"] > 0 and row["failures"] == 0 for row in rows.values())


@pytest.mark.e2e
@pytest.mark.slow
@linux_with_two_cores
def test_steps_take_a_call_apart(tmp_path: Path) -> None:
    """Also the alarm that a function which `steps.py` calls has moved."""
    for era in ("modern", "legacy"):
        out = tmp_path / f"{era}.json"
        command = [sys.executable, str(BENCH / "steps.py"), "--era", era, "--repeats", "1", "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        said = json.loads(out.read_text())
        assert {line["room"] for line in said["steps"]} == {"accept", "codec", "walk", "upstream", "telemetry"}
        assert {"route", "codec"} <= {line["room"] for line in said["alone"]}


@pytest.mark.e2e
@pytest.mark.slow
@linux_with_two_cores
def test_each_pair_of_eras_is_timed_over_each_transport(tmp_path: Path) -> None:
    out = tmp_path / "bridges.json"
    command = [sys.executable, str(BENCH / "bridges.py"), "--repeats", "1", "--out", str(out)]
    environment = {**os.environ, "NARTHEX_COMPILE": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    lines = json.loads(out.read_text())["lines"]
    assert len({(line["client"], line["server"], line["transport"]) for line in lines}) == len(lines) == 8
    assert all(("added" in line) == (line["client"] == line["server"]) and math.isfinite(line["us"]) for line in lines)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.needs("taskset")
@linux_with_two_cores
def test_the_advantage_of_who_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    monkeypatch.syspath_prepend(str(BENCH))
    hidden = importlib.import_module("hidden")
    values = [float(number) for number in range(100)]
    assert hidden.advantage([1000.0 + value for value in values], values)[0] == 0.5
    assert hidden.advantage(values, [1000.0 + value for value in values])[0] == -0.5
    apart, error = hidden.advantage(values[::2], values[1::2])
    assert abs(apart) < error
    said = b'HTTP\r\nDate: %d\r\n\r\n{"tool":"%b","decisionId":"%d"}'
    one, two = said % (1, b"x1", 1), said % (2, b"x2", 2)
    assert hidden.plain(one, "x1") == hidden.plain(two, "x2") != hidden.plain(two, "x1")


@linux_with_two_cores
def test_a_hidden_tool_answers_as_a_missing_one_over_the_wire(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "hidden.py"), "--pairs", "20", "--out", str(tmp_path / "hidden.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    figures = {one["label"]: one["value"] for one in json.loads((tmp_path / "hidden.json").read_text())["figures"]}
    assert figures["answers that differ in anything else"] == 0, done.stderr


def test_recorded_calls_are_replayed_and_every_decision_is_the_same(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "replay.py"), "--records", "600", "--out", str(tmp_path / "replay.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    figures = {one["label"]: one["value"] for one in json.loads((tmp_path / "replay.json").read_text())["figures"]}
    assert (figures["records replayed"], figures["decisions that differ"]) == (600, 0), done.stderr
    assert 100 < figures["of them denied"] < 500


def test_a_short_soak_has_no_wrong_answer() -> None:
    command = [sys.executable, str(BENCH / "soak.py"), "--calls", "4000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "wrong answers" in done.stdout, done.stderr
    assert "first wrong answer" not in done.stdout, done.stdout
