"""The record of what a call has cost after all: its tokens were counted exactly when its own record was made already.

In: the entry of the call, what it has used by the exact count. Out: a line, made off the path, that names the record of
the call. Records are never changed. Cases: `tests/telemetry/test_recounted.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from narthex.flow.limit.money import show_money
from narthex.flow.limit.spending import Taken
from narthex.telemetry.acts import line_of_act
from narthex.telemetry.record import Entry, Who, limits_of, tokens_of


class Recounted(msgspec.Struct):
    """What is handed to the journal, behind `of`. `tokens`: in, out, and the tokenizer; `cost`: millionths of a
    currency, None without a price."""

    of: Entry
    tokens: tuple[int, int, str]
    cost: tuple[int, str] | None
    taken: Taken
    at: float = 0.0
    """Set by the journal, as what follows."""
    seq: int = 0
    done: Callable[[str], None] | None = None
    """Nobody waits for it."""

    def line(self, id_: str) -> bytes:
        """The record, an object of JSON without line ends. Members are called as in the record of the call."""
        one, who = self.of, self.of.principal
        said: dict[str, Any] = {
            "call": one.id,
            "tenant": who.tenant,
            "principal": Who(who.issuer, who.subject, who.method, who.client),
            "endpoint": one.endpoint,
            "server": one.server,
            "method": one.method,
            "name": one.name,
            "tokens": tokens_of(self.tokens),
            "taken": limits_of(self.taken),
        }
        more = {
            "cost": show_money(*self.cost) if self.cost is not None else "",
            "session": one.session, "run": one.run, "trace": one.trace[0], "config": one.config,
        }  # fmt: skip
        return line_of_act("recount", {**said, **{name: text for name, text in more.items() if text}}, self.at, id_)
