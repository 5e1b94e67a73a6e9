"""Whose key is this? The look-up, its bounds, and what somebody who guesses meets."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from narthex.authority import api_keys
from narthex.authority.api_keys import ISSUER, KeyTable, principal_of
from narthex.flow.identity.api_keys import ID_AT, NewKey, make_key
from narthex.store.port import ApiKey
from narthex.testing import FakeClock
from narthex.types import LOCAL

NEW = make_key(os.urandom)
TEXT = NEW.text.encode()


def row(new: NewKey = NEW, **fields: Any) -> ApiKey:
    return replace(ApiKey(new.id, "ci", new.digest, 100, "acme", ("reader",), ("tools:call",)), **fields)


def table(*rows: ApiKey, clock: FakeClock | None = None) -> KeyTable:
    made = KeyTable(clock or FakeClock(1000.0))
    made.load(rows)
    return made


def test_a_key_says_who_calls() -> None:
    found = table(row()).find(TEXT)
    assert found is not None
    assert found.key == ("acme", ISSUER, "ci", "ci")
    assert (found.roles, found.scopes, found.method, found.kind) == (
        ("reader",), frozenset({"tools:call"}), "api_key", "service",
    )  # fmt: skip
    assert (found.authenticated_at, found.expires_at) == (100.0, 0.0)


def test_a_key_named_local_is_not_the_local_principal() -> None:
    assert principal_of(row(name="local", tenant="default")).key != LOCAL.key


def test_a_rotated_key_proves_the_same_principal() -> None:
    new = make_key(os.urandom)
    known = table(row(), row(new))
    one, two = known.find(TEXT), known.find(new.text.encode())
    assert one is not None and two is not None and one.key == two.key


@pytest.mark.parametrize(
    "presented",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"nx_" + NEW.id.encode(), id="what everybody may see"),
        pytest.param(TEXT[:-1], id="cut"),
        pytest.param(TEXT + b"x", id="with a tail"),
        pytest.param(TEXT[:-6] + b"000000", id="another checksum"),
        pytest.param(b"xx_" + TEXT[3:], id="another prefix"),
        pytest.param(TEXT.swapcase(), id="the other case"),
        pytest.param(make_key(os.urandom).text.encode(), id="never made here"),
        pytest.param(TEXT[:12] + make_key(os.urandom).text.encode()[12:], id="a known id and another secret"),
        pytest.param(b"nx_" + b"0" * 1_000_000, id="huge"),
        pytest.param(bytes(32), id="what nobody's digest is"),
        pytest.param(NEW.digest, id="the digest itself"),
        pytest.param(b"\xff\x00", id="bytes that are no text"),
    ],
)
def test_what_is_no_key_of_ours(presented: bytes) -> None:
    assert table(row()).find(presented) is None


@given(st.binary(max_size=80))
def test_no_bytes_open_anything(presented: bytes) -> None:
    assert table(row()).find(presented) is None
    assert table(row()).find(TEXT[:12] + presented) is None


def test_an_expired_key_ends_on_the_second() -> None:
    clock = FakeClock(1000.0)
    known = table(row(expires_at=2000), clock=clock)
    clock.advance(999.9)
    assert known.find(TEXT) is not None
    clock.advance(0.1)
    assert known.find(TEXT) is None


def test_a_revoked_key_is_not_known_once_the_table_is_loaded_anew() -> None:
    known = table(row())
    assert known.find(TEXT) is not None
    known.load([row(revoked_at=1000)])
    assert known.find(TEXT) is None and len(known) == 0


def test_who_came_by_a_key_is_known_until_it_ends() -> None:
    clock = FakeClock(1000.0)
    other = make_key(os.urandom)
    known = table(row(), row(other, name="other", expires_at=2000), clock=clock)
    came, later = known.find(TEXT), known.find(other.text.encode())
    assert came is not None and later is not None
    assert known.holds(came) and known.holds(later) and known.holds(LOCAL)
    known.load([row(expires_at=1500), row(other, name="other", expires_at=2000)])
    assert known.holds(came), "a rotated key still proves whom it did"
    known.sweep()
    clock.advance(500.0)
    known.sweep()
    assert not known.holds(came) and known.holds(later)
    known.load([row(other, name="other", revoked_at=1500)])
    assert not known.holds(later)


def test_the_last_use_is_told_once_even_of_a_key_that_went() -> None:
    other = make_key(os.urandom)
    clock = FakeClock(1000.0)
    known = table(row(), row(other), clock=clock)
    known.find(TEXT)
    clock.advance(5.0)
    known.find(TEXT)
    known.find(TEXT[:-1] + b"!")
    known.load([row(other)])
    assert known.take_used() == {NEW.id: 1005}
    assert known.take_used() == {}


def test_every_comparison_is_of_whole_digests_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By construction: known id or not, right length or not, one SHA-256 and one `compare_digest` of 32 bytes."""
    compared: list[tuple[int, int]] = []

    def listening(one: bytes, two: bytes) -> bool:
        compared.append((len(one), len(two)))
        return bool(real(one, two))

    real = api_keys.compare_digest
    monkeypatch.setattr(api_keys, "compare_digest", listening)
    known = table(row())
    presented = (TEXT, TEXT[:-1], TEXT[:12], b"", b"nx_" + b"0" * 58)
    for one in presented:
        known.find(one)
    assert compared == [(32, 32)] * len(presented)
    assert make_key(os.urandom).text.encode()[ID_AT] != NEW.id.encode()
