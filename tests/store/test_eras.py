"""Verdicts on servers' eras, kept in a file: the same after a start, for the same server, whatever is in the file."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from narthex.flow.upstream.era import Verdict
from narthex.store.eras import MOST_BYTES, EraFile
from narthex.types import HttpTarget, ServerSpec, StdioTarget

LEGACY = Verdict("legacy", "initialize", 1_700_000_000.5, 1_700_003_600.0)
MODERN = Verdict("modern", "server/discover", 1.0, 2.0)
WEB = ServerSpec(
    "web", HttpTarget("https://a.test/mcp", "https", "a.test", 443, "/mcp", (("X-Key", "secret"),)), "auto"
)
TIME = ServerSpec("time", StdioTarget("mcp-server-time", ("--utc",), (("TOKEN", "secret"),)), "stdio")


def saved(path: Path, **verdicts: Verdict) -> None:
    file = EraFile(path)
    for spec in (WEB, TIME):
        if spec.name in verdicts:
            file.keep(spec, verdicts[spec.name])
    asyncio.run(file.save(frozenset({"web", "time"})))


def test_what_was_found_is_known_after_a_start(tmp_path: Path) -> None:
    path = tmp_path / "eras.json"
    saved(path, web=LEGACY, time=MODERN)
    file = EraFile(path)
    assert (file.known(WEB), file.known(TIME)) == (LEGACY, MODERN)
    assert not file.changed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"secret" not in path.read_bytes()
    assert [one.name for one in tmp_path.iterdir()] == ["eras.json"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(
            ServerSpec("web", HttpTarget("https://b.test/", "https", "b.test", 443, "/"), "auto"), id="elsewhere"
        ),
        pytest.param(ServerSpec("web", WEB.target, "http"), id="over another transport"),
        pytest.param(ServerSpec("web", TIME.target, "stdio"), id="a program"),
        pytest.param(ServerSpec("new", WEB.target, "auto"), id="of another name"),
    ],
)
def test_another_server_has_an_era_of_its_own(tmp_path: Path, other: ServerSpec) -> None:
    saved(tmp_path / "eras.json", web=LEGACY)
    assert EraFile(tmp_path / "eras.json").known(other) is None


def test_what_is_not_configured_any_more_is_not_kept(tmp_path: Path) -> None:
    saved(tmp_path / "eras.json", web=LEGACY, time=MODERN)
    file = EraFile(tmp_path / "eras.json")
    file.keep(WEB, MODERN)
    asyncio.run(file.save(frozenset({"web"})))
    again = EraFile(tmp_path / "eras.json")
    assert (again.known(WEB), again.known(TIME)) == (MODERN, None)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\x00", id="no text"),
        pytest.param(
            b'{"version":1,"servers":{"web":{"target":"x","verdict":{"spoken":"klingon"}}}}', id="no such era"
        ),
        pytest.param(b'{"version":2,"servers":{}}', id="of a later version"),
        pytest.param(b"[" * 100_000, id="nested without end"),
        pytest.param(b'{"version":1}' + b" " * MOST_BYTES, id="too large"),
    ],
)
def test_a_file_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "eras.json").write_bytes(content)
    assert EraFile(tmp_path / "eras.json").known(WEB) is None
    saved(tmp_path / "eras.json", web=LEGACY)
    assert EraFile(tmp_path / "eras.json").known(WEB) == LEGACY, "and the next one takes its place"


def test_a_disk_that_does_not_write_costs_a_line_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = EraFile(tmp_path / "nowhere" / "eras.json")
    for _ in range(3):
        file.keep(WEB, LEGACY)
        asyncio.run(file.save(frozenset({"web"})))
    assert file.known(WEB) == LEGACY
    assert len(caplog.records) == 1
