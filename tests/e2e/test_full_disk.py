"""A disk that takes no more records: calls are refused, or go on, as the configuration says; and it is said."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from narthex.telemetry.audit.checkpoints import read_keys
from narthex.telemetry.audit.verify import verify
from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import ROOT, Gateway, wait_for

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="how large a file may be is bounded by the kernel"),
]
TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]
HOOK = """
import resource as r, sys
sys.dont_write_bytecode = True  # or others would read the half of a file that fits
r.setrlimit(r.RLIMIT_FSIZE, (40_000, r.getrlimit(r.RLIMIT_FSIZE)[1]))
"""
ENOUGH = 80
"""Calls, of two records each, of which the file takes a part."""


def gateway_on(start: StartGateway, server: FakeServer, tmp_path: Path, endpoints: Any = None, **audit: Any) -> Gateway:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    config = {
        "version": 1, "servers": {"one": {"url": server.url}}, "audit": {"dir": "audit", **audit},
        "endpoints": endpoints or {"default": {}},
    }  # fmt: skip
    return start(config, env={"PYTHONPATH": os.pathsep.join((str(tmp_path / "hook"), str(ROOT / "src")))})


def answers(gateway: Gateway, endpoint: str = "default") -> list[Any]:
    client = gateway.client(endpoint)
    return [client.post("tools/call", {"name": "one__echo", "arguments": {"n": n}}).json for n in range(ENOUGH)]


@pytest.mark.parametrize("payloads", [[], [{"keep": "full"}]], ids=["records", "payloads"])
def test_a_durable_call_that_cannot_be_recorded_is_refused(
    start_gateway: StartGateway, tmp_path: Path, payloads: list[Any]
) -> None:
    with FakeServer(tools=TOOLS) as server:
        gateway = gateway_on(start_gateway, server, tmp_path, durable="all", payloads=payloads)
        found = answers(gateway)
        errors = [one["error"] for one in found if "error" in one]
        assert errors and "result" in found[0] and "error" in found[-1], "from some call on all are refused"
        assert {(one["code"], one["data"]["reason"]) for one in errors} == {(-31009, "audit_unavailable")}
        reached = sum(one.method == "tools/call" for one in server.asked)
        assert reached <= len(found) - len(errors) + 1, "of what cannot be recorded nothing is sent"
        ready = gateway.ready()
        assert ready.status == 503 and "journal_unavailable" in ready.body.decode()
        wait_for(lambda: "cannot be written" in gateway.log(), "the log")
        gateway.kill()
    folder = gateway.folder / "audit"
    assert not verify(folder, read_keys(folder.glob("audit-*.pub"))).faults


def test_where_it_is_to_go_on_it_goes_on_and_says_so(start_gateway: StartGateway, tmp_path: Path) -> None:
    with FakeServer(tools=TOOLS) as server:
        gateway = gateway_on(start_gateway, server, tmp_path, durable="all", on_failure="degrade")
        assert all("result" in one for one in answers(gateway))
        assert gateway.ready().status == 503
        wait_for(lambda: "calls go on" in gateway.log(), "the log")


def test_each_endpoint_does_what_it_says_itself(start_gateway: StartGateway, tmp_path: Path) -> None:
    endpoints = {"default": {}, "pay": {"audit": {"on_failure": "block"}}}
    with FakeServer(tools=TOOLS) as server:
        gateway = gateway_on(start_gateway, server, tmp_path, endpoints, durable="all", on_failure="degrade")
        paid, looked = answers(gateway, "pay"), answers(gateway)
        assert "result" in paid[0] and paid[-1]["error"]["data"]["reason"] == "audit_unavailable"
        reached = sum(one.method == "tools/call" for one in server.asked)
        assert all("result" in one for one in looked), "it goes on"
        assert reached <= sum("result" in one for one in paid) + 1 + len(looked), "of the other nothing was sent"
        assert answers(gateway, "pay")[0]["error"]["code"] == -31009, "the one does not, still"
        ready = gateway.ready()
        assert (ready.status, ready.json["status"], ready.json["refusing"]) == (503, "journal_unavailable", ["pay"])
        wait_for(lambda: "calls at pay that wait for the disk are refused" in gateway.log(), "the log")
        assert "calls at default go on" in gateway.log()
        gateway.kill()
    folder = gateway.folder / "audit"
    assert not verify(folder, read_keys(folder.glob("audit-*.pub"))).faults
