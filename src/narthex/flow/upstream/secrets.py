"""What a server's configuration keeps secret, cut out of what the server says. Pure.

Cases: `tests/admin/test_server.py`, `tests/security/test_secrets.py`.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from narthex.types import HttpTarget, ServerSpec

HIDDEN = "[hidden]"
_SHORTEST_SECRET = 6


def secrets_of(spec: ServerSpec) -> tuple[str, ...]:
    """Values that must not be shown, the longest first: a part of one may be another."""
    target = spec.target
    if isinstance(target, HttpTarget):
        parts = urlsplit(target.url)
        found = [value for _, value in target.headers] + [value for _, value in parse_qsl(parts.query)]
        found += [parts.query, parts.password or ""]
        found += [word for _, value in target.headers for word in value.split()]
    else:
        found = [value for _, value in target.env] + list(target.args)
        found += [argument.partition("=")[2] for argument in target.args]
    return tuple(sorted({one for one in found if len(one) >= _SHORTEST_SECRET}, key=len, reverse=True))


def hide(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text
