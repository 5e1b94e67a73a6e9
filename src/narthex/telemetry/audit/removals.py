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
    earlier ones what is still named; `payloads`: how many of each group, and `payloads_until` when theirs were."""

    records_until: str = ""
    files: tuple[str, ...] = ()
    heads: tuple[Head, ...] = ()
    payloads: dict[str, int] = {}
    payloads_until: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self.files or self.payloads)


_removed = msgspec.json.Decoder(Removed).decode


def removed_in(line: bytes) -> Removed:
    """What a record of a removal says; nothing where it is none."""
    try:
        return _removed(line)
    except BAD_JSON:
        return Removed()


class Removals:
    """Gathers what is missing, and what was removed; which of it is the same is known at the end."""

    def __init__(self) -> None:
        self._heads: dict[str, int] = {}
        self._until = ""
        self._missing: list[tuple[str, int, str, Fault]] = []

    def notice(self, line: bytes) -> None:
        """A proved record says that something was removed."""
        removed = removed_in(line)
        self._until = max(self._until, removed.records_until)
        for head in removed.heads:
            self._heads[head.chain] = max(head.seq, self._heads.get(head.chain, 0))

    def missing(self, chain: str, last: int, time: str, fault: Fault) -> None:
        """Records up to `last` of a chain are not there, the last of them signed at `time`."""
        self._missing.append((chain, last, time, fault))

    def unexplained(self, notes: list[str]) -> Iterator[Fault]:
        """Faults of what was not removed; of what was, a note."""
        for chain, last, time, fault in self._missing:
            if last <= self._heads.get(chain, 0) or time < self._until:
                notes.append(f"records up to {last} of the chain {chain} were removed by their age, as a record says")
            else:
                yield fault
