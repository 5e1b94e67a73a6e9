"""What is counted is what is shown, in a form that Prometheus reads, and names from outside stay bounded."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import GatewayError, HttpRefusal, NotVisible, ParseError, SessionNotFound, UpstreamTimeout
from narthex.telemetry.accounts import OUTCOME, OUTCOMES, Accounts, CallKey, outcome_of
from narthex.telemetry.exposition import render

KEY: CallKey = ("default", "time", "tools/call", "get_current_time", "legacy")
LABELS = 'endpoint="default",server="time",method="tools/call",era="legacy"'
LABEL = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
LINE = re.compile(rf"(?:# (?:HELP|TYPE) .*|[a-zA-Z_:][a-zA-Z0-9_:]*(?:\{{{LABEL}(?:,{LABEL})*\}})? \S+)")


def shown(accounts: Accounts) -> dict[str, float]:
    """Series to value; every line has the form of the text format."""
    lines = b"".join(render(accounts.families())).decode().split("\n")
    assert lines.pop() == ""
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    return {series: float(value) for series, _, value in (li.rpartition(" ") for li in lines if not li.startswith("#"))}


def test_a_call_is_counted_once_in_each_metric() -> None:
    accounts = Accounts()
    accounts.account(KEY, "ok", 0.010, 500, 800)
    accounts.counter(*KEY).add(OUTCOME["upstream_timeout"], 60.0, 500, 90)
    series = shown(accounts)
    labels, named = LABELS, 'endpoint="default",server="time",method="tools/call",name="get_current_time",era="legacy"'
    assert series[f'narthex_calls_total{{{labels},outcome="ok"}}'] == 1
    assert series[f'narthex_calls_total{{{labels},outcome="upstream_timeout"}}'] == 1
    assert series[f'narthex_named_calls_total{{{named},outcome="ok"}}'] == 1
    assert series[f"narthex_call_request_bytes_total{{{labels}}}"] == 1000
    assert series[f"narthex_call_response_bytes_total{{{labels}}}"] == 890
    assert series[f"narthex_call_seconds_count{{{labels}}}"] == 2
    assert series[f"narthex_call_seconds_sum{{{labels}}}"] == pytest.approx(60.01)
    assert series[f'narthex_call_seconds_bucket{{{labels},le="0.0078125"}}'] == 0
    assert series[f'narthex_call_seconds_bucket{{{labels},le="0.015625"}}'] == 1
    assert series[f'narthex_call_seconds_bucket{{{labels},le="+Inf"}}'] == 2


def test_names_of_one_server_share_its_histogram() -> None:
    accounts = Accounts()
    for name in ("a", "b", "c"):
        accounts.account((*KEY[:3], name, "legacy"), "ok", 0.001, 1, 1)
    assert shown(accounts)[f"narthex_call_seconds_count{{{LABELS}}}"] == 3


def test_what_the_server_had_and_what_we_had_are_told_apart() -> None:
    accounts = Accounts()
    accounts.counter(*KEY).add(OUTCOME["ok"], 0.010, 1, 1, 0.009)
    accounts.counter(*KEY).add(OUTCOME["denied"], 0.001, 1, 1)
    accounts.counter(*KEY).add(OUTCOME["ok"], 0.001, 1, 1, 0.002)  # clocks are read one after the other
    series = shown(accounts)
    assert series[f"narthex_call_seconds_count{{{LABELS}}}"] == 3
    assert series[f"narthex_upstream_seconds_count{{{LABELS}}}"] == 2
    assert series[f"narthex_upstream_seconds_sum{{{LABELS}}}"] == pytest.approx(0.011)
    assert series[f"narthex_gateway_seconds_sum{{{LABELS}}}"] == pytest.approx(0.001)


def test_eras_are_told_apart() -> None:
    accounts = Accounts()
    accounts.account((*KEY[:4], "modern"), "ok", 0.01, 1, 1)
    accounts.account(KEY, "ok", 0.01, 1, 1)
    assert {key for key in shown(accounts) if key.startswith("narthex_calls_total")} == {
        f'narthex_calls_total{{endpoint="default",server="time",method="tools/call",era="{era}",outcome="ok"}}'
        for era in ("legacy", "modern")
    }


def test_a_counter_is_the_same_object_for_the_same_labels() -> None:
    accounts = Accounts()
    assert accounts.counter(*KEY) is accounts.counter(*KEY)


@given(names=st.lists(st.text(), max_size=60), methods=st.lists(st.text(), min_size=1, max_size=60))
def test_label_sets_stay_bounded_and_no_call_is_lost(names: list[str], methods: list[str]) -> None:
    accounts = Accounts(max_sets=4)
    for method in methods:
        for name in names:
            accounts.account(("e", method, method, name, ""), "ok", 0.0, 0, 0)
    series = shown(accounts)
    assert sum(v for k, v in series.items() if k.startswith("narthex_calls_total")) == len(names) * len(methods)
    assert len([k for k in series if k.startswith("narthex_calls_total")]) <= 2 * 4 + 1


@pytest.mark.parametrize("name", ['quote"', "back\\slash", "line\nfeed", "\ud800", "é", "x" * 1000])
def test_a_hostile_name_stays_inside_its_label(name: str) -> None:
    accounts = Accounts()
    accounts.account((*KEY[:3], name, "legacy"), "ok", 0.0, 0, 0)
    assert len([k for k in shown(accounts) if k.startswith("narthex_named_calls_total")]) == 1


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.5, 128.0, 1e6, 1e12])
def test_any_duration_finds_a_bucket(seconds: float) -> None:
    accounts = Accounts()
    accounts.account(KEY, "ok", seconds, 0, 0)
    assert shown(accounts)[f"narthex_call_seconds_count{{{LABELS}}}"] == 1


def test_registered_readings_are_read_at_each_rendering() -> None:
    accounts, open_calls = Accounts(), [3]
    accounts.register("narthex_open_calls", "Calls under way.", lambda: open_calls[0])
    accounts.register("narthex_up", "Per server.", lambda: [((("server", "time"),), 1.0)])
    assert shown(accounts)["narthex_open_calls"] == 3
    open_calls[0] = 4
    assert shown(accounts)["narthex_open_calls"] == 4
    assert shown(accounts)['narthex_up{server="time"}'] == 1


@pytest.mark.parametrize("name", ["", "no blanks", "1x", "narthex_calls_total", "narthex_gauge_total"])
def test_a_metric_name_that_is_not_free_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="metric name"):
        Accounts().register(name, "", lambda: 0)


def test_the_build_is_shown() -> None:
    assert any(key.startswith("narthex_build_info{version=") for key in shown(Accounts()))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UpstreamTimeout("x"), "upstream_timeout"),
        (NotVisible("x"), "not_found"),
        (ParseError("x"), "invalid_request"),
        (SessionNotFound("x"), "invalid_request"),
        (HttpRefusal(503, "busy", "x"), "other"),
        (GatewayError(), "internal"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_error_has_an_outcome(error: GatewayError, outcome: str) -> None:
    assert OUTCOMES[outcome_of(error)] == outcome
