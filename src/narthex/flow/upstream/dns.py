"""Names to addresses, so that one slow name never stalls another (design §5).

In: host names that the operator wrote. Out: addresses, from a cache while it is fresh. Does I/O: it asks the machine's
resolver, in threads of our own. Cases: `tests/flow/upstream/test_dns.py`.

`getaddrinfo` blocks and cannot be cancelled. So each look-up has a thread, at most one a host and `THREADS` in all, and
these are daemons: a resolver that hangs must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import msgspec

TTL_S = 30.0
PATIENCE_S = 1.0
"""How long a look-up may take before the stale answer is good enough."""
THREADS = 16
MOST_HOSTS = 1024


class Address(msgspec.Struct, frozen=True):
    """Where to connect to. `scope` is the zone of a link-local IPv6 address."""

    family: int
    ip: str
    scope: int = 0

    def sockaddr(self, port: int) -> tuple[Any, ...]:
        return (self.ip, port, 0, self.scope) if self.family == socket.AF_INET6 else (self.ip, port)


Lookup = Callable[[str], tuple[Address, ...]]


def system_lookup(host: str) -> tuple[Address, ...]:
    """Ask the machine's resolver; blocks. Raises OSError or UnicodeError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    unique = dict.fromkeys(
        Address(family, str(sockaddr[0]).split("%")[0], int(sockaddr[3]) if len(sockaddr) == 4 else 0)
        for family, _, _, _, sockaddr in found
        if family in (socket.AF_INET, socket.AF_INET6)
    )
    return tuple(unique)


class _Known(msgspec.Struct):
    addresses: tuple[Address, ...]
    fresh_until: float


class Resolver:
    """Looks names up, and remembers.

    Args:
        lookup: Asks a resolver; called in a thread.
        clock: Seconds, monotonic.
    """

    def __init__(self, lookup: Lookup, clock: Callable[[], float]) -> None:
        self._lookup = lookup
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, asyncio.Task[tuple[Address, ...]]] = {}
        self._threads = asyncio.Semaphore(THREADS)

    async def addresses(self, host: str) -> tuple[Address, ...]:
        """The addresses of `host`, never none; stale ones where the resolver fails or is slow.

        Raises:
            OSError: No address, or the resolver failed, and nothing is remembered.
        """
        known = self._known.get(host)
        if known is not None and self._clock() < known.fresh_until:
            return known.addresses
        task = self._asking.get(host)
        if task is None:
            task = self._asking[host] = asyncio.get_running_loop().create_task(self._ask(host))
            task.add_done_callback(lambda done: self._asked(host, done))
        if known is None:
            return await asyncio.shield(task)
        await asyncio.wait({task}, timeout=PATIENCE_S)
        return task.result() if task.done() and task.exception() is None else known.addresses

    async def _ask(self, host: str) -> tuple[Address, ...]:
        async with self._threads:
            try:
                addresses = await self._in_thread(host)
            except UnicodeError:
                raise OSError("not a host name") from None
        if not addresses:
            raise OSError("the name has no address")
        if len(self._known) >= MOST_HOSTS:
            del self._known[next(iter(self._known))]
        self._known[host] = _Known(addresses, self._clock() + TTL_S)
        return addresses

    def _asked(self, host: str, task: asyncio.Task[tuple[Address, ...]]) -> None:
        del self._asking[host]
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it

    def _in_thread(self, host: str) -> asyncio.Future[tuple[Address, ...]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Address, ...]] = loop.create_future()

        def tell(result: tuple[Address, ...] | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            elif result is not None:
                future.set_result(result)

        def run() -> None:
            result, failure = None, None
            try:
                result = self._lookup(host)
            except Exception as error:
                failure = error
            try:
                loop.call_soon_threadsafe(tell, result, failure)
            except RuntimeError:
                return  # the loop has ended: nobody waits

        threading.Thread(target=run, name=f"dns {host}", daemon=True).start()
        return future
