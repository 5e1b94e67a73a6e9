"""Where a setting may lead without TLS. Cases: `tests/config/test_identity.py`, `tests/config/test_opa.py`."""

from __future__ import annotations

from narthex.authority.addresses import Allowed
from narthex.config import values
from narthex.config.document import Path, Reading


def check_https(at: Path, url: str, allowed: Allowed, reading: Reading) -> None:
    """Fault an address that is neither https, nor on loopback, nor of a host that the operator has named."""
    if not url.startswith("http://"):
        return
    parts = values.split_url(url)
    host = values.check_host(parts.hostname or "", bracketed=parts.netloc.startswith("["))
    if not values.is_loopback(host) and not allowed.http(host, parts.port or 80):
        where = ".".join(at)
        reading.fault(at, f"{where}: https, except on loopback; `egress.allow_http` names hosts that may do without")
