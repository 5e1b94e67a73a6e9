"""How much a running gateway keeps, counted two ways: the containers that its objects hold, and the objects themselves.

In: the objects that a gateway is made of. Out: a number for each place. A place is a class of ours and an attribute,
`LiveSessions.by_id` for one; its number is the entries of all such containers together, and of the containers in them.
Nothing has to be named beforehand: a map that is new is counted like the others.
"""

from __future__ import annotations

import gc
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Any

CONTAINERS = (dict, OrderedDict, set, frozenset, list, deque, tuple)


def kept(*roots: object) -> Counter[str]:
    """The entries of every container that is reached from `roots` by attributes and entries."""
    found: Counter[str] = Counter()
    seen: set[int] = set()
    queue: list[tuple[str, object]] = [(type(root).__name__, root) for root in roots]
    while queue:
        place, value = queue.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, CONTAINERS):
            if not isinstance(value, tuple):
                found[place] += len(value)
            queue += ((place, entry) for entry in entries(value))
        elif is_ours(value):
            queue += ((f"{type(value).__name__}.{name}", one) for name, one in attributes(value))
    return found


def entries(container: Any) -> Iterator[object]:
    if isinstance(container, Mapping):
        yield from container.keys()
        yield from container.values()
    else:
        yield from container


def is_ours(value: object) -> bool:
    module = str(type(value).__module__)
    return module.startswith("narthex.") and not module.startswith("narthex.testing")


def attributes(value: Any) -> Iterator[tuple[str, object]]:
    names: set[str] = set(getattr(value, "__dict__", ())) | set(getattr(value, "__struct_fields__", ()))
    for kind in type(value).__mro__:
        slots = getattr(kind, "__slots__", ())
        names |= {slots} if isinstance(slots, str) else set(slots)
    for name in names:
        if hasattr(value, name) and not name.startswith("__"):
            yield name.lstrip("_"), getattr(value, name)


def alive() -> Counter[str]:
    """The objects of our classes that exist, by class. What the collector does not track is not among them."""
    gc.collect()
    return Counter(type(one).__qualname__ for one in gc.get_objects() if is_ours(one))


def more(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """What there is more of than there was."""
    return {place: count - before.get(place, 0) for place, count in after.items() if count > before.get(place, 0)}
