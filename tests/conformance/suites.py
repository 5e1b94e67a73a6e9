"""The official conformance suite as we run it: which suites, against what, and what each scenario came to.

In: a suite of the table. It starts the fixture, a gateway in front of it and the npm package, and reads the checks that
this leaves in its output folder. Out: an `Outcome` for each scenario. `run.py` prints them, `test_suites.py` asserts
them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.e2e.harness import LEGACY, MODERN, ROOT, Closed, Era, Gateway, Wire, message, routing_headers

NODE_MODULES = ROOT / "tests" / "counterparts" / "node_modules"
PACKAGE = NODE_MODULES / "@modelcontextprotocol" / "conformance"
HERE = Path(__file__).resolve().parent
SUITE_TIMEOUT_S = 600.0
SCENARIO_TIMEOUT_MS = 60_000
SKILLS = ("sep-2640-skills-directory", "sep-2640-skills-enumeration", "sep-2640-skills-manifest")
"""Scenarios of an extension that no requirement set names; they run beside."""
OLD_CLIENT = ("initialize", "tools_call", "elicitation-sep1034-client-defaults", "sse-retry")
"""The client scenarios of 2025-11-25 that need no OAuth; they run beside."""

AUTH = (
    "auth/client-credentials-basic",
    "auth/client-credentials-jwt",
    "auth/enterprise-managed-authorization",
    "auth/wif-jwt-bearer",
    "auth/pre-registration",
    "auth/resource-mismatch",
    "auth/metadata-issuer-mismatch",
)
"""The client scenarios about OAuth that need no browser and no consent of a user; `known.yml` has the others."""
OLD_AUTH = AUTH[:5]
"""Those that 2025-11-25 knows too; they run beside."""

NOT_RUN = "no-result"
Check = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Suite:
    """One line of the report.

    `fixture` is the era that the fixture serves, `era` the one that the gateway is told to speak to its upstream.
    `table` is the suite under which `crossed.yml` says what cannot pass; its own name, unless the upstream is foreign.
    """

    name: str
    side: Literal["server", "client"]
    revision: str
    fixture: str = ""
    era: str = "auto"
    crossed: bool = False
    auth: bool = False
    table: str = ""

    def before(self, spoken: set[str]) -> Suite:
        """The suite in front of a server that speaks the eras `spoken`.

        A server of one era makes each suite of the other one a crossed one, and one that lacks the era of a crossed
        suite is spoken to as it wants to be.
        """
        like = (one for one in SUITES if one.crossed and one.revision == self.revision and {one.fixture} == spoken)
        table = next((one.name for one in like), self.name)
        return replace(self, era=self.era if self.era in spoken else "auto", table=table)


SUITES = (
    Suite("server-2026-07-28", "server", "2026-07-28", "dual"),
    Suite("server-2025-11-25", "server", "2025-11-25", "legacy"),
    Suite("crossed-2026-on-legacy", "server", "2026-07-28", "legacy", "legacy", crossed=True),
    Suite("crossed-2025-on-modern", "server", "2025-11-25", "modern", "modern", crossed=True),
    Suite("client-2026-07-28", "client", "2026-07-28"),
    Suite("client-auth", "client", "2026-07-28", auth=True),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one scenario came to.

    Each check is (its id, its message). One that failed fails the scenario; a skipped one was not put to the test, most
    often because the server does not say that it can do what is tested; a noted one found nothing to judge.
    """

    scenario: str
    scored: bool
    failed: tuple[Check, ...] = ()
    warned: tuple[Check, ...] = ()
    skipped: tuple[Check, ...] = ()
    succeeded: tuple[Check, ...] = ()
    noted: tuple[Check, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failed

    @property
    def ran(self) -> bool:
        return self.failed_checks != {NOT_RUN}

    @property
    def verdict(self) -> str:
        if self.failed:
            return "failed"
        tried = {check for check, _ in (*self.succeeded, *self.warned)}
        return "passed" if tried - {"wire-schema-valid"} else "skipped"

    @property
    def failed_checks(self) -> set[str]:
        return {check for check, _ in self.failed}


@dataclass(slots=True)
class Report:
    """All outcomes of one suite. `fault` says what went wrong around it, with the gateway for one."""

    suite: Suite
    outcomes: list[Outcome] = field(default_factory=list)
    fault: str = ""

    @property
    def scored(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.scored]

    @property
    def beside(self) -> list[Outcome]:
        return [one for one in self.outcomes if not one.scored]

    @property
    def failing(self) -> list[Outcome]:
        return [one for one in self.scored if not one.passed]

    def line(self) -> str:
        return f"conformance {self.suite.name} {len(self.scored) - len(self.failing)}/{len(self.scored)}"


def listed(file: str) -> dict[str, dict[str, dict[str, Any]]]:
    """A table of failing scenarios beside this file: suite, scenario, what is said of it."""
    return yaml.safe_load((HERE / file).read_text(encoding="utf-8")) or {}


def excused(suite: Suite, outcome: Outcome) -> bool:
    """Does `crossed.yml` say that these checks cannot pass in this suite?"""
    entry = listed("crossed.yml").get(suite.table or suite.name, {}).get(outcome.scenario)
    return entry is not None and outcome.failed_checks <= set(entry["checks"])


def requirements(suite: Suite) -> tuple[list[str], list[str]]:
    """The scenarios that count, and those that run beside."""
    if suite.auth:
        return list(AUTH), []
    frozen = yaml.safe_load((PACKAGE / "requirements" / f"{suite.revision}.yaml").read_text(encoding="utf-8"))
    beside = [entry["scenario"] for entry in frozen["not_scored"] if entry["leg"] == suite.side]
    if suite.side == "server":
        return list(frozen["server"]), [*beside, *(SKILLS if suite.revision >= "2026-07-28" else ())]
    return [[name for name in names if not name.startswith("auth/")] for names in (frozen["client"], beside)]  # type: ignore[return-value]


# --- what runs ----------------------------------------------------------------------------------------------------


def node() -> str:
    """A Node that is new enough: the pinned one, else that of the machine."""
    pinned = sorted(NODE_MODULES.glob("node-*/bin/node"))
    found = str(pinned[0]) if pinned else shutil.which("node")
    if found is None or not PACKAGE.exists():
        raise FileNotFoundError("the conformance suite is not installed here: tests/counterparts/install")
    return found


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return {**kept, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "NO_COLOR": "1"}


def fixture(era: str, *options: str) -> AbstractContextManager[str]:
    """The fixture as a process; yields its URL."""
    return served(sys.executable, "-m", "tests.conformance.fixture", "--era", era, *options)


def reference() -> AbstractContextManager[str]:
    """The server made with the official Python SDK as a process; yields its URL."""
    return served(sys.executable, "-m", "tests.conformance.reference")


def typescript(node: str) -> AbstractContextManager[str]:
    """The server made with the official TypeScript SDK as a process; yields its URL."""
    return served(node, "tests/counterparts/everything.mjs")


@contextlib.contextmanager
def served(*command: str) -> Iterator[str]:
    """A server of this repository that says `ready URL` when it is; yields its URL."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        word, _, url = process.stdout.readline().strip().partition(" ")
        if word != "ready":
            raise RuntimeError(f"{' '.join(command)} ended with {process.wait()} at start")
        yield url
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def in_front_of(url: str, era: str = "auto", **server: Any) -> dict[str, Any]:
    """The configuration of a gateway that shows one server as it is."""
    entry = {"url": url, "era": era, "sharing": "session", **server}
    return {
        "version": 1,
        "servers": {"upstream": entry},
        "endpoints": {"default": {"servers": ["upstream"], "naming": "none"}},
    }


HELLOS: tuple[tuple[Era, str, dict[str, Any]], ...] = (
    ("modern", "server/discover", {}),
    (
        "legacy",
        "initialize",
        {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    ),
)


def spoken_by(url: str) -> set[str]:
    """The eras that a server answers in over Streamable HTTP; legacy where in neither: it may speak HTTP+SSE."""
    found: set[str] = set()
    for era, method, params in HELLOS:
        body = message(method, params, era=era)
        with contextlib.suppress(OSError, Closed, AssertionError, ValueError), Wire(url) as wire:
            answered = wire.request("POST", headers=routing_headers(body, era=era), body=json.dumps(body).encode())
            answered.body = answered.body.replace(b"\r\n", b"\n")  # as other servers end the lines of a stream
            result = answered.answer.get("result", {})
            if "protocolVersion" in result or MODERN in result.get("supportedVersions", ()):
                found.add(era)
    return found or {"legacy"}


@contextlib.contextmanager
def gateway(config: Mapping[str, Any], folder: Path) -> Iterator[Gateway]:
    """A gateway as a process, which must end well."""
    folder.mkdir(parents=True, exist_ok=True)
    running = Gateway(config, folder).start()
    try:
        yield running
    finally:
        running.stop()


def conformance(arguments: Sequence[str], folder: Path) -> str:
    """Run the npm package; what it printed. Its exit status says nothing that its output folder does not."""
    command = [node(), str(PACKAGE / "dist" / "index.js"), *arguments, "-o", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SUITE_TIMEOUT_S,
    )
    return done.stdout


# --- one suite ----------------------------------------------------------------------------------------------------


def run(suite: Suite, folder: Path, *, upstream: str | None = None, direct: bool = False) -> Report:
    """Run one suite to its end.

    Args:
        folder: Where the suite's output and the gateway's state go; empty.
        upstream: The server to front in place of the fixture.
        direct: Without the gateway.
    """
    report, results = Report(suite), folder / "results"
    try:
        if suite.side == "client":
            run_client(suite, results)
        else:
            with contextlib.ExitStack() as stack:
                url = upstream or stack.enter_context(fixture(suite.fixture))
                if not direct:
                    config = in_front_of(url, suite.era)
                    url = stack.enter_context(gateway(config, folder / "gateway")).mcp
                run_server(suite, url, results)
    except (AssertionError, RuntimeError, subprocess.SubprocessError) as error:
        report.fault = str(error)
    report.outcomes = outcomes(suite, results)
    return report


def run_server(suite: Suite, url: str, results: Path) -> None:
    """All scenarios of the suite's revision against a URL."""
    conformance(["server", "--url", url, "--requirements", suite.revision], results)
    for scenario in set(SKILLS) & set(requirements(suite)[1]):
        conformance(["server", "--url", url, "--scenario", scenario], results)


def older(suite: Suite) -> tuple[str, ...]:
    """The client scenarios of 2025-11-25 that run beside."""
    return OLD_AUTH if suite.auth else OLD_CLIENT


def run_client(suite: Suite, results: Path) -> None:
    """Each scenario with a gateway of its own, which `drive.py` starts in front of the suite's server."""
    scored, beside = requirements(suite)
    scenarios = [(name, suite.revision, results) for name in (*scored, *beside)]
    scenarios += [(name, "2025-11-25", results / "2025-11-25") for name in older(suite)]
    driver = ("--command", f"{sys.executable} -m tests.conformance.drive", "--timeout", str(SCENARIO_TIMEOUT_MS))

    def one(scenario: tuple[str, str, Path]) -> None:
        name, revision, folder = scenario
        # Extensions belong to no revision: without --force they are left out.
        conformance(["client", *driver, "--scenario", name, "--spec-version", revision, "--force"], folder)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, scenarios))


