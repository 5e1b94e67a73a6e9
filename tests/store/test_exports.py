"""How far a sink is outlives whoever sends."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.errors import StoreError
from narthex.store.exports import ExportBook
from narthex.telemetry.audit.exports.tail import Place


def test_each_sink_has_its_own_places(tmp_path: Path) -> None:
    path = tmp_path / "narthex.db"
    one, other = ExportBook(path, "siem"), ExportBook(path, "otel")
    assert one.read() == {}
    one.write({"a": Place(1, 20), "b": Place(3, 40)})
    other.write({"a": Place(1, 5)})
    one.write({"b": Place(4, 50)})
    one.close()
    other.close()
    assert ExportBook(path, "siem").read() == {"b": Place(4, 50)}
    assert ExportBook(path, "otel").read() == {"a": Place(1, 5)}


def test_a_store_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    path = tmp_path / "narthex.db"
    path.mkdir()
    with pytest.raises(StoreError):
        ExportBook(path, "siem").read()
