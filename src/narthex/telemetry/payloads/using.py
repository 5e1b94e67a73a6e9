"""A journal keeps payloads as a configuration says, from its start on or from a reload on.

In: a journal, the configuration, the master keys. Cases: `tests/e2e/test_payloads.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from narthex.telemetry.payloads.rules import keeps_payloads

if TYPE_CHECKING:
    from narthex.flow.codec.seal import MasterKey
    from narthex.telemetry.journal import Journal
    from narthex.types import Snapshot


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
