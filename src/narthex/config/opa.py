"""`policy.opa` to what the gateway works with.

In: its settings. Out: an `OpaSpec`; or a fault at the place it stands at. Cases: `tests/config/test_opa.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from narthex.authority.addresses import Allowed
from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading
from narthex.config.peer import compile_peer
from narthex.config.schema.opa import OpaSettings
from narthex.config.urls import check_https
from narthex.types import OpaSpec

HERE: KeyPath = ("policy", "opa")


def compile_opa(
    settings: OpaSettings, allowed: Allowed, reading: Reading, resolve: Callable[[str], Path]
) -> OpaSpec | None:
    """None where something is missing, which `reading` then says."""
    if settings.url is None:
        reading.fault(HERE, "opa: 'url' is missing: where the agent serves its API")
        return None
    check_https((*HERE, "url"), settings.url, allowed, reading)
    reading.notice(
        (*HERE, "url"),
        "opa: the agent's policy is not looked at here: what is wrong with it shows at the first call, which is then"
        " denied. `narthex doctor` asks whether the agent answers, `narthex policy test` what it decides",
    )
    return OpaSpec(
        url=settings.url.rstrip("/"),
        path=settings.path,
        batch=settings.batch or "",
        deadline_s=settings.deadline,
        list_deadline_s=settings.list_deadline,
        on_error=settings.on_error,
        arguments=settings.arguments,
        visible_s=settings.visible_for,
        visible_by=settings.visible_by,
        token=settings.token.text if settings.token is not None else None,
        tls=compile_peer(settings.tls, HERE, settings.url, reading, resolve),
        max_in_flight=settings.max_in_flight,
    )
