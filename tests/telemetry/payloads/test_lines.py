"""A payload as a line: it comes back as it was, or says that it is erased; whatever else stands there is refused."""

from __future__ import annotations

import os

import msgspec
import pytest

from narthex.authority.envelope import EnvelopeError, Envelopes
from narthex.flow.codec.seal import MasterKey
from narthex.telemetry.payloads.lines import BadLine, Line, body_of, digest_of, erased, read, whose, written

ID = "019ac4b2-7f10-7000-8d3e-5a0f4be0c9d1"
OURS = MasterKey(bytes(range(32)))
SEALS = Envelopes([OURS], os.urandom)


def line(**more: object) -> Line:
    return msgspec.structs.replace(
        Line(1, ID, "arguments", tenant="t", subject="ada", group="default", salt="00" * 16, kept="full"), **more
    )


def test_it_comes_back() -> None:
    data = written(line(), b'{"a":1}', None)
    found = read(data)
    assert (found.record, found.part, found.subject, body_of(found, None)) == (ID, "arguments", "ada", b'{"a":1}')
    assert whose(data) == (ID, "arguments") and data.count(b"\n") == 1


def test_sealed_it_says_nothing_without_its_key_and_opens_in_its_place_only() -> None:
    data = written(line(), b'{"a":"secret"}', SEALS)
    assert b"secret" not in data
    found = read(data)
    assert body_of(found, SEALS) == b'{"a":"secret"}' and body_of(found, None) is None
    for other in (msgspec.structs.replace(found, record=ID[:-1] + "2"), msgspec.structs.replace(found, tenant="u")):
        with pytest.raises(EnvelopeError):
            body_of(other, SEALS)
    with pytest.raises(EnvelopeError):
        body_of(found, Envelopes([MasterKey(bytes(32))], os.urandom))


def test_erased_it_is_as_long_and_says_whose_it_was_at_every_moment() -> None:
    data = written(line(), b'{"a":"secret"}', None)
    gone = erased(data)
    assert len(gone) == len(data) and read(gone).erased and b"secret" not in gone and b"ada" not in gone
    assert body_of(read(gone), None) is None
    for cut in range(len(data)):  # a crash has written so many bytes of it
        half = gone[:cut] + data[cut:]
        assert whose(half) == (ID, "arguments") and erased(half) == gone


def test_a_digest_is_salted() -> None:
    assert digest_of(b"a", b"1") != digest_of(b"b", b"1")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"{}\n", b'{"v":2,"record":"","part":"result"}\n', written(line(), b"1", None)[:-1],
        written(line(), b"1", None).replace(b"arguments", b"whatever"),
    ],
)  # fmt: skip
def test_is_no_line(data: bytes) -> None:
    with pytest.raises(BadLine):
        read(data)
