"""The process beside a gateway: calls are found by the admin API and reach a receiver, and it ends with the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from narthex.testing import FakeServer
from tests.conftest import StartGateway
from tests.e2e.harness import Gateway, alive, wait_for
from tests.telemetry.audit.exports.receivers import OtlpServer, SyslogServer, closing, make_certificate

pytestmark = pytest.mark.e2e
TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]
COMMAND = "narthex.telemetry.audit.beside"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(tools=TOOLS) as started:
        yield started


def asked(gateway: Gateway, path: str) -> Any:
    """By the admin token. None while it cannot be answered yet."""
    token = (gateway.folder / ".narthex" / "admin.token").read_text().strip()
    request = Request(gateway.admin.rstrip("/") + path, headers={"Authorization": f"Bearer {token}"})
    try:
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except OSError:
        return None


def known(gateway: Gateway, path: str) -> Any:
    """The same, once it can be answered."""
    return wait_for(lambda: asked(gateway, path), path)


def found(gateway: Gateway, query: str = "") -> list[dict[str, Any]]:
    return (asked(gateway, f"/api/v1/audit{query}") or {}).get("records", [])


def test_calls_are_found_and_sent_while_the_receiver_comes_and_goes(
    start_gateway: StartGateway, server: FakeServer, tmp_path: Path
) -> None:
    cert = make_certificate(tmp_path, "siem")
    siem, otel = SyslogServer(cert), OtlpServer()
    config = {
        "version": 1, "servers": {"one": {"url": server.url}},
        "audit": {
            "dir": "audit", "inputs": "full",
            "export": {
                "siem": {"url": f"syslog+tls://127.0.0.1:{siem.port}", "ca": cert[0]},
                "otel": {"url": f"http://127.0.0.1:{otel.port}/v1/logs"},
            },
        },
    }  # fmt: skip
    with closing(siem, otel):
        gateway = start_gateway(config)
        client = gateway.client()
        for number in range(5):
            client.call("one__echo", {"n": number})
        wait_for(lambda: len(found(gateway, "?event=call&tool=one__echo")) == 5, "five calls in the index")
        page = known(gateway, "/api/v1/audit?event=call&tool=one__echo&limit=2")
        older = known(gateway, f"/api/v1/audit?event=call&tool=one__echo&limit=2&cursor={page['next']}")
        ids = [one["id"] for one in page["records"] + older["records"]]
        assert ids == sorted(ids, reverse=True) and len(set(ids)) == 4
        calls = {one["id"] for one in known(gateway, "/api/v1/audit?event=call&tool=one__echo")["records"]}
        wait_for(lambda: calls <= ids_of(siem), "all of them at the syslog receiver")
        wait_for(lambda: calls <= sent_to(otel), "all of them at the OTLP receiver")
        latest = max(one["time"] for one in known(gateway, "/api/v1/audit?event=call&tool=one__echo")["records"])

        def confirmed() -> bool:
            client.call_error("one__nothing")  # to confirm, also by a process that had to be started anew
            return all(one["until"] > latest for one in known(gateway, "/api/v1/exports")["exports"])

        wait_for(confirmed, "their word for it")
        assert gateway.ready().json["records"] == "ok"
        helpers = gateway.descendants(COMMAND)
        assert len(helpers) == 1
        gateway.kill()
        wait_for(lambda: not alive(helpers), "the end of the process beside it")
    again = SyslogServer(cert, port=siem.port)
    with closing(again):
        gateway.lines.clear()
        gateway.start()
        gateway.client().call("one__echo", {"n": 6})
        wait_for(lambda: len(found(gateway, "?event=call&tool=one__echo")) == 6)
        (latest,) = known(gateway, "/api/v1/audit?event=call&tool=one__echo&limit=1")["records"]
        wait_for(lambda: latest["id"] in ids_of(again))
        assert not calls & ids_of(again), "what was confirmed is not sent again"
        wait_for(lambda: "waiting for otel" in gateway.ready().json["records"], "who is away is named")


def ids_of(server: SyslogServer) -> set[str]:
    return {json.loads(one[one.index(b"{") :])["id"] for one in list(server.messages)}


def sent_to(server: OtlpServer) -> set[str]:
    bodies = [json.loads(body)["resourceLogs"][0]["scopeLogs"][0]["logRecords"] for body in list(server.bodies)]
    return {json.loads(one["body"]["stringValue"])["id"] for body in bodies for one in body}


def test_without_an_index_or_exports_nothing_runs_beside_it(start_gateway: StartGateway, server: FakeServer) -> None:
    config: dict[str, Any] = {
        "version": 1, "servers": {"one": {"url": server.url}}, "audit": {"dir": "audit", "index": False}
    }  # fmt: skip
    gateway = start_gateway(config)
    gateway.client().call("one__echo", {})
    assert asked(gateway, "/api/v1/audit") is None and not gateway.descendants(COMMAND)
    gateway.write({**config, "audit": {"dir": "audit"}})
    wait_for(lambda: gateway.descendants(COMMAND), "it is started by a reload")
    wait_for(lambda: found(gateway, "?event=call"))
    gateway.write(config)
    wait_for(lambda: not gateway.descendants(COMMAND), "and ended by another")
