"""Deciding as a gateway with this configuration does, for the commands that decide again: engine included.

In: a snapshot. Out: an `Again`, for an `async with`. A Rego policy is evaluated here, with its own bundle; an Open
Policy Agent is asked over the network, as calls would ask it. Cases: `tests/cli/test_replay_engines.py`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from narthex.cli.records import grants_of, run_rules_of

if TYPE_CHECKING:
    from narthex.flow.policy.decision import Decision
    from narthex.flow.policy.document import Document
    from narthex.flow.policy.engines.engine import Engine
    from narthex.flow.policy.engines.trace import Trace
    from narthex.flow.policy.evidence.again import Again, Asked
    from narthex.types import Snapshot

    Told = Callable[[Engine, Document], None]


@asynccontextmanager
async def judging(
    snapshot: Snapshot, *, shadow: bool = False, opens: bool = False, told: Told | None = None
) -> AsyncIterator[Again]:
    """Decides as a gateway with this configuration does.

    Args:
        shadow: As if the rules in shadow mode counted.
        opens: `on_error: allow` lets through; else a policy agent that is not there has decided nothing.
        told: Called with the engine and each document that it is asked about.
    Raises:
        ConfigError: The policy's bundle cannot be used.
    """
    from narthex.engines.logged import Logged
    from narthex.flow.policy.evidence.again import Again, scopes_of
    from narthex.flow.policy.site import Site

    site = Site(snapshot.environment, snapshot.data)
    async with _engine(None if snapshot.policy_shadow and not shadow else snapshot, opens=opens) as engine:
        asked = engine
        if engine is not None and told is not None:
            asked = Logged(engine, lambda document, _: told(engine, document), lists=True)
        yield Again(
            grants_of(snapshot, shadow=shadow),
            scopes_of(snapshot.endpoints),
            snapshot.endpoints,
            asked,
            site,
            runs=run_rules_of(snapshot, shadow=shadow),
        )


async def decided_again(
    snapshot: Snapshot, asked: Asked, *, shadow: bool = False
) -> tuple[Decision, tuple[str, Trace] | None]:
    """One decision, and of the last question that its engine was asked, if any: its `input.action`, and a trace.

    Raises:
        ConfigError. Untold: It lacks what a rule looks at.
    """
    from narthex.engines.embedded import Rego
    from narthex.engines.opa import RemoteOpa

    questions: list[tuple[Engine, Document]] = []
    async with judging(snapshot, shadow=shadow, opens=True, told=lambda *one: questions.append(one)) as again:
        decision = await again.decide(asked)
        engine, document = questions[-1] if questions else (None, None)
        if document is None or not isinstance(engine, Rego | RemoteOpa):
            return decision, None
        return decision, (str(document.input()["action"]), await engine.trace(document))


@asynccontextmanager
async def _engine(snapshot: Snapshot | None, *, opens: bool) -> AsyncIterator[Engine | None]:
    spec = snapshot.policy if snapshot is not None else None
    if snapshot is None or spec is None:
        yield None
        return
    from msgspec.structs import replace

    from narthex.authority.fetch import Fetcher
    from narthex.authority.upkeep import Upkeep
    from narthex.engines.counts import Counts
    from narthex.engines.opa import RemoteOpa
    from narthex.engines.ruling import Ruling
    from narthex.keys import load_keys
    from narthex.types import OpaSpec

    fetcher = Fetcher(snapshot.egress)
    upkeep = Upkeep(
        env=os.environ, master_keys=lambda: load_keys(Path(snapshot.state_dir), os.environ), fetch=fetcher.fetch,
        now=time.time, random=os.urandom,
    )  # fmt: skip
    ruling = None
    try:
        await upkeep.apply(snapshot, api_keys=False)
        if isinstance(spec, OpaSpec):
            get = upkeep.secrets.get
            spec = spec if opens else replace(spec, on_error="deny")
            yield RemoteOpa(spec, fetch=fetcher.fetch, secrets=get, clock=time.monotonic, counts=Counts())
        else:
            ruling = Ruling(
                spec, _nothing, fetch=fetcher.fetch, secrets=upkeep.secrets.get, now=time.time, clock=time.monotonic,
                chance=random.random,
            )  # fmt: skip
            yield await ruling.start()
    finally:
        if ruling is not None:
            ruling.close(at_once=True)
        await upkeep.close()
        fetcher.close()


def _nothing() -> None:
    """A new bundle while a command runs is the next command's."""
