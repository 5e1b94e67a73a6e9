"""Alerts of limits: who is told what, signed and tried again; and that one nobody took is told again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from msgspec.structs import replace

from narthex.authority.alerts import AlertHooks, body_of
from narthex.authority.fetch import Fetcher
from narthex.authority.webhook import TRIES, Sender
from narthex.flow.limit.alerts import Alert
from narthex.types import Webhook
from tests.authority.test_webhook import SECRET, Receiver, fill, run

ALERT = Alert("id-1", "spend", 80, 4_000_000, 5_000_000, "money", (("tenant", "acme"), ("team", "pay")), b"k", "USD")


def hooks(fetcher: Fetcher, again: list[Alert]) -> AlertHooks:
    async def sleep(seconds: float) -> None:
        pass

    def make(spec: Webhook) -> Sender:
        means: dict[str, Any] = {"now": lambda: 1000.0, "chance": lambda: 0.5, "sleep": sleep}
        return Sender(spec, fetch=fetcher.fetch, fill=fill, **means)

    return AlertHooks(make, lambda: 1000.0, again.append)


def test_whom_the_limit_names_is_told_and_nobody_else() -> None:
    async def case(fetcher: Fetcher) -> None:
        async with Receiver(500) as one, Receiver() as other:
            told = hooks(fetcher, [])
            told.apply({"spend": Webhook(one.url, SECRET), "calls": Webhook(other.url), "more": Webhook(other.url)})
            told.tell(ALERT)
            told.tell(replace(ALERT, limit="nobody's"))
            await one.until(2)
            (first, body), (second, _) = one.got
            assert first["webhook-id"] == second["webhook-id"] == "id-1"
            assert first["webhook-signature"].startswith("v1,")
            assert json.loads(body) == {
                "type": "limit.share_reached",
                "timestamp": "1970-01-01T00:16:40.000000Z",
                "data": {
                    "limit": "spend", "share": 80, "unit": "money", "used": "4.00", "most": "5.00", "currency": "USD",
                    "soft": False, "per": {"tenant": "acme", "team": "pay"},
                },
            }  # fmt: skip
            assert other.got == [] and told.lost == 0
            told.close()

    run(case)


def test_what_nobody_took_is_told_again_and_a_reload_keeps_what_waits() -> None:
    async def case(fetcher: Fetcher) -> None:
        again: list[Alert] = []
        async with Receiver(*[400] * TRIES) as one:
            told = hooks(fetcher, again)
            told.apply({"spend": Webhook(one.url)})
            told.tell(ALERT)
            await one.until(1)
            told.apply({"spend": Webhook(one.url), "calls": Webhook(one.url)})
            async with asyncio.timeout(60):
                while not again:
                    await asyncio.sleep(0.001)
            assert again == [ALERT] and told.lost == 1
            told.apply({})
            told.tell(ALERT)
            assert told.lost == 1 and len(one.got) == TRIES

    run(case)


def test_what_is_no_money_is_told_in_numbers() -> None:
    body = json.loads(body_of(replace(ALERT, unit="calls", currency="", used=4, most=5, soft=True), 1.0))
    assert body["data"]["used"] == 4 and "currency" not in body["data"] and body["data"]["soft"]
