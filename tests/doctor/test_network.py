"""Whom the gateway talks to: who answers, who does not, and why; clocks and certificates. With real sockets and TLS."""

from __future__ import annotations

import asyncio
import ssl
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from narthex.config.compile import load_snapshot
from narthex.doctor.finding import Finding
from narthex.doctor.network import look_at_certificate, look_at_clock, look_at_network, peers_of
from narthex.types import Snapshot
from tests.counterparts.serving import served
from tests.e2e.certificates import Authority

SEEN: list[dict[str, str]] = []


async def anything(request: Request) -> Response:
    SEEN.append(dict(request.headers))
    return Response(status_code=401)


APP = Starlette(routes=[Route("/{path:path}", anything)])


def snapshot(tmp_path: Path, text: str) -> Snapshot:
    file = tmp_path / "narthex.yaml"
    file.write_text(f"version: 1\n{text}")
    return load_snapshot(file, env={})


def found(one: Snapshot, off_s: float = 0.0) -> list[Finding]:
    return asyncio.run(look_at_network(one, now=lambda: time.time() + off_s))


def test_everybody_is_asked_without_a_credential(tmp_path: Path) -> None:
    SEEN.clear()
    with served(APP) as url:
        one = snapshot(
            tmp_path,
            f"servers: {{web: {{url: '{url}/mcp', headers: {{Authorization: 'Bearer canary-token'}}}}}}\n"
            f"telemetry: {{otlp: {{url: '{url}', headers: {{X-Key: canary-key}}}}}}\n"
            f"policy: {{opa: {{url: '{url}', path: a}}}}\n",
        )
        assert [peer.what for peer in peers_of(one)] == ["servers.web", "policy.opa", "telemetry.otlp"]
        assert [(finding.name, finding.verdict) for finding in found(one)] == [
            ("servers.web", "ok"), ("policy.opa", "ok"), ("telemetry.otlp", "ok"),
        ]  # fmt: skip
    assert len(SEEN) == 3
    assert "canary" not in str(SEEN)


def test_who_is_away(tmp_path: Path) -> None:
    one = snapshot(
        tmp_path,
        "servers: {web: {url: 'http://127.0.0.1:9/mcp?key=canary-key'}, lost: {url: 'https://no-such-host.invalid/mcp'}}\n"
        "policy: {opa: {url: 'http://127.0.0.1:9', path: a}}\n",
    )
    web, lost, opa = found(one)
    assert (web.verdict, lost.verdict, opa.verdict) == ("warn", "warn", "fail"), "nothing is decided without the agent"
    assert "is it up" in web.do
    assert "getent" in lost.do
    assert "canary" not in str([web, lost, opa])


def test_a_certificate_that_nobody_here_trusts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with served(APP, authority.issue("localhost")) as url:
        address = url.replace("127.0.0.1", "localhost")
        (one,) = found(snapshot(tmp_path, f"servers: {{web: {{url: '{address}/mcp'}}}}\n"))
        assert one.verdict == "warn"
        assert "egress.ca" in one.do
        trusting = f"egress: {{ca: '{authority.file}'}}\nservers: {{web: {{url: '{address}/mcp'}}}}\n"
        assert [finding.verdict for finding in found(snapshot(tmp_path, trusting))] == ["ok"]


@pytest.mark.parametrize(
    ("off", "verdicts", "said"),
    [
        (0.0, [], ""),
        (4.0, [], ""),
        (30.0, ["warn"], "30 s ahead"),
        (-30.0, ["warn"], "behind"),
        (90.0, ["fail"], "90 s"),
    ],
)
def test_clocks(off: float, verdicts: list[str], said: str) -> None:
    now = 1_700_000_000.0
    clocks = look_at_clock("issuer", formatdate(now, usegmt=True), now + off)
    assert [one.verdict for one in clocks] == verdicts
    assert all(said in one.said for one in clocks)


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Nov 9999999 00:00:00 GMT"])
def test_a_date_that_cannot_be_read_says_nothing(date: str) -> None:
    assert look_at_clock("issuer", date, 0.0) == []


def test_a_clock_that_is_off_is_found(tmp_path: Path) -> None:
    with served(APP) as url:
        one = snapshot(tmp_path, f"servers: {{web: {{url: '{url}/mcp'}}}}\n")
        assert [(finding.area, finding.verdict) for finding in found(one, 3600.0)] == [
            ("network", "ok"),
            ("clock", "fail"),
        ]


@pytest.mark.parametrize(("days", "count"), [(30, 0), (14, 0), (13, 1), (-1, 1)])
def test_certificates_that_end_soon(days: int, count: int) -> None:
    until = ssl.cert_time_to_seconds("Jun  1 00:00:00 2030 GMT")
    assert len(look_at_certificate("web", until, until - days * 86_400)) == count
