"""What a decision by embedded Rego costs: inline and in a helper, cold and remembered; and what a long list costs.

`python bench/rego.py [--out FILE]`. The sample policy of `examples/policy` (its 50 lines), and one rule that allows.
The least of many repeats; what blocks the loop is measured in CPU time of its thread, so that a busy machine does not
count. Writes `bench/results/rego.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from report import RESULTS, facts_line, figures_table, write_results
from rig import facts

from narthex.app import settle_memory
from narthex.authority.bundles import read_path
from narthex.engines.embedded import embedded
from narthex.flow.policy.bundles.bundle import Bundle, read_bundle
from narthex.flow.policy.document import Document
from narthex.flow.policy.engines.visibility import Sight
from narthex.flow.route.fragments import PAGE, Preparing
from narthex.flow.route.index import Index, Target
from narthex.types import Call, Principal

ENTRY = "narthex/decision"
SIMPLE = b"""package narthex

import rego.v1

default decision := false

decision if "support" in input.subject.roles
"""
ADA = Principal("default", "https://sso.example.com", "ada", "bot", ("support",), ("staff",), method="jwt")
CALL = Call("tools/call", {}, {}, b"1", "modern", "2026-07-28", ADA, "default", "crm__search")
TOOLS = 10_000
LISTS = 3
ROUNDS, EACH = 40, 50


def document(number: int) -> Document:
    arguments = {"query": "invoices of March", "amount": number}
    return Document(ADA, "default", "tools", "crm", "search_people", time.time(), CALL, arguments, 60, "10.1.2.3")


async def least(step: Callable[[int], Any]) -> float:
    """Microseconds of one step, in the fastest of some rounds; a step may be awaited."""
    best, number = math.inf, 0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(EACH):
            number += 1
            waits = step(number)
            if waits is not None:
                await waits
        best = min(best, (time.perf_counter() - began) / EACH)
    return best * 1e6


async def measured(bundle: Bundle, engine: Literal["helper", "inline"]) -> tuple[float, float]:
    """A cold decision, and one that is remembered."""
    one = await embedded(bundle, ENTRY, engine, 1.0, time.time)

    def cold(number: int) -> Any:
        asked = document(number)
        if one.known(asked) is None:
            return one.decide(asked)
        one.remembered._known.clear()
        return None

    again = document(0)
    await one.decide(again)

    def remembered(number: int) -> None:
        one.known(again)

    try:
        if engine == "helper":
            return await least(lambda number: one.decide(document(number))), await least(remembered)
        return await least(cold), math.nan
    finally:
        one.close()


async def listed(bundle: Bundle) -> dict[str, float]:
    """A list of ten thousand tools for somebody new, by the sample policy in a helper; then for somebody like them."""
    one = await embedded(bundle, ENTRY, "helper", 1.0, time.time)
    names = [f"tool_{number}" for number in range(TOOLS)]
    targets = {name: Target("crm", name, json.dumps(name).encode()) for name in names}
    index = Index("tools", targets, Preparing(PAGE).done(), (), ())
    sight, longest, over = Sight(math.inf), 0.0, False

    async def watch() -> None:
        nonlocal longest
        while not over:
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)

    settle_memory()
    watching = asyncio.ensure_future(watch())
    began = time.perf_counter()
    await sight.look_through(one, ADA, "default", index, time.time())
    first = time.perf_counter() - began
    over = True
    await watching
    began = time.perf_counter()
    for _ in range(1000):
        sight.shown(index)
    again = (time.perf_counter() - began) / 1000
    memory = resident(one.pids()[0])
    one.close()
    return {"first_s": first, "longest_ms": longest * 1e3, "again_us": again * 1e6, "helper_mb": memory}


def resident(pid: int) -> float:
    """Megabytes of memory that a process has (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def main() -> dict[str, float]:
    simple = read_bundle({"simple.rego": SIMPLE}, None, now=0)
    sample = read_path(Path(__file__).parents[1] / "examples" / "policy" / "bundle", None, now=0)
    rows: dict[str, float] = {}
    for name, bundle in (("simple", simple), ("sample", sample)):
        rows[f"{name}_inline_us"], _ = await measured(bundle, "inline")
        rows[f"{name}_helper_us"], rows[f"{name}_remembered_us"] = await measured(bundle, "helper")
    lists = [await listed(sample) for _ in range(LISTS)]
    rows |= {key: min(one[key] for one in lists) for key in lists[0]}
    return rows


def figures(found: dict[str, float]) -> list[dict[str, object]]:
    """What was measured, with the targets that there are."""
    rows: list[dict[str, object]] = []
    for name, words, target in (("simple", "a rule that allows", 30.0), ("sample", "a policy of 50 lines", 300.0)):
        inline = found[f"{name}_inline_us"]
        helper, remembered = found[f"{name}_helper_us"] - inline, found[f"{name}_remembered_us"]
        rows += [
            {"label": f"{words}, inline", "value": inline, "unit": "µs", "target": target},
            {"label": f"{words}, in a helper: so much more", "value": helper, "unit": "µs", "target": 150.0},
            {"label": f"{words}, remembered", "value": remembered, "unit": "µs", "target": 3.0},
        ]
    first, longest = found["first_s"], found["longest_ms"]
    return [
        *rows,
        {"label": f"which of {TOOLS:,} tools are visible, the first time", "value": first, "unit": "s"},
        {"label": "the longest that it keeps the loop from others, of CPU", "value": longest, "unit": "ms"},
        {"label": "which are visible, once it is known", "value": found["again_us"], "unit": "µs"},
        {"label": "memory of a helper", "value": found["helper_mb"], "unit": "MB"},
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "rego.json")
    out = parser.parse_args().out
    results = {"kind": "rego", "facts": facts(), "figures": figures(asyncio.run(main()))}
    print(f"{facts_line(results)}\n\n{figures_table(results)}")
    write_results(results, out)
