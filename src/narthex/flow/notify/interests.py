"""Who wants to hear what, what each upstream is to be asked for, and who is told when something comes.

In: subscribers with their interests, what upstreams say, the time, chance. Out: per upstream the union of all wishes,
whether an operation changed it, and for each subscriber what it is to be told. Pure: a driver (un)subscribes upstream,
makes lists and writes streams. Cases: `tests/flow/notify/test_interests.py`, against a naive model.

A client is told that a list changed only if its own view did: a mark comes due after a moment (`debounce.py`), the
driver makes the list as this client sees it, and `hashed` compares. What is to be told waits in `news.py`.
Source: MCP 2026-07-28, basic/patterns/subscriptions; MCP 2025-11-25, server/resources ("Subscriptions"); design §3-§5.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterator, Mapping

import msgspec

from narthex.errors import InvalidParams, Overloaded
from narthex.flow.codec.subscriptions import (
    LIST_KINDS,
    Elicited,
    ListChanged,
    ListKind,
    Logged,
    Notification,
    Progressed,
    TaskChanged,
    Updated,
    Wanted,
)
from narthex.flow.notify.debounce import Debounce
from narthex.flow.notify.news import Item, News

Scope = Hashable
"""Who shares the conversation with an upstream (design §4): a key of it, with the tenant in it. Never None."""
Source = tuple[str, Scope]
"""A server, and on which scope: what has one subscription upstream."""

MOST_ANCESTORS = 32
SLICE = 200
"""Views marked between two pauses: well under a millisecond."""


class Bounds(msgspec.Struct, frozen=True):
    """`text` counts characters of URIs and task ids; `queue` bytes of task notifications that nobody has taken yet."""

    subscribers: int = 10_000
    items: int = 1024
    """Resources and tasks of one subscriber."""
    source_items: int = 4096
    """Resources and tasks of one source: it is asked for them in one request."""
    text: int = 64 * 1024 * 1024
    queue: int = 1024 * 1024
    all_queues: int = 64 * 1024 * 1024
    principal_subscribers: int = 64
    principal_text: int = 4 * 1024 * 1024
    debounce_s: tuple[float, float] = (0.05, 0.25)


DEFAULTS = Bounds()
NOTHING_SEEN: Mapping[ListKind, bytes] = {}


class Place(msgspec.Struct, frozen=True):
    """Where a resource or a task is: `name` is its URI or id there."""

    server: str
    scope: Scope
    name: str


class Interest(msgspec.Struct, frozen=True):
    """What one subscriber listens for. `sources` are those that its lists are made from; names are as it knows them."""

    kinds: frozenset[ListKind] = frozenset()
    sources: frozenset[Source] = frozenset()
    uris: Mapping[str, Place] = {}
    tasks: Mapping[str, Place] = {}


_Entry = tuple[Source, Item, str]
"""At this source, this item by its name there; and its name as the subscriber knows it."""
_Holders = dict[tuple["Subscriber", str], None]


class Subscriber:
    """One stream that is told things: a modern client's `subscriptions/listen`, or a legacy session's standalone one.

    `viewer` names who sees the same lists: a driver may make a list once for all that share it. The rest is kept by
    `Interests`.
    """

    __slots__ = ("held", "kinds", "named", "principal", "seen", "viewer")

    def __init__(self, viewer: Hashable, principal: Hashable) -> None:
        self.viewer = viewer
        self.principal = principal
        self.kinds: frozenset[ListKind] = frozenset()
        self.held: dict[Item, set[tuple[Source, Item]]] = {}
        self.named = 0  # how many of what it holds are resources and tasks
        self.seen: dict[ListKind, bytes] = {}


class _Share(msgspec.Struct):
    """What one principal uses."""

    subscribers: int = 0
    text: int = 0


class Interests:
    """All subscribers of a process. An operation that may change what upstreams are to be asked for answers with the
    sources where it did: `wanted` has the new union, an empty one where nobody is left."""

    def __init__(self, bounds: Bounds = DEFAULTS) -> None:
        self._bounds = bounds
        self._subscribers: dict[Subscriber, None] = {}
        self._shares: dict[Hashable, _Share] = {}
        self._text = 0
        self._asked: dict[str, dict[Scope, dict[Item, _Holders]]] = {}
        self._marks: Debounce[tuple[Subscriber, ListKind]] = Debounce(*bounds.debounce_s)
        self._news: News[Subscriber] = News(bounds.queue, bounds.all_queues)
        self._logs = 0

    def __len__(self) -> int:
        return len(self._subscribers)

    # --- who wants what

    def add(
        self, viewer: Hashable, principal: Hashable, interest: Interest, seen: Mapping[ListKind, bytes] = NOTHING_SEEN
    ) -> tuple[Subscriber, frozenset[Source]]:
        """A new subscriber.

        Args:
            seen: Digests of the lists as it has them. A list without one is told as changed at its first mark.
        Raises:
            Overloaded: Too many subscribers, or they want too much.
            InvalidParams: This one wants too much. After any refusal everything is as before.
        """
        share = self._shares.get(principal, _Share())
        if len(self._subscribers) >= self._bounds.subscribers:
            raise Overloaded("too many subscriptions; try again")
        if share.subscribers >= self._bounds.principal_subscribers:
            raise Overloaded("too many subscriptions of one principal")
        subscriber = Subscriber(viewer, principal)
        added = _entries(interest)
        self._check(subscriber, added, set())
        share.subscribers += 1
        self._shares[principal] = share
        self._subscribers[subscriber] = None
        subscriber.kinds = interest.kinds
        subscriber.seen.update({kind: digest for kind, digest in seen.items() if kind in interest.kinds})
        return subscriber, self._apply(subscriber, added, set())

    def change(self, subscriber: Subscriber, interest: Interest) -> frozenset[Source]:
        """Want this instead, from now on. Raises as `add` does. One that was removed stays so."""
        if subscriber not in self._subscribers:
            return frozenset()
        old, new = _held(subscriber), _entries(interest)
        self._check(subscriber, new - old, old - new)
        for kind in subscriber.kinds - interest.kinds:
            self._forget_list(subscriber, kind)
        subscriber.kinds = interest.kinds
        return self._apply(subscriber, new - old, old - new)

    def subscribe(self, subscriber: Subscriber, uri: str, place: Place) -> frozenset[Source]:
        """Want this resource too (legacy `resources/subscribe`); once more is no more. Raises as `add` does."""
        if subscriber not in self._subscribers:
            return frozenset()
        old = _held_as(subscriber, ("uri", uri))
        new: set[_Entry] = {((place.server, place.scope), ("uri", place.name), uri)}
        self._check(subscriber, new - old, old - new)
        return self._apply(subscriber, new - old, old - new)

    def unsubscribe(self, subscriber: Subscriber, uri: str) -> frozenset[Source]:
        """Want this resource no more, however often it was subscribed to. Other subscribers keep theirs."""
        return self._apply(subscriber, set(), _held_as(subscriber, ("uri", uri)))

    def remove(self, subscriber: Subscriber) -> frozenset[Source]:
        """It hears nothing more, and leaves nothing behind. Idempotent."""
        if subscriber not in self._subscribers:
            return frozenset()
        changed = self.change(subscriber, Interest())
        self._news.forget(subscriber)
        del self._subscribers[subscriber]
        share = self._shares[subscriber.principal]
        share.subscribers -= 1
        if not share.subscribers:
            del self._shares[subscriber.principal]
        return changed

    def wanted(self, server: str, scope: Scope) -> Wanted:
        """All that anybody wants of this source: what it is to be asked for."""
        names: dict[str, set[str]] = {"list": set(), "uri": set(), "task": set()}
        for what, name in self._items((server, scope)):
            names[what].add(name)
        kinds = frozenset(kind for kind in LIST_KINDS if kind in names["list"])
        return Wanted(kinds, frozenset(names["uri"]), frozenset(names["task"]))

    @staticmethod
    def places(subscriber: Subscriber, uri: str) -> list[tuple[str, str]]:
        """Where a resource is that this one wants: server, and its URI there."""
        return [(source[0], name) for source, (_, name) in subscriber.held.get(("uri", uri), ())]

    def _items(self, source: Source) -> Mapping[Item, _Holders]:
        return self._asked.get(source[0], {}).get(source[1], {})

    def _check(self, subscriber: Subscriber, added: set[_Entry], gone: set[_Entry]) -> None:
        """Raise when a bound would be passed. What is new is held before what goes is let go: so it is counted at a
        source. To want less is never refused."""
        bounds = self._bounds
        if subscriber.named + _named(added) - _named(gone) > bounds.items:
            raise InvalidParams(f"a subscription names at most {bounds.items} resources and tasks")
        more = _text(added) - _text(gone)
        share = self._shares.get(subscriber.principal, _Share())
        if share.text + more > bounds.principal_text or self._text + more > bounds.text:
            raise Overloaded("subscriptions name too many resources")
        new: dict[Source, set[Item]] = {}
        for source, item, _ in added:
            if item not in self._items(source):
                new.setdefault(source, set()).add(item)
        if any(len(self._items(source)) + len(items) > bounds.source_items for source, items in new.items()):
            raise Overloaded("too many resources are subscribed to at one server")

    def _apply(self, subscriber: Subscriber, added: set[_Entry], gone: set[_Entry]) -> frozenset[Source]:
        """Hold, and let go; the sources where an item is new, or nobody's any more."""
        changed: set[Source] = set()
        for source, item, shown in added:
            items = self._asked.setdefault(source[0], {}).setdefault(source[1], {})
            if item not in items:
                items[item] = {}
                changed.add(source)
            items[item][subscriber, shown] = None
            subscriber.held.setdefault((item[0], shown), set()).add((source, item))
        for source, item, shown in gone:
            if self._let_go(source, item, (subscriber, shown)):
                changed.add(source)
            held = subscriber.held[item[0], shown]
            held.remove((source, item))
            if not held:
                del subscriber.held[item[0], shown]
                if item[0] != "list":  # a list may be wanted while nothing is in it
                    self._news.drop(subscriber, (item[0], shown))
        if added or gone:
            more = _text(added) - _text(gone)
            subscriber.named += _named(added) - _named(gone)
            self._text += more
            self._shares[subscriber.principal].text += more
        return frozenset(changed)

    def _let_go(self, source: Source, item: Item, holder: tuple[Subscriber, str]) -> bool:
        """True where the item is nobody's any more."""
        server, scope = source
        scopes = self._asked[server]
        items = scopes[scope]
        del items[item][holder]
        if items[item]:
            return False
        del items[item]
        if not items:
            del scopes[scope]
        if not scopes:
            del self._asked[server]
        return True

    def _forget_list(self, subscriber: Subscriber, kind: ListKind) -> None:
        self._marks.forget((subscriber, kind))
        subscriber.seen.pop(kind, None)
        self._news.drop(subscriber, ("list", kind))

    # --- what comes

    def updated(self, server: str, scope: Scope, uri: str) -> list[Subscriber]:
        """A resource changed at a source. Who is woken: those who have news and had none, for the driver to `take`.

        It may be a part of what was subscribed to (schema of both eras, `ResourceUpdatedNotification`). Then a
        subscriber is told of what it asked for itself: the part's name may be one that it must not see.
        """
        items = self._items((server, scope))
        told: dict[Subscriber, str] = {}
        woken: list[Subscriber] = []
        for covering in _covering(uri):
            for subscriber, shown in items.get(("uri", covering), ()):
                if told.setdefault(subscriber, covering) == covering:
                    woken += self._news.put(subscriber, ("uri", shown), Updated(shown))
        return woken

    def task(self, server: str, scope: Scope, id: str, params: bytes) -> list[Subscriber]:
        """A task's whole state, `params` as its source gave them. Who is woken; some to hear that they lost news."""
        woken: list[Subscriber] = []
        for subscriber, shown in self._items((server, scope)).get(("task", id), ()):
            woken += self._news.put(subscriber, ("task", shown), TaskChanged(shown, params))
        return list(dict.fromkeys(woken))

    def listening(self, server: str, scope: Scope) -> list[Subscriber]:
        """Those who see lists of this source: who may hear what it says outside of calls."""
        items = self._items((server, scope))
        return list(dict.fromkeys(one for (what, _), held in items.items() if what == "list" for one, _ in held))

    def task_of(self, subscriber: Subscriber, shown: str, params: bytes) -> list[Subscriber]:
        """The state of a task that this one has made, by the name that it knows. Who is woken."""
        return self._news.put(subscriber, ("task", shown), TaskChanged(shown, params))

    def elicited(self, subscriber: Subscriber, what: Elicited) -> list[Subscriber]:
        """What this one was to do elsewhere is done. Who is woken."""
        return self._news.put(subscriber, ("elicitation", what.id), what)

    def progressed(self, subscriber: Subscriber, what: Progressed) -> list[Subscriber]:
        """A task of this one is further; what it has not read of that task is of no more use. Who is woken."""
        return self._news.put(subscriber, ("progress", what.token.decode()), what)

    def logged(self, subscriber: Subscriber, params: bytes, room: int) -> list[Subscriber] | None:
        """A log message for this one. Who is woken; None where it has not read what is there: it is left out."""
        if not self._news.has_room(subscriber, len(params), room):
            return None
        self._logs += 1
        return self._news.put(subscriber, ("log", str(self._logs)), Logged(params))

    def list_changed(
        self, server: str, kind: ListKind, *, now: float, chance: Callable[[], float], scope: Scope | None = None
    ) -> Generator[None, None, None]:
        """A server's list changed: mark every view that it is part of, on one scope or (None) on all of them.

        A generator, so that ten thousand views do not stop the loop: it pauses every `SLICE` of them.

        Args:
            chance: A number in [0, 1), another for each view.
        """
        scopes = self._asked.get(server, {})
        found = list(scopes.values()) if scope is None else [scopes.get(scope, {})]
        holders = [subscriber for items in found for subscriber, _ in items.get(("list", kind), ())]
        for count, subscriber in enumerate(holders, 1):
            self.mark(subscriber, kind, now=now, chance=chance())  # none, if it left in a pause
            if count % SLICE == 0:
                yield

    def mark(self, subscriber: Subscriber, kind: ListKind, *, now: float, chance: float) -> None:
        """Its view of a list may have changed; also for a reason of ours (a reload, a grant)."""
        if kind in subscriber.kinds:
            self._marks.mark((subscriber, kind), now=now, chance=chance)

    def due(self, now: float) -> list[tuple[Subscriber, ListKind]]:
        """The views to make and give to `hashed`, each once; of very many a part (`next_due` is past then). A change
        that comes meanwhile marks one anew."""
        return self._marks.due(now)

    def next_due(self) -> float | None:
        """When to ask `due`; None while nothing is marked."""
        return self._marks.next_due()

    def hashed(self, subscriber: Subscriber, kind: ListKind, digest: bytes) -> bool:
        """A view's digest now, of several the latest. True where it differs from the one before: there is news."""
        if kind not in subscriber.kinds or subscriber.seen.get(kind) == digest:
            return False
        subscriber.seen[kind] = digest
        self._news.put(subscriber, ("list", kind), ListChanged(kind))
        return True

    def take(self, subscriber: Subscriber) -> list[Notification]:
        """What it is to be told, in order; nothing is, then. Raises Overloaded where its stream is to be ended."""
        return self._news.take(subscriber)


