"""The record of a share that was reached: what is in it, whatever people are called."""

from __future__ import annotations

import json
from pathlib import Path

from narthex.flow.limit.alerts import Alert
from narthex.telemetry.alerts import AlertEntry
from narthex.telemetry.audit.checkpoints import load_signer
from narthex.telemetry.journal import Journal

ALERT = Alert("id-1", "spend", 80, 4_000_000, 5_000_000, "money", (("tenant", "acme"), ("team", "p\ny")), b"k", "USD")


def test_it_stands_in_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path, load_signer(tmp_path))
    journal.add_step(AlertEntry(ALERT, "c0ffee"))
    journal.close()
    (segment,) = tmp_path.glob("calls-*.jsonl")
    found = [json.loads(line) for line in segment.read_text().splitlines()]
    (one,) = [record for record in found if record["event"] == "alert"]
    assert (one["limit"], one["share"], one["used"], one["most"], one["currency"], one["tenant"], one["config"]) == (
        "spend", 80, 4_000_000, 5_000_000, "USD", "acme", "c0ffee",
    )  # fmt: skip
    assert one["per"] == {"tenant": "acme", "team": "p\ny"} and "soft" not in one
