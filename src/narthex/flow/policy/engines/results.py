"""What a policy's result means: a boolean, or an object with reasons and obligations. Anything else denies.

In: the value of the decision's rule, as JSON decodes it. Out: a `Decision`. Both engines are read here.
Cases: `tests/flow/policy/engines/test_results.py`. Reference: `docs/guides/rego.md`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from narthex.flow.policy.decision import (
    ALLOWED_BY_POLICY,
    APPROVAL_REQUIRED,
    BAD_POLICY_RESULT,
    DENIED_BY_POLICY,
    POLICY_UNDEFINED,
    UNKNOWN_OBLIGATION,
    Decision,
    Effect,
)
from narthex.flow.policy.engines.obligations import BadObligation, Obligation, UnknownObligation, read, value_of

UNDEFINED: Final[Any] = object()
"""The rule has no value for this input."""
_MEMBERS = frozenset({"allow", "effect", "reasons", "obligations"})
_EFFECTS: Final[dict[Any, Effect]] = {"allow": "allow", "deny": "deny", "hold": "hold"}
_REASONS: Final[dict[Effect, str]] = {
    "allow": ALLOWED_BY_POLICY,
    "deny": DENIED_BY_POLICY,
    "hold": APPROVAL_REQUIRED,
}
MOST_DETAIL = 500


class _Bad(ValueError):
    """The result is none."""


def read_result(value: Any, engine: str, bundle: str, decision_id: str = "") -> Decision:
    """The decision that a result says.

    Args:
        value: `UNDEFINED` where there is none.
        engine: Whose it is; bundle: the revision of its policy; decision_id: what the engine calls it.
    """
    try:
        effect, reason, detail, obligations = _read(value)
    except UnknownObligation as error:
        effect, reason, detail, obligations = "deny", UNKNOWN_OBLIGATION, str(error), ()
    except (_Bad, BadObligation) as error:
        effect, reason, detail, obligations = "deny", BAD_POLICY_RESULT, str(error), ()
    return Decision(effect, reason, "", 0, detail[:MOST_DETAIL], obligations, engine, bundle, decision_id)


def _read(value: Any) -> tuple[Effect, str, str, tuple[Obligation, ...]]:
    if value is UNDEFINED:
        return "deny", POLICY_UNDEFINED, "", ()
    if value is True or value is False:
        value = {"allow": value}
    if not isinstance(value, dict):
        raise _Bad("neither a boolean nor an object")
    effect = _effect(value)
    detail = _detail(value.get("reasons", []))
    if effect == "deny":
        return effect, DENIED_BY_POLICY, detail, ()
    if unknown := sorted(str(key)[:64] for key in value.keys() - _MEMBERS):
        raise _Bad(f"unknown member '{unknown[0]}'")
    obligations = read(value.get("obligations", {}))
    if value_of(obligations, "require_approval"):
        effect = "hold"
    return effect, _REASONS[effect], detail, obligations


def _effect(value: dict[str, Any]) -> Effect:
    """What `allow` or `effect` say; both must say the same."""
    said: set[Effect] = set()
    if "allow" in value:
        if not isinstance(value["allow"], bool):
            raise _Bad("allow is neither true nor false")
        said.add("allow" if value["allow"] else "deny")
    if "effect" in value:
        effect = value["effect"]
        if not isinstance(effect, str) or effect not in _EFFECTS:
            raise _Bad("effect is none of allow, deny, hold")
        said.add(_EFFECTS[effect])
    if len(said) != 1:
        raise _Bad("allow and effect contradict each other" if said else "neither allow nor effect is there")
    return said.pop()


def _detail(reasons: Any) -> str:
    if isinstance(reasons, str):
        return reasons
    if not isinstance(reasons, list):
        raise _Bad("reasons are neither a text nor a list")
    return "; ".join(one if isinstance(one, str) else msgspec.json.encode(one).decode() for one in reasons)
