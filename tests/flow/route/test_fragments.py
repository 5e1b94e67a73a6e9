"""Prepared lists: pages that are the whole, pages of a list that changes, digests that say what is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.codec.seal import MAX_HANDLE, KeyRing
from narthex.flow.route import fragments as module
from narthex.flow.route.fragments import MOST_PLACE, PAGE, Fragments, PageBound, Preparing, place_of

LONG = "file:///" + "x" * 300
NAMES = ["a", "b", "B", "ab", "a b", "é", "é" * 127 + "x", "é" * 128, "€", "\U0001f600", "z" * 256, LONG, LONG + "1"]
A_NAME = st.sampled_from(NAMES)
BOUNDS = st.builds(PageBound, st.integers(1, 5), st.sampled_from([1, 60, 400, 1000, 10_000]))


def item(name: str, version: int = 0) -> bytes:
    return json.dumps({"name": name, "v": version}).encode()


def prepared(names: Sequence[str], bound: PageBound = PAGE, versions: Mapping[str, int] | None = None) -> Fragments:
    preparing = Preparing(bound)
    for name in names:
        preparing.add(name, item(name, (versions or {}).get(name, 0)))
    return preparing.done()


def bitset(names: Sequence[str], shown: Sequence[str]) -> int:
    return sum(1 << at for at, name in enumerate(names) if name in shown)


def named(page: Sequence[Any]) -> list[str]:
    return [json.loads(bytes(one))["name"] for one in page]


def pages(fragments: Fragments, shown: int | None = None) -> list[list[bytes]]:
    found: list[list[bytes]] = []
    after: bytes | None = None
    while after is not None or not found:
        page, after = fragments.page(shown, after)
        found.append([bytes(one) for one in page])
    return found


def everything(fragments: Fragments, shown: int | None = None) -> list[bytes]:
    return [one for page in pages(fragments, shown) for one in page]


# --- places


@given(st.lists(st.text() | A_NAME, unique=True, min_size=2))
def test_no_two_names_have_one_place(names: list[str]) -> None:
    places = [place_of(name) for name in names]
    assert len(set(places)) == len(names)
    assert all(len(place) <= MOST_PLACE for place in places)


@given(st.text(max_size=100), st.text(max_size=100))
def test_short_names_stand_in_the_order_of_their_characters(one: str, other: str) -> None:
    if max(len(one.encode()), len(other.encode())) < MOST_PLACE:
        assert (place_of(one) < place_of(other)) == (one < other)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        pytest.param("a" * 255, True, id="255 bytes"),
        pytest.param("a" * 256, False, id="256 bytes"),
        pytest.param("é" * 127, True, id="254 bytes in 127 characters"),
        pytest.param("é" * 128, False, id="256 bytes in 128 characters"),
    ],
)
def test_a_place_is_the_name_while_it_is_short(name: str, kept: bool) -> None:
    assert (place_of(name) == name.encode()) is kept


def test_a_long_names_place_is_no_other_names() -> None:
    place = place_of(LONG)
    assert len(place) == MOST_PLACE
    assert place_of(place.decode("latin-1")) != place


def test_every_place_fits_into_a_sealed_handle() -> None:
    sealer = KeyRing([bytes(32)]).sealer("cursor")
    payload = ("templates", place_of("é" * 4096), "x" * 64)
    assert len(sealer.seal(payload, bound=("t",), expires_at=2**40, nonce=bytes(12))) <= MAX_HANDLE


# --- pages


@pytest.mark.parametrize(
    ("names", "bound", "expected"),
    [
        pytest.param([], PAGE, [[]], id="nothing: one empty page"),
        pytest.param(["b", "a"], PAGE, [["b", "a"]], id="what fits stays as the servers order it"),
        pytest.param(["b", "a"], PageBound(2), [["b", "a"]], id="it just fits"),
        pytest.param(["c", "b", "a"], PageBound(2), [["a", "b"], ["c"]], id="what does not fit is shown by place"),
        pytest.param(["c", "b", "a"], PageBound(1), [["a"], ["b"], ["c"]], id="no empty page at the end"),
        pytest.param(["b", "a"], PageBound(9, 44), [["b", "a"]], id="44 bytes hold two items of 21 and their commas"),
        pytest.param(["b", "a"], PageBound(9, 43), [["a"], ["b"]], id="43 bytes do not"),
        pytest.param(["c", "b", "a"], PageBound(9, 44), [["a", "b"], ["c"]], id="44 bytes hold two of three"),
        pytest.param(["b", "a"], PageBound(9, 1), [["a"], ["b"]], id="an item too large for a page has one"),
        pytest.param(["a"], PageBound(9, 1), [["a"]], id="one alone too"),
    ],
)
def test_pages(names: list[str], bound: PageBound, expected: list[list[str]]) -> None:
    assert [named(page) for page in pages(prepared(names, bound))] == expected


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param("b", ["c", "d"], id="behind a name"),
        pytest.param("bb", ["c", "d"], id="behind where a name would stand that is there no more"),
        pytest.param("", ["a", "b", "c", "d"], id="behind what stands before all"),
        pytest.param("d", [], id="behind the last"),
        pytest.param("z", [], id="behind where a last one stood"),
    ],
)
def test_a_page_goes_on_by_place_though_the_list_fits_one_page_now(after: str, expected: list[str]) -> None:
    assert named(prepared(["d", "c", "b", "a"]).page(None, place_of(after))[0]) == expected


def test_a_selection_that_fits_one_page_stays_in_the_servers_order_though_the_whole_does_not() -> None:
    fragments = prepared(["d", "c", "b", "a"], PageBound(2))
    assert [named(page) for page in pages(fragments, 0b101)] == [["d", "b"]]
    assert [named(page) for page in pages(fragments, 0b111)] == [["b", "c"], ["d"]]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        pytest.param(None, ["c", "a", "b"], id="all"),
        pytest.param(0b111, ["c", "a", "b"], id="each"),
        pytest.param(0b101, ["c", "b"], id="bit i is the i-th as added"),
        pytest.param(0, [], id="none"),
        pytest.param(1 << 70 | 0b010, ["a"], id="bits beyond the last say nothing"),
        pytest.param(-1, ["c", "a", "b"], id="nor do those of a negative number"),
    ],
)
def test_selections(shown: int | None, expected: list[str]) -> None:
    assert named(prepared(["c", "a", "b"]).page(shown)[0]) == expected


@given(names=st.lists(A_NAME, unique=True), shown=st.none() | st.integers(0, 1 << len(NAMES)), bound=BOUNDS)
def test_the_pages_of_a_list_are_the_whole(names: list[str], shown: int | None, bound: PageBound) -> None:
    chosen = [name for at, name in enumerate(names) if shown is None or shown >> at & 1]
    found = pages(prepared(names, bound), shown)
    paged = chosen if len(found) == 1 else sorted(chosen, key=place_of)
    assert [one for page in found for one in page] == [item(name) for name in paged]


@given(names=st.lists(A_NAME, unique=True, min_size=1), bound=BOUNDS)
def test_a_page_is_bounded_and_no_shorter_than_it_must_be(names: list[str], bound: PageBound) -> None:
    found = pages(prepared(names, bound))
    for at, page in enumerate(found):
        size = sum(len(one) + 1 for one in page)
        assert len(page) == 1 or (len(page) <= bound.items and size <= bound.size)
        if at + 1 < len(found):
            assert len(page) == bound.items or size + len(found[at + 1][0]) + 1 > bound.size


STEP = st.tuples(st.lists(A_NAME, unique=True), st.sets(A_NAME))


@given(steps=st.lists(STEP, min_size=1, max_size=8), bound=BOUNDS)
def test_through_a_list_that_changes_what_stays_is_shown_and_nothing_twice(
    steps: list[tuple[list[str], set[str]]], bound: PageBound
) -> None:
    """Items come and go, move, and are hidden between any two pages; so are rights."""
    found: list[str] = []
    stayed = set(NAMES)
    after: bytes | None = None
    for asked in range(2 * len(NAMES) + len(steps)):
        names, hidden = steps[min(asked, len(steps) - 1)]
        shown = [name for name in names if name not in hidden]
        page, after = prepared(names, bound).page(bitset(names, shown), after)
        assert set(named(page)) <= set(shown), "nothing but what is shown now"
        found += named(page)
        stayed &= set(shown)
        if after is None:
            break
    assert after is None
    assert len(found) == len(set(found)), "nothing twice"
    assert stayed <= set(found), "what stayed was shown"


# --- digests

VERSIONED = st.tuples(
    st.lists(st.sampled_from(["a", "b", "c"]), unique=True), st.dictionaries(st.sampled_from("abc"), st.integers(0, 1))
)


@given(one=VERSIONED, other=VERSIONED, shown=st.tuples(st.integers(0, 7), st.integers(0, 7)), bound=st.integers(1, 3))
def test_digests_are_equal_if_and_only_if_the_same_is_shown(
    one: tuple[list[str], dict[str, int]],
    other: tuple[list[str], dict[str, int]],
    shown: tuple[int, int],
    bound: int,
) -> None:
    first, second = (prepared(names, PageBound(bound), versions) for names, versions in (one, other))
    same = everything(first, shown[0]) == everything(second, shown[1])
    assert (first.digest(shown[0]) == second.digest(shown[1])) is same


@given(names=st.lists(A_NAME, unique=True), bound=BOUNDS)
def test_a_digest_of_all_is_that_of_each(names: list[str], bound: PageBound) -> None:
    fragments = prepared(names, bound)
    assert fragments.digest() == fragments.digest((1 << len(names)) - 1)


def test_the_servers_order_changes_a_digest_only_where_it_is_shown() -> None:
    for bound, same in ((PageBound(2), True), (PageBound(3), False)):
        assert (prepared(["a", "b", "c"], bound).digest() == prepared(["c", "a", "b"], bound).digest()) is same


def test_what_is_hidden_changes_no_digest() -> None:
    before, after = prepared(["a", "b", "c"]), prepared(["x", "a", "c"], versions={"x": 1})
    assert before.digest(0b101) == after.digest(0b110)
    assert before.digest() != after.digest()


def test_a_bounded_number_of_digests_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DIGESTS", 3)
    fragments = prepared(NAMES)
    for shown in range(20):
        assert fragments.digest(shown) == prepared(NAMES).digest(shown)
    assert list(fragments.known) == [17, 18, 19]
