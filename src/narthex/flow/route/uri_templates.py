"""Does a URI come from a server's template? And URIs that carry their server's name.

In: URI templates and URIs; both come from outside and are hostile. Out: yes or no, in time that grows with the length
of the URI times that of the template, dozens of characters in one step. Source: RFC 6570; RFC 3986 §3; design §4.
Cases: `tests/flow/route/test_uri_templates.py`.

Only whether a URI fits is asked, not the variables' values, so a match takes what some values could expand to, and of
operators that stand in the query it does not mind the order. As in the official SDKs a `{var}` is not empty.

All ways to match are followed at once: the places where a match may stand are the bits of one integer (bit i: before
byte i), so nothing is ever tried twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec

MAX_TEMPLATE = 1024
MAX_URI = 4096
"""Characters; a longer one never matches."""
MAX_EXPRESSIONS = 16
MAX_VARIABLES = 64

_NAME = r"(?:[A-Za-z0-9_.-]|%[0-9A-Fa-f]{2})+(?:\*|:[1-9][0-9]{0,3})?"  # '-' is not in RFC 6570, but in use
_expression = re.compile(rf"\{{([+#./;?&]?)({_NAME}(?:,{_NAME})*)\}}").match
_prefixed = re.compile(r"narthex\+([a-z0-9-]{1,24})\+(.+)", re.DOTALL | re.IGNORECASE | re.ASCII).fullmatch
_scheme = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:").match
_authority = re.compile(r"//([^/?#]*)").match


class _Span(msgspec.Struct, frozen=True):
    """An expression: `lead`, then bytes not in `stops`. Not `optional`: it has at least one byte."""

    lead: bytes
    stops: bytes
    optional: bool = True


_SPANS = {
    "": _Span(b"", b"/?#", optional=False),
    "+": _Span(b"", b"", optional=False),
    "#": _Span(b"#", b""),
    ".": _Span(b".", b"/?#"),
    "/": _Span(b"/", b"/?#"),
    ";": _Span(b";", b"/?#"),
    "?": _Span(b"?", b"#"),
    "&": _Span(b"&", b"#"),
}
_PATH = _Span(b"/", b"?#")
"""`{/a,b}` and `{/a*}`: several segments of a path."""

Part = bytes | _Span


class Template:
    """A URI template of a server. One that is no template (RFC 6570), or too large, matches nothing; see `problem`."""

    __slots__ = ("_parts", "_prefix", "problem", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.problem: str | None = None
        self._parts: Sequence[Part] = ()
        try:
            self._parts = _parse(text)
        except ValueError as error:
            self.problem = str(error)
        self._prefix = ""
        if self._parts and isinstance(self._parts[0], bytes):
            self._prefix = self._parts[0].decode("utf-8", "surrogatepass")
            self._parts = self._parts[1:]

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    def matches(self, uri: str) -> bool:
        """Can some values of the variables make this URI?"""
        if not uri.startswith(self._prefix) or self.problem is not None or len(uri) > MAX_URI:
            return False
        rest = uri[len(self._prefix) :].encode("utf-8", "surrogatepass")
        places = _Places(rest)
        reach = 1
        for part in self._parts:
            reach = _after_text(reach, places, part) if isinstance(part, bytes) else _after_span(reach, places, part)
            if not reach:
                return False
        return bool(reach >> len(rest) & 1)


def _parse(text: str) -> tuple[Part, ...]:
    if len(text) > MAX_TEMPLATE:
        raise ValueError(f"longer than {MAX_TEMPLATE} characters")
    parts: list[Part] = []
    at, variables, expressions = 0, 0, 0
    while at < len(text):
        opening = text.find("{", at)
        literal = text[at:] if opening < 0 else text[at:opening]
        if "}" in literal:
            raise ValueError("a '}' without its '{'")
        if literal:
            parts.append(literal.encode("utf-8", "surrogatepass"))
        if opening < 0:
            break
        match = _expression(text, opening)
        if match is None:
            raise ValueError("not an expression of RFC 6570")
        expressions += 1
        names = match[2].split(",")
        variables += len(names)
        several = len(names) > 1 or names[0].endswith("*")
        parts.append(_PATH if match[1] == "/" and several else _SPANS[match[1]])
        at = match.end()
    if expressions > MAX_EXPRESSIONS or variables > MAX_VARIABLES:
        raise ValueError(f"more than {MAX_EXPRESSIONS} expressions or {MAX_VARIABLES} variables")
    return tuple(parts)


class _Places:
    """Where in `data` which bytes stand, as bits."""

    __slots__ = ("_found", "_reversed")

    def __init__(self, data: bytes) -> None:
        self._reversed = data[::-1]  # the first digit of a number is its highest bit
        self._found: dict[tuple[bytes, bool], int] = {}

    def of(self, chars: bytes, *, others: bool = False) -> int:
        """The places of the bytes in `chars`, or of all others."""
        found = self._found.get((chars, others))
        if found is None:
            digits = self._reversed.translate(_digits(chars, others))
            found = self._found[chars, others] = int(digits, 2) if digits else 0
        return found


@lru_cache(maxsize=512)
def _digits(chars: bytes, others: bool) -> bytes:
    digits = bytearray(b"1" if others else b"0") * 256
    for char in chars:
        digits[char] ^= 1  # the digits differ in their lowest bit
    return bytes(digits)


def _after_text(reach: int, places: _Places, text: bytes) -> int:
    for at in range(len(text)):
        reach = (reach & places.of(text[at : at + 1])) << 1
        if not reach:
            break
    return reach


def _after_span(reach: int, places: _Places, span: _Span) -> int:
    fits = places.of(span.stops, others=True)
    if not span.optional:
        return _flood((reach & fits) << 1, fits)
    return reach | _flood((reach & places.of(span.lead)) << 1, fits)


def _flood(starts: int, fits: int) -> int:
    """Every place from a start to the end of the run of `fits` that it stands in.

    The addition carries from the lowest start of a run to just behind the run, and the bits it changed are the answer.
    """
    return ((fits + (starts & fits)) ^ fits) | starts


def scheme_authority(uri: str) -> str:
    """`scheme://authority` in lower case; `scheme:` where there is no authority or, in a template, no fixed one.

    Empty for what is no URI.
    """
    scheme = _scheme(uri)
    if scheme is None:
        return ""
    authority = _authority(uri, scheme.end())
    if authority is None or "{" in authority[0]:
        return scheme[0].lower()
    return (scheme[0] + authority[0]).lower()


def prefix_uri(server: str, uri: str) -> str:
    """A URI (or template) that carries its server: `narthex+<server>+<uri>`.

    It only makes the scheme longer (RFC 3986 allows `+` there), so paths, queries and expressions stay what they are.
    """
    return f"narthex+{server}+{uri}"


def unprefix_uri(uri: str) -> tuple[str, str] | None:
    """The server and its own URI; None where the URI carries no server."""
    match = _prefixed(uri)
    return (match[1].lower(), match[2]) if match else None
