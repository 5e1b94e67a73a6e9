"""What stands in `deploy/`: every metric and label that dashboard and alerts use is one that the gateway exports, and
Prometheus' own tool takes the alerts and finds that they fire on what they are for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import Wire, get, wait_for

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus" / "narthex.rules.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana" / "narthex.json").read_text(encoding="utf-8"))
OF_PROMETHEUS = {"up", "instance", "job", "le"}
WORDS = {
    *(
        "sum",
        "max",
        "min",
        "rate",
        "increase",
        "by",
        "or",
        "and",
        "histogram_quantile",
        "topk",
        "count",
        "label_values",
    ),
}
CONFIG: dict[str, Any] = {
    "version": 1,
    "limits": [
        {"name": "calls", "per": ["principal"], "calls": 2, "window": "1h"},
        {"name": "tokens", "per": ["tenant"], "tokens": 1_000_000, "window": "1h"},
    ],
    "prices": [{"tools": ["one__*"], "per_call": "0.01 USD"}],
}


def queries() -> Iterator[tuple[str, str, str]]:
    """Where it stands, the query, and the text that names labels of its answer."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]
    for rule in RULES:
        yield rule["alert"], rule["expr"], json.dumps(rule["annotations"])
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"], ""


def used(expr: str, legend: str) -> tuple[set[str], set[str]]:
    """The metrics and the labels that a query uses."""
    labels = set(re.findall(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}", legend))
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expr)
    for inner in re.findall(r"\{([^}]*)\}", bare):
        labels |= set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", inner))
    for inner in re.findall(r"\bby \(([^)]*)\)", bare):
        labels |= {one.strip() for one in inner.split(",")}
    if found := re.match(r"label_values\(\w+, (\w+)\)", bare):
        labels.add(found[1])
        bare = bare.replace(f", {found[1]})", ")")
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\bby \([^)]*\)", " ", bare)
    return set(re.findall(r"\b[a-z][a-z_]+\b", bare)) - WORDS, labels


@pytest.fixture(scope="module")
def exported(module_gateway: StartGateway) -> dict[str, set[str]]:
    """Each series that a gateway shows which has done a little of everything, and its labels."""
    tools = [{"name": "echo", "inputSchema": {"type": "object"}}]
    with FakeServer(tools=tools, eras="legacy") as server:
        gateway = module_gateway({**CONFIG, "servers": {"one": {"url": server.url}}})
        client = gateway.client(era="legacy")
        client.ask("tools/call", {"name": "one__echo", "arguments": {}})
        server.sessions.clear()  # the server knows ours no more
        for _ in range(3):
            client.ask("tools/call", {"name": "one__echo", "arguments": {}})
        with Wire(gateway.mcp) as wire:
            assert wire.request("DELETE", "/mcp", [("mcp-session-id", str(client.session))]).status == 204

        def looped() -> bytes:
            text = get(f"{gateway.admin}/metrics").body
            late = next(line for line in text.splitlines() if line.startswith(b"narthex_event_loop_lag_seconds_count"))
            over = b"narthex_session_seconds_count" in text and b"narthex_server_session_seconds_count" in text
            return text if over and not late.endswith(b" 0") else b""

        text = wait_for(looped, "the loop to be looked at, and sessions to be over").decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
        found.setdefault(family.name if family.type != "counter" else f"{family.name}_total", set())
    return found


@pytest.mark.e2e
@pytest.mark.parametrize(("where", "expr", "legend"), [pytest.param(*one, id=one[0]) for one in queries()])
def test_every_metric_and_label_is_exported(exported: dict[str, set[str]], where: str, expr: str, legend: str) -> None:
    metrics, labels = used(expr, legend)
    assert metrics, where
    assert metrics - OF_PROMETHEUS <= exported.keys(), f"{where}: no such metric"
    known = set().union(*(exported.get(one, set()) for one in metrics))
    assert labels - OF_PROMETHEUS <= known, f"{where}: {metrics} have no such label"


@pytest.mark.e2e
def test_nothing_is_exported_that_the_reference_does_not_name(exported: dict[str, set[str]]) -> None:
    page = (DEPLOY.parent / "docs" / "reference" / "admin.md").read_text(encoding="utf-8")
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported}
    assert {name for name in names if f"`{name}`" not in page} == set()
    said = set(re.findall(r"`((?:narthex|process)_[a-z_]+)`", page[page.index("## Metrics") :]))
    assert said - names == set()


def test_the_check_finds_what_is_not_there() -> None:
    metrics, labels = used('sum by (tool) (rate(narthex_gone_total{server=~"$server",x="by (y)"}[5m]))', "{{agent}}")
    assert (metrics, labels) == ({"narthex_gone_total"}, {"tool", "server", "x", "agent"})


def test_the_dashboard_is_what_its_table_says() -> None:
    command = [sys.executable, str(DEPLOY.parent / "tools" / "dashboard.py"), "--check"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_ids_of_panels_differ_and_none_lies_on_another() -> None:
    panels = DASHBOARD["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    cells = [
        (x, y)
        for one in panels
        for x in range(one["gridPos"]["x"], one["gridPos"]["x"] + one["gridPos"]["w"])
        for y in range(one["gridPos"]["y"], one["gridPos"]["y"] + one["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))


def test_each_alert_says_what_to_do() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["action"].rstrip().endswith(".")


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("command", [("check", "rules", "narthex.rules.yml"), ("test", "rules", "tests.yml")])
def test_prometheus_takes_the_alerts(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
