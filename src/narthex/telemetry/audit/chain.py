"""The chain of the journal: every line carries the hash of its own bytes and of all lines before it.

In: JSON objects, in the order in which they are written. Out: lines. A line is the object, its number and its hash as
the last two members: `…,"seq":7,"hash":"<64 hex digits>"}`. The hash is SHA-256 over the 32 bytes of the hash before
and the line's bytes up to `,"hash"`; before the first line stand 32 zero bytes.
Cases: `tests/telemetry/audit/test_chain.py`. Reference: `docs/reference/records.md`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

START: Final = bytes(32)
"""What stands before the first line of a chain."""
_HASH: Final = b',"hash":"'
SEQ: Final = b',"seq":'
_END: Final = b'"}\n'
_TAIL: Final = len(_HASH) + 64 + len(_END)
LONGEST: Final = 16 * 1024 * 1024
"""Bytes of a line; a longer one is no record."""


class Broken(ValueError):
    """A line is not the next of its chain. The text says why."""


class Chain:
    """The writing end. `name` is `<instance>/<slot>/<boot>`; `seq` and `head` are of the last line."""

    __slots__ = ("head", "name", "seq")

    def __init__(self, name: str, seq: int = 0, head: bytes = START) -> None:
        self.name: Final = name
        self.seq = seq
        self.head = head

    def seal(self, record: bytes) -> bytes:
        """`record`, a JSON object with at least one member, as the next line."""
        return self.link(b"".join((record[:-1], SEQ, str(self.seq + 1).encode())))

    def link(self, sealed: bytes) -> bytes:
        """The same of the bytes that its hash is of: up to its number, which is the next one."""
        self.seq += 1
        self.head = sha256(self.head + sealed).digest()
        return b"".join((sealed, _HASH, self.head.hex().encode(), _END))


def follow(line: bytes, seq: int, head: bytes) -> bytes:
    """The hash of a line that stands behind another one.

    Args:
        line: With its line end. seq, head: number and hash of the line before.
    Raises:
        Broken: It is not the next line: changed, or not that one.
    """
    sealed, tail = line[:-_TAIL], line[-_TAIL:]
    found = sha256(head + sealed)
    if tail != b"%b%b%b" % (_HASH, found.hexdigest().encode(), _END):
        raise Broken(_reason(line, seq))
    if not sealed.endswith(b"%b%d" % (SEQ, seq + 1)):
        raise Broken(f"its number is not {seq + 1}")
    return found.digest()


def _reason(line: bytes, seq: int) -> str:
    try:
        number, _ = place(line)
    except Broken as error:
        return str(error)
    if number > seq + 1:
        return f"records {seq + 1} to {number - 1} are missing before it" if number > seq + 2 else (
            f"record {seq + 1} is missing before it"
        )  # fmt: skip
    if number <= seq:
        return f"it is number {number}, and stands behind number {seq}"
    return "its hash is not that of its bytes and of the records before it"


def place(line: bytes) -> tuple[int, bytes]:
    """Number and hash as a line itself gives them, unproved. Raises Broken: it has none."""
    sealed, tail = line[:-_TAIL], line[-_TAIL:]
    digits = sealed.rpartition(SEQ)[2]
    if not (tail.startswith(_HASH) and tail.endswith(_END) and digits.isdigit() and len(digits) < 19):
        raise Broken("it is no line of a chain")
    try:
        return int(digits), bytes.fromhex(tail[len(_HASH) : -len(_END)].decode())
    except ValueError:
        raise Broken("it is no line of a chain") from None
