"""What differs between two configurations: for the record of a reload.

In: two snapshots. Out: places such as `servers.github` or `grants.small refunds`, with `+` or `-` in front where one
was added or is gone, never with their values, which may be secrets; and of rules on who may do what, how much, and for
how much, what they said and say: that is what an auditor asks, and no place for a secret. That a rule stands on another
line is no difference. Cases: `tests/config/test_changes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

import msgspec

from narthex.config.reload import ReloadOutcome
from narthex.types import Snapshot

MOST = 200
"""Places that are named."""
_NOT = frozenset({"revision", "source", "warnings", "notices"})
_NAMES = {"quotas": "limits", "limits": "bounds", "audit_payloads": "audit.payloads", "trial": "grants in shadow mode"}
"""Members that the file calls otherwise."""
RULES = ("grants", "trial", "admin_grants", "quotas", "prices")
"""Members that are rules: what they say is recorded."""
_TEXTS = frozenset({"when", "formula"})
"""Members of rules that somebody has written freely: only whether they are the same is said."""
MOST_DIFFERENCES = 100
LONGEST = 512
"""Characters of one side of a difference; of a longer one its digest is said."""


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


def differences(before: Snapshot, after: Snapshot) -> dict[str, tuple[Any, Any]]:
    """Of rules: place to what stood there and what does, in the gateway's own units; null where there was none."""
    found: dict[str, tuple[Any, Any]] = {}
    for field in RULES:
        name, ours, theirs = _NAMES.get(field, field), _said(getattr(before, field)), _said(getattr(after, field))
        for key in {**ours, **theirs}:
            for place, one, other in _between(f"{name}.{key}", ours.get(key), theirs.get(key)):
                if len(found) >= MOST_DIFFERENCES:
                    return found
                found[place] = (one, other)
    return found


def _between(place: str, one: dict[str, Any] | None, other: dict[str, Any] | None) -> Iterator[tuple[str, Any, Any]]:
    """The members that differ; a rule that is new, or gone, as a whole."""
    if one is None or other is None:
        yield place, _bounded(one), _bounded(other)
        return
    for member in {**one, **other}:
        if one.get(member) != other.get(member):
            yield f"{place}.{member}", _bounded(one.get(member)), _bounded(other.get(member))


def _said(rules: tuple[Any, ...]) -> dict[str, dict[str, Any]]:
    """What rules say, by name or place."""
    found = {}
    for at, rule in enumerate(rules):
        said = _plain(rule)
        said |= {name: _digest(said[name]) for name in _TEXTS & said.keys()}
        found[said.pop("name", "") or str(at)] = said
    return found


def _plain(value: Any) -> Any:
    """As JSON has it; of a struct what says something else than its default."""
    if not isinstance(value, msgspec.Struct):
        return sorted(value) if isinstance(value, frozenset) else msgspec.to_builtins(value, enc_hook=str)
    members = {one.name: (getattr(value, one.name), one.default) for one in msgspec.structs.fields(value)}
    return {name: _plain(said) for name, (said, usual) in members.items() if said != usual and name != "line"}


def _bounded(value: Any) -> Any:
    return value if len(msgspec.json.encode(value)) <= LONGEST else _digest(value)


def _digest(value: Any) -> str:
    return f"sha256:{sha256(msgspec.json.encode(value)).hexdigest()[:16]}"


def act_of_reload(outcome: ReloadOutcome, before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """What is recorded of one: which revision is in force, who asked for another, what differs, or what was refused."""
    said: dict[str, Any] = {"step": outcome.status, "by": outcome.reason, "revision": after.revision}
    if outcome.status == "applied":
        found = differences(before, after)
        more = {"diff": found} if found else {}
        return {**said, "before": before.revision, "changes": changes(before, after), **more}
    return {**said, "problems": len(outcome.problems)}


def _named(value: Any) -> dict[str, Any] | None:
    """Parts by name, where they have one."""
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    if isinstance(value, tuple) and value and all(getattr(one, "name", "") for one in value):
        return {one.name: msgspec.structs.replace(one, line=0) if hasattr(one, "line") else one for one in value}
    return {} if value == () else None
