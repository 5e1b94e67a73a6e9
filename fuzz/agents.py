"""Fuzz targets for what a policy agent answers: nothing but a plain yes lets anything through; a trace is bounded."""

from __future__ import annotations

import json
from typing import Any

from narthex.flow.policy.engines.opa import Nonsense, read_all, read_batch, read_fault, read_one
from narthex.flow.policy.engines.trace import MOST_LINES, MOST_TEXT, Unreadable, read_coverage, read_trace


def _said(data: bytes) -> Any:
    """What another reader makes of it."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _allows(result: Any) -> bool:
    return result is True or (
        isinstance(result, dict) and (result.get("allow") is True or result.get("effect") in ("allow", "hold"))
    )


def fuzz_opa_answer(data: bytes) -> None:
    """Refused as nonsense, or decisions with bounded texts; an allowance is one for another reader, too."""
    assert len(read_fault(500, data)) < 600
    said = _said(data)
    try:
        found = read_one(data)
    except Nonsense as nonsense:
        assert len(str(nonsense)) < 600
    else:
        assert len(found.detail) <= 500 and len(found.bundle) <= 256 and len(found.decision_id) <= 256
        assert found.effect == "deny" or said is None or _allows(said.get("result"))
    for read in (read_all, read_batch):
        for count in (1, 2):
            try:
                assert len(read(data, count)) == count
            except Nonsense:
                continue


def fuzz_opa_trace(data: bytes) -> None:
    """No trace and no report of coverage is read without bounds, and what cannot be read says so in few words."""
    for read in (read_trace, read_coverage):
        try:
            found = read(data)
        except Unreadable as unreadable:
            assert len(str(unreadable)) < 600
            continue
        assert len(found.lines) <= MOST_LINES and (found.more == 0 or len(found.lines) == MOST_LINES)
        assert all(len(one.text) <= MOST_TEXT and len(one.file) <= MOST_TEXT for one in found.lines)
