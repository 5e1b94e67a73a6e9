"""Can a caller tell a hidden tool from one that is not there by the time that the refusal takes?

`python bench/hidden.py [--pairs N] [--out FILE]`. A gateway with a grant for all and a denial of one tool is asked, in
an order drawn by lot, for that tool and for one that no server has, over one connection. `advantage`: by how much more
than half of the time the slower of two answers is that of the hidden tool (the Mann-Whitney statistic less one half): 0
tells nothing, 0.5 everything. The same between odd and even answers about the missing tool is noise. Also: are status,
headers and body the same, but for the decision id and the name that was asked for? Exit 1 where they are not, or where
the advantage is over 0.03 and over three times its standard error. Writes `bench/results/hidden.json`.
"""

from __future__ import annotations

import argparse
import random
import re
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from clients import call
from report import RESULTS, facts_line, figures_table, write_results
from rig import BenchError, Rig, facts, two_cores
from subjects import gateway, many, upstream

MOST = 0.03
HIDDEN, MISSING = "s0__tool_00007", "s0__tool_x0007"
GRANTS = [{"name": "all", "allow": ["*"]}, {"name": "not this one", "deny": [HIDDEN]}]


class Asking:
    """One connection; an answer, and the seconds that it took."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, tool: str, number: int) -> tuple[bytes, float]:
        wanted = call(self.port, tool, number, None)
        began = time.perf_counter()
        self.socket.sendall(wanted)
        found = b""
        while True:
            found += self.socket.recv(65536)
            head, end, body = found.partition(b"\r\n\r\n")
            if end and len(body) >= int(re.search(rb"(?i)content-length: (\d+)", head)[1]):  # type: ignore[index]
                return found, time.perf_counter() - began


def advantage(one: list[float], two: list[float]) -> tuple[float, float]:
    """How often the first is the slower, less one half; and the standard error of that by chance."""
    ranked = sorted([(value, 0) for value in one] + [(value, 1) for value in two])
    ranks = sum(rank for rank, (_, which) in enumerate(ranked, 1) if which == 0)
    m, n = len(one), len(two)
    return (ranks - m * (m + 1) / 2) / (m * n) - 0.5, ((m + n + 1) / (12 * m * n)) ** 0.5


def plain(answer: bytes, tool: str) -> bytes:
    """The answer without what differs from call to call."""
    answer = re.sub(rb'"decisionId":"[^"]*"', b"", answer.replace(tool.encode(), b"NAME"))
    return re.sub(rb"(?i)\r\ndate: [^\r]*", b"", answer)


def measure(rig: Rig, pairs: int) -> list[dict[str, Any]]:
    port = gateway(rig, "gateway", many(upstream(rig), 1, 10), "s0__echo", grants=GRANTS).port
    asking, chance = Asking(port), random.Random(11)
    took: dict[str, list[float]] = {HIDDEN: [], MISSING: []}
    bodies: dict[str, set[bytes]] = {HIDDEN: set(), MISSING: set()}
    for number in range(200):
        asking.ask(HIDDEN if number % 2 else MISSING, 100_000)  # what is new is slow
    for _ in range(pairs):
        for tool in chance.sample([HIDDEN, MISSING], 2):
            answer, seconds = asking.ask(tool, 100_000)  # the id is in the answer: of one length
            took[tool].append(seconds)
            bodies[tool].add(plain(answer, tool))
    found, error = advantage(took[HIDDEN], took[MISSING])
    noise, _ = advantage(took[MISSING][::2], took[MISSING][1::2])
    same = bodies[HIDDEN] == bodies[MISSING] and len(bodies[HIDDEN]) == 1
    most = max(MOST, 3 * error)
    return [
        {"label": "advantage of who measures, hidden against missing", "value": abs(found), "target": most, "unit": "",
         "digits": 4},
        {"label": "the same of missing against missing: noise", "value": abs(noise), "unit": "", "digits": 4},
        {"label": "median, hidden", "value": statistics.median(took[HIDDEN]) * 1e6, "unit": "µs"},
        {"label": "median, missing", "value": statistics.median(took[MISSING]) * 1e6, "unit": "µs"},
        {"label": "answers that differ in anything else", "value": int(not same), "target": 0, "unit": "", "digits": 0},
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=RESULTS / "hidden.json")
    given = parser.parse_args()
    try:
        two_cores()
        with Rig() as rig:
            lines = measure(rig, given.pairs)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    results = {"kind": "hidden", "facts": facts(), "figures": lines}
    print(f"{facts_line(results)}\n\n{figures_table(results)}")
    write_results(results, given.out)
    return int(any("target" in line and line["value"] > line["target"] for line in lines))


if __name__ == "__main__":
    sys.exit(main())
