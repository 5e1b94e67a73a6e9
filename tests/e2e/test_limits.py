"""Limits of a running gateway, and the command that shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import wait_for
from tests.e2e.test_kept import TOOLS, call, command

pytestmark = pytest.mark.e2e
LIMITS = """
limits:
  - {name: calls, per: [principal], calls: 2, window: 1h}
"""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(tools=TOOLS) as started:
        yield started


def test_calls_are_counted_refused_shown_and_still_counted_after_a_reload(
    start_gateway: StartGateway, server: FakeServer
) -> None:
    text = f"version: 1\nservers: {{one: {{url: '{server.url}'}}}}\naudit: {{dir: audit}}\n"
    running = start_gateway(text + LIMITS)
    assert json.loads(command(running, "limits", "--json", "--admin", running.admin)) == {"limits": [], "more": False}
    for _ in range(2):
        assert "result" in call(running).answer
    refused = call(running).answer["error"]
    assert (refused["code"], refused["data"]["limit"]) == (-31002, "calls")
    (shown,) = json.loads(command(running, "limits", "--principal", "local", "--json", "--admin", running.admin))[
        "limits"
    ]
    assert (shown["limit"], shown["used"], shown["most"], shown["unit"]) == ("calls", 2, 2, "calls")
    assert shown["per"]["principal"].startswith("narthex local")
    assert "calls" in command(running, "limits", "--admin", running.admin)
    (running.folder / running.file).write_text(text + LIMITS.replace("calls: 2", "calls: 3"))
    wait_for(lambda: "result" in call(running).answer, "more room")
    assert call(running).answer["error"]["code"] == -31002
