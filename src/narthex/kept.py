"""What the journal keeps of what calls say, and how long it keeps anything: as the configuration says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

Keep = Literal["full", "redacted", "none"]
DETECTORS: Final = ("secrets", "keys", "jwts", "cards", "ibans", "emails", "ssns")
"""`secrets`: what stands behind a name such as `password`, in an Authorization header, in a URL. `keys`: tokens of
known providers, private keys. `ssns`: numbers of US social security."""


class PayloadRule(msgspec.Struct, frozen=True):
    """What is kept of the calls that all of it fits; an empty member fits every call. `tools`, `prompts`, `resources`:
    globs on canonical names; any of them fits."""

    keep: Keep
    parts: frozenset[str] = frozenset(("arguments", "result"))
    endpoints: frozenset[str] = frozenset()
    servers: frozenset[str] = frozenset()
    classification: frozenset[str] = frozenset()
    tools: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()


class PayloadSpec(msgspec.Struct, frozen=True):
    """`rules`: for each part of a call the first that fits counts; what none fits is not kept. `pointers` and
    `detectors`: what is taken out of what is kept `redacted`. `seal`: it is sealed for the disk."""

    rules: tuple[PayloadRule, ...] = ()
    pointers: tuple[str, ...] = ()
    detectors: tuple[str, ...] = DETECTORS
    seal: bool = False


class Retention(msgspec.Struct, frozen=True):
    """Seconds that records and payloads stay, None for ever. `groups`: payloads by how confidential they are, where
    that is not as `payloads`. `compress_after_s`: files that are closed are compressed then."""

    records_s: float | None = None
    payloads_s: float | None = None
    groups: Mapping[str, float] = {}
    compress_after_s: float | None = None

    def of(self, group: str) -> float | None:
        """How long the payloads of a group stay."""
        return self.groups.get(group, self.payloads_s)
