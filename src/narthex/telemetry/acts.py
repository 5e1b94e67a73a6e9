"""The record of what was done with the gateway and its records, beside those of calls: a line of JSON each.

In: what happened, who did it, its particulars. Out: a line, made off the path. No secret and no payload is in it. The
names of the members are a contract, as in `record`. Cases: `tests/telemetry/test_acts.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from narthex import __version__
from narthex.telemetry.record import FORM
from narthex.telemetry.stamps import stamp

Event = Literal["erase", "hold", "retention", "config", "signin", "command", "recount"]
"""`erase`: payloads were erased. `hold`: a legal hold was placed or released. `retention`: what was old was removed.
`config`: another configuration is in force, or was refused. `signin`: somebody proved who they are, or could not.
`command`: something was done at the terminal that changes what is kept: keys, secrets, approvals.
`recount`: the tokens of a call were counted exactly, and were other ones."""
_encode = msgspec.json.Encoder().encode


class ActEntry(msgspec.Struct):
    """What is handed to the journal. `particulars` are members of the record."""

    event: Event
    particulars: Mapping[str, Any]
    at: float = 0.0
    """Set by the journal, as what follows."""
    seq: int = 0
    done: Callable[[str], None] | None = None
    """Nobody waits for it."""

    def line(self, id_: str) -> bytes:
        """The record, an object of JSON without line ends."""
        return line_of_act(self.event, self.particulars, self.at, id_)


def line_of_act(event: Event, particulars: Mapping[str, Any], at: float, id_: str) -> bytes:
    """The same of what nobody queued."""
    head = {"v": FORM, "id": id_, "time": stamp(at), "event": event}
    return _encode({**head, **particulars, "gateway": __version__})
