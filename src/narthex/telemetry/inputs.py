"""What a decision was taken on, as its record keeps it: the input document, its arguments as they came or their digest.

In: the check of a call and the call. Out: the document; made off the path. Cases: `tests/telemetry/test_inputs.py`.
Source: `docs/reference/records.md`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.policy.check import Check
from narthex.flow.policy.document import Document
from narthex.types import Call

MOST_ARGUMENTS = 64 * 1024
"""Bytes of arguments that a record keeps."""


def input_of(check: Check, call: Call, *, full: bool) -> dict[str, Any] | None:
    """The input document; None where no name has led to anything."""
    target, admission = check.target, check.admission
    if target is None:
        return None
    raw = check.params.get("arguments")
    size = len(raw) if raw is not None else 0
    document = Document(
        admission.principal, admission.endpoint, check.kind, target.server, target.name, check.at, call, None, size,
        check.address, admission.site, check.run,
    )  # fmt: skip
    found = document.input()
    if raw is not None:
        data = bytes(raw)
        found["mcp"]["arguments"] = one_line(data) if full and size <= MOST_ARGUMENTS else None
        found["mcp"]["arguments_digest"] = f"sha256:{sha256(data).hexdigest()}"
    return found


def one_line(raw: bytes) -> Raw | None:
    """`as_one_line`, to be put into a record."""
    found = as_one_line(raw)
    return Raw(found) if found is not None else None


def as_one_line(raw: bytes) -> bytes | None:
    """JSON as it came, without its line ends: in JSON they stand between values only, and are worth a space each. None
    for what is no text."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return None
    return raw.replace(b"\n", b" ").replace(b"\r", b" ")
