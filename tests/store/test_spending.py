"""A process that spends, killed and started again: the sum over the ledger is what its limits count, to the last unit.

`NARTHEX_TEST_LEDGER=1000000` (`make ledger`) says after how many calls that are taken down it ends.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from narthex.config.compile import load_snapshot
from narthex.flow.limit.limiter import counter_of
from narthex.store.ledger import read_costs, read_uses
from tests.store.spender import NOON

CALLS = int(os.environ.get("NARTHEX_TEST_LEDGER", "10000"))
CONFIG = {
    "version": 1,
    "servers": {"one": {"url": "http://localhost:1/"}},
    "limits": [
        {"name": "money", "money": "100000000 USD", "window": "calendar month"},
        {"name": "each", "per": ["subject", "tool"], "money": "1000000 USD", "window": "30d", "alerts": ["50%"]},
        {"name": "calls", "per": ["agent"], "calls": 10**12, "window": "calendar day"},
        {"name": "tokens", "per": ["principal"], "tokens": 10**14, "window": "calendar month"},
        {"name": "bound", "per": ["principal"], "calls": 2000, "window": "1s"},
    ],
    "prices": [
        {"tools": ["one__plain"], "per_call": "0.000007 USD", "per_mib": "0.003 USD"},
        {"tools": ["one__pages"], "per_unit": "0.001333 USD", "units": "/structuredContent/pages",
         "expected": "0.01 USD"},
        {"tools": ["one__model"], "model": "arg:/model", "tokens_in": "/structuredContent/in",
         "tokens_out": "/structuredContent/out", "per_million_tokens_in": "7.77 USD", "cancelled": "nothing"},
        {"tools": ["one__dear"], "formula": "args.n / 7", "currency": "USD", "expected": "1.00 USD"},
    ],
}  # fmt: skip
SECOND = 1_000_000


def start(config: Path, seed: int) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """Returns what its limits count at its start, too."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.store.spender", str(config), str(seed)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def test_the_sum_of_the_ledger_is_what_limits_count_whatever_kills_them(tmp_path: Path) -> None:
    config = tmp_path / "narthex.yaml"
    config.write_text(json.dumps(CONFIG))
    snapshot = load_snapshot(config, env=os.environ)
    store = Path(snapshot.store)
    lasting = {counter_of(rule): rule.name for rule in snapshot.quotas if rule.name != "bound"}

    def taken_down() -> tuple[dict[str, int], dict[str, int]]:
        """What the file says that calls have cost, and what limits have counted."""
        costs = read_costs(store, 0, 1 << 40)
        found = {"money": sum(one.amount for one in costs), "calls": sum(one.calls for one in costs)}
        uses = {"money": 0, "each": 0, "calls": 0}
        for use in read_uses(store, int(NOON) * SECOND):
            if not use.counter:  # the ledger's name, not a limit's
                continue
            uses[lasting[use.counter]] = uses.get(lasting[use.counter], 0) + use.amount
        return found, uses

    chance, before, rounds, kills = random.Random(7), dict[str, int](), 0, 0
    while (before.get("calls", 0)) < CALLS:
        rounds += 1
        process, counted = start(config, rounds)
        assert {name: counted.get(name, 0) for name in before} == before, "what was taken down is what counts now"
        ends_well = rounds % 4 == 0
        try:
            process.wait(chance.uniform(0.05, 1.5) * (1 if CALLS < 100_000 else 8))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM if ends_well else signal.SIGKILL)
        kills += not ends_well
        said, _ = process.communicate(timeout=60)
        costs, before = taken_down()
        assert costs["money"] == before["money"] == before["each"] and costs["calls"] == before["calls"]
        if ends_well:
            at_the_end = json.loads(said)
            assert {name: at_the_end.get(name, 0) for name in before} == before, "who is stopped loses nothing"
    assert kills, rounds
    print(f"{before['calls']} calls, {before['money']} millionths, {kills} kills, {rounds} starts")
