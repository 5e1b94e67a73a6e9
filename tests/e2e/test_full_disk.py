"""A disk that is full, read-only or slow: calls are refused, or go on, as the configuration says; and it is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
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


# --- file systems as they are: one that fills up and is emptied, one that is mounted read-only


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or _mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)):
        pytest.skip("only root may mount a file system; the tests above bound a file instead")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def _mount(*words: str) -> int:
    return subprocess.run(["mount", *words], check=False, capture_output=True).returncode


@pytest.mark.parametrize("on_failure", ["block", "degrade"])
def test_a_disk_that_is_full_and_has_room_again(start_gateway: StartGateway, mounted: Path, on_failure: str) -> None:
    folder = mounted / "audit"
    audit = {"dir": str(folder), "durable": "all", "on_failure": on_failure, "payloads": [{"keep": "full"}]}
    with FakeServer(tools=TOOLS) as server:
        gateway = start_gateway({"version": 1, "servers": {"one": {"url": server.url}}, "audit": audit})
        client = gateway.client()
        assert client.call("one__echo", {"n": 0})
        filler = mounted / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        refused = [one["error"]["data"]["reason"] for one in answers(gateway) if "error" in one]
        wait_for(lambda: gateway.ready().status == 503, "what is said of it")
        assert set(refused) == ({"audit_unavailable"} if on_failure == "block" else set())
        filler.unlink()
        wait_for(lambda: gateway.ready().status == 200, "room that is used")
        assert "result" in client.post("tools/call", {"name": "one__echo", "arguments": {"n": 99}}).json
        gateway.kill()
    report = verify(folder, read_keys(folder.glob("audit-*.pub")))
    assert not report.faults and not report.payloads.lost and report.payloads.here


def test_a_folder_that_is_read_only_ends_the_start_in_words(mounted: Path, tmp_path: Path) -> None:
    (mounted / "audit").mkdir()
    assert not _mount("-o", "remount,ro", str(mounted))
    (tmp_path / "home").mkdir()
    gateway = Gateway({"version": 1, "servers": {}, "audit": {"dir": str(mounted / "audit")}}, tmp_path / "home")
    with pytest.raises(AssertionError):
        gateway.start()
    wait_for(lambda: "Read-only file system" in gateway.log() and "audit.dir" in gateway.log(), "why")
    assert "Traceback" not in gateway.log()


# --- a disk that becomes read-only, or slow, under a gateway that runs

FAILS = """
import errno, os, time
def failing(name):
    real = getattr(os, name)
    def call(*args, **more):
        if os.path.exists(os.environ["READ_ONLY"]):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        while name == "fdatasync" and os.path.exists(os.environ["SLOW"]):
            time.sleep(0.01)
        return real(*args, **more)
    setattr(os, name, call)
for name in ("pwrite", "fdatasync"):
    failing(name)
"""


@pytest.mark.parametrize("on_failure", ["block", "degrade"])
@pytest.mark.parametrize("fault", ["READ_ONLY", "SLOW"])
def test_a_disk_that_takes_nothing_for_a_while(
    start_gateway: StartGateway, tmp_path: Path, fault: str, on_failure: str
) -> None:
    """A durable call is refused, or goes on; one that only reads goes on in any case; afterwards all is as before."""
    (tmp_path / "sitecustomize.py").write_text(FAILS)
    flags = {name: str(tmp_path / name) for name in ("READ_ONLY", "SLOW")}
    environment = {**flags, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT / "src")))}
    audit = {"dir": "audit", "reads": ["*__look"], "on_failure": on_failure, "wait": "1s"}
    tools = [*TOOLS, {"name": "look", "inputSchema": {"type": "object"}}]
    with FakeServer(tools=tools) as server:
        config = {"version": 1, "servers": {"one": {"url": server.url}}, "audit": audit}
        gateway = start_gateway(config, env=environment)
        client = gateway.client()

        def call(name: str) -> Any:
            return client.post("tools/call", {"name": f"one__{name}", "arguments": {}}).json

        wait_for(lambda: "result" in call("look") and "result" in call("echo"), "tools that are known")
        Path(flags[fault]).touch()
        found = call("echo")
        if on_failure == "block":
            assert (found["error"]["code"], found["error"]["data"]["reason"]) == (-31009, "audit_unavailable")
        else:
            assert "result" in found
        assert "result" in call("look")
        wait_for(lambda: gateway.ready().status == 503, "what is said of it")
        Path(flags[fault]).unlink()
        wait_for(lambda: gateway.ready().status == 200, "a disk that takes records again")
        wait_for(lambda: "result" in call("echo"), "durable calls")
        gateway.kill()
    folder = gateway.folder / "audit"
    report = verify(folder, read_keys(folder.glob("audit-*.pub")))
    assert not report.faults and report.records > 4
