"""Hot reload: good files are applied, bad ones change nothing, however the file is replaced."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from narthex.app import Gateway
from narthex.config.compile import Overrides, load_snapshot
from narthex.config.reload import Reloader, ReloadOutcome
from narthex.errors import ConfigError
from narthex.types import Snapshot

ONE = "version: 1\nservers: {one: {url: http://localhost/}}\n"
TWO = "version: 1\nservers: {two: {url: http://localhost/}}\n"
BAD = "version: 1\nservers:\n  one: {ulr: http://localhost/}\n"


class Running:
    """A gateway that only remembers what was put in force."""

    def __init__(self, path: Path, refuse: Exception | None = None) -> None:
        self.applied: list[Snapshot] = []
        self.outcomes: list[ReloadOutcome] = []
        self.refuse = refuse
        self.reported = asyncio.Event()
        current = load_snapshot(path, env={})
        self.reloader = Reloader(
            path, Overrides(), self.apply, current=current, report=self.report, env={}, clock=lambda: 1000.0
        )

    async def apply(self, snapshot: Snapshot) -> None:
        if self.refuse:
            raise self.refuse
        self.applied.append(snapshot)

    def report(self, outcome: ReloadOutcome) -> None:
        self.outcomes.append(outcome)
        self.reported.set()

    def servers(self) -> list[str]:
        assert self.reloader.current is not None
        return list(self.reloader.current.servers)


@pytest.mark.parametrize("reloads", [1, 2])
def test_a_new_configuration_is_logged_with_its_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reloads: int
) -> None:
    path, ports = tmp_path / "narthex.yaml", "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n"
    write(path, f"{ONE}{ports}grants: [{{name: a, allow: ['*']}}]\n")

    async def main() -> None:
        gateway = Gateway(load_snapshot(path, env={}))
        await gateway.start()
        try:
            write(path, f"{ONE}{ports}")
            for _ in range(reloads):
                await gateway.reload("SIGHUP")
        finally:
            await gateway.stop()

    asyncio.run(main())
    said = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert said == [f"{path}: no grants: every caller may call everything"], "once: the second reload changes nothing"


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "narthex.yaml", ONE)
    return tmp_path / "narthex.yaml"


def test_applied_unchanged_refused(path: Path) -> None:
    async def scenario() -> None:
        running = Running(path)
        assert (await running.reloader.reload("SIGHUP")).status == "unchanged"
        write(path, TWO)
        outcome = await running.reloader.reload("admin")
        assert (outcome.status, outcome.reason, outcome.at) == ("applied", "admin", 1000.0)
        assert running.servers() == ["two"]
        write(path, BAD)
        refused = await running.reloader.reload("SIGHUP")
        assert refused.status == "refused"
        assert refused.problems[0] == f"{path}:3:9: unknown key 'ulr'; did you mean 'url'?"
        assert refused.revision == outcome.revision
        assert running.servers() == ["two"]
        assert running.reloader.last == refused
        path.unlink()
        assert (await running.reloader.reload("SIGHUP")).problems[0].endswith("No such file or directory")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "says"),
    [
        pytest.param(ConfigError(["listen: address in use"]), "listen: address in use", id="its own words"),
        pytest.param(OSError("no"), "not applied: no", id="any other fault"),
    ],
)
def test_what_cannot_be_applied_leaves_the_old_one(path: Path, error: Exception, says: str) -> None:
    async def scenario() -> None:
        running = Running(path, refuse=error)
        write(path, TWO)
        outcome = await running.reloader.reload("SIGHUP")
        assert outcome.status == "refused"
        assert says in outcome.problems[0]
        assert running.servers() == ["one"]

    asyncio.run(scenario())


def in_place(path: Path, text: str) -> None:
    write(path, text)


def by_rename(path: Path, text: str) -> None:
    write(path.with_suffix(".tmp"), text)
    os.replace(path.with_suffix(".tmp"), path)


def removed_and_made_again(path: Path, text: str) -> None:
    path.unlink()
    write(path, text)


@pytest.mark.parametrize("change", [in_place, by_rename, removed_and_made_again])
def test_a_changed_file_is_seen_however_it_is_written(path: Path, change: Callable[[Path, str], None]) -> None:
    async def scenario(running: Running) -> None:
        change(path, TWO)
        await running.reported.wait()
        assert running.servers() == ["two"]

    watched(path, scenario)


def test_a_swapped_link_is_seen(tmp_path: Path) -> None:
    """Kubernetes: the file is a link through `..data`, and `..data` is swapped."""
    for name, text in (("v1", ONE), ("v2", TWO)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "narthex.yaml", text)
    (tmp_path / "..data").symlink_to("v1")
    path = tmp_path / "narthex.yaml"
    path.symlink_to("..data/narthex.yaml")

    async def scenario(running: Running) -> None:
        (tmp_path / "..new").symlink_to("v2")
        os.replace(tmp_path / "..new", tmp_path / "..data")
        await running.reported.wait()
        assert running.servers() == ["two"]

    watched(path, scenario)


def test_a_bad_file_is_reported_once_and_the_next_good_one_applied(path: Path) -> None:
    async def scenario(running: Running) -> None:
        write(path, BAD)
        await running.reported.wait()
        running.reported.clear()
        write(path, TWO)
        await running.reported.wait()
        assert [outcome.status for outcome in running.outcomes] == ["refused", "applied"]

    watched(path, scenario)


def test_a_renewed_certificate_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "narthex.yaml"
    (tmp_path / "cert.pem").write_text("old")
    (tmp_path / "key.pem").write_text("key")
    write(path, ONE + "tls: {cert: cert.pem, key: key.pem}\n")

    async def scenario(running: Running) -> None:
        by_rename(tmp_path / "cert.pem", "renewed")
        await running.reported.wait()
        assert running.outcomes[0].status == "applied"
        assert running.outcomes[0].reason == "file"

    watched(path, scenario)


def watched(path: Path, scenario: Callable[[Running], Awaitable[None]]) -> None:
    """Run a scenario beside a watching reloader."""

    async def run() -> None:
        running = Running(path)
        watching = asyncio.create_task(running.reloader.watch(interval_s=0.01, settle_s=0.01))
        try:
            await asyncio.wait_for(scenario(running), 60)
        finally:
            watching.cancel()

    asyncio.run(run())


def test_what_changes_beside_the_file_is_taken_up_with_each_attempt_and_can_refuse_it(path: Path) -> None:
    async def scenario() -> None:
        looked: list[str] = []
        problem: list[ConfigError] = []

        def beside() -> None:
            looked.append("here")
            if problem:
                raise problem[0]

        running = Running(path)
        reloader = Reloader(path, Overrides(), running.apply, current=running.reloader.current, beside=beside, env={})
        assert (await reloader.reload("SIGHUP")).status == "unchanged"
        write(path, TWO)
        problem.append(ConfigError(["narthex.key: no"]))
        outcome = await reloader.reload("SIGHUP")
        assert (outcome.status, outcome.problems, running.applied) == ("refused", ("narthex.key: no",), [])
        problem.clear()
        assert (await reloader.reload("SIGHUP")).status == "applied"
        assert len(looked) == 3

    asyncio.run(scenario())
