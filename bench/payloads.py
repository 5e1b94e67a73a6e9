"""What it costs to redact a payload and to keep it: CPU of the journal's thread for a KiB.

`python bench/payloads.py [--rounds N]`. JSON as tools answer it, in which nothing is found, and in which much is;
with the seal of the disk and without. Prints microseconds a KiB, the best of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from narthex.authority.envelope import Envelopes
from narthex.flow.codec.seal import MasterKey
from narthex.telemetry.payloads.redacting import Redactor
from narthex.telemetry.payloads.writing import Owner, Payloads

ROWS = 20
PLAIN = json.dumps(
    {"rows": [{"id": n, "title": f"Issue {n}", "url": f"https://example.com/i/{n}", "labels": ["bug", "ui"],
               "created": "2026-11-27T10:00:00Z"} for n in range(ROWS)]}
).encode()  # fmt: skip
SECRETS = json.dumps(
    {"rows": [{"mail": f"user{n}@example.com", "card": "4111 1111 1111 1111", "token": "x" * 20,
               "text": "password: hunter22"} for n in range(ROWS)]}
).encode()  # fmt: skip
OWNER = Owner("019ac4b2-7f10-7000-8d3e-5a0f4be0c9d1", "2026-11-27T10:00:00.000000Z", "t", "i", "s", "c")


def us_per_kib(work: Callable[[], object], size: int, rounds: int) -> float:
    best = 1e9
    for _ in range(rounds):
        began = time.thread_time()
        for _ in range(50):
            work()
        best = min(best, time.thread_time() - began)
    return best / 50 * 1e6 / (size / 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    redactor = Redactor()
    for label, raw in (("nothing is found", PLAIN), ("much is found", SECRETS)):
        cost = us_per_kib(lambda raw=raw: redactor.applied(raw, "result"), len(raw), rounds)  # type: ignore[misc]
        print(f"redacted, {label}: {cost:.0f} µs a KiB ({len(raw)} bytes)")
    for label, seals in (("plain", None), ("sealed", Envelopes([MasterKey(bytes(32))], os.urandom))):
        with tempfile.TemporaryDirectory() as name:
            one = Payloads(Path(name), seals=seals)

            def put(one: Payloads = one) -> None:
                one.put(OWNER, "result", PLAIN, "full", "public", time.time())
                one.flush()

            print(f"kept in full, {label}: {us_per_kib(put, len(PLAIN), rounds):.0f} µs a KiB")
            one.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
