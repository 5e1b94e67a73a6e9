"""`python -m tests.conformance.run`: the official conformance suite through the gateway, and what it came to.

Ends with a line a suite, `conformance NAME PASSED/SCORED`. Exits 0 when every scenario passes that `crossed.yml` does
not list as impossible, else 1; 2 when misused. `UPSTREAM=URL` puts the gateway in front of that server, not of the
fixture.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conformance.suites import SUITES, Outcome, Report, Suite, excused, listed, node, run, spoken_by


def main() -> int:
    options = arguments()
    try:
        node()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    chosen = [one for one in SUITES if options.only in (None, one.name)]
    if options.direct:
        chosen = [one for one in chosen if one.side == "server" and not one.crossed]
    upstream = os.environ.get("UPSTREAM") or None
    if upstream is not None:
        spoken = spoken_by(upstream)
        print(f"{upstream} speaks: {', '.join(sorted(spoken))}")
        chosen = [one.before(spoken) if one.side == "server" else one for one in chosen]
    jobs = 1 if upstream else options.jobs  # suites change the server's lists, and here they share one server
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        place = options.output or Path(folder)

        def one(suite: Suite) -> Report:
            return run(suite, place / suite.name, upstream=upstream, direct=options.direct)

        reports = list(pool.map(one, chosen))
    for report in reports:
        for line in details(report, verbose=options.verbose, foreign=upstream is not None):
            print(line)
    for report in reports:
        print(report.line())
    return 0 if all(is_good(report) for report in reports) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=[one.name for one in SUITES], help="one suite alone")
    parser.add_argument("--direct", action="store_true", help="the fixture without the gateway: is it the suite or us?")
    parser.add_argument("--verbose", action="store_true", help="each failed check with its message, warnings too")
    parser.add_argument("--jobs", type=int, default=2, help="suites at one time (2)")
    parser.add_argument("--output", type=Path, help="keep what the suite writes in this empty folder")
    return parser.parse_args()


def is_good(report: Report) -> bool:
    return not report.fault and all(excused(report.suite, one) for one in report.failing)


def details(report: Report, *, verbose: bool, foreign: bool) -> Iterator[str]:
    """What is to be said of a suite before its line.

    Args:
        foreign: The upstream is not our fixture, so that the table of the impossible may hold more than it fails.
    """
    name = report.suite.name
    if report.fault:
        yield f"{name}: {report.fault}"
    if not any(one.ran for one in report.outcomes):
        return
    for one in report.failing:
        yield f"{name}: {one.scenario} {'cannot pass (crossed.yml)' if excused(report.suite, one) else 'FAILED'}"
        yield from checks(one, verbose)
    if verbose:
        for one in (one for one in report.scored if one.passed and (one.warned or one.skipped)):
            yield f"{name}: {one.scenario} passed, but not in all"
            yield from checks(one, verbose)
    passing = {one.scenario for one in report.scored if one.passed}
    for scenario in passing & listed("crossed.yml").get(name, {}).keys():
        if not foreign:
            yield f"{name}: {scenario} is listed in crossed.yml and passes"
    for one in report.beside:
        yield f"{name}: beside, {one.scenario} {one.verdict}"
        yield from checks(one, verbose)


def checks(outcome: Outcome, verbose: bool) -> Iterator[str]:
    if verbose:
        yield from (f"    failed  {check}: {message}" for check, message in outcome.failed)
        yield from (f"    warning {check}: {message}" for check, message in outcome.warned)
        if outcome.skipped:
            yield f"    skipped {', '.join(sorted({check for check, _ in outcome.skipped}))}"


if __name__ == "__main__":
    sys.exit(main())
