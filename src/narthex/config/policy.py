"""`policy` to what the gateway works with.

In: its settings. Out: who decides beside the grants; or a fault at the place it stands at.
Cases: `tests/config/test_policy.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from narthex.authority.addresses import Allowed
from narthex.config.document import Reading
from narthex.config.opa import compile_opa
from narthex.config.rego import compile_rego
from narthex.config.schema.policy import PolicySettings
from narthex.types import OpaSpec, RegoSpec


def compile_policy(
    policy: PolicySettings | None,
    allowed: Allowed,
    reading: Reading,
    resolve: Callable[[str], Path],
    state_dir: Path,
) -> RegoSpec | OpaSpec | None:
    """Args: allowed: Whom `egress` lets be asked without TLS. resolve: a path of the file to an absolute one."""
    if policy is None:
        return None
    if policy.rego is not None and policy.opa is not None:
        reading.fault(("policy", "opa"), "policy: has both `rego` and `opa`; keep one")
        return None
    if policy.admin and policy.mode == "shadow":
        reading.fault(("policy", "admin"), "policy: what is in shadow mode does not guard the admin side")
    if policy.opa is not None:
        return compile_opa(policy.opa, allowed, reading, resolve)
    if policy.rego is not None:
        return compile_rego(policy.rego, allowed, reading, resolve, state_dir)
    if not reading.problems:
        reading.fault(("policy",), "policy: needs `rego` or `opa`")
    return None
