"""How long a search takes in ten million records, how long their index takes to make, and an export of a million.

`python bench/audit_search.py [--records N] [--exported N] [--postgres URL] [--out FILE]`. The journal is made of lines
with the members that the gateway writes, over thirty days, by 200 people with 20 agents, and one who has a tenth of the
calls; they are not chained, which nothing here looks at. Each search is a page of 100 by a fresh connection, the least
of nine; the export is a process of its own. Exit 1 where a search by principal and day takes over 200 ms, or the export
of a million over 60 s. Writes `bench/results/audit-search.json`.
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
import time
from hashlib import sha256
from pathlib import Path

from report import RESULTS, facts_line, figures_table, write_results
from rig import facts

from narthex.config.schema.store import parse_store
from narthex.store.postgres.database import Postgres
from narthex.stores import PostgresSpec
from narthex.telemetry.audit.index.find import Finder
from narthex.telemetry.audit.index.follow import Follower
from narthex.telemetry.audit.index.place import IndexTables, Where, place_of
from narthex.telemetry.audit.matching import Wanted
from narthex.telemetry.stamps import id_of, stamp

RECORDS, EXPORTED, MOST_MS, MOST_S = 10_000_000, 1_000_000, 200.0, 60.0
SOURCE = str(Path(__file__).resolve().parent.parent / "src")
AT, DAYS, SEGMENT = 1_790_812_800, 30, 400_000  # from 2026-10-01 on
LINE = (
    '{"v":1,"id":"%s","time":"%s","event":"call","tenant":"default","principal":{"issuer":"https://sso.example.com",'
    '"subject":"%s","proof":"jwt","client":"agent-%d","roles":["support"]},"endpoint":"default","method":"tools/call",'
    '"decision":"%s","bytes_in":210,"bytes_out":512,"seconds":0.00123,"config":"5c0f2ab1","gateway":"0.1.0",'
    '"outcome":"%s","server":"%s","name":"%s","definition_digest":"sha256:%064x","credential":"github-pat","source":"10.0.0.7","request":"%d",'
    '"version":"2026-07-28","policy":{"effect":"%s","reason":"granted","rule":"rule %d","line":9,"kind":"tools",'
    '"resource":"%s__%s"},"seq":%d,"hash":"%064d"}\n'
)


def write(folder: Path, count: int) -> None:
    """Segments of so many records in all."""
    chance = random.Random(7)
    folder.mkdir()
    head = {"v": 1, "id": "h", "time": stamp(AT), "event": "open", "chain": "c/0/b", "key": "k", "gateway": "0.1.0"}
    file, seq = None, 0
    for number in range(count):
        if number % SEGMENT == 0:
            if file is not None:
                file.close()
                previous = {"chain": "c/0/b", "seq": seq, "hash": "00"}
                head |= {"event": "segment", "previous": previous}
            seq += 1
            file = (folder / f"calls-{number:012d}-0.jsonl").open("w", encoding="ascii")
            file.write(json.dumps(head)[:-1] + f',"seq":{seq},"hash":"{0:064d}"}}\n')
        assert file is not None
        seq += 1
        at = AT + number * DAYS * 86_400 / count
        who = "busy" if chance.random() < 0.1 else f"person-{chance.randrange(200)}"
        denied, server, name = chance.random() < 0.01, f"server-{chance.randrange(12)}", f"tool_{chance.randrange(40)}"
        decision, outcome = ("deny", "denied") if denied else ("allow", "ok")
        definition = definition_of(server, name, number * 4 // count)  # it was listed anew three times
        id_ = id_of(int(at * 1000), number & 0xFFF, number.to_bytes(8))
        file.write(
            LINE % (id_, stamp(at), who, chance.randrange(20), decision, outcome, server, name, definition, number,
                    decision, chance.randrange(30), server, name, seq, number)
        )  # fmt: skip
    if file is not None:
        file.close()


def definition_of(server: str, name: str, version: int) -> int:
    """A digest, as a number."""
    return int.from_bytes(sha256(f"{server}/{name}/{version}".encode()).digest())


def searches(folder: Path, index: Where, count: int) -> list[dict[str, object]]:
    """Milliseconds of each kind of search: the least of nine."""
    day = {"since": stamp(AT + 12 * 86_400), "until": stamp(AT + 13 * 86_400)}
    kinds = {
        "by principal and day": Wanted(principal="person-17", **day),
        "by the busiest principal and day": Wanted(principal="busy", **day),
        "denied, by principal and day": Wanted(principal="busy", decision="deny", **day),
        "by agent, tool and day": Wanted(client="agent-3", tools=("server-5__*",), **day),
        "by a part of a name": Wanted(text="_7", **day),
        "by rule, the newest": Wanted(rule="rule 3"),
        "by the definition of a tool": Wanted(definition=f"{definition_of('server-3', 'tool_5', 1):064x}"),
        "everything, the newest": Wanted(),
        "by id": Wanted(id=id_of(int((AT + count // 2 * DAYS * 86_400 / count) * 1000), count // 2 & 0xFFF,
                                 (count // 2).to_bytes(8))),
    }  # fmt: skip
    lines: list[dict[str, object]] = []
    for label, wanted in kinds.items():
        times, looked_at = [], 0
        for _ in range(9):
            connection = place_of(index).open(folder)
            began = time.perf_counter()
            page = Finder(folder, index, connection).page(wanted)
            times.append(time.perf_counter() - began)
            looked_at = page.looked_at
            connection.close()
        print(f"{label}: {min(times) * 1000:.1f} ms, {looked_at} places looked at")
        target = {"target": MOST_MS} if label.endswith("principal and day") else {}
        lines.append({"label": label, "value": min(times) * 1000, "unit": "ms", **target})
    connection = place_of(index).open(folder)
    began = time.perf_counter()
    found = Finder(folder, index, connection).count(kinds["by the busiest principal and day"])
    counted = (time.perf_counter() - began) * 1000
    lines.append({"label": f"counting {found:,} of the busiest principal and day", "value": counted, "unit": "ms"})
    connection.close()
    return lines


def index_of(url: str | None, folder: Path) -> Where:
    """A file, or tables of an empty database."""
    if url is None:
        return folder / "index.db"
    spec = parse_store(url)
    assert isinstance(spec, PostgresSpec), "--postgres: postgresql://…"
    Postgres(spec).migrate()
    return IndexTables(spec, "bench")


def export(folder: Path, form: str) -> tuple[float, float]:
    """Seconds, of a clock and of CPU, of an export in a process of its own."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "narthex.cli.main", "audit", "export", str(folder), "--format", form,
         "--out", str(folder.parent / form)],
        env={**os.environ, "PYTHONPATH": SOURCE}, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--exported", type=int, default=EXPORTED)
    parser.add_argument("--postgres", metavar="URL", help="An empty database for the index, in the place of a file.")
    parser.add_argument("--out", type=Path, default=RESULTS / "audit-search.json")
    options = parser.parse_args()
    count, exported = options.records, options.exported
    with tempfile.TemporaryDirectory(prefix="narthex-audit-search-") as name:
        folder, index = Path(name) / "audit", index_of(options.postgres, Path(name))
        write(folder, count)
        follower, began = Follower(folder, index), time.process_time()
        assert follower.catch_up() == count
        making = (time.process_time() - began) / count
        follower.close()
        lines = searches(folder, index, count)
        sizes = [
            sum(path.stat().st_size for path in paths) / count for paths in (Path(name).glob("*.db"), folder.iterdir())
        ]
        few = Path(name) / "few"
        write(few, exported)
        exports = [
            {"label": f"export of {EXPORTED:,} as {form}, of CPU", "value": cpu / exported * EXPORTED, "unit": "s",
             "target": MOST_S}
            for form in ("jsonl", "csv", "cef", "ocsf")
            for _, cpu in [export(few, form)]
        ]  # fmt: skip
    lines += [
        *exports,
        {"label": "a record, in the index: made, of CPU", "value": making * 1e6, "unit": "µs"},
        {"label": "a record, in the index: its size", "value": sizes[0], "unit": "bytes", "digits": 0},
        {"label": "a record, in the journal: its size", "value": sizes[1], "unit": "bytes", "digits": 0},
        {"label": "records", "value": count, "unit": "", "digits": 0},
    ]
    results = {"kind": "audit-search", "facts": facts(), "figures": lines}
    print(f"{facts_line(results)}\n\n{figures_table(results)}")
    write_results(results, options.out)
    return 0 if all(one["value"] <= one["target"] for one in lines if "target" in one) else 1  # type: ignore[operator]


if __name__ == "__main__":
    sys.exit(main())
