"""Fuzz target for what a policy says and what is done by it: results of an agent, obligations, results of a server."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec

from narthex.errors import ContentBlocked
from narthex.flow.codec.jsonrpc import BAD_JSON, Incoming, Raw
from narthex.flow.policy.decision import BAD_POLICY_RESULT, UNKNOWN_OBLIGATION
from narthex.flow.policy.engines.obligations import duties_of, rewritten, value_of
from narthex.flow.policy.engines.results import read_result


def fuzz_policy(data: bytes) -> None:
    """Only what says so allows; nothing of what is redacted is left, and lists are no longer than they may be.

    Input: a policy's result, a zero byte, a server's result.
    """
    said, _, result = data.partition(b"\0")
    try:
        value = msgspec.json.decode(said)
    except BAD_JSON:
        return
    decision = read_result(value, "rego", "r")
    if decision.effect != "deny":
        assert value is True or value.get("allow") is True or value.get("effect") in ("allow", "hold")
    else:
        assert not decision.obligations
        return
    assert decision.reason not in (BAD_POLICY_RESULT, UNKNOWN_OBLIGATION)
    patch = value_of(decision.obligations, "rewrite")
    with suppress(*BAD_JSON):
        arguments: Any = msgspec.json.decode(result)
        before = json.dumps(arguments)
        changed = rewritten(arguments, patch or {})
        assert json.dumps(arguments) == before, "the call is as it was"
        for key, one in (patch or {}).items():
            assert key not in changed if one is None else isinstance(one, dict) or changed[key] == one
    duties = duties_of(decision.obligations)
    if duties is None:
        return
    try:
        kept = duties.kept(Incoming("2.0", 1, result=Raw(result)))
    except ContentBlocked:
        return
    assert kept is not None
    if not result:
        return
    found = json.loads(bytes(kept.result))
    for pointer in duties.redact:
        steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
        if len(steps) == 1 and steps[0] in found:
            assert found[steps[0]] == "[redacted]" or duties.max_results is not None
    if duties.max_results is not None:
        assert all(len(one) <= duties.max_results for one in found.values() if isinstance(one, list))
