"""Two helper processes for one bundle: one for calls, one for lists, each in the other's place where that is needed.

In: documents. Out: what the policy says of each, or why it says nothing. A document that takes long holds up no other:
those behind it move to the other helper; at its deadline its helper is killed, a new one comes, and whatever waited is
asked again. Nothing is lost by that: asking twice is asking once.
Cases: `tests/engines/test_helpers.py`. Source: `docs/decisions/rego-in-a-helper.md`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Literal

from narthex.engines.frames import Flawed, Source
from narthex.engines.helper import COMMAND, Asked, Ending, Helper, HelperGone
from narthex.flow.policy.engines.rego import Uses

PATIENCE_S = 0.01
"""After that long on one document, others are taken to the other helper."""
MOST_WAITING = 2000
WAIT_S = 2.0
"""How long a document may wait for a helper that can take it, at most."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Between two starts, where one did not come to answer anything."""
_log = logging.getLogger("narthex.policy")


class TookTooLong(Exception):
    """The policy was not done with this document at its deadline."""


class Broken(Exception):
    """The helper ended over this document, or there is none."""


class Helpers:
    """Both, from `start` to `close`."""

    def __init__(self, source: Source, deadline_s: float, command: Sequence[str] = COMMAND) -> None:
        self._command = command
        self.source = source
        self._deadline_s = deadline_s
        self._slots: list[Helper | None] = [None, None]
        self._queue: list[Asked] = []
        self._pauses = [0.0, 0.0]
        self._starting: dict[int, asyncio.Task[None]] = {}
        self._closed = False
        self.restarts = 0

    async def start(self) -> Uses:
        """Start both. Raises Flawed; HelperGone: none came up."""
        helpers = [self._make() for _ in self._slots]
        try:
            uses, _ = await asyncio.gather(*(one.start(self.source) for one in helpers))
        except BaseException:
            for one in helpers:
                one.close()
            raise
        self._slots = list(helpers)
        return uses

    async def ask(self, document: bytes, slot: Literal[0, 1] = 0) -> bytes:
        """What the child says of a document; `slot` is the helper that it is meant for.

        Raises:
            TookTooLong, Broken.
        """
        asked = Asked(document, asyncio.get_running_loop().create_future())
        self._give(asked, slot)
        return await asked.answer

    async def ask_all(self, documents: Sequence[bytes], slot: Literal[0, 1]) -> list[bytes | BaseException]:
        """What the child says of each; what `ask` would raise stands in its place."""
        loop = asyncio.get_running_loop()
        asked = [Asked(document, loop.create_future()) for document in documents]
        for one in asked:
            self._give(one, slot)
        return await asyncio.gather(*(one.answer for one in asked), return_exceptions=True)

    def pids(self) -> list[int]:
        return [one.pid for one in self._slots if one is not None]

    def close(self) -> None:
        self._closed = True
        for task in self._starting.values():
            task.cancel()
        for one in self._slots:
            if one is not None:
                left = list(one.waiting)
                one.close()
                self._fail(left, "the policy has changed")
        self._fail(self._queue, "the policy has changed")
        self._queue = []

    def _give(self, asked: Asked, slot: int) -> None:
        for one in (self._slots[slot], self._slots[1 - slot]):
            if one is not None and one.ready and not one.is_slow and len(one.waiting) < MOST_WAITING:
                one.ask(asked)
                return
        if self._closed or len(self._queue) >= MOST_WAITING:
            self._fail([asked], "too many decisions wait")
            return
        self._queue.append(asked)
        asyncio.get_running_loop().call_later(WAIT_S, self._expire, asked)

    def _expire(self, asked: Asked) -> None:
        if asked in self._queue:
            self._queue.remove(asked)
            self._fail([asked], "no helper came to it in time")

    def _fail(self, all_: list[Asked], text: str) -> None:
        for one in all_:
            if not one.answer.done():
                one.answer.set_exception(Broken(text))

    # --- their lives

    def _make(self) -> Helper:
        return Helper(self._deadline_s, PATIENCE_S, self._is_slow, self._has_ended, self._command)

    def _is_slow(self, helper: Helper) -> None:
        """Who waits behind goes to the other one, or waits for the first that is free."""
        for asked in helper.take_back():
            self._give(asked, 1 - self._slots.index(helper))

    def _has_ended(self, helper: Helper, how: Ending, first: Asked | None, rest: list[Asked]) -> None:
        if helper not in self._slots:
            return
        slot = self._slots.index(helper)
        self._slots[slot] = None
        if first is not None and not first.answer.done():
            took = how == "deadline"
            first.answer.set_exception(TookTooLong() if took else Broken("the helper ended over this document"))
        if how == "crashed":
            _log.warning("a helper of the policy has ended; a new one is started")
        worked = helper.answered > 0 or how == "deadline"
        self._pauses[slot] = 0.0 if worked else min(max(FIRST_PAUSE_S, 2 * self._pauses[slot]), LONGEST_PAUSE_S)
        for asked in rest:
            if not asked.answer.done():
                self._give(asked, 1 - slot)
        if not self._closed:
            self.restarts += 1
            self._starting[slot] = asyncio.ensure_future(self._start_anew(slot))

    async def _start_anew(self, slot: int) -> None:
        while not self._closed:
            await asyncio.sleep(self._pauses[slot])
            helper = self._make()
            try:
                await helper.start(self.source)
            except (HelperGone, Flawed) as error:
                self._pauses[slot] = min(max(FIRST_PAUSE_S, 2 * self._pauses[slot]), LONGEST_PAUSE_S)
                _log.error("no helper for the policy: %s", error)
                continue
            except BaseException:
                helper.close()
                raise
            self._slots[slot] = helper
            queue, self._queue = self._queue, []
            for asked in queue:
                if not asked.answer.done():
                    self._give(asked, slot)
            return
