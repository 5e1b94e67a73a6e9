"""What is kept of what a call says: by the operator's rules, unless a policy says it of this call.

In: where a call goes, how what it gives is classed, what a policy demands. Out: a `KeptParts`, or None. Pure; asked
once for each name, and remembered. Cases: `tests/telemetry/payloads/test_rules.py`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from narthex.flow.policy.site import PATTERNS_OF, Site
from narthex.flow.route.names import canonical
from narthex.flow.route.patterns import compile_globs
from narthex.kept import Keep, PayloadRule, PayloadSpec
from narthex.types import Kind, Snapshot

MOST_KNOWN: Final = 4096
"""Names that are remembered: a resource is called whatever a client likes."""
LOG: Final = "log"
"""The obligation that says it of a call: `full`, `redacted`; `meta` and `none` keep nothing, of the task neither."""


class KeptParts(msgspec.Struct, frozen=True):
    """What is kept of the arguments and of the result, in which group, and what of the task that the client states."""

    arguments: Keep
    result: Keep
    group: str
    task: Keep = "none"


class Rules:
    """By one configuration."""

    def __init__(self, spec: PayloadSpec, site: Site) -> None:
        self._rows = [_Row(one) for one in spec.rules]
        self._site = site
        self._known: dict[tuple[str, Kind, str, str], KeptParts] = {}

    @property
    def asks(self) -> bool:
        """Could it keep anything without a policy's word?"""
        return bool(self._rows)

    def of(self, endpoint: str, kind: Kind, server: str, name: str, log: str | None = None) -> KeptParts | None:
        """None: nothing of it. `log`: what a policy demands, None where it demands nothing."""
        key = (endpoint, kind, server, name)
        found = self._known.get(key)
        if found is None:
            found = self._find(*key)
            if len(self._known) < MOST_KNOWN:
                self._known[key] = found
        if log is not None:
            keep: Keep = "full" if log == "full" else "redacted" if log == "redacted" else "none"
            found = KeptParts(keep, keep, found.group, found.task if keep != "none" else keep)
        return found if {found.arguments, found.result, found.task} != {"none"} else None

    def _find(self, endpoint: str, kind: Kind, server: str, name: str) -> KeptParts:
        whole = canonical(server, name)
        group = self._site.data(kind, whole).classification
        fits = [row for row in self._rows if row.fits(endpoint, kind, server, whole, group)]
        return KeptParts(_first(fits, "arguments"), _first(fits, "result"), group, _first(fits, "task"))


def keeps_payloads(snapshot: Snapshot) -> bool:
    """Is anything kept by this configuration, or may its policy ask for it?"""
    return bool(snapshot.audit_dir) and (bool(snapshot.audit_payloads.rules) or snapshot.policy is not None)


def _first(rows: list[_Row], part: str) -> Keep:
    return next((row.rule.keep for row in rows if part in row.rule.parts), "none")


class _Row:
    def __init__(self, rule: PayloadRule) -> None:
        self.rule = rule
        globs = {"tools": rule.tools, "prompts": rule.prompts, "resources": rule.resources}
        self._globs = {kind: compile_globs(some) for kind, some in globs.items() if some}

    def fits(self, endpoint: str, kind: Kind, server: str, whole: str, group: str) -> bool:
        rule = self.rule
        if self._globs:
            covers = self._globs.get(PATTERNS_OF[kind])
            if covers is None or not covers(whole):
                return False
        asked = ((rule.endpoints, endpoint), (rule.servers, server), (rule.classification, group))
        return all(not wanted or found in wanted for wanted, found in asked)
