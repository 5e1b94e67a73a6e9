"""Canonical names, which rules match, and shown names, which clients get.

In: a server's name, and the name it gives a tool, prompt or resource, which is hostile. Out: `<server>__<name>`, and
what an endpoint shows for it. Cases: `tests/flow/route/test_names.py`. Design §6.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Literal

SEPARATOR = "__"
HASH_DIGITS = 8
MIN_MAX_NAME = 24 + len(SEPARATOR) + HASH_DIGITS
"""The smallest `max_name` that holds the prefix of every server, and the digits that keep names apart."""

_legal = re.compile(r"[A-Za-z0-9_-]+").fullmatch
_illegal = re.compile(r"[^A-Za-z0-9_-]")
_prefix = re.compile(r"([a-z0-9-]{1,24})__.").match


def canonical(server: str, name: str) -> str:
    """The name that rules match, whatever an endpoint shows (design §3)."""
    return f"{server}{SEPARATOR}{name}"


def shown_name(server: str, name: str, *, naming: Literal["prefix", "none"], max_name: int) -> str:
    """The name that an endpoint shows for `name` of `server`; the same for the same input, always.

    A legal name that fits stays as it is. Another has its illegal characters replaced, is cut, and ends in 8 hex digits
    of the SHA-256 of its canonical name, so that two that were cut alike stay apart.

    Args:
        naming: "prefix" puts `<server>__` in front, which is never cut; "none" shows the name as the server gives it.
        max_name: Longest result in characters; less than `MIN_MAX_NAME` gives way to a long prefix and the digits.
    """
    prefix = server + SEPARATOR if naming == "prefix" else ""
    shown = prefix + name
    if len(shown) <= max_name and name and _legal(name):
        return shown
    digits = sha256(canonical(server, name).encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]
    room = max_name - len(prefix) - HASH_DIGITS - 1
    stem = _illegal.sub("_", name[: max(0, room)])
    return f"{prefix}{stem}_{digits}" if stem else prefix + digits


def split_prefix(shown: str) -> str | None:
    """The server that a name with a prefix belongs to; None where it has none. No server's name holds `__`."""
    match = _prefix(shown)
    return match[1] if match else None
