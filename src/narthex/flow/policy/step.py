"""What one rule said of a call: the line of an explanation."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["applies", "skipped", "not met", "failed"]


class Step(msgspec.Struct, frozen=True):
    """One rule: whether it had a say, and why."""

    rule: str
    line: int
    effect: str
    verdict: Verdict
    text: str
