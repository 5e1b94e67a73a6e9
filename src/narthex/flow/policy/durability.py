"""Which calls wait until their record is on the disk: those that may change something, all of them, or none; and which
are refused where there can be no record. Each endpoint may have it its own way.

In: a method, and where its name leads. Out: yes or no. What a server says of its own tools (`readOnlyHint`) is not
believed: a tool that only reads is one that the operator calls so. Cases: `tests/flow/policy/test_durability.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from narthex.flow.route.names import canonical
from narthex.flow.route.patterns import compile_globs
from narthex.flow.route.target import Target
from narthex.types import Durable, EndpointSpec, Snapshot

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

    @property
    def matters(self) -> bool:
        """Does anybody mind what is not recorded?"""
        return self.blocks or self._durable != "none"

    def asks(self, method: str, target: Target | None) -> bool:
        """Does a call wait? `target` None: where it leads is not known (yet), so that it may be anything."""
        if self._durable != "writes":
            return self._durable == "all"
        if method not in _WRITES:
            return False
        return self._reads is None or target is None or not self._reads(canonical(target.server, target.name))


def durability_of(snapshot: Snapshot) -> Mapping[str, Durability] | None:
    """By endpoint, and by "" for one that a reload has taken away under a call; None where nothing is recorded, or
    nobody minds what is not."""
    if not snapshot.audit_dir:
        return None
    found = {
        name: Durability(one.durable or snapshot.audit_durable, snapshot.audit_reads, blocks=_blocks(snapshot, one))
        for name, one in {"": EndpointSpec("", ()), **snapshot.endpoints}.items()
    }
    return found if any(one.matters for one in found.values()) else None


def refusing(snapshot: Snapshot) -> tuple[str, ...]:
    """Endpoints whose calls are refused where they cannot be recorded."""
    return tuple(name for name, one in snapshot.endpoints.items() if _blocks(snapshot, one))


def _blocks(snapshot: Snapshot, endpoint: EndpointSpec) -> bool:
    return snapshot.audit_blocks if endpoint.blocks is None else endpoint.blocks
