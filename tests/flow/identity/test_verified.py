"""The cache of verified credentials: bounded, gone when it expires or is withdrawn."""

from __future__ import annotations

from narthex.flow.identity.verified import Known, Shown, Verified, Vouch
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


class TestShown:
    """A connection that has shown a credential is known by the same one, and by nothing that has changed since."""

    def one(self, until: float = 100.0) -> tuple[Verified, Vouch, Shown, object]:
        cache, vouch, mark = Verified(), Vouch(), object()
        known = Known(ALICE, until, vouch)
        cache.put(b"Bearer t", known)
        return cache, vouch, Shown(b"Bearer t", known, cache, "default", mark), mark

    def test_the_same_again(self) -> None:
        _, _, shown, mark = self.one()
        assert shown.principal(b"Bearer " + b"t", "default", mark, 99.0) is ALICE

    def test_another_is_looked_up(self) -> None:
        _, _, shown, mark = self.one()
        assert shown.principal(b"Bearer u", "default", mark, 99.0) is None
        assert shown.principal(b"Bearer t", "other", mark, 99.0) is None, "an endpoint may ask for more"
        assert shown.principal(b"Bearer t", "default", object(), 99.0) is None, "a reload may, too"

    def test_what_has_ended_proves_nobody(self) -> None:
        cache, vouch, shown, mark = self.one()
        assert shown.principal(b"Bearer t", "default", mark, 100.0) is None, "it has expired"
        cache.forget(lambda known: False)
        assert shown.principal(b"Bearer t", "default", mark, 99.0) is None, "something was revoked since"
        _, vouch, shown, mark = self.one()
        vouch.valid = False
        assert shown.principal(b"Bearer t", "default", mark, 99.0) is None, "the keys of its issuer are others"
