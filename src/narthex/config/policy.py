"""`policy` to what the gateway works with.

In: its settings. Out: who decides beside the grants; or a fault at the place it stands at.
Cases: `tests/config/test_policy.py`.
"""

from __future__ import annotations

from narthex.config.document import Reading
from narthex.config.schema.policy import PolicySettings
from narthex.types import OpaSpec, RegoSpec


def compile_policy(policy: PolicySettings | None, reading: Reading) -> RegoSpec | OpaSpec | None:
    if policy is not None and not reading.problems:
        reading.fault(("policy",), "policy: needs `rego` or `opa`")
    return None
