"""Who is told of something by a POST of ours: the map that approvals and limits have in common."""

from __future__ import annotations

from typing import Annotated

import msgspec

from narthex.config.expand import Expanded
from narthex.config.kinds import SECRET_TEXT, URL, Setting


class WebhookSettings(msgspec.Struct, frozen=True):
    """Who is told: a POST of JSON each time, in the form of Standard Webhooks."""

    url: Annotated[
        Expanded | None, Setting(URL, "Where to. Without TLS on loopback only.", default="required", secret=True)
    ] = None
    secret: Annotated[
        Expanded | None,
        Setting(
            SECRET_TEXT,
            "What the header `webhook-signature` is made with (HMAC-SHA256): `whsec_` and base64, or any text.",
            default="nothing is signed",
            secret=True,
        ),
    ] = None
