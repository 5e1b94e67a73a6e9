"""How far a sink is outlives whoever sends."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.errors import StoreError
from narthex.store.database import Where
from narthex.store.exports import ExportBook
from narthex.telemetry.audit.exports.tail import Place
from tests.counterparts.postgres import Databases


def test_each_sink_has_its_own_places(where: Where) -> None:
    one, other = ExportBook(where, "siem", "j1"), ExportBook(where, "otel", "j1")
    assert one.read() == {}
    one.write({"a": Place(1, 20), "b": Place(3, 40)})
    other.write({"a": Place(1, 5)})
    one.write({"b": Place(4, 50)})
    one.close()
    other.close()
    assert ExportBook(where, "siem", "j1").read() == {"b": Place(4, 50)}
    assert ExportBook(where, "otel", "j1").read() == {"a": Place(1, 5)}


def test_gateways_that_share_a_database_have_their_own_places(databases: Databases) -> None:
    spec = databases.new()
    one, other = ExportBook(spec, "siem", "j1"), ExportBook(spec, "siem", "j2")
    one.write({"j1/0/a": Place(1, 20)})
    other.write({"j2/0/a": Place(1, 5)})
    assert (one.read(), other.read()) == ({"j1/0/a": Place(1, 20)}, {"j2/0/a": Place(1, 5)})
    one.close()
    other.close()


def test_a_store_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    path = tmp_path / "narthex.db"
    path.mkdir()
    with pytest.raises(StoreError):
        ExportBook(path, "siem", "j1").read()
