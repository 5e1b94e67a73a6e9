"""What the outbox promises: order, one turn, and that a connection that has gone costs the others nothing."""

from __future__ import annotations

from collections.abc import Callable

from narthex.flow.outbox import Outbox


class Turns:
    """A loop that runs what was scheduled when it is told to."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def end(self) -> int:
        due, self.due = self.due, []
        for one in due:
            one()
        return len(due)


def test_all_is_written_in_order_at_the_end_of_the_turn() -> None:
    turns, written = Turns(), list[bytes]()
    outbox = Outbox(lambda flush: turns.due.append(flush))
    for data in (b"a", b"b", b"c"):
        outbox.put(written.append, data)
    assert written == []
    assert turns.end() == 1, "one flush for all of them"
    assert written == [b"a", b"b", b"c"]
    assert turns.end() == 0


def test_what_comes_in_a_later_turn_is_written_in_that_one() -> None:
    turns, written = Turns(), list[bytes]()
    outbox = Outbox(lambda flush: turns.due.append(flush))
    outbox.put(written.append, b"a")
    turns.end()
    outbox.put(written.append, b"b")
    assert written == [b"a"]
    turns.end()
    assert written == [b"a", b"b"]


def test_a_flush_ahead_of_time_keeps_the_order_and_writes_nothing_twice() -> None:
    turns, written = Turns(), list[bytes]()
    outbox = Outbox(lambda flush: turns.due.append(flush))
    outbox.put(written.append, b"a")
    outbox.flush()
    outbox.put(written.append, b"b")
    assert written == [b"a"]
    turns.end()
    assert written == [b"a", b"b"]


def test_what_a_write_sets_off_is_written_too() -> None:
    turns, written = Turns(), list[bytes]()
    outbox = Outbox(lambda flush: turns.due.append(flush))

    def write(data: bytes) -> None:
        written.append(data)
        if data == b"a":
            outbox.put(write, b"b")

    outbox.put(write, b"a")
    while turns.end():
        pass
    assert written == [b"a", b"b"]


def test_a_connection_that_has_gone_costs_the_others_nothing() -> None:
    turns, written = Turns(), list[bytes]()
    outbox = Outbox(lambda flush: turns.due.append(flush))

    def closed(data: bytes) -> None:
        raise RuntimeError("the handler is closed")

    outbox.put(closed, b"a")
    outbox.put(written.append, b"b")
    turns.end()
    assert written == [b"b"]
