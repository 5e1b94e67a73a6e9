"""What a look has found, in the words of whoever must mend it."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. `do` is empty where all is well; no secret is in any of the texts."""

    area: str
    name: str
    verdict: Verdict
    said: str
    do: str = ""


def ok(area: str, name: str, said: str) -> Finding:
    return Finding(area, name, "ok", said)


def warn(area: str, name: str, said: str, do: str) -> Finding:
    return Finding(area, name, "warn", said, do)


def fail(area: str, name: str, said: str, do: str) -> Finding:
    return Finding(area, name, "fail", said, do)
