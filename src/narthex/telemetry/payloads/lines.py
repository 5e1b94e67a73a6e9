"""A payload in its file: a line of JSON, apart from the chain of records, which has a salted digest of it.

In: what is kept of a task, of arguments, of a result or an error. Out: a line, and back; bytes from a file are trusted
in nothing. The salt stands in the line and nowhere else: once it is gone, nobody can tell what it was, or guess it.
An erased payload leaves a line of the same length, which begins as the one before it, so that a crash in the middle
of it leaves a line that still says whose it was. Cases: `tests/telemetry/payloads/test_lines.py`; fuzz target
`payload`. Reference: `docs/reference/records.md`, "Payloads".
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Literal, Protocol

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON

FORM = 1
PAYLOADS = "payloads-"
SALT = 16
"""Bytes of chance in a digest."""
Part = Literal["task", "arguments", "result", "error"]
Kept = Literal["full", "redacted"]


class Line(msgspec.Struct, omit_defaults=True):
    """One payload. `record` is the id of the record that has its digest, `subject` and the rest whose call it was,
    `group` how long it stays; `body` is JSON in one line, `sealed` the same sealed for the disk (base64)."""

    v: int
    record: str
    part: Part
    time: str = ""
    tenant: str = ""
    issuer: str = ""
    subject: str = ""
    client: str = ""
    group: str = ""
    salt: str = ""
    kept: Kept = "redacted"
    redacted: tuple[str, ...] = ()
    body: msgspec.Raw = msgspec.Raw()
    sealed: str = ""
    erased: bool = False


class Note(msgspec.Struct, omit_defaults=True):
    """What a record says of one payload: `digest` is `sha256:` and hexadecimal digits, over the salt and the body;
    `file` and `at` where its line began when it was written. `kept` `none`: it is not there, for the `reason`.
    `record`: of the record that it belongs to, where that is not the one that says so."""

    kept: Literal["full", "redacted", "none"]
    digest: str = ""
    size: int = 0
    redacted: tuple[str, ...] = ()
    file: str = ""
    at: int = 0
    reason: str = ""
    record: str = ""


class Seals(Protocol):
    """Seals for the disk: `authority.envelope.Envelopes`."""

    def seal(self, value: str, tenant: str, name: str) -> bytes: ...

    def open(self, sealed: bytes, tenant: str, name: str) -> str: ...


class BadLine(ValueError):
    """It is no line of a file of payloads."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode
_START = re.compile(rb'\{"v":1,"record":"([0-9a-f-]{36})","part":"(task|arguments|result|error)"')


def digest_of(salt: bytes, body: bytes) -> str:
    """What the chain has of a payload."""
    return f"sha256:{sha256(salt + body).hexdigest()}"


def written(line: Line, body: bytes, seals: Seals | None) -> bytes:
    """A line with its line end. `body` is one line of JSON."""
    if seals is None:
        line.body = msgspec.Raw(body)
    else:
        line.sealed = b64encode(seals.seal(body.decode(), line.tenant, name_of(line))).decode()
    return _encode(line) + b"\n"


def read(data: bytes) -> Line:
    """A line of a file. Raises BadLine."""
    try:
        found = _decode(data)
    except BAD_JSON:
        raise BadLine from None
    if found.v != FORM or not data.endswith(b"\n"):
        raise BadLine
    return found


def body_of(line: Line, seals: Seals | None) -> bytes | None:
    """The JSON that was kept; None where it is erased, or sealed and nobody is here to open it.

    Raises:
        BadLine: What is sealed cannot be read. And what `seals.open` raises.
    """
    if line.erased:
        return None
    if not line.sealed:
        return bytes(line.body)
    if seals is None:
        return None
    try:
        sealed = b64decode(line.sealed, validate=True)
    except ValueError:
        raise BadLine from None
    return seals.open(sealed, line.tenant, name_of(line)).encode()


def whose(data: bytes) -> tuple[str, str] | None:
    """Record and part, as the first bytes of a line say them, also of one that a crash has left half erased."""
    match = _START.match(data)
    return (match[1].decode(), match[2].decode()) if match is not None else None


def erased(data: bytes) -> bytes:
    """What is written over a line: as long as it, and without anything but its record and part.

    Raises:
        BadLine: It does not begin as a line does.
    """
    match = _START.match(data)
    if match is None:
        raise BadLine
    return (match[0] + b',"erased":true}').ljust(len(data) - 1) + b"\n"


def name_of(line: Line) -> str:
    """The name under which a body is sealed: it opens as that of this record and part only."""
    return f"payload/{line.record}/{line.part}"
