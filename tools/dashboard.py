"""Write the Grafana dashboard of `deploy/`, of a table of what it shows.

`python tools/dashboard.py [--check]`: writes `deploy/grafana/narthex.json`, or says that it is stale (exit 1).
In: `ROWS`. Out: a dashboard for Grafana 10 and newer, with the variables `datasource`, `endpoint` and `server`.
Proof: `tests/test_deploy.py`: every metric and label in it is one that the gateway exports.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "narthex.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
PICKED = 'endpoint=~"$endpoint",server=~"$server"'
OF_SERVER = 'server=~"$server"'
FAULTS = "|".join((
    "upstream_unavailable", "upstream_timeout", "credential_unavailable", "authority_unavailable", "audit_unavailable",
    "overloaded", "internal", "other",
))  # fmt: skip
Panel = tuple[str, str, str, list[tuple[str, str]]]
"""Title, kind, unit, and queries with what each line is called."""


def rate(metric: str, labels: str = PICKED, by: str = "") -> str:
    """A counter's sum of rates, by some labels."""
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(share: float, metric: str, labels: str = PICKED, by: str = "") -> str:
    """That quantile of a histogram, by some labels."""
    group = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({group}) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))"


def quantiles(metric: str, labels: str = PICKED) -> list[tuple[str, str]]:
    return [(quantile(share, metric, labels), name) for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]


