"""`shared` to what the gateway works with.

In: its settings. Out: a `SharedSpec`, None where nothing is shared; or a fault at the place it stands at.
Cases: `tests/config/test_shared.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from narthex.config.document import Reading
from narthex.config.schema.shared import SharedSettings
from narthex.types import SharedSpec


def compile_shared(
    settings: SharedSettings | None, reading: Reading, resolve: Callable[[str], Path]
) -> SharedSpec | None:
    if settings is None:
        return None
    at, place = ("shared",), settings.url
    if place is None:
        if (*at, "url") not in reading.marks:
            reading.fault(at, "shared: 'url' is missing: where the server is, such as valkey://counters.internal:6379")
        return None
    files: dict[str, Any] = {
        name: str(resolve(text)) for name in ("ca", "cert", "key") if (text := getattr(settings, name))
    }
    for name, file in files.items():
        if not place.tls:
            reading.fault((*at, name), f"{name}: the URL says no TLS; write valkeys:// or rediss://")
        elif not Path(file).is_file():
            reading.fault((*at, name), f"{name}: no file {file!r}")
    if (settings.cert is None) != (settings.key is None):
        reading.fault(at, f"shared: '{'key' if settings.key is None else 'cert'}' is missing")
    if place.username and settings.password is None:
        reading.fault(at, f"shared: 'password' is missing, of the user '{place.username}'")
    loopback = place.host in ("localhost", "127.0.0.1", "::1")
    if settings.password is not None and not place.tls and not loopback:
        reading.warn(
            (*at, "url"), "shared: the password goes over the network in the clear; write valkeys:// or rediss://"
        )
    return SharedSpec(
        host=place.host,
        port=place.port,
        tls=place.tls,
        database=place.database,
        username=place.username,
        password=settings.password.text if settings.password is not None else None,
        prefix=settings.prefix,
        timeout_s=settings.timeout,
        when_down=settings.when_down,  # type: ignore[arg-type]  # one of the three, as `Choice` says
        processes=settings.processes or 0,
        **files,
    )
