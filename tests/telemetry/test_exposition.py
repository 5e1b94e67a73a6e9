"""What is shown is what Prometheus' own parsers read: the text format, and OpenMetrics with exemplars."""

from __future__ import annotations

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from narthex.telemetry.accounts import OUTCOME, Accounts, Exemplar, Times
from narthex.telemetry.exposition import OPEN_METRICS, render, wants_open

HOSTILE = ['quote"', "back\\slash", "line\nfeed", "\ud800", "é", "x" * 1000, 'a"} 1\nnarthex_calls_total{x="', ""]


def filled() -> Accounts:
    accounts = Accounts()
    for index, name in enumerate(HOSTILE):
        counter = accounts.counter("default", "time", "tools/call", name, "modern")
        counter.add(OUTCOME["ok"], 0.01 * (index + 1), 10, 20, 0.009)
        counter.add(OUTCOME["denied"], 0.0001, 10, 20)
    shared = accounts.counter("default", "time", "tools/call", "", "modern").shared
    shared.call.mark(Exemplar(0.03, "a" * 32, "b" * 16, 1_700_000_000.5))
    shared.call.mark(Exemplar(1e9, "c" * 32, "d" * 16, 1_700_000_000.5))
    shared.call.mark(Exemplar(0.0, "e" * 32, "f" * 16, 1_700_000_000.5))
    late = Times(4, 24)
    late.add(0.2)
    accounts.register("narthex_lag_seconds", "Late.", lambda: [((), late)], "histogram")
    accounts.register("narthex_open", 'With "quotes", a \\ and\na line end.', lambda: [((("server", "a"),), 2.5)])
    accounts.register("narthex_things_total", "Things.", lambda: 3, "counter")
    return accounts


def read(accounts: Accounts, *, is_open: bool) -> dict[str, Metric]:
    text = b"".join(render(accounts.families(), open_metrics=is_open)).decode()
    return {one.name: one for one in (open_metrics if is_open else text_format)(text)}


@pytest.mark.parametrize("is_open", [False, True], ids=["text", "OpenMetrics"])
def test_prometheus_reads_all_of_it(is_open: bool) -> None:
    found = read(filled(), is_open=is_open)
    types = {name: one.type for name, one in found.items()}
    assert types["narthex_calls"] == types["narthex_things"] == "counter"
    assert types["narthex_call_seconds"] == types["narthex_lag_seconds"] == "histogram"
    assert types["narthex_open"] == types["narthex_build_info"] == "gauge"
    ok = [one for one in found["narthex_calls"].samples if one.labels["outcome"] == "ok"]
    assert [one.value for one in ok] == [len(HOSTILE)]
    named = {one.labels["name"] for one in found["narthex_named_calls"].samples}
    assert named == {one[:128].encode(errors="replace").decode() for one in HOSTILE if one}


@pytest.mark.parametrize("is_open", [False, True], ids=["text", "OpenMetrics"])
def test_buckets_add_up(is_open: bool) -> None:
    for name in ("narthex_call_seconds", "narthex_upstream_seconds", "narthex_gateway_seconds", "narthex_lag_seconds"):
        samples = read(filled(), is_open=is_open)[name].samples
        counts = [one.value for one in samples if one.name.endswith("_bucket")]
        assert counts == sorted(counts)
        assert counts[-1] == next(one.value for one in samples if one.name.endswith("_count")) > 0


def test_exemplars_are_in_the_bucket_that_they_fell_into() -> None:
    found = read(filled(), is_open=True)["narthex_call_seconds"].samples
    shown = {one.labels["le"]: one.exemplar for one in found if one.exemplar is not None}
    assert {bound: one.labels["trace_id"][0] for bound, one in shown.items()} == {
        "0.03125": "a", "+Inf": "c", "0.0001220703125": "e",
    }  # fmt: skip
    assert shown["0.03125"].value == 0.03
    assert shown["0.03125"].labels["span_id"] == "b" * 16
    assert all(one.exemplar is None for one in read(filled(), is_open=False)["narthex_call_seconds"].samples)


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.4", True),
        (OPEN_METRICS, True),
    ],
)
def test_who_asks_for_open_metrics_gets_it(accept: str, is_open: bool) -> None:
    assert wants_open(accept) == is_open


def test_slices_are_small() -> None:
    accounts = Accounts()
    for number in range(1000):
        accounts.counter("e", "s", "tools/call", f"t{number}").add(0, 0.1, 1, 1)
    assert max(map(len, render(accounts.families()))) < 16_384
