"""Equal calls at one time: who goes, who waits, and what becomes of those who wait."""

from __future__ import annotations

from narthex.flow.cache.flights import ALONE, GAVE_UP, Flights, Landed
from narthex.flow.cache.lots import Lots
from tests.flow.cache.keeping import kept_as


def test_all_who_wait_hear_once_in_the_order_of_coming() -> None:
    flights = Flights(Lots())
    flight = flights.begin("k", ())
    heard: list[tuple[str, Landed]] = []
    joined = flights.get("k")
    assert joined is flight
    flight.waiting.append(lambda landed: heard.append(("first", landed)))
    flight.waiting.append(lambda landed: heard.append(("second", landed)))
    kept = kept_as("k")
    flights.land(flight, kept)
    flights.land(flight, ALONE)
    assert heard == [("first", kept), ("second", kept)]
    assert flights.get("k") is None and len(flights) == 0


def test_who_hears_that_it_was_given_up_can_go_itself_at_once() -> None:
    flights = Flights(Lots())
    flight, began = flights.begin("k", ()), []
    flight.waiting.append(lambda landed: began.append(flights.begin("k", ())))
    flight.waiting.append(lambda landed: began.append(flights.get("k")))
    flights.land(flight, GAVE_UP)
    assert began[0] is began[1] is flights.get("k")


def test_what_began_before_a_change_is_joined_by_nobody_after_it() -> None:
    lots = Lots()
    flights = Flights(lots)
    before = flights.begin("k", ("list",))
    lots.end("list")
    assert flights.get("k") is None
    after = flights.begin("k", ("list",))
    assert flights.get("k") is after
    flights.land(before, ALONE)
    assert flights.get("k") is after, "the old one takes nobody's place"
    flights.land(after, ALONE)
    assert len(flights) == len(lots) == 0
