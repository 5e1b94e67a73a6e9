"""Sealed secrets: open under their key and name, and nothing else opens; a rotation leaves the value alone."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.authority.envelope import _VALUE_AT, OVERHEAD, EnvelopeError, Envelopes
from narthex.flow.codec.seal import MasterKey

OLD, NEW = MasterKey(bytes(range(32))), MasterKey(bytes(range(100, 132)))
ENDED = MasterKey(OLD.secret, 1)
names = st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable())
old, both, new = (Envelopes(keys, os.urandom) for keys in ([OLD], [NEW, ENDED], [NEW]))
SEALED = old.seal("ghp_0123456789", "default", "pat")


@given(st.text(st.characters(exclude_categories=["Cs"])), names, names)
def test_what_was_sealed_opens_and_its_size_is_known(value: str, tenant: str, name: str) -> None:
    sealed = old.seal(value, tenant, name)
    assert old.open(sealed, tenant, name) == value
    assert len(sealed) == len(value.encode()) + OVERHEAD
    if len(value) > 3:
        assert value.encode() not in sealed


def test_the_same_value_never_looks_the_same() -> None:
    assert old.seal("x", "default", "pat") != old.seal("x", "default", "pat")


@pytest.mark.parametrize(
    ("tenant", "name"),
    [
        pytest.param("default", "other", id="another name"),
        pytest.param("acme", "pat", id="another tenant"),
        pytest.param("defaultp", "at", id="the same letters cut elsewhere"),
        pytest.param("", "defaultpat", id="all of it as a name"),
    ],
)
def test_a_row_that_was_moved_does_not_open(tenant: str, name: str) -> None:
    with pytest.raises(EnvelopeError) as refused:
        old.open(SEALED, tenant, name)
    assert refused.value.unknown_key is None


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_one_changed_byte_and_it_does_not_open(at: int, by: int) -> None:
    changed = bytearray(SEALED)
    changed[at] ^= by
    with pytest.raises(EnvelopeError):
        old.open(bytes(changed), "default", "pat")


@given(st.integers(0, len(SEALED) - 1))
def test_a_cut_one_does_not_open(size: int) -> None:
    for cut in (SEALED[:size], SEALED[size + 1 :], SEALED + SEALED[:size] + b"x"):
        with pytest.raises(EnvelopeError):
            old.open(cut, "default", "pat")


@given(st.binary(max_size=200))
def test_no_bytes_open(data: bytes) -> None:
    for bytes_ in (data, SEALED[:9] + data):
        with pytest.raises(EnvelopeError):
            old.open(bytes_, "default", "pat")


def test_the_head_of_one_and_the_body_of_another_do_not_open() -> None:
    other = old.seal("other", "default", "pat")
    with pytest.raises(EnvelopeError):
        old.open(SEALED[:_VALUE_AT] + other[_VALUE_AT:], "default", "pat")


def test_without_its_master_key_it_says_which_one_it_needs() -> None:
    with pytest.raises(EnvelopeError) as refused:
        new.open(SEALED, "default", "pat")
    assert refused.value.unknown_key == old.current
    assert old.current not in new.ids


def test_a_rotation_wraps_anew_and_leaves_the_value_alone() -> None:
    resealed = both.reseal(SEALED, "default", "pat")
    assert resealed is not None
    assert resealed[_VALUE_AT:] == SEALED[_VALUE_AT:]
    assert new.open(resealed, "default", "pat") == "ghp_0123456789", "without the old key"
    assert both.reseal(resealed, "default", "pat") is None, "once"
    with pytest.raises(EnvelopeError):
        both.reseal(SEALED, "default", "other")
    with pytest.raises(EnvelopeError):
        both.reseal(resealed, "default", "other")


def test_a_key_that_has_ended_still_opens_what_lies_on_our_own_disk() -> None:
    assert both.open(SEALED, "default", "pat") == "ghp_0123456789"


def test_the_id_of_a_key_is_not_the_key() -> None:
    assert both.ids == (new.current, old.current)
    assert bytes.fromhex(old.current) not in OLD.secret
