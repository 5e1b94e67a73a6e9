"""What is asked of the shared counters, as bytes, and what they say, as numbers.

In: limits, buckets, amounts; the bytes of an answer. Out: one command for all calls of a moment (`script.lua` says
what its numbers mean); numbers whose form was looked at. Whatever the server sends, nothing worse than `Garbled` comes
of it. Cases: `tests/flow/limit/shared/test_wire.py`; the script beside the limits in memory: `test_script.py` there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from math import gcd
from typing import Any, Final

import msgspec

from narthex.flow.limit.algorithms import Concurrent, Periodic, Sliding, TokenBucket
from narthex.flow.limit.keys import SIZE
from narthex.flow.limit.limiter import Limit

SCRIPT: Final = (files(__package__) / "script.lua").read_bytes()
SHA: Final = sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()

LEASE_US: Final = 10_000_000
"""So long a gateway that says nothing is taken for alive."""
CHUNKS: Final = 64
"""Steps in which a server that has forgotten everything is told what lasts."""
_LARGE: Final = 1 << 36
_SMALL: Final = 1 << 20
_EXACT: Final = 1 << 52
"""Whole numbers below can be added in a double, and nothing is rounded."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[int]).decode

Spec = list[Any]


class Garbled(Exception):
    """The server has said what no such server says."""


class Remote:
    """A limit as the script knows it: what its keys begin with, and its numbers, which change with the calendar."""

    __slots__ = ("_ends", "_spec", "before", "limit")

    def __init__(self, limit: Limit, prefix: bytes) -> None:
        self.limit: Final = limit
        head = prefix + limit.counter
        self.before: Final = b"$%d\r\n%b" % (len(head) + SIZE, head)
        """Of the bucket's key as it is sent, but for its last bytes: those of the key in memory."""
        self._spec: Spec = []
        self._ends = 0

    def spec(self, now: int) -> Spec:
        """Its numbers at a time of the server's, in microseconds since 1970."""
        if now >= self._ends:
            self._spec, self._ends = spec_of(self.limit, now)
        return self._spec


def spec_of(limit: Limit, now: int) -> tuple[Spec, int]:
    """The numbers of a limit, and when others must be made."""
    algorithm, rule = limit.algorithm, limit.rule
    spec: Spec = [0, algorithm.most, int(rule.soft or bool(rule.when_spent.lower)), list(rule.alerts)]
    if isinstance(algorithm, Sliding):
        spec[0] = 1
        return [*spec, algorithm.window, algorithm.slot], _EXACT
    if isinstance(algorithm, TokenBucket):
        spec[0] = 2
        return [*spec, *parts_of(algorithm, large=rule.unit not in ("calls", "concurrent"))], _EXACT
    if isinstance(algorithm, Periodic):
        spec[0] = 3
        start, end = algorithm.bounds(now)
        return [*spec, algorithm.bounds(start - 1)[0], start, end, algorithm.bounds(end)[1]], end
    assert isinstance(algorithm, Concurrent)
    spec[0] = 4
    return spec, _EXACT


def until_full(limit: Limit, lacks: int) -> int:
    """Microseconds until a token bucket is full again, of the parts that are lacking in it."""
    assert isinstance(limit.algorithm, TokenBucket)
    _, back, time = parts_of(limit.algorithm, large=limit.rule.unit not in ("calls", "concurrent"))
    return -(-lacks * time // back)


def parts_of(bucket: TokenBucket, *, large: bool) -> tuple[int, int, int]:
    """Into how many parts a unit of a token bucket is cut, and how many of them come back in a microsecond: a fraction.

    Where whole numbers are exact, that is a whole number of parts. Else parts are as small as a double allows, and what
    comes back is rounded down.
    """
    return _parts(bucket.rate, bucket.window, max(bucket.most, _LARGE if large else _SMALL))


@cache
def _parts(rate: int, window: int, most: int) -> tuple[int, int, int]:
    common, finest = gcd(rate, window), _EXACT // most
    rate, window = rate // common, window // common
    if window <= finest:
        return window, rate, 1
    return finest, finest * rate, window


class Request:
    """One command in the making: what several calls want, each bucket named once."""

    __slots__ = ("_names", "_now", "_of", "_specs", "_told", "ops")

    def __init__(self, now: int) -> None:
        self._now = now
        self._names: dict[bytes, int] = {}
        self._specs: list[Spec] = []
        self._told: dict[Remote, int] = {}
        self._of: list[int] = []
        self.ops: list[int] = []

    def __len__(self) -> int:
        """Buckets that are named."""
        return len(self._of)

    def bucket(self, remote: Remote, key: bytes) -> int:
        """The number of a bucket."""
        return self.named(remote.before + key, remote)

    def named(self, name: bytes, remote: Remote) -> int:
        """The same by its whole name."""
        number = self._names.get(name)
        if number is None:
            number = self._names[name] = len(self._names) + 1
            spec = self._told.get(remote)
            if spec is None:
                self._specs.append(remote.spec(self._now))
                spec = self._told[remote] = len(self._specs)
            self._of.append(spec)
        return number

    def command(self, hashes: tuple[bytes, bytes], who: Sequence[Any], chunk: int = 0) -> bytes:
        """As it is sent.

        Args:
            hashes: Keys of the ledgers and of the gateways that live. who: ledger, token, holder, count of requests.
        """
        ledger, token, *numbers = who
        # Texts, not bytes: the reader of the server's Lua does not know MessagePack's type for these.
        said = _encode([ledger.decode(), token.decode(), *numbers, LEASE_US, chunk, self._specs, self._of, self.ops])
        names = b"\r\n".join(self._names)
        count = len(self._of) + 2
        return b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n%b%b%b%b%b$%d\r\n%b\r\n" % (
            count + 4, SHA, bulk(b"%d" % count), bulk(hashes[0]), bulk(hashes[1]), names, b"\r\n" if names else b"",
            len(said), said,
        )  # fmt: skip


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


def command(*words: bytes) -> bytes:
    """Any other command."""
    return b"*%d\r\n%b" % (len(words), b"".join(map(bulk, words)))


class Numbers:
    """The results in an answer, taken one after the other. Raises Garbled where they are none, or end too early."""

    __slots__ = ("_at", "_numbers", "begun", "living", "now")

    def __init__(self, answer: object) -> None:
        if not isinstance(answer, bytes):
            raise Garbled(f"no numbers but {type(answer).__name__}")
        try:
            self._numbers = _decode(answer)
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise Garbled("no numbers") from None
        self._at = 3
        if len(self._numbers) < 3 or self._numbers[0] not in (0, 1) or not 0 < self._numbers[1] < _EXACT:
            raise Garbled("no head")
        self.begun = self._numbers[0] == 0
        """False: whoever asks must begin again; nothing was done."""
        self.now = self._numbers[1]
        self.living = self._numbers[2]

    def take(self, count: int) -> list[int]:
        """So many of them."""
        start, self._at = self._at, self._at + count
        if self._at > len(self._numbers):
            raise Garbled("too few numbers")
        return self._numbers[start : self._at]

    def end(self) -> None:
        """All have been taken."""
        if self._at != len(self._numbers):
            raise Garbled("too many numbers")
