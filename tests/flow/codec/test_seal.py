"""Sealed handles: they open for whom they were made, and every other attempt fails in one and the same way."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import GatewayError
from narthex.flow.codec.seal import MAX_HANDLE, KeyRing, MasterKey, SealError


class Session(msgspec.Struct, frozen=True):
    number: int
    caps: tuple[str, ...] = ()


OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32
BOUND = ("acme", "https://sso.example.com", "alice", "agent", "default")
NONCE = bytes(range(12))
NOW = 1_800_000_000
PAYLOAD = Session(7, ("sampling",))
SEALER = KeyRing([NEW]).sealer("session")
HANDLE = SEALER.seal(PAYLOAD, bound=BOUND, expires_at=NOW, nonce=NONCE)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(
    numbers=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8),
    bound=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=6),
    nonce=st.binary(min_size=12, max_size=12),
    expires_at=st.integers(0, 2**40),
)
def test_what_is_sealed_opens(numbers: list[int], bound: list[str], nonce: bytes, expires_at: int) -> None:
    handle = SEALER.seal(numbers, bound=bound, expires_at=expires_at, nonce=nonce)
    assert SEALER.open(handle, list[int], bound=bound, now=expires_at) == numbers
    assert set(handle) <= set(ALPHABET)
    assert len(handle) <= MAX_HANDLE


def test_no_changed_character_opens() -> None:
    for place in range(len(HANDLE)):
        for char in ALPHABET:
            if char != HANDLE[place]:
                with pytest.raises(SealError):
                    SEALER.open(HANDLE[:place] + char + HANDLE[place + 1 :], Session, bound=BOUND, now=NOW)


@pytest.mark.parametrize(
    "bound",
    [
        pytest.param(("evil", *BOUND[1:]), id="another tenant"),
        pytest.param((*BOUND[:2], "bob", *BOUND[3:]), id="another subject"),
        pytest.param((*BOUND[:4], "support"), id="another endpoint"),
        pytest.param(BOUND[:4], id="a part less"),
        pytest.param((*BOUND, ""), id="an empty part more"),
        pytest.param(("acmeh", "ttps://sso.example.com", *BOUND[2:]), id="parts cut elsewhere"),
        pytest.param(("acme,https://sso.example.com", *BOUND[2:]), id="parts joined"),
        pytest.param(("\ud800", *BOUND[1:]), id="a part that is not Unicode"),
    ],
)
def test_bound_to_others(bound: tuple[str, ...]) -> None:
    with pytest.raises(SealError):
        SEALER.open(HANDLE, Session, bound=bound, now=NOW)


@pytest.mark.parametrize(
    "handle",
    [
        pytest.param("", id="empty"),
        pytest.param("A", id="one character"),
        pytest.param("AQ", id="a version alone"),
        pytest.param(HANDLE[:4], id="a head alone"),
        pytest.param(HANDLE[:20], id="head and nonce"),
        pytest.param(HANDLE[:-1], id="cut"),
        pytest.param(HANDLE + "A", id="longer"),
        pytest.param(HANDLE + "=", id="padded"),
        pytest.param(HANDLE + "\n", id="a line end"),
        pytest.param(" " + HANDLE, id="a space"),
        pytest.param(HANDLE[:9] + "é" + HANDLE[10:], id="not ASCII"),
        pytest.param(HANDLE[:9] + "\ud800" + HANDLE[10:], id="not Unicode"),
        pytest.param("A" * 513, id="too long"),
        pytest.param("-" * 512, id="another version"),
    ],
)
def test_malformed(handle: str) -> None:
    with pytest.raises(SealError):
        SEALER.open(handle, Session, bound=BOUND, now=NOW)


@given(st.text(max_size=600) | st.text(ALPHABET, max_size=600).map(lambda text: HANDLE[:4] + text))
def test_no_text_does_harm(text: str) -> None:
    with pytest.raises(SealError):
        SEALER.open(text, Session, bound=BOUND, now=NOW)


def test_every_reason_reads_alike() -> None:
    seen = set()
    for handle, bound, now in [("x", BOUND, NOW), (HANDLE, ("evil",), NOW), (HANDLE, BOUND, NOW + 61)]:
        with pytest.raises(GatewayError) as caught:
            SEALER.open(handle, Session, bound=bound, now=now)
        seen.add((caught.value.public, caught.value.code, caught.value.reason, caught.value.data))
    assert len(seen) == 1


@pytest.mark.parametrize(("late", "opens"), [(-1, True), (0, True), (60, True), (61, False), (10**9, False)])
def test_expiry_has_a_minute_of_leeway(late: int, opens: bool) -> None:
    if opens:
        assert SEALER.open(HANDLE, Session, bound=BOUND, now=NOW + late) == PAYLOAD
    else:
        with pytest.raises(SealError):
            SEALER.open(HANDLE, Session, bound=BOUND, now=NOW + late)


def test_a_purpose_opens_only_its_own() -> None:
    with pytest.raises(SealError):
        KeyRing([NEW]).sealer("cursor").open(HANDLE, Session, bound=BOUND, now=NOW)


def test_a_payload_of_another_type_does_not_open() -> None:
    with pytest.raises(SealError):
        SEALER.open(HANDLE, list[int], bound=BOUND, now=NOW)


def test_rotation_keeps_what_the_old_key_sealed() -> None:
    old = KeyRing([OLD]).sealer("session").seal(PAYLOAD, bound=BOUND, expires_at=NOW, nonce=NONCE)
    ring = KeyRing([NEW, OLD])
    assert ring.sealer("session").open(old, Session, bound=BOUND, now=NOW) == PAYLOAD
    assert ring.sealer("session").seal(PAYLOAD, bound=BOUND, expires_at=NOW, nonce=NONCE) == HANDLE
    for keys in ([NEW], [OTHER]):
        with pytest.raises(SealError):
            KeyRing(keys).sealer("session").open(old, Session, bound=BOUND, now=NOW)


@pytest.mark.parametrize(("late", "opens"), [(-1, True), (59, True), (60, False), (10**9, False)])
def test_a_replaced_key_opens_until_its_end(late: int, opens: bool) -> None:
    old = KeyRing([OLD]).sealer("session").seal(PAYLOAD, bound=BOUND, expires_at=2 * NOW, nonce=NONCE)
    sealer = KeyRing([NEW, MasterKey(OLD, until=NOW)]).sealer("session")
    if opens:
        assert sealer.open(old, Session, bound=BOUND, now=NOW + late) == PAYLOAD
    else:
        with pytest.raises(SealError):
            sealer.open(old, Session, bound=BOUND, now=NOW + late)


def test_a_purpose_may_have_longer_handles() -> None:
    ring = KeyRing([NEW])
    sealer = ring.sealer("state", 2000)
    handle = sealer.seal("x" * 1000, bound=BOUND, expires_at=NOW, nonce=NONCE)
    assert MAX_HANDLE < len(handle) <= 2000
    assert sealer.open(handle, str, bound=BOUND, now=NOW) == "x" * 1000
    for longer in ("x" * 1500, "x" * 100_000):
        with pytest.raises(SealError):
            sealer.seal(longer, bound=BOUND, expires_at=NOW, nonce=NONCE)
    with pytest.raises(SealError):
        sealer.open("A" * 2001, str, bound=BOUND, now=NOW)
    with pytest.raises(SealError):
        ring.sealer("session").open(handle, str, bound=BOUND, now=NOW)


def test_no_traceback_shows_a_key() -> None:
    assert repr(MasterKey(NEW, 7)) == "MasterKey(until=7)"


def test_a_sealer_is_derived_once() -> None:
    ring = KeyRing([NEW])
    assert ring.sealer("session") is ring.sealer("session")


def test_too_large_a_payload_is_refused() -> None:
    with pytest.raises(SealError):
        SEALER.seal("x" * 400, bound=BOUND, expires_at=NOW, nonce=NONCE)


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([], id="none"),
        pytest.param([b"short"], id="short"),
        pytest.param([NEW, b"y" * 33], id="one too long"),
        pytest.param([NEW, MasterKey(b"short", NOW)], id="an old one too short"),
        pytest.param([MasterKey(NEW, NOW), OLD], id="a current one that ends"),
    ],
)
def test_a_ring_of_bad_keys_is_refused(keys: list[bytes | MasterKey]) -> None:
    with pytest.raises(ValueError):
        KeyRing(keys)


def test_a_nonce_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError):
        SEALER.seal(PAYLOAD, bound=BOUND, expires_at=NOW, nonce=b"short")
