"""The record of a held call's steps: who, what, when, by whom; and no argument."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from narthex import __version__
from narthex.telemetry.approvals import ApprovalEntry
from narthex.telemetry.journal import Journal
from tests.flow.policy.approvals.test_approval import USED, WAITS
from tests.telemetry.audit.writing import SIGNER
from tests.telemetry.test_record import ENTRY


def test_the_record_of_a_step() -> None:
    line = ApprovalEntry(USED, USED.steps(300)[1]).line("i-1")
    assert json.loads(line) == {
        "v": 1,
        "id": "i-1",
        "time": "1970-01-01T00:03:20.000000Z",
        "event": "approval",
        "step": "approved",
        "approval": "a-1",
        "tenant": "default",
        "principal": {"issuer": "https://idp", "subject": "ann", "client": "bot"},
        "endpoint": "default",
        "server": "billing",
        "kind": "tools",
        "name": "refund",
        "arguments": "sha256:" + "01" * 32,
        "rule": "large refunds",
        "ends": "1970-01-01T00:08:20.000000Z",
        "config": "r1",
        "gateway": __version__,
        "by": "bob",
    }
    assert b"sealed" not in line


@pytest.mark.parametrize(
    ("told", "time"),
    [
        pytest.param(200.25, "1970-01-01T00:03:20.250000Z", id="at once"),
        pytest.param(203.5, "1970-01-01T00:03:20.999999Z", id="later: the second stands"),
        pytest.param(199.5, "1970-01-01T00:03:20.000000Z", id="a clock that goes back"),
    ],
)
def test_the_time_of_a_step_is_within_its_second(told: float, time: str) -> None:
    assert json.loads(ApprovalEntry(USED, USED.steps(300)[1], at=told).line("i-1"))["time"] == time


def test_steps_stand_among_the_calls(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIGNER, now=lambda: 1_700_000_000.0)
    journal.add(replace(ENTRY, name="before"))
    for step in USED.steps(300):
        journal.add_step(ApprovalEntry(WAITS, step))
    journal.add(replace(ENTRY, name="behind"))
    journal.close()
    (file,) = tmp_path.glob("calls-*")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    found = [one for one in lines if one["event"] in ("call", "approval")]
    assert [one.get("step", one["name"]) for one in found] == ["before", "asked", "approved", "used", "behind"]
    assert sorted(one["id"] for one in found) == [one["id"] for one in found]
    assert journal.written == 5 and journal.lost == 0
