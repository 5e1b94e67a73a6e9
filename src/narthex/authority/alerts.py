"""Tells of limits that are used up to a share: a POST of JSON to whom the limit names, in the form of all our webhooks.

In: alerts, as calls settle. Out: signed requests, tried again for a day; what is given up is told again by the next
call beyond that share: somebody hears of it at least once, with the same `webhook-id` for the same share of the same
bucket. Cases: `tests/authority/test_alerts.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from narthex.authority.webhook import Message, Sender
from narthex.flow.limit.alerts import Alert
from narthex.flow.limit.money import show_amount
from narthex.telemetry.stamps import stamp
from narthex.types import Webhook

Make = Callable[[Webhook], Sender]


class AlertHooks:
    """The receivers of a configuration, one a webhook, whichever limits share it.

    Args:
        make: Makes a sender by the egress rules and secrets in force. now: Seconds since 1970.
        again: Told of an alert that was given up, so that it may be told again.
    """

    def __init__(self, make: Make, now: Callable[[], float], again: Callable[[Alert], None]) -> None:
        self._make, self._now, self._again = make, now, again
        self._senders: dict[Webhook, Sender] = {}
        self._of: Mapping[str, Webhook] = {}
        self._lost = 0

    @property
    def lost(self) -> int:
        """How many alerts were given up."""
        return self._lost + sum(one.lost for one in self._senders.values())

    def apply(self, of: Mapping[str, Webhook]) -> None:
        """Tell these, by limit, from now on. A receiver that stays goes on with what waits for it."""
        self._of, before = of, self._senders
        self._senders = {spec: before.get(spec) or self._make(spec) for spec in set(of.values())}
        for spec, one in before.items():
            if spec not in self._senders:
                self._lost += one.lost
                one.close()

    def tell(self, alert: Alert) -> None:
        """Queue one for whom its limit names; nobody, where it names nobody. Never waits, never raises."""
        spec = self._of.get(alert.limit)
        if spec is None:
            return
        body = body_of(alert, self._now())
        words = f"limit '{alert.limit}' is used to {alert.share}%"

        async def ready() -> bytes:
            return body

        def done(taken: bool) -> None:
            if not taken:
                self._again(alert)

        sender = self._senders[spec]
        if sender.room > 0:
            sender.send(Message(alert.id, self._now(), words, ready, done))
        else:
            self._lost += 1
            done(False)

    def close(self) -> None:
        for one in self._senders.values():
            one.close()


def body_of(alert: Alert, now: float) -> bytes:
    """The document that is sent: amounts of money as texts, because they are exact, all else as numbers."""
    amounts: dict[str, Any] = {"used": alert.used, "most": alert.most}
    if alert.currency:
        amounts = {key: show_amount(value) for key, value in amounts.items()} | {"currency": alert.currency}
    data = {
        "limit": alert.limit, "share": alert.share, "unit": alert.unit, **amounts, "soft": alert.soft,
        "per": dict(alert.per),
    }  # fmt: skip
    return msgspec.json.encode({"type": "limit.share_reached", "timestamp": stamp(now), "data": data})
