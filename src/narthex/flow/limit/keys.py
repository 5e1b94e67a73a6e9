"""Which bucket of a limit a call counts in: its key, made of what the limit is per.

In: the words of `per` (`principal`, `tool`, `arg:/account/id` …), who calls, what is called. Out: a digest of 15 bytes,
and the same for people. Every key holds the tenant, but for `global` (design §4). Digests, because a million buckets
are to fit into memory; 120 bits, because two callers must not share one.
Cases: `tests/flow/limit/test_keys.py`.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import product
from typing import Any

import msgspec

from narthex.types import Principal

SIZE = 15
"""Bytes: an object of 48 in memory, where 16 would take 64."""
MOST_VALUES = 64
"""Buckets of one limit that one call counts in, by roles, groups and claims; of more the first count."""
_encode = msgspec.json.Encoder(order="deterministic").encode

Shown = tuple[tuple[str, str], ...]
"""What a bucket is for, for people: (word of `per`, value)."""


class Subject(msgspec.Struct, frozen=True):
    """What is known of a call before its arguments are: whose it is, and what is called by its own name."""

    principal: Principal
    endpoint: str
    server: str
    name: str
    team: str = ""
    project: str = ""


def digest(parts: object) -> bytes:
    """A key of parts that JSON can say."""
    return blake2b(_encode(parts), digest_size=SIZE).digest()


def values_of(word: str, subject: Subject) -> tuple[Any, ...]:
    """What a word of `per` stands for in a call: one value, or several of roles, groups, claims; none: `(None,)`."""
    principal = subject.principal
    if word == "principal":
        return ((principal.issuer, principal.subject, principal.client),)
    if word == "subject":
        return ((principal.issuer, principal.subject),)
    if word == "agent":
        return (principal.client,)
    if word == "role":
        return tuple(sorted(principal.roles)) or (None,)
    if word == "group":
        return tuple(sorted(principal.groups)) or (None,)
    if word.startswith("claim:"):
        return dict(principal.claims).get(word[6:]) or (None,)
    if word == "team":
        return (subject.team or None,)
    if word == "project":
        return (subject.project or None,)
    if word == "endpoint":
        return (subject.endpoint,)
    if word == "server":
        return (subject.server,)
    if word == "tool":
        return ((subject.server, subject.name),)
    return (None,)  # tenant, global: said by what every key begins with


def keys_of(per: tuple[str, ...], subject: Subject) -> list[tuple[bytes, Shown]]:
    """The buckets that a call counts in, but for what its arguments say: each as digest and for people."""
    scope = "" if "global" in per else subject.principal.tenant
    words = [word for word in per if word not in ("global", "tenant") and not word.startswith("arg:")]
    found: list[tuple[bytes, Shown]] = []
    for values in product(*(values_of(word, subject) for word in words)):
        if len(found) == MOST_VALUES:
            break
        shown = (("tenant", scope),) if scope else ()
        found.append((digest([scope, *values]), (*shown, *zip(words, map(_show, values), strict=True))))
    return found


def with_arguments(key: bytes, per: tuple[str, ...], arguments: Any) -> bytes:
    """The bucket of a key for these decoded arguments. What is missing is a value of its own: it counts together."""
    said = [plain(at_pointer(arguments, word[4:])) for word in per if word.startswith("arg:")]
    return digest([key.hex(), *said])


def plain(value: Any) -> str | None:
    """One text for what a server may take for the same: 1, 1.0 and "1" count together."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (bool, int, float)):
        return str(value).lower()
    try:
        return _encode(value).decode()
    except OverflowError:  # an integer beyond 64 bits somewhere in it
        return repr(value)


def at_pointer(value: Any, pointer: str) -> Any:
    """The value at a JSON pointer (RFC 6901), None where there is none."""
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 9:
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value


def _show(value: Any) -> str:
    if value is None:
        return "-"
    return " ".join(value) if isinstance(value, tuple) else str(value)
