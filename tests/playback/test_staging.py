"""The gateway of a dry replay has no way to any server, and names things as they were named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.playback.channel import RecordedChannel
from narthex.playback.staging import Naming, sound, staged
from narthex.types import EndpointSpec, Selection, Snapshot
from tests.playback.test_script import made, script

ITEMS: dict[str, Any] = {"one": {"tools": {"find": b'{"name":"find"}'}}, "two": {}, "no name!": {}}


def stage(folder: Path, *calls: Any, endpoints: Any = (), keys: bool = False) -> Snapshot:
    naming = Naming({one.name: one for one in endpoints})
    return staged(folder, script(*(calls or (made(1),))), ITEMS, naming, port=0, keys=keys)


def test_every_server_is_its_record(tmp_path: Path) -> None:
    snapshot = stage(tmp_path)
    assert set(snapshot.servers) == {"one", "two"}
    for spec in snapshot.servers.values():
        assert spec.inside is not None and isinstance(spec.inside(), RecordedChannel)
        assert spec.accounts == ()
    assert snapshot.listen == ("127.0.0.1", 0) and snapshot.admin_listen == ("127.0.0.1", 0)
    assert snapshot.egress.proxy is None and snapshot.grants == () and not snapshot.audit_dir


@pytest.mark.parametrize("keys", [False, True])
def test_who_may_call(tmp_path: Path, keys: bool) -> None:
    assert (stage(tmp_path, keys=keys).identity is not None) is keys


def test_of_the_configuration_it_has_the_names_alone(tmp_path: Path) -> None:
    like = EndpointSpec(
        "support", ("three", "two"), naming="none", max_name=40, tools=Selection(("one__*",)), auth="anonymous",
        base_scopes=("mcp",), project="x",
    )  # fmt: skip
    snapshot = stage(tmp_path, made(1, endpoint="support"), made(2, endpoint="default"), endpoints=[like])
    found = snapshot.endpoints["support"]
    assert (found.naming, found.max_name, found.tools) == ("none", 40, like.tools)
    assert found.servers == ("two", "one"), "those of the configuration, and what was called there"
    assert (found.base_scopes, found.project) == ((), "")
    assert snapshot.endpoints["default"].servers == ("one", "two")


def test_the_era_of_a_server_is_that_of_its_clients(tmp_path: Path) -> None:
    modern = stage(tmp_path, replace(made(1), version="2026-07-28"), made(2))
    inside = modern.servers["one"].inside
    assert inside is not None and inside().dialect.era == "modern"
    other = modern.servers["two"].inside
    assert other is not None and other().dialect.era == "legacy"


def test_records_that_no_gateway_can_have_made() -> None:
    found = sound([made(1, endpoint="../x"), made(2, server="No Name"), made(3)])
    assert [(one.id, one.server) for one in found] == [("r2", ""), ("r3", "one")]
