"""Which MCP is a server known to speak, since when, and when is it to be asked again?

In: what openings and probes found, the wall clock. Out: what to open with, None when it is to be found out. Pure.
Cases: `tests/flow/upstream/test_era.py`.
Source: MCP 2026-07-28, basic/versioning: the era is a property of the server, kept, and asked again when it fails. A
legacy verdict is dated besides: a server that has become modern goes on to serve it, so it never fails.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import msgspec

from narthex.types import Era, ServerSpec

Spoken = Literal["modern", "legacy", "sse"]
"""`sse` is the legacy era over the old HTTP+SSE."""
AGAIN_S = 60.0
"""A probe from which nothing was learnt is followed by another after this long."""
DOUBT_S = 10.0
"""A doubt waits until a probe is this old before there is another."""


class Verdict(msgspec.Struct, frozen=True):
    """What a server speaks, as found; to be kept as it is. Times are wall-clock seconds.

    Attributes:
        how: What told it: a method, or "configured".
        since: When it was first found so.
        checked_at: When that was last seen to hold, by asking for the other era too.
    """

    spoken: Spoken
    how: str
    since: float
    checked_at: float

    @property
    def era(self) -> Era:
        return "modern" if self.spoken == "modern" else "legacy"


class KeepsEras(Protocol):
    """Keeps verdicts over a restart."""

    def known(self, spec: ServerSpec) -> Verdict | None:
        """What this server spoke when it was last asked; None where nobody knows."""

    def keep(self, spec: ServerSpec, verdict: Verdict) -> None:
        """This was found. Returns at once."""


class EraBook:
    """What is known of one server.

    Args:
        verdict: As kept from an earlier run.
        modern_s, legacy_s: For how long a verdict holds.
    """

    def __init__(self, verdict: Verdict | None = None, *, modern_s: float, legacy_s: float) -> None:
        self.verdict = verdict
        self._modern_s = modern_s
        self._legacy_s = legacy_s
        self._doubted = False
        self._vain_at = -math.inf

    def due(self, now: float) -> bool:
        """Is it time to ask? A verdict from the future is none to rely on: the clock was set back."""
        verdict = self.verdict
        if verdict is None:
            return True
        if 0.0 <= now - self._vain_at < AGAIN_S:
            return False
        lasts_s = self._modern_s if verdict.spoken == "modern" else self._legacy_s
        return not 0.0 <= now - verdict.checked_at < (DOUBT_S if self._doubted else lasts_s)

    def known(self, now: float) -> Spoken | None:
        """What to open with; None: find out."""
        return None if self.verdict is None or self.due(now) else self.verdict.spoken

    def found(self, spoken: Spoken, how: str, now: float, *, probed: bool) -> bool:
        """Something was opened, or a probe was answered. Returns whether the verdict is another one than before.

        Args:
            probed: The modern era was asked for. If not, a legacy server that still answers says nothing about it.
        """
        before = self.verdict
        same = before is not None and before.spoken == spoken
        if same and not probed:
            return False
        self.verdict = Verdict(spoken, how, before.since if before is not None and same else now, now)
        self._doubted = False
        self._vain_at = -math.inf
        return before is not None and not same

    def doubt(self, now: float) -> bool:
        """The server does not answer as it should. Returns whether it is to be asked now; the verdict holds so long."""
        self._doubted = self.verdict is not None
        return self._doubted and self.due(now)

    def vain(self, now: float) -> None:
        """A probe ended without an answer that says anything: the verdict holds."""
        self._vain_at = now


def is_strange(era: Era, code: int) -> bool:
    """Is this JSON-RPC error code none that a server of this era gives to a request of ours?

    Codes of the legacy era (-32000..-32019, -32600) are how its servers refuse a request without session; only modern
    ones know -32020 to -32022. Either may also come of a session that a server has forgotten without saying 404.
    """
    if era == "modern":
        return -32019 <= code <= -32000 or code == -32600
    return -32022 <= code <= -32000 or code == -32600
