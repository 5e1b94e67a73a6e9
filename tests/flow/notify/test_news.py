"""What waits to be told: in order, once each, bounded, and nobody loses a part of it unawares."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from narthex.errors import Overloaded
from narthex.flow.codec.subscriptions import ListChanged, Notification, TaskChanged, Updated
from narthex.flow.notify.news import Item, News

TOOLS: tuple[Item, Notification] = (("list", "tools"), ListChanged("tools"))


def updated(uri: str) -> tuple[Item, Notification]:
    return ("uri", uri), Updated(uri)


def task(id: str, size: int) -> tuple[Item, Notification]:
    return ("task", id), TaskChanged(id, b"x" * size)


def test_the_same_news_twice_is_one_in_its_first_place() -> None:
    news: News[str] = News(100, 100)
    woken = [news.put("a", *what) for what in (TOOLS, updated("u"), TOOLS, task("t", 1), updated("u"), task("t", 2))]
    assert woken == [["a"], [], [], [], [], []], "woken once, until it has taken them"
    assert news.take("a") == [ListChanged("tools"), Updated("u"), TaskChanged("t", b"xx")]
    assert (news.take("a"), news.size) == ([], 0)
    assert news.put("a", *TOOLS) == ["a"]


def test_a_reader_with_too_much_loses_all_and_hears_it() -> None:
    news: News[str] = News(10, 100)
    assert news.put("a", *updated("u")) == ["a"]
    assert news.put("a", *task("t", 10)) == []
    assert news.put("a", *task("t2", 1)) == ["a"], "woken to hear that it lost"
    assert news.put("a", *TOOLS) == []
    for _ in range(2):
        with pytest.raises(Overloaded):
            news.take("a")
    assert news.size == 0
    news.forget("a")
    assert news.take("a") == []


def test_one_state_that_is_too_large_is_too_much() -> None:
    news: News[str] = News(10, 100)
    assert news.put("a", *task("t", 11)) == ["a"]
    with pytest.raises(Overloaded):
        news.take("a")


def test_a_later_state_of_a_task_takes_the_room_of_the_one_before() -> None:
    news: News[str] = News(10, 100)
    for _ in range(5):
        news.put("a", *task("t", 8))
    assert news.take("a") == [TaskChanged("t", b"x" * 8)]


def test_when_all_is_full_the_fullest_loses() -> None:
    news: News[str] = News(100, 150)
    for reader, size in (("a", 40), ("b", 80), ("c", 20)):
        assert news.put(reader, *task("t", size)) == [reader]
    assert news.put("d", *task("t", 30)) == ["d", "b"]
    with pytest.raises(Overloaded):
        news.take("b")
    assert [len(news.take(reader)) for reader in "acd"] == [1, 1, 1]
    assert news.size == 0


def test_what_is_not_wanted_any_more_is_not_told() -> None:
    news: News[str] = News(100, 100)
    for what in (TOOLS, task("t", 5), updated("u")):
        news.put("a", *what)
    for item in (("list", "tools"), ("task", "t"), ("uri", "other")):
        news.drop("a", item)  # type: ignore[arg-type]
    assert (news.take("a"), news.size) == ([Updated("u")], 0)
    news.drop("a", ("uri", "u"))
    news.put("a", *TOOLS)
    news.drop("a", ("list", "tools"))
    assert news.put("a", *TOOLS) == ["a"], "with nothing left it is as if nothing had come"


class Life(RuleBasedStateMachine):
    """Against a plain map of reader to news."""

    readers = st.sampled_from("abc")
    whats = st.one_of(
        st.just(TOOLS),
        st.sampled_from("uv").map(updated),
        st.builds(task, st.sampled_from("tu"), st.integers(0, 12)),
    )

    def __init__(self) -> None:
        super().__init__()
        self.news: News[str] = News(15, 30)
        self.model: dict[str, dict[Item, Notification]] = {}
        self.lost: set[str] = set()

    def size(self, reader: str) -> int:
        return sum(len(what.params) for what in self.model.get(reader, {}).values() if isinstance(what, TaskChanged))

    def lose(self, reader: str) -> None:
        self.model.pop(reader, None)
        self.lost.add(reader)

    @rule(reader=readers, what=whats)
    def put(self, reader: str, what: tuple[Item, Notification]) -> None:
        before, lost = set(self.model), set(self.lost)
        woken = self.news.put(reader, *what)
        if reader not in self.lost:
            self.model.setdefault(reader, {})[what[0]] = what[1]
            if self.size(reader) > 15:
                self.lose(reader)
            while sum(map(self.size, self.model)) > 30:
                self.lose(max(self.model, key=self.size))
        assert len(woken) == len(set(woken))
        assert set(woken) == (set(self.model) - before) | (self.lost - lost)

    @rule(reader=readers)
    def take(self, reader: str) -> None:
        if reader in self.lost:
            with pytest.raises(Overloaded):
                self.news.take(reader)
        else:
            assert self.news.take(reader) == list(self.model.pop(reader, {}).values())

    @rule(reader=readers, what=whats)
    def drop(self, reader: str, what: tuple[Item, Notification]) -> None:
        self.news.drop(reader, what[0])
        queue = self.model.get(reader, {})
        queue.pop(what[0], None)
        if not queue:
            self.model.pop(reader, None)

    @rule(reader=readers)
    def forget(self, reader: str) -> None:
        self.news.forget(reader)
        self.model.pop(reader, None)
        self.lost.discard(reader)

    @invariant()
    def sums_agree_and_bounds_hold(self) -> None:
        assert self.news.size == sum(map(self.size, self.model)) <= 30
        assert set(self.news._queues) == set(self.model)
        assert self.news._lost == self.lost


TestLife = Life.TestCase
