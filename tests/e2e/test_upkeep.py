"""A running gateway looks after the files of its journal by itself, beside its calls."""

from __future__ import annotations

import json
import time

import pytest

from narthex.telemetry.audit.checkpoints import read_keys
from narthex.telemetry.audit.verify import verify
from narthex.testing import FakeServer
from tests.cli.test_audit_kept import write
from tests.conftest import StartGateway
from tests.e2e.harness import wait_for

pytestmark = pytest.mark.e2e


def test_what_is_old_goes_and_what_is_closed_is_compressed(start_gateway: StartGateway) -> None:
    with FakeServer(tools=[{"name": "echo", "inputSchema": {"type": "object"}}]) as server:
        audit = {"dir": "audit", "retention": {"records": "10d", "payloads": "1d"}, "compress_after": "1m"}
        config = {"version": 1, "servers": {"one": {"url": server.url}}}
        gateway = start_gateway(config)
        gateway.process.terminate()
        gateway.process.wait(60)
        folder = gateway.folder / "audit"
        for days in (30, 20, 3, 2):
            write(folder, "ada", days_ago=days)
        gateway.write({**config, "audit": audit})
        gateway.config = {**config, "audit": audit}
        gateway.lines.clear()
        gateway.start()
        assert gateway.client().call("one__echo", {"a": 1})
        wait_for(lambda: "files of the journal" in gateway.log(), "the upkeep", 60)
        gateway.process.terminate()
        gateway.process.wait(60)
    names = sorted(path.name for path in folder.glob("*-20*"))
    assert not [name for name in names if name.startswith("payloads-")]
    assert sum(name.startswith("calls-") and name.endswith(".gz") for name in names) >= 1
    report = verify(folder, read_keys(folder.glob("audit-*.pub")))
    assert not report.faults and report.payloads.removed == 4
    acts = [json.loads(line) for path in folder.glob("calls-*-cli.jsonl") for line in path.read_bytes().splitlines()]
    (act,) = [one for one in acts if one["event"] == "retention"]
    assert len(act["files"]) == 2 and act["records_until"] < time.strftime("%Y-%m-%d")
