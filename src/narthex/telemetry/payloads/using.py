"""The journal of a gateway, and what it keeps: as the configuration says, from the start on or from a reload on.

In: the journal that there is, the configuration, the master keys. Out: the one that takes records from now on.
Cases: `tests/e2e/test_payloads.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from narthex.errors import ConfigError
from narthex.flow.policy.durability import refusing
from narthex.telemetry.payloads.rules import keeps_payloads

if TYPE_CHECKING:
    import asyncio

    from narthex.flow.codec.seal import MasterKey
    from narthex.telemetry.journal import Journal
    from narthex.types import Snapshot


def journal_of(
    before: Journal | None, snapshot: Snapshot, keys: Sequence[MasterKey], loop: asyncio.AbstractEventLoop
) -> Journal | None:
    """The one before, where it writes to the same places; else another one, or None: nothing is recorded.

    Raises:
        ConfigError: Its folder cannot be written, or its key not read.
    """
    folder = Path(snapshot.audit_dir)
    second = Path(snapshot.audit_checkpoints) if snapshot.audit_checkpoints else None
    if before is not None and snapshot.audit_dir and (before.folder, before.second) == (folder, second):
        before.meanwhile = meanwhile(snapshot)
        use_payloads(before, snapshot, keys)
        return before
    if not snapshot.audit_dir:
        return None
    from narthex.telemetry.audit.checkpoints import load_signer  # signatures: only where they are needed
    from narthex.telemetry.audit.heads import Heads
    from narthex.telemetry.journal import Journal

    signer = load_signer(Path(snapshot.state_dir))
    try:
        heads = Heads(Path(snapshot.state_dir), folder)
    except OSError as error:
        problem = f"{snapshot.state_dir}: {error.strerror or error}; the journal's head is kept there"
        raise ConfigError([f"{problem}: make it writable for this user"]) from None
    journal = Journal(folder, signer, second=second, heads=heads, meanwhile=meanwhile(snapshot),
        on_loop=loop.call_soon_threadsafe, at_end=loop.call_soon)  # fmt: skip
    use_payloads(journal, snapshot, keys)
    return journal


def meanwhile(snapshot: Snapshot) -> str:
    """What becomes of calls while the disk takes no records, in words; endpoints are named where they differ."""
    from narthex.telemetry.journal import LOST, REFUSED

    refused = refusing(snapshot)
    others = tuple(name for name in snapshot.endpoints if name not in refused)
    if not refused or not others:
        return (REFUSED if refused else LOST) % ""
    return f"{REFUSED % (' at ' + ', '.join(refused))}; {LOST % (' at ' + ', '.join(others))}"


def use_payloads(journal: Journal, snapshot: Snapshot, keys: Sequence[MasterKey]) -> None:
    """Keep what calls say, where the configuration or its policy may want it. What was queued before is still written.

    Args:
        keys: Of the installation, the current one first: what is sealed is sealed with that.
    """
    if not keeps_payloads(snapshot):
        return
    from narthex.authority.envelope import Envelopes
    from narthex.telemetry.payloads.redacting import Redactor  # its patterns: only where they are needed
    from narthex.telemetry.payloads.writing import Payloads

    spec = snapshot.audit_payloads
    seals = Envelopes(keys, os.urandom) if spec.seal else None
    redactor = Redactor(spec.pointers, spec.detectors)
    if journal.payloads is None:
        journal.payloads = Payloads(journal.folder, seals=seals, redactor=redactor)
    else:
        journal.payloads.seals, journal.payloads.redactor = seals, redactor
