"""Fuzz target for recorded decisions: lines of a file that somebody hands to `narthex replay`."""

from __future__ import annotations

import asyncio
from functools import cache

from narthex.flow.policy.evidence.again import Again
from narthex.flow.policy.evidence.recorded import BadRecord, Reader
from narthex.flow.policy.evidence.replay import Replayed, replay
from narthex.flow.policy.grants import Grants
from narthex.flow.policy.runs.rules import RunRules
from narthex.flow.policy.site import NOWHERE
from narthex.types import Grant, Patterns, RunRule, RunSpec

RULES = Grants(
    (Grant("reads", "allow", tools=("*__get_*",)), Grant("small", "allow", tools=("b__*",), when="args.n < 5"))
)

RUNS = RunRules(
    RunSpec(
        rules=(
            RunRule("few", "deny", Patterns(("b__*",)), at_most=3),
            RunRule("clean", "hold", Patterns(("*__get_*",)), labels=("untrusted",)),
        )
    ),
    NOWHERE,
)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def fuzz_recorded(data: bytes) -> None:
    """Refused with a reason, or decided: as often again, with the same result."""
    try:
        one = Reader().read(data)
    except BadRecord as error:
        assert str(error)
        return
    if one is None:
        return
    found, again = Replayed(), Again(RULES, {}, runs=RUNS)
    for _ in range(2):
        _loop().run_until_complete(replay(one, again, found, by_effect=False))
    assert found.decided + sum(found.untold.values()) == 2
    assert len(found.differences) <= 1 and found.decided in (0, 2)
