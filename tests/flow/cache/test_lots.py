"""What ends many answers at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.cache.lots import Lot, Lots, alive


def test_ending_a_lot_ends_those_who_belong_to_it_and_no_later_one() -> None:
    lots = Lots()
    early = lots.enter(["a", "b"])
    other = lots.enter(["b"])
    assert lots.end("a")
    late = lots.enter(["a"])
    assert not alive(early) and alive(other) and alive(late)
    assert not lots.end("never heard of")


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "end"]), st.sampled_from("abc"))))
def test_nothing_stays_behind(steps: list[tuple[str, str]]) -> None:
    lots, inside = Lots(), list[tuple[Lot, ...]]()
    for what, name in steps:
        if what == "enter":
            inside.append(lots.enter([name, name + name]))
        elif what == "end":
            lots.end(name)
        elif inside:
            lots.leave(inside.pop())
    for one in inside:
        lots.leave(one)
    assert len(lots) == 0
