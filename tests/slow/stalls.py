"""Every thread, timer and process may stall: what a busy machine does once in ten thousand runs, done all the time.

Run at the start of each Python process of a test run (`run.py` sees to that) where `NARTHEX_TEST_SLOW` is set, to any
seed. A thread begins late, and goes on late when it was waited for or has work; what it writes and syncs, and what it
tells an event loop, comes late; timers are late; processes start late; now and then an event loop stands still, so that
connections are accepted and read late. Each stall lasts 50 to 400 ms. Nothing is dropped and no order is changed that
anybody promised: a test that fails under this asserts something that it has not waited for.

Works on the sources alone (`NARTHEX_COMPILE=0`): machine code has its names bound.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import queue
import random
import subprocess
import threading
import time
from typing import Any

LEAST_S, MOST_S = 0.05, 0.4
SHARE = 0.15
"""Of the moments at which a thread may stall, those at which it does."""
APART_S = 0.5, 4.0
"""From one standstill of an event loop to the next."""

_chance = random.Random(f"{os.environ['NARTHEX_TEST_SLOW']} {os.getpid()}")
_sleep = time.sleep


def _stall(share: float = SHARE) -> None:
    if _chance.random() < share:
        _sleep(_chance.uniform(LEAST_S, MOST_S))


def _beside() -> bool:
    return threading.current_thread() is not threading.main_thread()


def _late(owner: Any, name: str, *, behind: bool = False, everywhere: bool = False) -> None:
    """Stall in front of `owner.name`, or `behind` it; in other threads than the main one, or `everywhere`."""
    real = getattr(owner, name)

    def late(*args: Any, **options: Any) -> Any:
        if not behind and (everywhere or _beside()):
            _stall()
        found = real(*args, **options)
        if behind and (everywhere or _beside()):
            _stall()
        return found

    setattr(owner, name, late)


class _Queue(queue.SimpleQueue):  # type: ignore[type-arg]
    """Whoever takes from it begins late: the threads of executors too."""

    def get(self, *args: Any, **options: Any) -> Any:
        found = super().get(*args, **options)
        if _beside():
            _stall()
        return found


def _loops_stand_still() -> None:
    """Timers of every loop are late, what other threads tell it as well, and sometimes it does nothing at all."""
    known: set[type] = set()
    soon = asyncio.BaseEventLoop.call_soon_threadsafe

    def trouble(loop: Any, tell: Any) -> None:
        while not loop.is_closed():
            _sleep(_chance.uniform(*APART_S))
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                tell(loop, _sleep, _chance.uniform(LEAST_S, MOST_S))

    def learn(kind: Any) -> Any:
        """uvloop's class is known only once there is one of it. Returns how such a loop is told something at once."""
        tell = soon if issubclass(kind, asyncio.BaseEventLoop) else kind.__mro__[1].call_soon_threadsafe
        if kind not in known:
            known.add(kind)
            _late(kind, "call_soon_threadsafe")
            later = kind.call_later
            kind.call_later = lambda self, delay, *args, **options: later(
                self, delay + (_chance.uniform(0, MOST_S) if _chance.random() < SHARE else 0), *args, **options
            )
        return tell

    def begin(loop: Any) -> None:
        threading.Thread(target=trouble, args=(loop, learn(type(loop))), daemon=True, name="stalls").start()

    run, forever = asyncio.Runner.run, asyncio.BaseEventLoop.run_forever

    def run_late(self: Any, *args: Any, **options: Any) -> Any:
        loop = self.get_loop()
        if not isinstance(loop, asyncio.BaseEventLoop):
            begin(loop)
        return run(self, *args, **options)

    def forever_late(self: Any) -> None:
        if not hasattr(self, "is_troubled"):  # once, however often it is run
            self.is_troubled = True
            begin(self)
        forever(self)

    asyncio.Runner.run = run_late  # type: ignore[method-assign]
    asyncio.BaseEventLoop.run_forever = forever_late  # type: ignore[method-assign]


_late(threading.Thread, "run")
_late(threading.Condition, "wait", behind=True)
_late(concurrent.futures.Future, "set_result")
for _name in ("write", "fsync", "fdatasync"):
    _late(os, _name)
_late(subprocess.Popen, "__init__", everywhere=True)
queue.SimpleQueue = _Queue  # type: ignore[misc]
_loops_stand_still()
