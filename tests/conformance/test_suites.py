"""The official conformance suite in CI: the fixture passes it, and so does the gateway in front of it.

In: the suites of `suites.py`, each run once. Compared by check, both ways: what fails must be in `crossed.yml` (the
missing era makes it impossible) or in `known.yml` (not built yet), and what these tables list must fail. A check that
the fixture passes alone must be put to the test through the gateway too: "skipped" is how a missing feature hides.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.run import is_good
from tests.conformance.suites import AUTH, PACKAGE, SUITES, Outcome, Report, Suite, listed, requirements, run
from tests.e2e.harness import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
DIRECT = [suite for suite in SUITES if suite.side == "server" and not suite.crossed]
each_suite = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
Reports = Callable[[Suite, bool], Report]


@pytest.fixture(scope="module")
def reports(node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reports]:
    """The report of a suite, through the gateway or direct. All run in the background, two at a time."""
    pool = ThreadPoolExecutor(2)

    def begin(suite: Suite, direct: bool) -> Callable[[], Report]:
        folder = tmp_path_factory.mktemp(f"{suite.name}-{'direct' if direct else 'through'}")
        return pool.submit(run, suite, folder, direct=direct).result

    running = {(suite.name, direct): begin(suite, direct) for suites, direct in PLAN for suite in suites}
    yield lambda suite, direct: running[suite.name, direct]()
    pool.shutdown(cancel_futures=True)


NOT_RUN = "client-auth-not-run"
PLAN = ((DIRECT, True), (SUITES, False))


@pytest.mark.parametrize("suite", DIRECT, ids=lambda suite: suite.name)
def test_the_fixture_alone_passes_everything(suite: Suite, reports: Reports) -> None:
    report = reports(suite, True)
    assert not report.fault
    assert [(one.scenario, one.failed, one.warned) for one in report.outcomes if one.failed or one.warned] == []
    assert report.line().endswith({"2026-07-28": "37/37", "2025-11-25": "30/30"}[suite.revision])


@each_suite
def test_through_the_gateway(suite: Suite, reports: Reports) -> None:
    report = reports(suite, False)
    assert not report.fault
    found = list(surprises(report, baseline(suite, reports)))
    assert not found, "\n".join(found)


def baseline(suite: Suite, reports: Reports) -> dict[str, Outcome]:
    """The same scenarios without the gateway; none for the client's."""
    return {
        outcome.scenario: outcome
        for alone in DIRECT
        if (alone.side, alone.revision) == (suite.side, suite.revision)
        for outcome in reports(alone, True).outcomes
    }


def surprises(report: Report, alone: dict[str, Outcome]) -> Iterator[str]:
    crossed, known = (listed(file).get(report.suite.name, {}) for file in ("crossed.yml", "known.yml"))
    for outcome in report.outcomes:
        gone = lost(outcome, alone.get(outcome.scenario), warnings=not report.suite.crossed)
        impossible = set(crossed.get(outcome.scenario, {}).get("checks", ()))
        if outcome.scenario in known:
            if gone <= impossible:
                yield f"{outcome.scenario}: passes now, take it out of known.yml"
        elif gone != impossible:
            told = [f"{check}: {message}" for check, message in outcome.failed]
            yield f"{outcome.scenario}: lost {sorted(gone - impossible)}, passed {sorted(impossible - gone)}; {told}"


def lost(outcome: Outcome, alone: Outcome | None, *, warnings: bool) -> set[str]:
    """The checks that do not hold through the gateway. A crossed suite is not held to what is only a SHOULD."""
    warned = {check for check, _ in outcome.warned}
    held = {check for check, _ in (*outcome.succeeded, *outcome.noted)} | warned
    hidden = {check for check, _ in alone.succeeded} - held if alone else set()
    return outcome.failed_checks | hidden | (warned if warnings else set())


@pytest.mark.parametrize("file", ["crossed.yml", "known.yml"])
def test_the_tables_name_scenarios_that_are_there(file: str, node: str) -> None:
    named = {suite.name: {name for names in requirements(suite) for name in names} for suite in SUITES}
    for suite, scenarios in listed(file).items():
        if suite not in ("transcript", NOT_RUN):
            assert {name for name in scenarios if not name.startswith("2025-11-25 ")} <= named[suite]


def test_every_scenario_about_oauth_is_run_or_says_why_not(node: str) -> None:
    told = subprocess.run(
        [node, str(PACKAGE / "dist" / "index.js"), "list", "--client"], capture_output=True, text=True
    )
    there = set(re.findall(r"- (auth/\S+)", told.stdout))
    left_out = listed("known.yml")[NOT_RUN]
    assert there == {*AUTH, *left_out} and not left_out.keys() & set(AUTH)
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    assert [name for name in there if f"`{name.removeprefix('auth/')}`" not in page] == []


def test_what_is_impossible_has_its_sentence_here_and_in_the_documentation() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    for suite, scenarios in listed("crossed.yml").items():
        for scenario, entry in scenarios.items():
            assert entry.keys() == {"checks", "page", "sentence", "why"}
            assert entry["page"].startswith("https://modelcontextprotocol.io/specification/")
            assert f"`{suite}`, `{scenario}`" in page and f'["{entry["sentence"]}"]({entry["page"]})' in page


def test_a_report_is_good_when_only_the_impossible_fails() -> None:
    suite = next(suite for suite in SUITES if suite.name == "crossed-2026-on-legacy")
    entry = listed("crossed.yml")[suite.name]["server-stateless"]
    excused = Outcome("server-stateless", True, tuple((check, "") for check in entry["checks"]))
    worse = Outcome("server-stateless", True, (*excused.failed, ("another", "")))
    passed, beside = Outcome("tools-list", True), Outcome("tasks-lifecycle", False, (("x", ""),))
    assert is_good(Report(suite, [excused, passed, beside]))
    assert Report(suite, [excused, passed, beside]).line() == "conformance crossed-2026-on-legacy 1/2"
    assert not is_good(Report(suite, [worse, passed]))
    assert not is_good(Report(suite, [passed], fault="the gateway ended with 1"))
