"""Which calls wait until their record is on the disk: those that may change something, all of them, or none.

In: a method, and where its name leads. Out: yes or no. What a server says of its own tools (`readOnlyHint`) is not
believed: a tool that only reads is one that the operator calls so. Cases: `tests/flow/policy/test_durability.py`.
"""

from __future__ import annotations

from typing import Final

from narthex.flow.route.names import canonical
from narthex.flow.route.patterns import compile_globs
from narthex.flow.route.target import Target
from narthex.types import Durable, Snapshot

_WRITES: Final = frozenset({"tools/call", "tasks/update", "tasks/cancel"})
"""Methods that may change something; all others read, by their definition (MCP 2026-07-28)."""


class Durability:
    """Args:
    durable: Which calls wait. blocks: what cannot be recorded is not done.
    reads: Patterns of canonical names: tools that only read.
    """

    __slots__ = ("_durable", "_reads", "blocks")

    def __init__(self, durable: Durable, reads: tuple[str, ...] = (), *, blocks: bool = True) -> None:
        self._durable: Final = durable
        self._reads = compile_globs(reads) if reads else None
        self.blocks: Final = blocks

    def asks(self, method: str, target: Target | None) -> bool:
        """Does a call wait? `target` None: where it leads is not known (yet), so that it may be anything."""
        if self._durable != "writes":
            return self._durable == "all"
        if method not in _WRITES:
            return False
        return self._reads is None or target is None or not self._reads(canonical(target.server, target.name))


def durability_of(snapshot: Snapshot) -> Durability | None:
    """By a configuration; None where nothing is recorded, or nobody minds what is not."""
    if not snapshot.audit_dir or (snapshot.audit_durable == "none" and not snapshot.audit_blocks):
        return None
    return Durability(snapshot.audit_durable, snapshot.audit_reads, blocks=snapshot.audit_blocks)
