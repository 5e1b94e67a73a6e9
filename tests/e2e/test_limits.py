"""Limits of a running gateway, and the command that shows them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import json_lines, wait_for
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
    text = f"version: 1\nservers: {{one: {{url: '{server.url}'}}}}\naudit: {{dir: audit, wait: 60s}}\n"
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


class Receiver(BaseHTTPRequestHandler):
    """Keeps what it is told."""

    got: ClassVar[list[tuple[dict[str, str], bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[str]:
    Receiver.got.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{receiver.server_address[1]}/alerts"
        receiver.shutdown()
        thread.join()


def test_an_alert_is_told_and_recorded_and_a_person_lets_a_call_through(
    start_gateway: StartGateway, server: FakeServer, hook: str
) -> None:
    limit = {
        "name": "spend", "money": "0.02 USD", "window": "calendar month", "alerts": ["50%", "100%"],
        "webhook": {"url": hook, "secret": "s3cret"}, "when_spent": "hold",
    }  # fmt: skip
    running = start_gateway(
        {
            "version": 1,
            "servers": {"one": {"url": server.url}},
            "limits": [limit],
            "prices": [{"per_call": "0.01 USD"}],
            "audit": {"dir": "audit"},
        }  # fmt: skip
    )
    for _ in range(2):
        assert "result" in call(running).answer
    wait_for(lambda: len(Receiver.got) == 2, "both shares")
    told = [json.loads(body)["data"] for _, body in Receiver.got]
    assert [(one["share"], one["used"], one["currency"]) for one in told] == [(50, "0.01", "USD"), (100, "0.02", "USD")]
    assert all(headers["webhook-signature"].startswith("v1,") for headers, _ in Receiver.got)
    held = call(running).answer["error"]
    assert held["code"] == -31004
    command(running, "approvals", "approve", held["data"]["approvalId"])
    wait_for(lambda: "result" in call(running).answer, "the approval")
    running.stop()
    lines = json_lines(*sorted((running.folder / "audit").glob("calls-*.jsonl")))
    assert [one["share"] for one in lines if one["event"] == "alert"] == [50, 100]
    assert [one["step"] for one in lines if one["event"] == "approval"][:2] == ["asked", "approved"]
    assert {one["rule"] for one in lines if one["event"] == "approval"} == {"limit spend"}
