"""One picture of `narthex top`, of one or two looks at the gateway. Pure.

In: documents of `GET /api/v1/activity`. Out: lines. Sums become rates where there are two looks; names of others are
made safe for a terminal. Cases: `tests/cli/test_top.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from narthex.cli.client import one_line
from narthex.cli.kept import GAP, table_lines

Document = dict[str, Any]
ENDS = ("ok", "failed", "held", "refused")
"""How calls end; `held`: a person is to approve them first."""
_NAMES = 3
"""Columns of names, at the left."""
_SHORTEST = 6
"""Characters that are left of a name."""


def frame(before: Document | None, now: Document, order: str, width: int, height: int) -> list[str]:
    """One picture, at most `width` characters wide and `height` lines high.

    Args:
        before: The look before this one; None: what is shown is since the gateway started.
    """
    seconds = now["at"] - (before["at"] if before is not None else now["started_at"])
    span = max(seconds, 1e-3)
    calls = _difference(before, now, ENDS)
    total = sum(calls.values())
    what = f"the last {span:.1f} s" if before is not None else f"since the start, {_age(span)} ago"
    lines = [
        click.style("narthex top", bold=True) + f"   {what}   {total / span:.1f} calls/s   {now['open_calls']} open",
        f"ended: {', '.join(f'{count} {how}' for how, count in calls.items() if count or how != 'held')}",
        *_again(before, now),
        *_wrapped("p50 p95 p99: ", _latency(before, now), width),
        _servers_line(now),
        "",
    ]
    rows = sorted(_rows(before, now), key=lambda row: _rank(row, order), reverse=True)
    shown = [row for row in rows if row["calls"] or before is None][: max(height - len(lines) - 2, 1)]
    if not shown:
        return [_cut(line, width) for line in [*lines, "Nothing was called."]]
    head = ("AGENT", "WHO", "TOOL", "CALLS/S" if before is not None else "CALLS", "OK", "MEAN", "COST", "AGAIN")
    cells = [_cells(row, span if before is not None else 0.0) for row in shown]
    lines += table_lines(_fitted([head, *cells], width))
    if now["more"]:
        lines.append("There are more.")
    return [_cut(line, width) for line in lines]


def _rows(before: Document | None, now: Document) -> Iterator[Document]:
    """Each row with what came in between."""
    known = {_key(row): row for row in before["rows"]} if before is not None else {}
    for row in now["rows"]:
        old = known.get(_key(row), {})
        found = {name: row[name] - old.get(name, 0) for name in (*ENDS, "seconds", "loops")}
        found |= {"again": row["retries"] + row["repeats"] - old.get("retries", 0) - old.get("repeats", 0)}
        found["calls"] = sum(found[name] for name in ENDS)
        yield {
            **found,
            **{name: row[name] for name in ("subject", "client", "server", "name")},
            "cost": _cost(row, old),
        }


def _key(row: Document) -> tuple[str, ...]:
    return tuple(row[name] for name in ("tenant", "subject", "client", "server", "name"))


def _cost(row: Document, old: Document) -> list[tuple[float, str]]:
    past = {one["currency"]: float(one["amount"]) for one in old.get("cost", ())}
    paid = [(float(one["amount"]) - past.get(one["currency"], 0.0), one["currency"]) for one in row["cost"]]
    return [one for one in paid if one[0] > 0]


def _rank(row: Document, order: str) -> tuple[float, int]:
    calls = row["calls"]
    if order == "latency":
        return (row["seconds"] / calls if calls else 0.0, calls)
    if order == "cost":
        return (sum(amount for amount, _ in row["cost"]), calls)
    if order == "failed":
        return (row["failed"] + row["refused"], calls)  # what is held has not failed
    return (row[order], calls)


def _cells(row: Document, span: float) -> tuple[str, ...]:
    calls = row["calls"]
    said = f"{calls / span:.1f}" if span else str(calls)
    mean = f"{row['seconds'] / calls * 1000:.1f} ms" if calls else "-"
    decided = calls - row["held"]
    share = f"{row['ok'] / decided:.0%}" if decided else "held" if calls else "-"
    cost = ", ".join(f"{amount:.4g} {currency}" for amount, currency in row["cost"]) or "-"
    tool = f"{row['server']}__{row['name']}" if row["server"] else row["name"]
    again = f"{row['again']}" + (f" ({row['loops']} in a loop)" if row["loops"] else "") if row["again"] else "-"
    names = (one_line(row["client"], 24) or "-", one_line(row["subject"], 24) or "-", one_line(tool, 48))
    return (*names, said, share, mean, cost, again)


def _fitted(rows: list[tuple[str, ...]], width: int) -> list[tuple[str, ...]]:
    """A table that fits: without the columns in which nothing stands; then with names cut, those of the widest column
    first; then without its last columns."""
    kept = [at for at in range(len(rows[0])) if any(row[at] != "-" for row in rows[1:])]
    widths = {at: max(len(row[at]) for row in rows) for at in range(len(rows[0]))}
    if sum(widths.values()) + GAP * (len(widths) - 1) <= width:
        return rows

    def excess() -> int:
        return sum(widths[at] for at in kept) + GAP * (len(kept) - 1) - width

    names = [at for at in kept if at < _NAMES]
    while excess() > 0 and names and widths[widest := max(names, key=widths.__getitem__)] > _SHORTEST:
        widths[widest] -= 1
    while excess() > 0 and len(kept) > 1:
        kept.pop()
    return [tuple(_cut(row[at], widths[at]) for at in kept) for row in rows]


def _difference(before: Document | None, now: Document, names: tuple[str, ...]) -> dict[str, int]:
    return {name: now["totals"][name] - (before["totals"][name] if before is not None else 0) for name in names}


def _again(before: Document | None, now: Document) -> list[str]:
    found = _difference(before, now, ("retries", "repeats", "loops"))
    if not any(found.values()):
        return []
    after = f"{found['retries']} after a failure, {found['repeats']} after success"
    return [f"the same again: {after}, {found['loops']} in a loop"]


def _wrapped(head: str, words: list[str], width: int) -> list[str]:
    """A line of them, or more where they do not fit; none where there are no words."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 3 + len(word) <= width:
            lines[-1] += f"   {word}"
        else:
            lines.append((" " * len(head) if lines else head) + word)
    return lines


