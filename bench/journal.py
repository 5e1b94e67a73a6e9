"""What the journal costs: to verify a million records, and to write one.

`python bench/journal.py [--records N] [--out FILE]`. Records are those of calls with a principal that are alike, as
most are: on the event loop each finds its frame and is queued (what it is found by, and the digests, are part of
`governing.py`), the journal's own thread seals, writes and signs them. Then `narthex audit verify` runs as a process of
its own on the folder: CPU seconds on one core, its start included. Exit 1 where a million would take over 20 s. Writes
`bench/results/journal.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import RESULTS, facts_line, figures_table, write_results
from rig import facts

from narthex.flow.limit.spending import Taken
from narthex.flow.upstream.port import Dialect
from narthex.telemetry.accounts import OUTCOME
from narthex.telemetry.audit.checkpoints import load_signer
from narthex.telemetry.frames import Short
from narthex.telemetry.journal import Journal
from narthex.telemetry.record import Entry
from narthex.types import LimitRule, Principal

RECORDS, MOST_S = 1_000_000, 20.0
SOURCE = str(Path(__file__).resolve().parent.parent / "src")
DIGEST = f"sha256:{'5e' * 32}"
DEFINITION, DIALECT = b"\x5e" * 32, Dialect("modern", "2026-07-28", server_info={"version": "1.2.3"})
TAKEN = Taken(tuple(LimitRule(name, "calls", 60) for name in ("minute", "hour", "day")), (1, 1, 1))
TAKEN.usual = True
WHO = Principal("acme", "https://sso.example.com", "u-17", "helpdesk-bot", ("support",), method="jwt")


LIKENESS = (
    "10.0.0.7",
    "",
    "default",
    "github",
    "tools/call",
    "search_issues",
    "2026-07-28",
    0,
    0,
    "github-pat",
    "5c0f2ab1",
)
ENTRY = Entry(
    WHO, "10.0.0.7", "", "default", "github", "tools/call", "search_issues", b"1", "2026-07-28",
    OUTCOME["ok"], "", 0, "", "github-pat", 210, 512, 0.00123, "5c0f2ab1",
    arguments_digest=DIGEST, result_digest=DIGEST, definition=DEFINITION, dialect=DIALECT, upstream_status=200,
    server_seconds=0.00108, admission_seconds=0.00003, answer_seconds=0.00001, taken=TAKEN,
)  # fmt: skip


def put(journal: Journal, number: int) -> None:
    """What the event loop does for one record."""
    frame = journal.frames.find(LIKENESS)
    assert frame is not None
    journal.frames.put(Short(frame, b"%d" % number, 210, 512, 0.00123, 0.00108, 0.00003, 0.00001, DIGEST, DIGEST))


def write(folder: Path, count: int) -> tuple[float, float]:
    """Seconds of CPU for `count` records: what the event loop does, and what the journal's thread does."""
    journal = Journal(folder, load_signer(folder.parent), capacity=count)
    for _ in range(2):
        journal.frames.learn(LIKENESS, (), ENTRY, 0.0)
    process, ours, loop = time.process_time(), time.thread_time(), 0.0
    for start in range(0, count, 1000):
        began = time.thread_time()
        for number in range(start, min(count, start + 1000)):
            put(journal, number)
        loop += time.thread_time() - began
        while not journal.is_full and journal.written < start - 4000:
            time.sleep(0.001)
    ours = time.thread_time() - ours
    journal.close(600)
    assert journal.written == count
    return loop, time.process_time() - process - ours


def verify(folder: Path) -> float:
    """Seconds of CPU, user and system. Raises SystemExit where the journal is not whole."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "narthex.cli.main", "audit", "verify", str(folder), "--json"],
        env={**os.environ, "PYTHONPATH": SOURCE}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or not json.loads(done.stdout)["whole"]:
        raise SystemExit(f"the journal is not whole: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--out", type=Path, default=RESULTS / "journal.json")
    options = parser.parse_args()
    count = options.records
    with tempfile.TemporaryDirectory(prefix="narthex-journal-") as name:
        folder = Path(name) / "audit"
        loop, thread = write(folder, count)
        size = sum(path.stat().st_size for path in folder.iterdir())
        per = verify(folder) / count * RECORDS
    lines = [
        {"label": f"verify {RECORDS:,} records, of CPU", "value": per, "unit": "s", "target": MOST_S},
        {"label": "a record, on the event loop", "value": loop / count * 1e6, "unit": "µs"},
        {
            "label": "a record, on the thread: made, sealed, written, signed",
            "value": thread / count * 1e6,
            "unit": "µs",
        },
        {"label": "size of a record", "value": size / count, "unit": "bytes", "digits": 0},
        {"label": "records", "value": count, "unit": "", "digits": 0},
    ]
    results = {"kind": "journal", "facts": facts(), "figures": lines}
    print(f"{facts_line(results)}\n\n{figures_table(results)}")
    write_results(results, options.out)
    return 0 if per <= MOST_S else 1


if __name__ == "__main__":
    sys.exit(main())
