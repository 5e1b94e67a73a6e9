"""What a policy's result means: every form that is one, and that nothing else lets a call through."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.policy.engines.obligations import Obligation
from narthex.flow.policy.engines.results import UNDEFINED, read_result


def read(value: Any) -> tuple[str, str, str]:
    found = read_result(value, "rego", "r1", "d1")
    assert (found.engine, found.bundle, found.decision_id) == ("rego", "r1", "d1")
    return found.effect, found.reason, found.detail


@pytest.mark.parametrize(
    ("value", "effect", "reason", "detail"),
    [
        (True, "allow", "allowed_by_policy", ""),
        (False, "deny", "denied_by_policy", ""),
        (UNDEFINED, "deny", "policy_undefined", ""),
        ({"allow": True}, "allow", "allowed_by_policy", ""),
        ({"allow": False, "reasons": ["too much", {"a": 1}]}, "deny", "denied_by_policy", 'too much; {"a":1}'),
        ({"effect": "allow", "reasons": "fine"}, "allow", "allowed_by_policy", "fine"),
        ({"effect": "hold"}, "hold", "approval_required", ""),
        ({"effect": "deny"}, "deny", "denied_by_policy", ""),
        ({"allow": True, "effect": "allow"}, "allow", "allowed_by_policy", ""),
        ({"allow": True, "obligations": {"require_approval": True}}, "hold", "approval_required", ""),
        ({"allow": True, "obligations": {"require_approval": False}}, "allow", "allowed_by_policy", ""),
        ({"allow": False, "anything": 1}, "deny", "denied_by_policy", ""),
        (None, "deny", "bad_policy_result", "neither a boolean nor an object"),
        (1, "deny", "bad_policy_result", "neither a boolean nor an object"),
        ("true", "deny", "bad_policy_result", "neither a boolean nor an object"),
        ([True], "deny", "bad_policy_result", "neither a boolean nor an object"),
        ({}, "deny", "bad_policy_result", "neither allow nor effect is there"),
        ({"allow": 1}, "deny", "bad_policy_result", "allow is neither true nor false"),
        ({"effect": "permit"}, "deny", "bad_policy_result", "effect is none of allow, deny, hold"),
        ({"effect": []}, "deny", "bad_policy_result", "effect is none of allow, deny, hold"),
        ({"allow": True, "effect": "deny"}, "deny", "bad_policy_result", "allow and effect contradict each other"),
        ({"allow": True, "obligation": {}}, "deny", "bad_policy_result", "unknown member 'obligation'"),
        ({"allow": True, "reasons": 1}, "deny", "bad_policy_result", "reasons are neither a text nor a list"),
        ({"allow": True, "obligations": []}, "deny", "bad_policy_result", "obligations: an object is wanted"),
        ({"allow": True, "obligations": {"fly": 1}}, "deny", "unknown_obligation", "fly: no such obligation"),
        (
            {"allow": True, "obligations": {"max_results": "1"}},
            "deny",
            "bad_policy_result",
            "max_results: wants a whole number",
        ),
        (
            {"allow": True, "obligations": {"log": "loud"}},
            "deny",
            "bad_policy_result",
            "log: wants full, redacted, meta or none",
        ),
    ],
)
def test_read(value: Any, effect: str, reason: str, detail: str) -> None:
    assert read(value) == (effect, reason, detail)


def test_obligations_are_read() -> None:
    said = {"redact": "/a", "max_results": 3, "step_up_scope": ["x"], "cache_ttl_s": 5, "log": "none", "rewrite": {}}
    found = read_result({"allow": True, "obligations": said}, "rego", "").obligations
    for one in (Obligation("redact", ("/a",)), Obligation("step_up_scope", ("x",)), Obligation("max_results", 3)):
        assert one in found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["allow", "effect", "reasons", "x"]), inner),
)


@given(JSON)
def test_only_what_says_so_allows(value: Any) -> None:
    if read(value)[0] == "allow":
        assert value is True or value.get("allow") is True or value.get("effect") == "allow"
