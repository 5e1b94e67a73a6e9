"""The calls of one run as a tree: which call was made within which, in the order in which they were made.

In: records that belong together (of a run, a trace or a session), from a journal that may be anybody's. Out: steps with
their depth, and what they add up to. Pure. Cases: `tests/telemetry/audit/test_execution.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from narthex.telemetry.audit.matching import facts_of, what_of

Record = dict[str, Any]
DEEPEST: Final = 32
"""Deeper ones are shown at this depth."""
KINDS: Final = ("run", "trace", "session")
"""What ties calls together; where a call has several, the first is what it is known by."""
CALLS: Final = frozenset({"call", "refused", "begin"})
_WAITS: Final = "approval_required"
_GOES_ON: Final = ("allow", "hold")
"""Decisions by which a call may reach its server: at once, or when a person has approved it."""
_NO_FAILURE: Final = ("ok", _WAITS, None)
SHOWN: Final = CALLS | {"approval"}
_LATER: Final = ("cost", "tokens", "taken")
"""Members that a recount says anew."""


class Step(msgspec.Struct, frozen=True):
    """One call. `depth`: of the call that it was made within, and one; 0 where none of these is that.

    `rule` is what decided; `approvals` what people said of it, each in a few words; `open`: no end of it is recorded.
    """

    depth: int
    record: Record
    what: str
    decision: str
    rule: str
    approvals: tuple[str, ...] = ()
    open: bool = False


class Sums(msgspec.Struct, frozen=True):
    """Of all steps. `cost` by currency; `seconds` those of the calls, which may overlap; `models` and `prompts` as the
    agent has named them."""

    calls: int
    denied: int
    held: int
    failed: int
    seconds: float
    cost: dict[str, str]
    principals: tuple[str, ...]
    clients: tuple[str, ...]
    models: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()


class Run(msgspec.Struct, frozen=True):
    """Calls that belong together: `kind` is one of `KINDS`."""

    kind: str
    id: str
    first: str
    last: str
    sums: Sums


def steps_of(records: Iterable[Record]) -> list[Step]:
    """The calls among these, each behind the one that it was made within. Of a call that has an end, the record of its
    beginning is left out; one whose tokens were counted exactly afterwards has what it cost by that."""
    records = list(records)
    recounts = {_text(one, "call"): one for one in records if one.get("event") == "recount"}
    found = sorted((_settled(one, recounts) for one in records if _text(one, "event") in SHOWN), key=_when)
    said: dict[str, list[str]] = {}
    for one in found:
        if one.get("event") == "approval":
            said.setdefault(_text(one, "approval"), []).append(_words(one))
    return [_step(depth, one, said) for depth, one in _nested(calls_of(found))]


def runs_among(records: Iterable[Record]) -> list[Run]:
    """The runs that these calls belong to, by the time of their last call. What is of none is left out."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for one in records:
        kind = next((kind for kind in KINDS if _text(one, kind)), "")
        if kind and _text(one, "event") in (*CALLS, "recount"):
            groups.setdefault((kind, _text(one, kind)), []).append(one)
    runs = []
    for (kind, id_), found in groups.items():
        times = sorted(_text(one, "time") for one in found)
        runs.append(Run(kind, id_, times[0], times[-1], sums_of(steps_of(found))))
    return sorted((one for one in runs if one.sums.calls), key=lambda one: (one.last, one.kind, one.id))


def calls_of(records: Iterable[Record]) -> list[Record]:
    """The calls among these in the order in which they were made: the record of the end, or where there is none of the
    beginning."""
    found = sorted((one for one in records if _text(one, "event") in CALLS), key=_when)
    ended = {(_text(one, "request"), one["begin"]) for one in found if isinstance(one.get("begin"), int)}
    return [one for one in found if one.get("event") != "begin" or not _has_ended(one, ended)]


def _has_ended(begin: Record, ended: set[tuple[str, int]]) -> bool:
    seq = begin.get("seq")
    return isinstance(seq, int) and (_text(begin, "request"), seq) in ended


def _settled(one: Record, recounts: Mapping[str, Record]) -> Record:
    """A record with what was found out later of what its call has used."""
    later = recounts.get(_text(one, "id")) if one.get("event") == "call" else None
    return one if later is None else {**one, **{name: later[name] for name in _LATER if name in later}}


def _nested(calls: list[Record]) -> list[tuple[int, Record]]:
    """A call whose parent is a span that a call before it told its server stands within that one. Only one before it
    counts: so no records, whoever wrote them, go round in a circle."""
    within: dict[str, int] = {}
    parents: list[int] = []
    for index, one in enumerate(calls):
        parents.append(within.get(_text(one, "parent"), -1))
        if span := _text(one, "span"):
            within.setdefault(span, index)
    children: dict[int, list[int]] = {}
    for index, parent in enumerate(parents):
        children.setdefault(parent, []).append(index)
    found: list[tuple[int, Record]] = []
    waiting = [(0, index) for index in reversed(children.get(-1, []))]
    while waiting:
        depth, index = waiting.pop()
        found.append((min(depth, DEEPEST), calls[index]))
        waiting += [(depth + 1, child) for child in reversed(children.get(index, []))]
    return found


def _step(depth: int, one: Record, said: dict[str, list[str]]) -> Step:
    approvals = _text(one, "approval").split()
    return Step(
        depth, one, what_of(one) or _text(one, "method"), _text(one, "decision"), facts_of(one)["rule"],
        tuple(word for id_ in approvals for word in said.get(id_, ())), one.get("event") == "begin",
    )  # fmt: skip


def sums_of(steps: Iterable[Step]) -> Sums:
    """What they add up to."""
    records = [one.record for one in steps]
    cost: dict[str, Decimal] = {}
    for one in records:
        amount, _, currency = _text(one, "cost").partition(" ")
        try:
            value = Decimal(amount)
        except InvalidOperation:
            continue
        if value.is_finite() and abs(value) < 10**12:
            cost[currency] = cost.get(currency, Decimal(0)) + value
    facts = [facts_of(one) for one in records]
    return Sums(
        calls=len(records),
        denied=sum(one.get("decision") == "deny" for one in records),
        held=sum(one.get("outcome") == _WAITS for one in records),
        failed=sum(one.get("decision") in _GOES_ON and one.get("outcome") not in _NO_FAILURE for one in records),
        seconds=sum(_seconds(one) for one in records),
        cost={currency: f"{amount:f}" for currency, amount in cost.items()},
        principals=tuple(sorted({one["subject"] for one in facts if one["subject"]})),
        clients=tuple(sorted({one["client"] for one in facts if one["client"]})),
        models=_named(records, "model"),
        prompts=_named(records, "prompt"),
    )


def _named(records: Iterable[Record], member: str) -> tuple[str, ...]:
    return tuple(sorted({_text(one, member) for one in records} - {""}))


def _words(step: Record) -> str:
    """A step of a held call: what happened, and who did it."""
    by = _text(step, "by")
    return f"{_text(step, 'step')} by {by}" if by else _text(step, "step")


def _when(one: Record) -> tuple[str, str]:
    """When it began: records are of its end. Ids of a gateway are in the order of its lines."""
    return _text(one, "time"), _text(one, "id")


def _seconds(one: Record) -> float:
    value = one.get("seconds")
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else 0.0


def _text(one: Record, name: str) -> str:
    value = one.get(name)
    return value if isinstance(value, str) else ""
