"""Every call of a durable endpoint that was answered is in the journal, whenever the machine fails; and the record of
none can be cut off unseen.

The gateway is killed at random moments under load, and of its files goes what no sync has brought to the disk.
`NARTHEX_TEST_KILLS=500` (`make kills`) does it more often.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from narthex.telemetry.audit.checkpoints import read_keys
from narthex.telemetry.audit.heads import heads_in
from narthex.telemetry.audit.index.file import open_index
from narthex.telemetry.audit.index.find import Finder
from narthex.telemetry.audit.index.follow import Follower
from narthex.telemetry.audit.matching import Wanted
from narthex.telemetry.audit.verify import verify
from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import ROOT, Closed, Gateway, Wire, message, wait_for

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="what was synced is told by the links of /proc"),
]
KILLS = int(os.environ.get("NARTHEX_TEST_KILLS", "20"))
CLIENTS = 4
AUDIT = {"durable": "all"}
TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]
HOOK = """
import os
real = os.fdatasync
def told(file):
    size = os.fstat(file).st_size
    real(file)
    log = os.open(os.environ["SYNCED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{size} {os.readlink(f'/proc/self/fd/{file}')}\\n".encode())
    os.close(log)
os.fdatasync = told
"""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(tools=TOOLS) as started:
        yield started


class Load:
    """Clients that call, each on its connection, until the gateway is gone. `answered`: ids of calls whose last byte
    they have."""

    def __init__(self, gateway: Gateway, name: str) -> None:
        self.answered: list[str] = []
        self._gateway, self._name = gateway, name
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _call(self, number: int) -> None:
        client = self._gateway.client()
        try:
            with Wire(self._gateway.mcp) as wire:
                for count in range(1_000_000):
                    id_ = f"{self._name}-{number}-{count}"
                    params = {"name": "one__echo", "arguments": {"id": id_}}
                    wire.send(client.render({**message("tools/call", params), "id": id_}))
                    if wire.read().status == 200:
                        self.answered.append(id_)
        except (Closed, OSError):
            return  # the gateway was killed

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def lose_what_was_not_synced(folder: Path, synced: Path, chance: random.Random) -> None:
    """What the machine had not brought to the disk is there in part, or not at all."""
    sizes: dict[str, int] = {}
    for line in synced.read_text().splitlines() if synced.exists() else ():
        size, _, name = line.partition(" ")
        sizes[Path(name).name] = int(size)
    for path in (one for kind in ("calls-*", "checkpoints-*", "payloads-*") for one in folder.glob(kind)):
        least, most = sizes.get(path.name, 0), path.stat().st_size
        os.truncate(path, chance.choice((least, most, chance.randint(least, most))))


def recorded(folder: Path) -> set[str]:
    found = set()
    for path in folder.glob("calls-*"):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n") and (one := json.loads(line))["event"] == "call":
                found.add(json.loads(one["request"]))
    return found


def cut_off(folder: Path, copied: Path, answered: set[str], chance: random.Random) -> bool:
    """A copy without the record of one of the last answers, and all behind it; of no checkpoint of those, either. False
    where there is no such answer."""
    path = max(folder.glob("calls-*"))
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    ends = [at for at, line in enumerate(lines) if json.loads(json.loads(line).get("request", "0")) in answered]
    if not ends:
        return False
    shutil.copytree(folder, copied)
    at = chance.choice(ends)
    (copied / path.name).write_bytes(b"".join(lines[:at]))
    points = copied / path.name.replace("calls", "checkpoints")
    signed = [line for line in points.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    points.write_bytes(b"".join(line for line in signed if json.loads(line)["heads"][0]["seq"] <= at))
    return True


def caught_up(folder: Path, index: Path) -> set[str]:
    """The same by the index, which somebody who searches brings up to date from wherever it was killed."""
    follower = Follower(folder, index)
    follower.catch_up()
    follower.close()
    return indexed(folder, index)


def indexed(folder: Path, index: Path) -> set[str]:
    """The same by the index as it is."""
    connection = open_index(index, folder)
    try:
        found = Finder(folder, index, connection).each(Wanted(event="call"))
        return {json.loads(one["request"]) for one in found}
    finally:
        connection.close()


@pytest.mark.parametrize("keeps", [True, False], ids=["with what it says", "in frames"])
def test_whatever_was_answered_is_in_the_journal(
    start_gateway: StartGateway, server: FakeServer, tmp_path: Path, keeps: bool
) -> None:
    """Records of calls of which something is kept are made one by one, all others share frames."""
    chance = random.Random(os.environ.get("NARTHEX_TEST_SEED", "1"))
    hook, synced = tmp_path / "hook", tmp_path / "synced"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK)
    environment = {"SYNCED": str(synced), "PYTHONPATH": os.pathsep.join((str(hook), str(ROOT / "src")))}
    audit = {**AUDIT, "dir": "audit", "payloads": [{"keep": "full"}] if keeps else []}
    config = {"version": 1, "servers": {"one": {"url": server.url}}, "audit": audit}
    gateway = start_gateway(config, env=environment)
    folder, index = gateway.folder / "audit", gateway.folder / ".narthex" / "narthex.audit.db"
    answered: set[str] = set()
    for number in range(KILLS // 2):
        load, most = Load(gateway, f"run{number}"), chance.randint(0, 60)
        wait_for(lambda load=load, most=most: len(load.answered) >= most, "calls that were answered")
        gateway.kill()
        load.join()
        answered |= set(load.answered)
        lose_what_was_not_synced(folder, synced, chance)
        missing = answered - recorded(folder)
        assert not missing, f"run {number}: {sorted(missing)[:5]} were answered and are not recorded"
        keys = read_keys(folder.glob("audit-*.pub"))
        heads = heads_in(gateway.folder / ".narthex", folder)
        report = verify(folder, keys, heads=heads)
        assert len(heads) == 1 and not report.faults, f"run {number}: {report.faults[:3]}"
        assert not report.payloads.elsewhere and bool(report.payloads.here) == keeps
        if cut_off(folder, tmp_path / f"cut-{number}", set(load.answered), chance):
            faults = verify(tmp_path / f"cut-{number}", keys, heads=heads).faults
            assert "cut" in [one.what for one in faults], f"run {number}: an answer's record is gone unseen"
        assert report.unfinished_count <= CLIENTS * (number + 1)
        by_hand = number % 2 == 0
        assert not by_hand or caught_up(folder, index) == recorded(folder), f"run {number}: the index is the journal"
        gateway.lines.clear()
        gateway.start()
        if not by_hand:
            there = recorded(folder)
            wait_for(lambda there=there: indexed(folder, index) == there, "the index that catches up by itself")
    assert len(answered) > KILLS // 2
