"""How long `narthex replay` takes for recorded calls that a configuration with fifty grants decided.

`python bench/replay.py [--records N] [--out FILE]`. The records are made here: checks of calls by five hundred people,
of a thousand tools, over two weeks, written as the journal writes them; four of ten are denied. Then the command runs
as a process of its own on them: CPU seconds, user and system, its start included. Exit 1 where a decision differs, or
where a hundred thousand would take over 30 s. Writes `bench/results/replay.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from report import RESULTS, facts_line, figures_table, write_results
from rig import facts

from narthex.config.compile import load_snapshot
from narthex.errors import GatewayError
from narthex.flow.codec.jsonrpc import Raw, encode
from narthex.flow.policy.admissions import Admissions
from narthex.flow.policy.evidence.again import scopes_of
from narthex.flow.policy.grants import Grants
from narthex.flow.route.target import Target
from narthex.telemetry.accounts import OUTCOME
from narthex.telemetry.record import Entry, line_of
from narthex.telemetry.stamps import id_of
from narthex.types import Call, Principal, Snapshot

RECORDS, MOST_S = 100_000, 30.0
RULES, SERVERS, TOOLS, PEOPLE = 50, 20, 50, 500
START = 1_780_000_000.0
SOURCE = str(Path(__file__).resolve().parent.parent / "src")


def config(folder: Path) -> Path:
    """Fifty grants over twenty servers: roles, conditions on arguments, networks, hours, denials."""
    servers = {f"s{number}": {"url": f"http://localhost:1/{number}"} for number in range(SERVERS)}
    grants: list[dict[str, object]] = []
    for number in range(RULES - 10):
        grant = {
            "name": f"team {number}",
            "who": {"role": f"r{number % 10}"},
            "allow": [f"s{number % SERVERS}__tool_*"],
        }
        if number % 4 == 1:
            grant["when"] = f"args.amount <= {number * 10} && args.region in ['eu', 'us']"
        if number % 8 == 2:
            grant["networks"] = ["10.0.0.0/9"]
        if number % 8 == 6:
            grant["hours"] = {"since": "06:00", "until": "20:00", "days": ["mon", "tue", "wed", "thu", "fri"]}
        grants.append(grant)
    for number in range(10):
        grants.append(
            {"name": f"never {number}", "deny": [f"*__tool_{number}"], "when": f"args.amount > {900 - number}"}
        )
    path = folder / "narthex.yaml"
    path.write_text(json.dumps({"version": 1, "servers": servers, "grants": grants}))
    return path


def write_records(path: Path, snapshot: Snapshot, count: int) -> int:
    """Decide and record so many calls; how many were denied."""
    chance, clock = random.Random(7), [START]
    admissions = Admissions(Grants(snapshot.grants), scopes_of(snapshot.endpoints), lambda: clock[0])
    people = [
        Principal("acme", "https://sso.example.com", f"u-{number}", f"agent-{number % 7}", (f"r{number % 10}",),
                  ("staff",), kind="human", method="jwt", authenticated_at=START)
        for number in range(PEOPLE)
    ]  # fmt: skip
    denied = 0
    with path.open("wb") as file:
        for number in range(count):
            clock[0] += 12.0
            who, own = chance.choice(people), f"tool_{chance.randrange(TOOLS)}"
            # Most people call what they may; some do not.
            server = f"s{(int(who.roles[0][1:]) + 10 * chance.randrange(2)) % SERVERS if chance.random() < 0.8 else 3}"
            arguments = encode(
                {"amount": chance.randrange(1000), "region": chance.choice(["eu", "us", "ap"]), "q": "x" * 80}
            )
            params = {"arguments": Raw(arguments)}
            call = Call("tools/call", params, {}, b"1", "modern", "2026-07-28", who, "default", f"{server}__{own}")
            address = f"10.{chance.randrange(256)}.0.1"
            check, target = admissions.check(who, "default", address), Target(server, own, encode(own))
            if check.sees("tools", target):
                with suppress(GatewayError):
                    check.admit("tools", target, params)
            assert check.decision is not None
            allowed = check.decision.effect == "allow"
            denied += not allowed
            entry = Entry(
                who, address, "", "default", server, "tools/call", own, b"1", "2026-07-28",
                OUTCOME["ok" if allowed else "denied"], "", 0, "", "", 200, 300, 0.002, snapshot.revision,
                check=check, call=call, inputs="full", at=clock[0],
            )  # fmt: skip
            file.write(line_of(entry, id_of(int(clock[0] * 1000), number & 0xFFF, bytes(8))) + b"\n")
    return denied


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--out", type=Path, default=RESULTS / "replay.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="narthex-replay-") as name:
        folder = Path(name)
        path = config(folder)
        records = folder / "records.jsonl"
        denied = write_records(records, load_snapshot(path, env=os.environ), options.records)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "narthex.cli.main", "replay", str(records), "--config", str(path), "--json"]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": SOURCE}, check=False
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = records.stat().st_size
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = json.loads(done.stdout)
    same = said["agrees"] and said["decided"] == options.records
    per = seconds * RECORDS / options.records
    lines = [
        {"label": f"replay of {RECORDS:,} recorded calls, of CPU", "value": per, "unit": "s", "target": MOST_S},
        {"label": "records replayed", "value": options.records, "unit": "", "digits": 0},
        {"label": "of them denied", "value": denied, "unit": "", "digits": 0},
        {"label": "decisions that differ", "value": options.records - said["decided"] * same, "unit": "", "digits": 0},
        {"label": "size of a record", "value": size / options.records, "unit": "bytes", "digits": 0},
    ]
    results = {"kind": "replay", "facts": facts(), "figures": lines}
    print(f"{facts_line(results)}\n\n{figures_table(results)}")
    write_results(results, options.out)
    return 0 if same and per <= MOST_S else 1


if __name__ == "__main__":
    sys.exit(main())
