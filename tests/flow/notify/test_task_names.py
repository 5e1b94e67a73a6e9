"""A session's task has one name, however often it is named, while there is room for it."""

from __future__ import annotations

import itertools

from narthex.flow.notify.task_names import TaskNames


def test_a_task_keeps_the_name_that_it_was_given_first() -> None:
    names, count = TaskNames(), itertools.count()
    first = names.name("s", "one", "t", lambda: f"name-{next(count)}")
    assert names.name("s", "one", "t", lambda: "another") == first == "name-0"


def test_another_sessions_another_servers_and_another_task_have_their_own() -> None:
    names, count = TaskNames(), itertools.count()
    keys = [("s", "one", "t"), ("r", "one", "t"), ("s", "two", "t"), ("s", "one", "u")]
    assert len({names.name(*key, lambda: str(next(count))) for key in keys}) == 4


def test_the_one_used_longest_ago_goes_first() -> None:
    names, count = TaskNames(most=2), itertools.count()

    def name(id_: str) -> str:
        return names.name("s", "one", id_, lambda: f"{id_}{next(count)}")

    assert [name("a"), name("b"), name("a")] == ["a0", "b1", "a0"]
    assert [name("c"), name("a"), name("b")] == ["c2", "a0", "b3"]
