"""API keys: their form tells typing errors, holds all of the chance, and shows nothing that opens anything."""

from __future__ import annotations

import os
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.identity.api_keys import ID_AT, KEY_SIZE, SECRET_SIZE, digest_of, is_whole, looks_like_key, make_key

KEY = make_key(lambda size: bytes(range(size)))
chance = st.binary(min_size=40, max_size=40)


def fixed(data: bytes) -> bytes:
    """A key made of these 40 bytes of chance."""
    parts = {8: data[:8], 32: data[8:]}
    return make_key(parts.__getitem__).text.encode()


@given(chance)
def test_every_key_is_whole_and_has_its_id_inside(data: bytes) -> None:
    key = fixed(data)
    assert is_whole(key) and looks_like_key(key)
    assert len(key) == KEY_SIZE
    assert key[ID_AT].isalnum()
    assert key.decode().isidentifier(), "a double click takes all of it, and no shell minds it"


@given(chance, chance)
def test_different_chance_makes_different_keys(one: bytes, two: bytes) -> None:
    assert (fixed(one)[12:] == fixed(two)[12:]) == (one[8:] == two[8:]), "no bit of the secret is lost"


def test_the_secret_has_room_for_256_bits() -> None:
    assert 62**SECRET_SIZE >= 2**256


@given(chance, st.integers(0, KEY_SIZE - 1), st.sampled_from(b"0aZ_-\x00\xff"))
def test_one_wrong_character_is_noticed(data: bytes, at: int, byte: int) -> None:
    key = bytearray(fixed(data))
    if key[at] == byte:
        return
    key[at] = byte
    assert not is_whole(bytes(key))


@pytest.mark.parametrize(
    "presented",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"nx_", id="the prefix alone"),
        pytest.param(KEY.text.encode()[:-1], id="cut"),
        pytest.param(KEY.text.encode() + b"0", id="with a tail"),
        pytest.param(KEY.text.encode() + b"\n", id="with a line end"),
        pytest.param(KEY.text.encode().upper(), id="in capitals"),
        pytest.param(b" " + KEY.text.encode(), id="with a blank before it"),
    ],
)
def test_what_is_no_whole_key(presented: bytes) -> None:
    assert not is_whole(presented)


def test_only_the_digest_is_kept() -> None:
    assert KEY.digest == digest_of(KEY.text.encode()) == sha256(KEY.text.encode()).digest()


def test_a_traceback_shows_no_key() -> None:
    assert KEY.text not in repr(KEY) and KEY.id in repr(KEY)
    assert make_key(os.urandom).text != make_key(os.urandom).text
