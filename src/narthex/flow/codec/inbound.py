"""One request of a client in one look: its `_meta`, whom it names, and whether header and body agree.

In: a decoded request, its revision, its headers. Out: `_meta` and the name, or the error to answer with.
The plain case is told by a few comparisons; whatever differs from it goes to the function that knows the rule, and
that one decides. Cases: `tests/flow/codec/test_inbound.py`; the rules: `revisions.py`, `headers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from narthex.flow.codec.headers import NAMED_BY, check_routing_headers, is_plain
from narthex.flow.codec.jsonrpc import Raw, RawMap, Request, read_string
from narthex.flow.codec.revisions import (
    META_CAPABILITIES,
    META_VERSION,
    METHODS,
    MODERN,
    check_method,
    check_modern_meta,
    read_meta,
)
from narthex.types import Era

_NAMED_BY: Final = {**NAMED_BY, "skills/get": "uri", "resources/directory/read": "uri"}
"""The last two say it in the body alone: their extension knows no header."""
_VERSION: Final = {version: Raw(f'"{version}"'.encode()) for version in MODERN}
_NO_CAPABILITIES: Final = Raw(b"{}")
_MOST_KEPT: Final = 4096
_LONGEST_KEPT: Final = 256
_plain: Final[dict[str, bytes]] = {}
"""Names that are their own header values, as those: no look at their characters is needed again."""
_UNKNOWN: Final = b"\n"  # says no header


def read_params(
    request: Request, version: str, era: Era, headers: Mapping[bytes, bytes], repeated: frozenset[bytes]
) -> tuple[RawMap, str]:
    """`_meta` decoded one level, and what the request names: a shown name, a URI, or nothing.

    Raises:
        MethodNotFound, InvalidParams, HeaderMismatch, ParseError: as `check_method`, `read_meta`, `read_string`,
            `check_modern_meta` and `check_routing_headers` say.
    """
    method, params = request.method, request.params
    meta = read_meta(params) if "_meta" in params else {}
    name = read_string(params, _NAMED_BY[method]) if method in _NAMED_BY else ""
    if era == "modern":
        if meta.get(META_VERSION) != _VERSION[version] or meta.get(META_CAPABILITIES) != _NO_CAPABILITIES:
            check_modern_meta(meta, version)
        if (
            repeated
            or headers.get(b"mcp-method") != method.encode()
            or (method in NAMED_BY and headers.get(b"mcp-name") != _plain.get(name, _UNKNOWN))
        ):
            check_routing_headers(headers, repeated, method, name if method in NAMED_BY else None)
            _keep(name)
    if method not in METHODS[era]:
        check_method(method, era)
    return meta, name


def _keep(name: str) -> None:
    """A client invents URIs, and what it wants with them: so many are kept, and none that is long."""
    if 0 < len(name) <= _LONGEST_KEPT and name not in _plain and is_plain(name):
        if len(_plain) >= _MOST_KEPT:
            _plain.clear()
        _plain[name] = name.encode()
