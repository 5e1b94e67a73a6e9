"""What legacy clients call their tasks: each by the name that they were given first. Pure.

A task's id travels in a seal, and no two seals of one id look alike: told of a task by another name than the one it
knows, a client would take it for another. Cases: `tests/flow/notify/test_task_names.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

MOST = 10_000
"""Names that are kept, the ones used last; of the others the task gets a new one."""


class TaskNames:
    """The names of all sessions' tasks."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._names: OrderedDict[tuple[str, str, str], str] = OrderedDict()

    def name(self, session: str, server: str, id_: str, make: Callable[[], str]) -> str:
        """The name by which this session knows the task `id_` of a server; made at the first need."""
        key = (session, server, id_)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = make()
            if len(self._names) > self._most:
                self._names.popitem(last=False)
        else:
            self._names.move_to_end(key)
        return name
