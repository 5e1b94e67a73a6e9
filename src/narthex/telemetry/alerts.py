"""The record of a limit that was used up to a share that somebody is to hear of: a line of JSON, beside the calls'.

In: an alert. Out: a line, made off the path. The names of the members are a contract, as in `record`.
Cases: `tests/telemetry/test_alerts.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from narthex import __version__
from narthex.flow.limit.alerts import Alert
from narthex.telemetry.record import FORM
from narthex.telemetry.stamps import stamp

_encode = msgspec.json.Encoder().encode


class AlertEntry(msgspec.Struct):
    """What is handed to the journal."""

    alert: Alert
    config: str
    at: float = 0.0
    """Set by the journal, as what follows."""
    seq: int = 0
    done: Callable[[str], None] | None = None
    """Nobody waits for it."""

    def line(self, id_: str) -> bytes:
        """The record, an object of JSON without line ends."""
        one = self.alert
        record = AlertRecord(
            v=FORM,
            id=id_,
            time=stamp(self.at),
            event="alert",
            limit=one.limit,
            share=one.share,
            used=one.used,
            most=one.most,
            unit=one.unit,
            per=dict(one.per),
            config=self.config,
            gateway=__version__,
            tenant=dict(one.per).get("tenant", ""),
            currency=one.currency,
            soft=one.soft,
        )
        return _encode(record)


class AlertRecord(msgspec.Struct, omit_defaults=True):
    """One line. `used` and `most` of money are millionths of `currency`; `per` is what the bucket is for."""

    v: int
    id: str
    time: str
    event: str
    limit: str
    share: int
    used: int
    most: int
    unit: str
    per: dict[str, str]
    config: str
    gateway: str
    tenant: str = ""
    currency: str = ""
    soft: bool = False
