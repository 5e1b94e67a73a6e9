"""What a policy lets a call through for: conditions that the gateway has to keep, or the call is denied.

In: nothing yet but their form. Out: `Obligation`. Source: enterprise policies with OPA; `docs/guides/rego.md`.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Obligation(msgspec.Struct, frozen=True):
    """One of them. `value` is what JSON decodes to."""

    kind: str
    value: Any