def _latency(before: Document | None, now: Document) -> list[str]:
    """p50, p95 and p99 of calls of tools, in all, at servers and in the gateway; nothing where nobody may know."""
    words = []
    for name, said in (("call", "in all"), ("upstream", "at servers"), ("gateway", "in the gateway")):
        found = now["latency"].get(name)
        if not found or not found["counts"]:
            continue
        past = (before or {}).get("latency", {}).get(name, {}).get("counts") or [0] * len(found["counts"])
        counts = [count - old for count, old in zip(found["counts"], past, strict=True)]
        figures = [_milliseconds(quantile(found["bounds"], counts, share)) for share in (0.5, 0.95, 0.99)]
        if sum(counts):
            words.append(f"{said} {' '.join(figures)}")
    return words


def quantile(bounds: list[float], counts: list[int], share: float) -> float:
    """The bound under which that share of the counts lies: at most twice the true figure. `inf` beyond the last."""
    wanted, seen = share * sum(counts), 0
    for bound, count in zip(bounds, counts, strict=False):
        seen += count
        if seen >= wanted:
            return bound
    return float("inf")


def _milliseconds(seconds: float) -> str:
    return f"<{seconds * 1000:.3g}ms" if seconds < 1e9 else f">{128}s"


def _servers_line(now: Document) -> str:
    bad = [one for one in now["servers"] if one["health"] in ("degraded", "down")]
    words = ", ".join(f"{one['name']} {one['health']} (breaker {one['breaker']})" for one in bad)
    well = len(now["servers"]) - len(bad)
    return f"servers: {well} well" + (click.style(f"; {words}", fg="red") if words else "")


def unused_lines(found: Document) -> list[str]:
    """Each server with its tools that nobody has called."""
    lines = []
    for one in found["servers"]:
        lines.append(f"{one['server']}: {len(one['tools'])} of {one['listed']} tools were not called")
        lines += [f"  {one_line(name)}" for name in one["tools"]]
    return lines or ["No servers."]


def _age(seconds: float) -> str:
    from narthex.cli.amounts import span

    return span(seconds)


def _cut(line: str, width: int) -> str:
    """What fits; a line with a colour in it is left as it is, for its length is not what is seen."""
    return line if "\x1b" in line or len(line) <= width else line[: max(width - 1, 1)] + "…"
