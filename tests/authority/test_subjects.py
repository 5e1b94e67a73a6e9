from __future__ import annotations

from narthex.authority.subjects import MOST, SPARE_S, Subjects
from narthex.types import Principal


def alice(expires_at: float, *scopes: str) -> Principal:
    return Principal("default", "https://idp", "alice", "agent", scopes=frozenset(scopes), expires_at=expires_at)


def test_none_is_kept_that_nobody_needs() -> None:
    one = Subjects(now=lambda: 0.0)
    one.keep(alice(100.0), "a")
    assert one.find(alice(0).key, "") == ""
    one.want(True)
    one.keep(alice(100.0), "a")
    assert one.find(alice(0).key, "") == "a"
    one.want(False)
    one.want(True)
    assert one.find(alice(0).key, "") == ""


def test_the_one_that_lasts_longest_is_taken_while_it_lasts() -> None:
    now = [0.0]
    one = Subjects(now=lambda: now[0])
    one.want(True)
    one.keep(alice(200.0), "long")
    one.keep(alice(100.0), "short")
    assert one.find(alice(0).key, "") == "long"
    now[0] = 200.0 - SPARE_S + 1
    assert one.find(alice(0).key, "") == ""
    one.keep(alice(300.0), "next")
    assert one.find(alice(0).key, "") == "next"
    now[0] = 301.0
    one.keep(Principal("t", "i", "another", expires_at=400.0), "x")
    assert len(one._kept) == 1, "what has ended goes when others come"


def test_tokens_of_other_scopes_and_callers_are_others() -> None:
    one = Subjects(now=lambda: 0.0)
    one.want(True)
    one.keep(alice(100.0, "b", "a"), "wide")
    assert one.find(alice(0).key, "a b") == "wide"
    assert one.find(alice(0).key, "a") == ""
    assert one.find(("other", *alice(0).key[1:]), "a b") == ""


def test_they_are_bounded() -> None:
    one = Subjects(now=lambda: 0.0)
    one.want(True)
    for number in range(MOST + 10):
        one.keep(Principal("t", "i", str(number), expires_at=1.0), "x" if number else "first")
    assert len(one._kept) == MOST
    assert one.find(("t", "i", "0", ""), "") == ""
