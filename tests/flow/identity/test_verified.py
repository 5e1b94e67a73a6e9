"""The cache of verified credentials: bounded, gone when it expires or is withdrawn."""

from __future__ import annotations

from narthex.flow.identity.verified import Known, Verified, Vouch
from narthex.types import Principal

ALICE, BOB = Principal("t", "i", "alice"), Principal("t", "i", "bob")


def test_known_until_it_expires() -> None:
    cache, known = Verified(), Known(ALICE, 100.0, Vouch())
    cache.put(b"Bearer a", known)
    assert cache.get(b"Bearer a", 99.9) is known
    assert cache.get(b"Bearer a", 100.0) is None
    assert cache.get(b"bearer a", 50.0) is None, "another header is another credential"


def test_what_rested_on_withdrawn_keys_falls_at_once() -> None:
    cache, one, other = Verified(), Vouch(), Vouch()
    cache.put(b"a", Known(ALICE, 100.0, one))
    cache.put(b"b", Known(BOB, 100.0, other))
    one.valid = False
    assert cache.get(b"a", 0) is None and cache.get(b"b", 0) is not None


def test_one_subject_is_revoked() -> None:
    cache, vouch = Verified(), Vouch()
    for number in range(10):
        cache.put(b"%d" % number, Known(ALICE if number % 2 else BOB, 100.0, vouch))
    assert cache.forget(lambda known: known.principal.subject == "alice") == 5
    assert cache.get(b"1", 0) is None and cache.get(b"2", 0) is not None


def test_bounded_the_oldest_goes_first_and_a_renewed_one_is_young() -> None:
    cache, vouch = Verified(most=3), Vouch()
    for name in (b"a", b"b", b"c", b"a", b"d"):
        cache.put(name, Known(ALICE, 100.0, vouch))
    assert len(cache) == 3
    assert [name for name in (b"a", b"b", b"c", b"d") if cache.get(name, 0)] == [b"a", b"c", b"d"]
