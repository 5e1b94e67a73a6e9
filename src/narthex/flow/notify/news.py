"""What waits to be told to each reader, until it is written: bounded, and the same news twice is one.

In: notifications, each with the item that it is about. Out: per reader what is new, in order, or that it read too
slowly. Pure. Cases: `tests/flow/notify/test_news.py`.

There is one entry at most for each item that a reader listens for, so the number needs no bound of its own; of log
messages there are as many as have room. What tasks carry has a bound. A state of a task that is left out would be lost
silently, so a reader whose news are too many loses all of them, and is told so.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Literal, TypeVar

import msgspec

from narthex.errors import Overloaded
from narthex.flow.codec.subscriptions import Elicited, Logged, Notification, Progressed, TaskChanged

Item = tuple[Literal["list", "uri", "task", "log", "elicitation", "progress"], str]
"""A list by its kind, a resource by its URI, a task or elicitation by its id, progress by its token, a log message by a
number."""
Reader = TypeVar("Reader", bound=Hashable)


class _Queue(msgspec.Struct):
    news: dict[Item, Notification] = {}
    size: int = 0


class News(Generic[Reader]):
    """The queues of all readers. One that has no news has no queue.

    Args:
        most_each, most: Bytes that tasks' states and log messages may take, of one reader and in all.
    """

    __slots__ = ("_lost", "_most", "_most_each", "_queues", "size")

    def __init__(self, most_each: int, most: int) -> None:
        self.size = 0
        self._most_each = most_each
        self._most = most
        self._queues: dict[Reader, _Queue] = {}
        self._lost: set[Reader] = set()

    def put(self, reader: Reader, item: Item, what: Notification) -> list[Reader]:
        """Queue it, in the place of older news of this item. Who is woken: who had no news before, or has lost them.

        A reader loses its news when they are too large; the one with the largest, when all together are.
        """
        if reader in self._lost:
            return []
        queue = self._queues.get(reader)
        woken = [reader] if queue is None else []
        if queue is None:
            queue = self._queues[reader] = _Queue()
        more = _size(what) - _size(queue.news.get(item))
        queue.news[item] = what
        queue.size += more
        self.size += more
        if queue.size > self._most_each:
            self._lose(reader, woken)
        while self.size > self._most:
            self._lose(max(self._queues, key=lambda one: self._queues[one].size), woken)
        return woken

    def has_room(self, reader: Reader, size: int, most: int) -> bool:
        """Could so many bytes be put, with at most `most` in its queue, and nobody lose news for it?"""
        queue = self._queues.get(reader)
        return size + (queue.size if queue is not None else 0) <= most and self.size + size <= self._most

    def take(self, reader: Reader) -> list[Notification]:
        """What is new, in the order in which it came first; nothing is, then.

        Raises:
            Overloaded: It read too slowly, and has lost something: its stream is to be ended.
        """
        if reader in self._lost:
            raise Overloaded("the subscription was read too slowly; listen again")
        queue = self._queues.pop(reader, None)
        if queue is None:
            return []
        self.size -= queue.size
        return list(queue.news.values())

    def drop(self, reader: Reader, item: Item) -> None:
        """This is not to be told any more."""
        queue = self._queues.get(reader)
        if queue is not None and item in queue.news:
            size = _size(queue.news.pop(item))
            queue.size -= size
            self.size -= size
            if not queue.news:
                del self._queues[reader]

    def forget(self, reader: Reader) -> None:
        """Nothing is kept of it: no news, and not that it lost some."""
        queue = self._queues.pop(reader, None)
        self.size -= queue.size if queue is not None else 0
        self._lost.discard(reader)

    def _lose(self, reader: Reader, woken: list[Reader]) -> None:
        self.forget(reader)
        self._lost.add(reader)
        if reader not in woken:
            woken.append(reader)


def _size(what: Notification | None) -> int:
    return len(what.params) if isinstance(what, TaskChanged | Logged | Elicited | Progressed) else 0