def _entries(interest: Interest) -> set[_Entry]:
    entries: set[_Entry] = {(source, ("list", kind), kind) for source in interest.sources for kind in interest.kinds}
    for shown, place in interest.uris.items():
        entries.add(((place.server, place.scope), ("uri", place.name), shown))
    for shown, place in interest.tasks.items():
        entries.add(((place.server, place.scope), ("task", place.name), shown))
    return entries


def _held(subscriber: Subscriber) -> set[_Entry]:
    return {(source, item, shown) for (_, shown), held in subscriber.held.items() for source, item in held}


def _held_as(subscriber: Subscriber, shown: Item) -> set[_Entry]:
    return {(source, item, shown[1]) for source, item in subscriber.held.get(shown, ())}


def _named(entries: set[_Entry]) -> int:
    return sum(item[0] != "list" for _, item, _ in entries)


def _text(entries: set[_Entry]) -> int:
    return sum(len(item[1]) + len(shown) for _, item, shown in entries if item[0] != "list")


def _covering(uri: str) -> Iterator[str]:
    """`uri`, and what it may be a part of, the longest first: it is cut at `/`, `?` and `#`."""
    yield uri
    end = len(uri)
    for _ in range(MOST_ANCESTORS):
        end = max(uri.rfind(mark, 0, end) for mark in "/?#")
        if end < 0:
            return
        if end + 1 < len(uri):
            yield uri[: end + 1]
        yield uri[:end]
