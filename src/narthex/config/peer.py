"""`tls` of a peer to what the gateway works with: its files are read here, so that a bad one is refused.

In: its settings, and the URL that it goes with. Out: a `PeerTls`; or a fault at the place it stands at.
Cases: `tests/config/test_peer.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from narthex.authority.files import FileProblem
from narthex.authority.peer import read_pair
from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading
from narthex.config.schema.peer import PeerTlsSettings
from narthex.types import PeerTls


def compile_peer(
    settings: PeerTlsSettings | None, here: KeyPath, url: str, reading: Reading, resolve: Callable[[str], Path]
) -> PeerTls | None:
    if settings is None:
        return None
    at = (*here, "tls")
    if not url.startswith("https://"):
        reading.fault(at, "tls: the URL is not https")
    elif (settings.cert is None) != (settings.key is None):
        reading.fault(at, f"tls: '{'key' if settings.key is None else 'cert'}' is missing")
    elif settings.cert is None and settings.ca is None:
        reading.fault(at, "tls: needs `cert` and `key`, or `ca`")
    else:
        files = {name: str(resolve(text)) for name in ("ca", "cert", "key") if (text := getattr(settings, name))}
        tls = PeerTls(**files)
        try:
            read_pair(tls, tls.ca or "system")
        except (FileProblem, OSError) as error:
            reading.fault(at, f"tls: {error}")
        return tls
    return None
