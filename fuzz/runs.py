"""Fuzz target for the id of a run, which a trusted agent gives in `_meta`."""

from __future__ import annotations

from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.policy.runs.rules import RunRules
from narthex.flow.policy.runs.runs import LONGEST_ID, Runs
from narthex.flow.policy.site import NOWHERE
from narthex.types import LOCAL, RunSpec

RUNS = [Runs(RunRules(RunSpec(run_id=key), NOWHERE), lambda: 0.0) for key in ("io.narthex/run", "traceparent")]


def fuzz_run_id(data: bytes) -> None:
    """Never raises; an id is bounded, and one of a trace has its form."""
    for runs, length in zip(RUNS, (range(LONGEST_ID + 1), (0, 32)), strict=True):
        id_ = runs.id_of({runs.rules.spec.run_id: Raw(data)})
        assert len(id_) in length
        assert id_ == runs.id_of({runs.rules.spec.run_id: Raw(data)})
        assert not runs.get((LOCAL.key, "default", id_)).marks
