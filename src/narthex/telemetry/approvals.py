"""The record of a held call's steps: asked, approved, denied, used, expired; a line of JSON each, beside the calls'.

In: an approval and one of its steps. Out: a line, made off the path. No argument is in it. The names of the members
are a contract, as in `record`. Cases: `tests/telemetry/test_approvals.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from narthex import __version__
from narthex.flow.policy.approvals.approval import Approval, Step
from narthex.telemetry.record import FORM
from narthex.telemetry.stamps import stamp

LAST = 0.999999
"""Steps are kept with the second that they happened in. Within it the record has the time when the journal was told, so
that it stands in order with those of the calls; where that was later, the last moment of that second."""
_encode = msgspec.json.Encoder().encode


class ApprovalEntry(msgspec.Struct):
    """What is handed to the journal: a held call as it was after a step of it."""

    approval: Approval
    step: Step
    at: float = 0.0
    """Set by the journal, as what follows."""
    seq: int = 0
    done: Callable[[str], None] | None = None
    """Nobody waits for it."""

    def line(self, id_: str) -> bytes:
        """The record of the step, an object of JSON without line ends."""
        one, (step, at, by) = self.approval, self.step
        record = ApprovalRecord(
            v=FORM,
            id=id_,
            time=stamp(min(max(self.at, at), at + LAST)),
            event="approval",
            step=step,
            approval=one.id,
            tenant=one.tenant,
            principal=Caller(one.issuer, one.subject, one.client, one.actors),
            endpoint=one.endpoint,
            server=one.server,
            kind=one.kind,
            name=one.name,
            arguments=f"sha256:{one.digest.hex()}",
            rule=one.rule,
            ends=stamp(float(one.ends_at)),
            config=one.config,
            gateway=__version__,
            by=by,
        )
        return _encode(record)


class Caller(msgspec.Struct, omit_defaults=True):
    """Whose call it is."""

    issuer: str
    subject: str
    client: str = ""
    actors: tuple[str, ...] = ()


class ApprovalRecord(msgspec.Struct, omit_defaults=True):
    """One line. `arguments` is the digest of all that the approval is for; `by` who approved or denied it."""

    v: int
    id: str
    time: str
    event: str
    step: str
    approval: str
    tenant: str
    principal: Caller
    endpoint: str
    server: str
    kind: str
    name: str
    arguments: str
    rule: str
    ends: str
    config: str
    gateway: str
    by: str = ""