def outcomes(suite: Suite, results: Path) -> list[Outcome]:
    """What the suite left in its output folder. A scenario that left nothing has failed."""
    scored, beside = requirements(suite)
    prefix = "server-" if suite.side == "server" else ""
    found = [outcome(name, results, prefix + name, name in scored) for name in (*scored, *beside)]
    if suite.side == "client":
        found += [outcome(f"2025-11-25 {name}", results / "2025-11-25", name, False) for name in older(suite)]
    return found


def outcome(scenario: str, results: Path, stem: str, scored: bool) -> Outcome:
    # A folder's name ends in the time of its start, `2026-…`, so that no name is the beginning of another.
    folders = sorted(results.glob(f"{stem}-20[0-9][0-9]-*T*"))
    if not folders or not (file := folders[-1] / "checks.json").exists():
        return Outcome(scenario, scored, ((NOT_RUN, "the scenario left no result"),))
    checks = json.loads(file.read_text(encoding="utf-8"))

    def of(status: str) -> tuple[Check, ...]:
        return tuple((one["id"], one.get("errorMessage", "")) for one in checks if one["status"] == status)

    failed = (*of("FAILURE"), *driver_fault(folders[-1]))
    return Outcome(scenario, scored, failed, of("WARNING"), of("SKIPPED"), of("SUCCESS"), of("INFO"))


def driver_fault(folder: Path) -> Iterator[Check]:
    """Did our driver of a client scenario get through all of its steps? Its last word is `done`."""
    said = folder / "stdout.txt"
    if said.exists() and not said.read_text(encoding="utf-8").endswith("done\n"):
        lines = (folder / "stderr.txt").read_text(encoding="utf-8").splitlines()
        yield "driver", lines[-1] if lines else "did not end in time"
