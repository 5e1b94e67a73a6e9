"""What was removed from a journal by its age, as its own records say: so that `verify` does not miss it.

In: records of the event `retention`; what is missing. Out: what is missing and was not removed so.
Cases: `tests/cli/test_audit_kept.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.telemetry.audit.checkpoints import Head

if TYPE_CHECKING:
    from narthex.telemetry.audit.verify import Fault

RETENTION = b'"event":"retention"'


class Removed(msgspec.Struct, omit_defaults=True):
    """What was removed, as its record says it. `heads`: the last record of each segment, and of
    earlier ones what is still named; `stay`: chains that are as old and stay, for a hold, say; `payloads`: how many of
    each group, and `payloads_until` when theirs were."""

    records_until: str = ""
    files: tuple[str, ...] = ()
    heads: tuple[Head, ...] = ()
    stay: tuple[str, ...] = ()
    payloads: dict[str, int] = {}
    payloads_until: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self.files or self.payloads)


class _Said(Removed):
    event: str = ""


_said = msgspec.json.Decoder(_Said).decode


def removed_in(line: bytes) -> Removed:
    """What a record of a removal says; nothing where it is none."""
    try:
        found = _said(line)
    except BAD_JSON:
        return Removed()
    return found if found.event == "retention" else Removed()


class Removals:
    """Gathers what is missing, and what was removed; which of it is the same is known at the end."""

    def __init__(self) -> None:
        self._heads: set[Head] = set()
        self._last: dict[str, int] = {}
        self._until = ""
        self._stay: frozenset[str] = frozenset()
        self._missing: list[tuple[Head | None, str, int, str, Fault]] = []

    def notice(self, line: bytes) -> None:
        """A proved and signed record says that something was removed."""
        removed = removed_in(line)
        if removed.records_until >= self._until:
            self._until, self._stay = removed.records_until, frozenset(removed.stay)
        for head in removed.heads:
            self._heads.add(head)
            self._last[head.chain] = max(head.seq, self._last.get(head.chain, 0))

    def missing_before(self, head: Head, fault: Fault) -> None:
        """Records up to this one, behind which its chain goes on, are not there."""
        self._missing.append((head, head.chain, head.seq, "", fault))

    def missing(self, chain: str, last: int, time: str, fault: Fault) -> None:
        """A chain is not there, of which record `last` is the last that is known, signed at `time`."""
        self._missing.append((None, chain, last, time, fault))

    def unexplained(self, notes: list[str]) -> Iterator[Fault]:
        """Faults of what was not removed; of what was, a note."""
        for head, chain, last, time, fault in self._missing:
            if head in self._heads if head is not None else self._is_removed(chain, last, time):
                notes.append(f"records up to {last} of the chain {chain} were removed by their age, as a record says")
            else:
                yield fault

    def _is_removed(self, chain: str, last: int, time: str) -> bool:
        """By its name, while a record says so; by its time, when that record itself was removed."""
        return last <= self._last.get(chain, 0) or (time < self._until and chain not in self._stay)