ROWS: list[tuple[str, list[Panel]]] = [
    ("Calls", [
        ("Calls a second", "timeseries", "reqps", [(rate("narthex_calls_total", by="method"), "{{method}}")]),
        ("How they end", "timeseries", "reqps", [(rate("narthex_calls_total", by="outcome"), "{{outcome}}")]),
        ("Failed by us or by servers", "timeseries", "percentunit", [
            (f"{rate('narthex_calls_total', f'{PICKED},outcome=~{json.dumps(FAULTS)}', 'server')}"
             f" / {rate('narthex_calls_total', by='server')}", "{{server}}"),
        ]),
        ("Eras", "timeseries", "reqps", [(rate("narthex_calls_total", by="era"), "{{era}}")]),
    ]),
    ("Latency", [
        ("Of calls", "timeseries", "s", quantiles("narthex_call_seconds")),
        ("At servers (p95)", "timeseries", "s", [
            (quantile(0.95, "narthex_upstream_seconds", by="server"), "{{server}}"),
        ]),
        ("In the gateway", "timeseries", "s", quantiles("narthex_gateway_seconds")),
        ("Lateness of the event loop", "timeseries", "s", quantiles("narthex_event_loop_lag_seconds", "")),
    ]),
    ("Servers", [
        ("Health", "state-timeline", "none", [
            (f'max by (server, health) (narthex_server_health{{{OF_SERVER}}}) == 1', "{{server}} {{health}}"),
        ]),
        ("Breakers that are not closed", "timeseries", "none", [
            (f'max by (server, state) (narthex_server_breaker{{{OF_SERVER},state!="closed"}})', "{{server}} {{state}}"),
        ]),
        ("In flight, of what may be", "timeseries", "percentunit", [
            (f"narthex_server_in_flight{{{OF_SERVER}}} / narthex_server_max_in_flight{{{OF_SERVER}}}", "{{server}}"),
        ]),
        ("Sessions that ended", "timeseries", "s", [
            (quantile(0.5, "narthex_session_seconds", "", "version"), "clients {{version}} (p50)"),
            (quantile(0.5, "narthex_server_session_seconds", OF_SERVER, "server"), "{{server}} (p50)"),
        ]),
        ("Tools nobody has called", "bargauge", "none", [
            (f"narthex_server_unused_tools{{{OF_SERVER}}}", "{{server}}"),
        ]),
    ]),
    ("Tools and agents", [
        ("Tools that are called most", "bargauge", "reqps", [
            (f"topk(10, {rate('narthex_named_calls_total', by='server, name')})", "{{server}} {{name}}"),
        ]),
        ("Success by agent", "timeseries", "percentunit", [
            (f"{rate('narthex_agent_tool_calls_total', f'{OF_SERVER},result=%s' % json.dumps('ok'), 'agent')}"
             f" / {rate('narthex_agent_tool_calls_total', f'{OF_SERVER},result!=%s' % json.dumps('held'), 'agent')}",
             "{{agent}}"),
        ]),
        ("Calls a run, by agent", "timeseries", "none", [
            ("sum by (agent) (increase(narthex_agent_tool_calls_total[1h]))"
             " / sum by (agent) (increase(narthex_agent_runs_total[1h]))", "{{agent}}"),
        ]),
        ("The same call again", "timeseries", "reqps", [
            (rate("narthex_agent_retries_total", "", "agent"), "{{agent}}: after a failure"),
            (rate("narthex_agent_repeats_total", "", "agent"), "{{agent}}: after success"),
            (rate("narthex_agent_loops_total", "", "agent"), "{{agent}}: three times and more"),
        ]),
    ]),
    ("Limits and cost", [
        ("Refused by limits", "timeseries", "reqps", [
            (rate("narthex_limited_total", "", "limit, reason"), "{{limit}} {{reason}}"),
        ]),
        ("Cost an hour", "timeseries", "none", [
            (f"sum by (server, currency) (increase(narthex_cost_total{{{PICKED}}}[1h]))", "{{server}} {{currency}}"),
        ]),
        ("Tokens a second", "timeseries", "none", [
            (rate("narthex_tokens_total", OF_SERVER, "server, direction"), "{{server}} {{direction}}"),
        ]),
        ("Cache", "timeseries", "reqps", [
            (rate("narthex_cache_hits_total", ""), "fresh"), (rate("narthex_cache_stale_total", ""), "stale"),
            (rate("narthex_cache_joined_total", ""), "joined"), (rate("narthex_cache_misses_total", ""), "not kept"),
        ]),
    ]),
    ("The process", [
        ("Ready", "stat", "none", [
            ("min(narthex_ready)", "calls may come"), ("min(narthex_records_ok)", "journal"),
            ("min(narthex_store_ok)", "store"), ("min(narthex_policy_ok)", "policy"),
            ("min(narthex_config_reload_ok)", "last reload"),
        ]),
        ("Open", "timeseries", "none", [
            ("sum(narthex_open_calls)", "calls"), ("sum(narthex_open_connections)", "connections"),
            ("sum(narthex_open_subscriptions)", "subscriptions"), ("sum(narthex_open_runs)", "runs"),
            ("sum(narthex_approvals_open)", "held calls"), ("sum(process_open_fds)", "files"),
        ]),
        ("Memory and CPU", "timeseries", "none", [
            ("sum(process_resident_memory_bytes) / 1048576", "MiB"),
            ("sum(rate(process_cpu_seconds_total[$__rate_interval])) * 100", "% of a core"),
        ]),
        ("Lost or waiting", "timeseries", "none", [
            ("sum(narthex_records_waiting)", "records that wait"),
            (rate("narthex_records_lost_total", ""), "records lost"),
            (rate("narthex_traces_dropped_total", ""), "traces lost"),
            (rate("narthex_log_lines_dropped_total", ""), "log lines lost"),
            (rate("narthex_policy_undecided_total", ""), "undecided"),
        ]),
    ]),
]  # fmt: skip


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        place = {"x": 0, "y": top, "w": 24, "h": 1}
        panels.append({"type": "row", "title": title, "id": len(panels) + 1, "gridPos": place, "panels": []})
        for column, (name, kind, unit, queries) in enumerate(row):
            panels.append({
                "type": kind, "title": name, "id": len(panels) + 1, "datasource": SOURCE,
                "gridPos": {"x": column % 4 * 6, "y": top + 1 + column // 4 * 8, "w": 6, "h": 8},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if kind == "timeseries" else {},
                "targets": [
                    {"refId": chr(65 + number), "datasource": SOURCE, "expr": expr, "legendFormat": legend,
                     "exemplar": "_seconds_bucket" in expr}
                    for number, (expr, legend) in enumerate(queries)
                ],
            })  # fmt: skip
        top += 1 + -(-len(row) // 4) * 8
    return {
        "title": "Narthex", "uid": "narthex", "tags": ["mcp", "narthex"], "schemaVersion": 39, "version": 1,
        "editable": True, "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "panels": panels,
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            *(
                {"name": name, "type": "query", "datasource": SOURCE, "refresh": 2, "multi": True, "includeAll": True,
                 "allValue": ".*", "current": {"text": "All", "value": "$__all"},
                 "query": {"query": f"label_values(narthex_calls_total, {name})", "refId": name}}
                for name in ("endpoint", "server")
            ),
        ]},
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    text = json.dumps(dashboard(), indent=1) + "\n"
    if check:
        stale = not OUT.exists() or OUT.read_text(encoding="utf-8") != text
        print(f"{OUT.name} is stale: python tools/dashboard.py" if stale else f"{OUT.name} is as it should be")
        return int(stale)
    OUT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
