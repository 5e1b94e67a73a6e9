"""A reload that leaves `policy` alone leaves the engine alone; another one is another engine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex.authority.fetch import Fetched
from narthex.engines.embedded import Rego
from narthex.engines.logged import Logged
from narthex.engines.policies import Policies
from narthex.errors import ConfigError
from narthex.flow.policy.decision import Decision
from narthex.types import DecisionLogSpec, OpaSpec, RegoSpec
from tests.engines.policies import HEAD, LOOPS, document
from tests.flow.gateway import run, until


async def nobody(url: str, **how: Any) -> Fetched:
    raise AssertionError("nothing is asked before there is a call")


def over(changed: Callable[[], None] = lambda: None) -> Policies:
    return Policies(
        fetch=nobody, secrets=str, changed=changed, now=time.time, clock=time.monotonic, chance=lambda: 0.5,
        new_id=lambda: "id",
    )  # fmt: skip


def test_the_engine_lasts_as_long_as_its_spec() -> None:
    async def main() -> None:
        policies = over()
        one, other = OpaSpec("http://127.0.0.1:1", "a"), OpaSpec("http://127.0.0.1:1", "b")
        assert await policies.make(None) is None
        first = await policies.make(one)
        policies.use(one, first)
        assert await policies.make(OpaSpec("http://127.0.0.1:1", "a")) is first
        second = await policies.make(other)
        assert second is not first and await policies.make(one) is first, "nothing has changed until it is used"
        policies.use(other, second)
        assert await policies.make(other) is second
        policies.use(None, await policies.make(None))
        assert policies.problem == "" and policies.engine is None

    run(main)


def rego(folder: Path, text: str, **settings: Any) -> RegoSpec:
    folder.mkdir(exist_ok=True)
    (folder / "policy.rego").write_text(HEAD + text)
    return RegoSpec(str(folder), "narthex/decision", **settings)


@pytest.mark.parametrize("engine", ["helper", "inline"])
def test_a_bundle_that_changes_is_another_engine_and_a_bad_one_changes_nothing(tmp_path: Path, engine: Any) -> None:
    async def main() -> None:
        changes: list[int] = []
        policies = over(lambda: changes.append(1))
        spec = rego(tmp_path / "a", "default decision := true", engine=engine)
        policies.use(spec, await policies.make(spec))
        first = policies.engine
        assert isinstance(first, Rego)
        rego(tmp_path / "a", "decision := {")
        await until(lambda: policies.problem)
        assert policies.engine is first and "policy.rego:5:14" in policies.problem
        assert (await first.decide(document())).effect == "allow"
        rego(tmp_path / "a", "default decision := false")
        await until(lambda: policies.engine is not first)
        assert changes == [1] and policies.problem == ""
        second = policies.engine
        assert isinstance(second, Rego)
        assert (await second.decide(document())).effect == "deny"
        assert (await first.decide(document({"x": 1}))).effect == "allow", "who asked it before is answered"
        policies.close()

    run(main)


def test_a_policy_that_cannot_be_used_is_refused_and_the_one_before_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        policies = over()
        good = rego(tmp_path / "a", "default decision := true")
        policies.use(good, await policies.make(good))
        before = policies.engine
        with pytest.raises(ConfigError, match="refused"):
            await policies.make(rego(tmp_path / "b", "decision := io.jwt.decode(input.x)"))
        assert policies.engine is before is await policies.make(good)
        policies.drop()
        policies.close()

    run(main)


def test_another_log_sends_what_the_one_before_has_left(tmp_path: Path) -> None:
    async def main() -> None:
        policies, spec = over(), OpaSpec("http://127.0.0.1:1", "narthex/decision")
        policies.use(spec, await policies.make(spec))
        engine = policies.engine
        policies.log(DecisionLogSpec(file=str(tmp_path / "one")))
        logged = policies.engine
        assert isinstance(logged, Logged) and logged.inner is engine
        logged._add(document(), Decision("deny", "denied_by_policy"))
        policies.log(DecisionLogSpec(file=str(tmp_path / "two")))
        await policies.stop_logging()
        assert len((tmp_path / "one").read_text().splitlines()) == policies.counts.logged == 1
        assert policies.engine is engine and policies.log_problem == ""
        policies.close()

    run(main)


def test_helpers_that_do_not_come_up_again_are_a_problem_and_what_is_not_decided_is_counted(tmp_path: Path) -> None:
    async def main() -> None:
        policies = over()
        spec = rego(tmp_path / "a", LOOPS.removeprefix(HEAD), deadline_s=0.2)
        policies.use(spec, await policies.make(spec))
        engine = policies.engine
        assert isinstance(engine, Rego) and policies.problem == ""
        assert (await engine.decide(document({"loop": True}))).reason == "policy_timeout"
        assert policies.counts.undecided == 1
        for pid in engine.pids():
            os.kill(pid, signal.SIGKILL)
        await until(lambda: policies.problem == "no helper process of the policy is up")
        await until(lambda: policies.problem == "")
        policies.close()

    run(main)
