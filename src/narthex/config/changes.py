"""What differs between two configurations, by name and never by value: for the record of a reload.

In: two snapshots. Out: places such as `servers.github` or `grants.small refunds`, with `+` or `-` in front where one
was added or is gone; that a rule stands on another line is no difference. Cases: `tests/config/test_changes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from narthex.config.reload import ReloadOutcome
from narthex.types import Snapshot

MOST = 200
"""Places that are named."""
_NOT = frozenset({"revision", "source", "warnings", "notices"})
_NAMES = {"quotas": "limits", "limits": "bounds", "audit_payloads": "audit.payloads", "trial": "grants in shadow mode"}
"""Members that the file calls otherwise."""


def changes(before: Snapshot, after: Snapshot) -> tuple[str, ...]:
    """In the order of the snapshot's members."""
    found: list[str] = []
    for field in Snapshot.__struct_fields__:
        one, other = getattr(before, field), getattr(after, field)
        if field in _NOT or one == other:
            continue
        name, ours, theirs = _NAMES.get(field, field), _named(one), _named(other)
        if ours is None or theirs is None:
            found.append(name)
            continue
        found += [f"-{name}.{key}" for key in ours.keys() - theirs.keys()]
        found += [f"+{name}.{key}" for key in theirs.keys() - ours.keys()]
        found += [f"{name}.{key}" for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]]
        if ours == theirs and list(ours) != list(theirs):
            found.append(name)  # their order
    return tuple(found[:MOST])


def act_of_reload(outcome: ReloadOutcome, before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """What is recorded of one: which revision is in force, who asked for another, what differs, or what was refused."""
    said: dict[str, Any] = {"step": outcome.status, "by": outcome.reason, "revision": after.revision}
    if outcome.status == "applied":
        return {**said, "before": before.revision, "changes": changes(before, after)}
    return {**said, "problems": len(outcome.problems)}


def _named(value: Any) -> dict[str, Any] | None:
    """Parts by name, where they have one."""
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    if isinstance(value, tuple) and value and all(getattr(one, "name", "") for one in value):
        return {one.name: msgspec.structs.replace(one, line=0) if hasattr(one, "line") else one for one in value}
    return {} if value == () else None
