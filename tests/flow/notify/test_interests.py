"""Interests: what each upstream is asked for, who is told what, the bounds; and all of it against a naive model."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from narthex.errors import GatewayError, InvalidParams, Overloaded
from narthex.flow.codec.subscriptions import ListChanged, ListKind, Notification, TaskChanged, Updated, Wanted
from narthex.flow.notify.interests import MOST_ANCESTORS, SLICE, Bounds, Interest, Interests, Place, Source, Subscriber

ONE: Source = ("one", "tenant")
TWO: Source = ("two", "tenant")
NOTHING: frozenset[Source] = frozenset()


def lists(kinds: str, *sources: Source) -> Interest:
    return Interest(kinds=frozenset(kinds.split()), sources=frozenset(sources))  # type: ignore[arg-type]


def resources(*uris: str, source: Source = ONE) -> Interest:
    return Interest(uris={uri: Place(*source, uri) for uri in uris})


def tasks(*ids: str, source: Source = ONE) -> Interest:
    return Interest(tasks={f"sealed-{id}": Place(*source, id) for id in ids})


def wanted(kinds: str = "", uris: str = "", tasks: str = "") -> Wanted:
    return Wanted(frozenset(kinds.split()), frozenset(uris.split()), frozenset(tasks.split()))  # type: ignore[arg-type]


def leaves_nothing(interests: Interests) -> None:
    assert len(interests) == 0
    news, marks = interests._news, interests._marks
    assert (interests._asked, interests._shares, interests._text) == ({}, {}, 0)
    assert (news._queues, news._lost, news.size) == ({}, set(), 0)
    assert (marks._heap, marks._keys, marks._numbers) == ([], {}, {})


# --- what an upstream is asked for


def test_an_upstream_is_asked_for_the_union_and_only_told_of_changes() -> None:
    interests = Interests()
    a, changed = interests.add("va", "pa", resources("x:1", "x:2"))
    assert (changed, interests.wanted(*ONE)) == ({ONE}, wanted(uris="x:1 x:2"))
    b, changed = interests.add("vb", "pb", resources("x:2"))
    assert changed == NOTHING, "somebody has asked already"
    assert interests.change(b, lists("tools", ONE, TWO)) == {ONE, TWO}
    assert interests.wanted(*ONE) == wanted("tools", "x:1 x:2")
    assert interests.wanted(*TWO) == wanted("tools")
    assert interests.change(b, resources("x:2")) == {ONE, TWO}
    assert interests.remove(b) == NOTHING, "somebody wants it still"
    assert interests.remove(a) == {ONE}
    assert interests.wanted(*ONE) == Wanted()
    assert interests.remove(a) == NOTHING
    leaves_nothing(interests)


def test_scopes_never_meet() -> None:
    interests = Interests()
    ours, theirs = ("one", ("tenant", "a")), ("one", ("tenant", "b"))
    a, _ = interests.add("va", "pa", resources("x:1", source=ours))
    b, changed = interests.add("vb", "pb", resources("x:1", source=theirs))
    assert changed == {theirs}
    assert interests.updated(*ours, "x:1") == [a]
    assert interests.take(b) == []


def test_a_legacy_session_counts_once_for_a_resource() -> None:
    interests = Interests()
    a, _ = interests.add("va", "pa", Interest())
    b, _ = interests.add("vb", "pb", Interest())
    place = Place(*ONE, "x:1")
    subscribed = [interests.subscribe(one, "x:1", place) for one in (a, a, b)]
    assert subscribed == [{ONE}, NOTHING, NOTHING]
    unsubscribed = [interests.unsubscribe(one, "x:1") for one in (a, a, b, b)]
    assert unsubscribed == [NOTHING, NOTHING, {ONE}, NOTHING]


def test_a_resource_may_move() -> None:
    interests = Interests()
    a, _ = interests.add("va", "pa", resources("x:1"))
    assert interests.subscribe(a, "x:1", Place(*TWO, "x:1")) == {ONE, TWO}
    assert interests.updated(*ONE, "x:1") == []
    assert interests.updated(*TWO, "x:1") == [a]


def test_one_that_was_removed_stays_so() -> None:
    interests = Interests()
    a, _ = interests.add("va", "pa", lists("tools", ONE), {"tools": b"1"})
    interests.mark(a, "tools", now=0, chance=0)
    interests.remove(a)
    assert interests.change(a, resources("x:1")) == NOTHING
    assert interests.subscribe(a, "x:1", Place(*ONE, "x:1")) == NOTHING
    assert interests.unsubscribe(a, "x:1") == NOTHING
    assert not interests.hashed(a, "tools", b"2")
    interests.mark(a, "tools", now=0, chance=0)
    assert (interests.due(9), interests.take(a)) == ([], [])
    leaves_nothing(interests)


# --- who is told what


def test_a_resource_is_told_under_the_name_that_each_knows() -> None:
    interests = Interests()
    a, _ = interests.add("va", "pa", resources("x:1"))
    b, _ = interests.add(
        "vb", "pb", Interest(uris={"narthex+one+x:1": Place(*ONE, "x:1"), "alias": Place(*ONE, "x:1")})
    )
    interests.add("vc", "pc", resources("x:2"))
    assert interests.updated(*ONE, "x:1") == [a, b]
    assert interests.updated(*ONE, "x:1") == [], "they are awake"
    assert interests.take(a) == [Updated("x:1")]
    assert sorted(map(name_of, interests.take(b))) == ["alias", "narthex+one+x:1"]


@pytest.mark.parametrize(
    ("subscribed", "updated", "told"),
    [
        pytest.param("file:///a", "file:///a", "file:///a", id="the resource itself"),
        pytest.param("file:///a", "file:///a/b/c", "file:///a", id="a part below it"),
        pytest.param("file:///a/", "file:///a/b", "file:///a/", id="a folder with its slash"),
        pytest.param("file:///", "file:///a/b", "file:///", id="the root"),
        pytest.param("db:t", "db:t?row=1", "db:t", id="a query"),
        pytest.param("db:t", "db:t#row", "db:t", id="a fragment"),
        pytest.param("file:///a file:///a/b", "file:///a/b/c", "file:///a/b", id="the nearest of one subscriber's"),
        pytest.param("file:///a file:///a/b", "file:///a/b", "file:///a/b", id="the exact one before the rest"),
        pytest.param("file:///a", "file:///ab", "", id="a name that only begins alike"),
        pytest.param("file:///a/b", "file:///a", "", id="never from below"),
        pytest.param("x:1", "x:2", "", id="what nobody asked for"),
        pytest.param("x:", "x:" + "/a" * MOST_ANCESTORS, "x:", id="as deep as is looked"),
        pytest.param("x:", "x:" + "/a" * (MOST_ANCESTORS + 1), "", id="too deep"),
        pytest.param("x:1", "/" * 100_000, "", id="nothing but slashes"),
        pytest.param("x:1", "", "", id="nothing"),
    ],
)
def test_a_part_is_told_as_what_was_asked_for(subscribed: str, updated: str, told: str) -> None:
    interests = Interests()
    a, _ = interests.add("va", "pa", resources(*subscribed.split()))
    interests.updated(*ONE, updated)
    assert interests.take(a) == [Updated(uri) for uri in told.split()]


def test_who_asked_for_the_whole_hears_of_a_part_that_another_asked_for() -> None:
    interests = Interests()
    whole, _ = interests.add("va", "pa", resources("file:///a"))
    part, _ = interests.add("vb", "pb", resources("file:///a/b"))
    assert set(interests.updated(*ONE, "file:///a/b")) == {whole, part}
    assert interests.take(whole) == [Updated("file:///a")]


def test_a_task_is_told_to_those_who_named_it_its_latest_state_only() -> None:
    interests = Interests()
    a, _ = interests.add("va", "pa", tasks("t1"))
    b, _ = interests.add("vb", "pb", tasks("t2"))
    assert interests.task(*ONE, "t1", b"early") == [a]
    assert interests.task(*ONE, "t1", b"late") == []
    assert interests.task(*ONE, "unknown", b"") == []
    assert (interests.take(a), interests.take(b)) == ([TaskChanged("sealed-t1", b"late")], [])


def test_who_reads_too_slowly_is_told_that_news_were_lost() -> None:
    interests = Interests(Bounds(queue=10))
    a, _ = interests.add("va", "pa", tasks("t1", "t2"))
    assert interests.task(*ONE, "t1", b"12345678") == [a]
    assert interests.task(*ONE, "t2", b"12345678") == [a]
    with pytest.raises(Overloaded):
        interests.take(a)
    interests.remove(a)
    leaves_nothing(interests)


def test_what_is_not_wanted_any_more_is_not_told() -> None:
    interests = Interests()
    both = Interest(kinds=frozenset({"tools"}), sources=frozenset({ONE}), uris={"x:1": Place(*ONE, "x:1")})
    a, _ = interests.add("va", "pa", both)
    interests.updated(*ONE, "x:1")
    assert interests.hashed(a, "tools", b"1")
    interests.unsubscribe(a, "x:1")
    assert interests.take(a) == [ListChanged("tools")]
    assert interests.hashed(a, "tools", b"2")
    interests.mark(a, "tools", now=0, chance=0)
    interests.change(a, Interest())
    assert (interests.take(a), interests.due(9), interests.hashed(a, "tools", b"3")) == ([], [], False)


# --- lists


def no_chance() -> float:
    return 0.0


def run(marking: Generator[None, None, None]) -> int:
    """To its end; how often it paused."""
    return sum(1 for _ in marking)


def test_a_list_is_told_only_where_the_own_view_changed() -> None:
    interests = Interests(Bounds(debounce_s=(1, 3)))
    a, _ = interests.add("va", "pa", lists("tools prompts", ONE), {"tools": b"same"})
    b, _ = interests.add("vb", "pb", lists("tools", ONE, TWO), {"tools": b"old"})
    interests.add("vc", "pc", lists("tools", TWO))
    for now in (0.0, 0.5):
        run(interests.list_changed("one", "tools", now=now, chance=no_chance))
    assert (interests.next_due(), interests.due(0.9)) == (1.0, [])
    assert interests.due(1.0) == [(a, "tools"), (b, "tools")]
    assert not interests.hashed(a, "tools", b"same")
    assert interests.hashed(b, "tools", b"new")
    assert not interests.hashed(b, "tools", b"new"), "told once"
    assert (interests.take(a), interests.take(b)) == ([], [ListChanged("tools")])
    assert (interests.next_due(), interests.due(9)) == (None, [])


def test_a_list_never_seen_is_told_as_changed() -> None:
    interests = Interests()
    a, _ = interests.add("va", "pa", lists("tools", ONE), {"prompts": b"not asked for"})
    assert a.seen == {}
    assert interests.hashed(a, "tools", b"1")
    assert not interests.hashed(a, "prompts", b"1")


def test_a_list_that_was_given_up_is_as_never_seen() -> None:
    interests = Interests()
    a, _ = interests.add("va", "pa", lists("tools", ONE), {"tools": b"1"})
    interests.change(a, Interest())
    interests.change(a, lists("tools", ONE))
    assert interests.hashed(a, "tools", b"1")


def test_views_are_made_one_after_another() -> None:
    interests = Interests(Bounds(debounce_s=(1, 2)))
    chances = iter([0.75, 0.25])
    a, _ = interests.add("va", "pa", lists("tools", ONE))
    b, _ = interests.add("vb", "pb", lists("tools", ONE))
    run(interests.list_changed("one", "tools", now=0, chance=lambda: next(chances)))
    assert [interests.due(at) for at in (1.2, 1.25, 1.75)] == [[], [(b, "tools")], [(a, "tools")]]


@pytest.mark.parametrize(("scope", "marked"), [(None, "ab"), ("sa", "a"), ("sb", "b"), ("sc", "")])
def test_a_list_changes_on_one_scope_or_on_all(scope: str | None, marked: str) -> None:
    interests = Interests()
    for name in "ab":
        interests.add(name, name, lists("tools", ("one", f"s{name}")))
    run(interests.list_changed("one", "tools", now=0, chance=no_chance, scope=scope))
    run(interests.list_changed("one", "prompts", now=0, chance=no_chance, scope=scope))
    run(interests.list_changed("other", "tools", now=0, chance=no_chance, scope=scope))
    assert [subscriber.viewer for subscriber, _ in interests.due(9)] == list(marked)


def test_many_views_are_marked_in_slices_and_who_leaves_in_between_is_not() -> None:
    interests = Interests()
    all_ = [interests.add(n, n, lists("tools", ONE))[0] for n in range(2 * SLICE + 1)]
    marking = interests.list_changed("one", "tools", now=0, chance=no_chance)
    next(marking)
    interests.remove(all_[0])
    interests.remove(all_[-1])
    assert run(marking) == 1
    assert [subscriber for subscriber, _ in interests.due(9)] == all_[1:-1]


def test_who_has_no_server_left_still_hears_that_its_list_is_empty() -> None:
    interests = Interests()
    a, _ = interests.add("va", "pa", lists("tools", ONE), {"tools": b"full"})
    assert interests.change(a, lists("tools")) == {ONE}
    interests.mark(a, "tools", now=0, chance=0)
    assert interests.due(9) == [(a, "tools")]
    assert interests.hashed(a, "tools", b"empty")


# --- bounds

TEXT = 2 * len("x:1")
"""What one short resource counts for: its name here and there."""


@pytest.mark.parametrize(
    ("bounds", "more", "error"),
    [
        pytest.param(Bounds(subscribers=1), lambda i, a: i.add("v", "q", Interest()), Overloaded, id="subscribers"),
        pytest.param(
            Bounds(principal_subscribers=1), lambda i, a: i.add("v", "p", Interest()), Overloaded, id="of a principal"
        ),
        pytest.param(
            Bounds(items=2), lambda i, a: i.add("v", "q", resources("x:1", "x:2", "x:3")), InvalidParams, id="at once"
        ),
        pytest.param(
            Bounds(items=2), lambda i, a: i.subscribe(a, "x:3", Place(*ONE, "x:3")), InvalidParams, id="one more"
        ),
        pytest.param(
            Bounds(items=2), lambda i, a: i.change(a, resources("x:1", "x:2", "x:3")), InvalidParams, id="changed"
        ),
        pytest.param(
            Bounds(source_items=2), lambda i, a: i.add("v", "q", resources("x:3")), Overloaded, id="at one server"
        ),
        pytest.param(
            Bounds(principal_text=2 * TEXT), lambda i, a: i.add("v", "p", tasks("t")), Overloaded, id="text, principal"
        ),
        pytest.param(
            Bounds(text=2 * TEXT), lambda i, a: i.subscribe(a, "x:3", Place(*TWO, "x")), Overloaded, id="text in all"
        ),
    ],
)
def test_a_refusal_changes_nothing(
    bounds: Bounds, more: Callable[[Interests, Subscriber], Any], error: type[GatewayError]
) -> None:
    interests = Interests(bounds)
    a, _ = interests.add("va", "p", resources("x:1", "x:2"))
    with pytest.raises(error):
        more(interests, a)
    assert (len(interests), interests.wanted(*ONE)) == (1, wanted(uris="x:1 x:2"))
    assert interests.remove(a) == {ONE}
    leaves_nothing(interests)


@pytest.mark.parametrize(
    "bounds",
    [
        pytest.param(Bounds(items=2), id="items"),
        pytest.param(Bounds(text=2 * TEXT, principal_text=2 * TEXT), id="text"),
        pytest.param(Bounds(source_items=2), id="at one server"),
        pytest.param(Bounds(principal_subscribers=1, subscribers=1), id="subscribers"),
    ],
)
def test_up_to_a_bound_all_is_taken_and_less_is_never_refused(bounds: Bounds) -> None:
    interests = Interests(bounds)
    a, _ = interests.add("va", "p", resources("x:1", "x:2"))
    interests.subscribe(a, "x:2", Place(*ONE, "x:2"))
    interests.change(a, resources("x:2"))
    interests.subscribe(a, "x:3", Place(*ONE, "x:3"))
    interests.unsubscribe(a, "x:2")
    assert interests.wanted(*ONE) == wanted(uris="x:3")


@pytest.mark.parametrize("bounds", [Bounds(items=2), Bounds(text=2 * TEXT), Bounds(principal_text=2 * TEXT)])
def test_at_a_bound_one_thing_may_be_had_for_another(bounds: Bounds) -> None:
    interests = Interests(bounds)
    a, _ = interests.add("va", "p", resources("x:1", "x:2"))
    interests.change(a, resources("x:1", "x:3"))
    interests.subscribe(a, "x:3", Place(*TWO, "x:3"))
    assert (interests.wanted(*ONE), interests.wanted(*TWO)) == (wanted(uris="x:1"), wanted(uris="x:3"))


def test_what_is_asked_for_already_costs_a_server_nothing_more() -> None:
    interests = Interests(Bounds(source_items=2))
    for name in "abc":
        interests.add(name, name, resources("x:1", "x:2"))
    assert len(interests) == 3


# --- whatever happens

KINDS: list[ListKind] = ["tools", "prompts"]
SOURCES: list[Source] = [("one", "s"), ("one", "t"), ("two", "s")]
NAMES = ["x:1", "x:1/a", "x:2"]
PLACES = st.builds(lambda source, name: Place(*source, name), st.sampled_from(SOURCES), st.sampled_from(NAMES))
INTERESTS = st.builds(
    Interest,
    kinds=st.frozensets(st.sampled_from(KINDS)),
    sources=st.frozensets(st.sampled_from(SOURCES)),
    uris=st.dictionaries(st.sampled_from(["u1", "u2", "u3"]), PLACES, max_size=3),
    tasks=st.dictionaries(st.sampled_from(["t1", "t2"]), PLACES, max_size=2),
)
TIGHT = Bounds(
    subscribers=4,
    items=4,
    source_items=5,
    text=60,
    queue=10,
    all_queues=15,
    principal_subscribers=2,
    principal_text=40,
    debounce_s=(1, 3),
)


class Life(RuleBasedStateMachine):
    """Against a model that keeps each subscriber's interest and looks at all of them every time."""

    def __init__(self) -> None:
        super().__init__()
        self.interests = Interests(TIGHT)
        self.model: dict[Subscriber, Interest] = {}
        self.told: dict[Subscriber, list[Notification]] = {}  # what `take` must give, in any order (see test_news.py)
        self.lost: set[Subscriber] = set()
        self.seen: dict[tuple[Subscriber, ListKind], bytes] = {}
        self.marks: set[tuple[Subscriber, ListKind]] = set()
        self.checking: list[tuple[Subscriber, ListKind]] = []
        self.gone: list[Subscriber] = []
        self.now = 0.0

    def naive(self, source: Source) -> Wanted:
        kinds, uris, tasks = set[ListKind](), set[str](), set[str]()
        for interest in self.model.values():
            if source in interest.sources:
                kinds |= interest.kinds
            uris |= {place.name for place in interest.uris.values() if (place.server, place.scope) == source}
            tasks |= {place.name for place in interest.tasks.values() if (place.server, place.scope) == source}
        return Wanted(frozenset(kinds), frozenset(uris), frozenset(tasks))

    def check(self, operation: Callable[[], frozenset[Source]], apply: Callable[[], None]) -> bool:
        """Do it in both; the sources that changed are those whose union did. False where it was refused."""
        before = {source: self.naive(source) for source in SOURCES}
        try:
            changed = operation()
        except (Overloaded, InvalidParams):
            return False
        apply()
        assert changed == {source for source in SOURCES if self.naive(source) != before[source]}
        return True

    def settle(self, subscriber: Subscriber) -> None:
        """Of what waited only what is wanted is told."""
        interest = self.model[subscriber]
        names = {*interest.uris, *interest.tasks, *interest.kinds}
        self.told[subscriber] = [what for what in self.told[subscriber] if name_of(what) in names]
        gone = {(one, kind) for one, kind in self.marks if one is subscriber and kind not in interest.kinds}
        self.marks -= gone
        self.seen = {key: d for key, d in self.seen.items() if key[0] is not subscriber or key[1] in interest.kinds}

    @initialize()
    def somebody_listens(self) -> None:
        self.arrives(Interest(frozenset(KINDS), frozenset(SOURCES[:1])), "p")

    @rule(interest=INTERESTS, principal=st.sampled_from("pq"))
    def arrives(self, interest: Interest, principal: str) -> None:
        came: list[Subscriber] = []

        def add() -> frozenset[Source]:
            subscriber, changed = self.interests.add("view", principal, interest, {"tools": b"0"})
            came.append(subscriber)
            return changed

        def apply() -> None:
            self.model[came[0]], self.told[came[0]] = interest, []
            if "tools" in interest.kinds:
                self.seen[came[0], "tools"] = b"0"

        self.check(add, apply)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), interest=INTERESTS)
    def changes(self, data: st.DataObject, interest: Interest) -> None:
        subscriber = data.draw(st.sampled_from(list(self.model)))
        apply = lambda: self.model.__setitem__(subscriber, interest)  # noqa: E731
        if self.check(lambda: self.interests.change(subscriber, interest), apply):
            self.settle(subscriber)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), uri=st.sampled_from(["u1", "u2", "u3"]), place=PLACES | st.none())
    def subscribes_or_unsubscribes(self, data: st.DataObject, uri: str, place: Place | None) -> None:
        subscriber = data.draw(st.sampled_from(list(self.model)))
        old = self.model[subscriber]
        uris = {name: was for name, was in old.uris.items() if name != uri}
        new = Interest(old.kinds, old.sources, {**uris, uri: place} if place else uris, old.tasks)
        done = self.check(
            lambda: (
                self.interests.subscribe(subscriber, uri, place)
                if place
                else self.interests.unsubscribe(subscriber, uri)
            ),
            lambda: self.model.__setitem__(subscriber, new),
        )
        assert done or place, "less is never refused"
        if done:
            self.settle(subscriber)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        subscriber = data.draw(st.sampled_from(list(self.model)))
        self.model[subscriber], was = Interest(), self.model[subscriber]
        self.settle(subscriber)
        self.model[subscriber] = was
        assert self.check(lambda: self.interests.remove(subscriber), lambda: self.model.__delitem__(subscriber))
        del self.told[subscriber]
        self.lost.discard(subscriber)
        self.gone.append(subscriber)

    def tell(self, subscriber: Subscriber, what: Notification) -> None:
        if subscriber in self.lost:
            return
        queue = self.told[subscriber]
        for at, old in enumerate(queue):
            if name_of(old) == name_of(what):
                queue[at] = what
                return
        queue.append(what)

    @rule(source=st.sampled_from(SOURCES), uri=st.sampled_from([*NAMES, "x:1/a/b", "x:9"]))
    def a_resource_changes(self, source: Source, uri: str) -> None:
        awake = {one for one, queue in self.told.items() if queue}
        expected: dict[Subscriber, set[str]] = {}
        for subscriber, interest in self.model.items():
            covering = {
                shown: place.name
                for shown, place in interest.uris.items()
                if (place.server, place.scope) == source and (uri == place.name or uri.startswith(f"{place.name}/"))
            }
            nearest = max(covering.values(), key=len, default="")
            if covering:
                expected[subscriber] = {shown for shown, name in covering.items() if name == nearest}
        woken = self.interests.updated(*source, uri)
        assert set(woken) == expected.keys() - awake - self.lost
        assert len(woken) == len(set(woken))
        for subscriber, showns in expected.items():
            for shown in showns:
                self.tell(subscriber, Updated(shown))

    @rule(source=st.sampled_from(SOURCES), id=st.sampled_from(NAMES), size=st.integers(0, 12))
    def a_task_moves(self, source: Source, id: str, size: int) -> None:
        woken = self.interests.task(*source, id, b"x" * size)
        expected = {
            subscriber
            for subscriber, interest in self.model.items()
            if any(((p.server, p.scope), p.name) == (source, id) for p in interest.tasks.values())
        }
        lost = set(self.interests._news._lost)
        assert set(woken) <= expected | lost
        assert lost - self.lost <= set(woken), "who loses news hears it"
        for subscriber in expected:
            for shown, place in self.model[subscriber].tasks.items():
                if ((place.server, place.scope), place.name) == (source, id):
                    self.tell(subscriber, TaskChanged(shown, b"x" * size))
        for subscriber in lost:
            self.told[subscriber] = []
        self.lost = lost
        size_of = [sum(len(w.params) for w in q if isinstance(w, TaskChanged)) for q in self.told.values()]
        assert sum(size_of) == self.interests._news.size <= TIGHT.all_queues
        assert max(size_of, default=0) <= TIGHT.queue

    @rule(server=st.sampled_from(["one", "two"]), kind=st.sampled_from(KINDS), scope=st.sampled_from(["s", "t", None]))
    def a_list_changes(self, server: str, kind: ListKind, scope: str | None) -> None:
        run(self.interests.list_changed(server, kind, now=self.now, chance=lambda: 0.5, scope=scope))
        for subscriber, interest in self.model.items():
            of = {its for name, its in interest.sources if name == server}
            if kind in interest.kinds and (of if scope is None else scope in of):
                self.marks.add((subscriber, kind))

    @rule(seconds=st.sampled_from([0.5, 2.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        due = self.interests.due(self.now)
        assert len(due) == len(set(due)) and set(due) <= self.marks
        assert seconds < 2 or set(due) == self.marks
        self.marks -= set(due)
        self.checking += due

    @precondition(lambda self: self.checking)
    @rule(digest=st.sampled_from([b"0", b"1"]))
    def a_view_is_made(self, digest: bytes) -> None:
        subscriber, kind = self.checking.pop()
        tells = self.interests.hashed(subscriber, kind, digest)
        listens = subscriber in self.model and kind in self.model[subscriber].kinds
        assert tells == (listens and self.seen.get((subscriber, kind)) != digest)
        if tells:
            self.seen[subscriber, kind] = digest
            self.tell(subscriber, ListChanged(kind))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def reads(self, data: st.DataObject) -> None:
        subscriber = data.draw(st.sampled_from(list(self.model)))
        if subscriber in self.lost:
            with pytest.raises(Overloaded):
                self.interests.take(subscriber)
        else:
            assert sorted(self.interests.take(subscriber), key=name_of) == sorted(self.told[subscriber], key=name_of)
            self.told[subscriber] = []

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def one_that_is_gone_hears_nothing(self, data: st.DataObject) -> None:
        subscriber = data.draw(st.sampled_from(self.gone))
        assert self.interests.take(subscriber) == []
        assert self.interests.remove(subscriber) == NOTHING

    @invariant()
    def the_union_is_that_of_all(self) -> None:
        assert {source: self.interests.wanted(*source) for source in SOURCES} == {
            source: self.naive(source) for source in SOURCES
        }

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.interests) == len(self.model) <= TIGHT.subscribers
        texts: dict[Any, int] = {}
        for subscriber, interest in self.model.items():
            named = [*interest.uris.items(), *interest.tasks.items()]
            assert len(named) == subscriber.named <= TIGHT.items
            text = sum(len(shown) + len(place.name) for shown, place in named)
            texts[subscriber.principal] = texts.get(subscriber.principal, 0) + text
        assert {key: share.text for key, share in self.interests._shares.items()} == texts
        assert sum(texts.values()) == self.interests._text <= TIGHT.text
        assert all(text <= TIGHT.principal_text for text in texts.values())
        assert all(share.subscribers <= TIGHT.principal_subscribers for share in self.interests._shares.values())

    def teardown(self) -> None:
        for subscriber in list(self.model):
            self.interests.remove(subscriber)
        leaves_nothing(self.interests)


def name_of(what: Notification) -> str:
    if isinstance(what, ListChanged):
        return what.kind
    return what.uri if isinstance(what, Updated) else what.id


Life.TestCase.settings = settings(deadline=None)
TestLife = Life.TestCase
