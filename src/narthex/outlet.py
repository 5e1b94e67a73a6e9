"""Where traces and metrics go: part of a snapshot, as the configuration says it."""

from __future__ import annotations

from typing import Literal

import msgspec

from narthex.secret import SecretText


class OtlpSpec(msgspec.Struct, frozen=True):
    """Where traces and metrics go, and which calls are traced: `ratio` of those without a parent; with one `parent`
    says whether that decides, or the ratio."""

    url: str
    headers: tuple[tuple[str, SecretText], ...] = ()
    traces: bool = True
    metrics: bool = True
    every_s: float = 1.0
    metrics_every_s: float = 60.0
    service: str = "narthex"
    ratio: float = 0.01
    parent: Literal["follow", "ignore"] = "follow"
