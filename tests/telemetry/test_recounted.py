"""What a call has cost after all stands in a record of its own, which names that of the call."""

from __future__ import annotations

import json
from pathlib import Path

from msgspec.structs import replace

from narthex.flow.limit.spending import Taken
from narthex.telemetry.journal import Journal
from narthex.telemetry.record import Entry
from narthex.telemetry.recounted import Recounted
from narthex.types import LimitRule
from tests.telemetry.audit.writing import SIGNER
from tests.telemetry.test_journal import lines
from tests.telemetry.test_record import ENTRY, ID

LIMIT = LimitRule("spend", "money", 5_000_000, currency="USD")


def anew(entry: Entry) -> Recounted:
    return Recounted(entry, (12, 345, "o200k"), (357, "USD"), Taken((LIMIT,), (357,)))


def test_what_it_says() -> None:
    entry = replace(ENTRY, id=ID, run="r1", tokens=(1, 2, "estimate"))
    said = json.loads(anew(entry).line("0197-own"))
    assert {name: said[name] for name in said.keys() - {"v", "time", "gateway"}} == {
        "id": "0197-own", "event": "recount", "call": ID, "tenant": "acme", "endpoint": "default", "server": "github",
        "method": "tools/call", "name": "search", "run": "r1", "session": "s1", "config": "c0ffee",
        "principal": {"issuer": "https://sso.example.com", "subject": "u-17", "proof": "jwt", "client": "helpdesk-bot"},
        "tokens": {"in": 12, "out": 345, "counted": "o200k"}, "cost": "0.000357 USD",
        "taken": {"spend": "0.000357 USD"},
    }  # fmt: skip


def test_it_names_the_record_of_its_call(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIGNER)
    for _ in range(3):
        entry = replace(ENTRY, tokens=(1, 2, "estimate"))
        journal.add(entry)
        journal.add_step(anew(entry))
    journal.close()
    found = lines(tmp_path)
    calls = [one["id"] for one in found if one["event"] == "call"]
    assert len(set(calls)) == 3
    assert [one["call"] for one in found if one["event"] == "recount"] == calls
