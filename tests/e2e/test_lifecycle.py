"""A gateway from start to end: drain, signals, crash, reload, cancellation, overload, slow readers, TLS, proxies."""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.e2e.certificates import Authority
from tests.e2e.harness import (
    Closed,
    Era,
    Gateway,
    Running,
    Wire,
    alive,
    check_error,
    get,
    json_lines,
    message,
    render,
    routing_headers,
    text,
    wait_for,
    with_home,
)
from tests.faulty.proxy import HttpProxy
from tests.faulty.server import BIG, FaultyServer, Seen

pytestmark = pytest.mark.e2e
MIB = 1024 * 1024
STDIO = str(Path(__file__).parents[1] / "faulty" / "stdio.py")
SLOW = {"name": "up__slow", "arguments": {"text": "done"}}


@pytest.fixture
def upstream() -> Iterator[FaultyServer]:
    """An upstream for one test alone; what still waits in it is released at the end."""
    with FaultyServer() as server:
        yield server
        server.release.set()


def config(upstream: FaultyServer, era: str = "modern", **more: Any) -> dict[str, Any]:
    return {"version": 1, "servers": {"up": {"url": upstream.url(era=era)}}, **more}


def stdio(kind: str, notes: Path) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-S", STDIO, kind, str(notes)]}


def start_slow(gateway: Gateway, upstream: FaultyServer, era: Era = "modern") -> tuple[Running, Seen]:
    """A call under way, and the request as the upstream has it."""
    before = len(_slow(upstream))
    running = gateway.client(era=era).start("tools/call", SLOW)
    wait_for(lambda: len(_slow(upstream)) > before, "the call at the server")
    return running, _slow(upstream)[-1]


def _slow(upstream: FaultyServer) -> list[Seen]:
    return [seen for seen in upstream.requests("tools/call") if seen.params["name"] == "slow"]


def echoes(gateway: Gateway, said: str = "hello", endpoint: str = "default") -> None:
    assert text(gateway.client(endpoint).call("up__echo", {"text": said})) == said


# --- start --------------------------------------------------------------------------------------------------------


def test_it_starts_small_says_one_line_and_is_healthy(start_gateway: StartGateway, upstream: FaultyServer) -> None:
    gateway = start_gateway(config(upstream))
    assert gateway.rss() < 60 * MIB, f"{gateway.rss() / MIB:.1f} MiB"
    assert get(f"{gateway.admin}/healthz").status == 200
    assert gateway.ready().status == 200
    echoes(gateway)
    lines = [line for line in gateway.lines if " WARN" not in line]
    assert len(lines) == 1, "more than the line with the URLs, and warnings:\n" + gateway.log()


def test_each_call_has_a_line_when_asked(start_gateway: StartGateway, upstream: FaultyServer) -> None:
    gateway = start_gateway(config(upstream, log={"calls": True, "format": "json"}))
    echoes(gateway, "a private thing")
    line = wait_for(
        lambda: next((one for one in gateway.lines if "up__echo" in one or '"echo"' in one), ""), "the line"
    )
    assert json.loads(line)
    assert "a private thing" not in gateway.log()


def test_a_dead_server_degrades_readiness_only_in_words(start_gateway: StartGateway, upstream: FaultyServer) -> None:
    servers = {"up": {"url": upstream.url()}, "dead": {"url": "http://127.0.0.1:1/mcp"}}
    gateway = start_gateway({"version": 1, "servers": servers})
    gateway.client().tools()
    ready = gateway.ready()
    assert ready.status == 200
    assert b"dead" in ready.body


@pytest.mark.parametrize(
    ("text_of", "place"),
    [
        pytest.param("version: 1\nserverz: {}\n", "narthex.yaml:2:1", id="an unknown key"),
        pytest.param("version: 1\nservers:\n  up: {url: 5}\n", "narthex.yaml:3:", id="a wrong kind"),
        pytest.param("version: 1\nservers: [\n", "narthex.yaml:", id="no YAML"),
    ],
)
def test_a_bad_configuration_ends_the_start_and_names_the_place(
    start_gateway: StartGateway, text_of: str, place: str
) -> None:
    with pytest.raises(AssertionError, match="exit [12] at start") as failed:
        start_gateway(text_of)
    assert place in str(failed.value) and "Traceback" not in str(failed.value)


# --- the end ------------------------------------------------------------------------------------------------------


def test_sigterm_drains(start_gateway: StartGateway, upstream: FaultyServer, tmp_path: Path) -> None:
    servers = {"up": {"url": upstream.url(era="modern")}, "local": stdio("good", tmp_path / "notes")}
    gateway = start_gateway({"version": 1, "servers": servers, "bounds": {"drain_accept": "5s", "drain": "5m"}})
    idle = Wire(gateway.mcp)
    assert idle.request("GET").status == 405
    gateway.client().call("local__echo", {"text": "x"})
    below = gateway.descendants()
    running, _ = start_slow(gateway, upstream)
    gateway.signal(signal.SIGTERM)
    wait_for(lambda: gateway.ready().status == 503, "readiness to end")
    assert get(f"{gateway.admin}/healthz").status == 200
    late = gateway.client().post("tools/call", {"name": "up__echo", "arguments": {"text": "late"}})
    assert text(late.answer["result"]) == "late"
    assert late.header("connection") == "close"
    wait_for(lambda: not _accepts(gateway), "the end of accepting")
    wait_for(idle.is_closed, "the end of the idle connection")
    assert gateway.process.poll() is None and not running.wire.is_closed()
    upstream.release.set()
    assert text(running.answer()["result"]) == "done"
    assert gateway.wait() == 0
    gateway.assert_nothing_left(below)


def _accepts(gateway: Gateway) -> bool:
    try:
        with Wire(gateway.mcp) as wire:
            return wire.request("GET").status == 405
    except (OSError, Closed):
        return False


def test_a_drain_ends_at_its_deadline_and_says_so(start_gateway: StartGateway, upstream: FaultyServer) -> None:
    gateway = start_gateway(config(upstream, bounds={"drain_accept": "0s", "drain": "500ms"}))
    running, seen = start_slow(gateway, upstream)
    began = time.monotonic()
    gateway.signal(signal.SIGTERM)
    check_error(running.answer()["error"], -31009, "overloaded")
    assert gateway.wait() == 0
    assert time.monotonic() - began < 25, "its own drain is half a second, the usual one half a minute"
    wait_for(lambda: seen.gone, "the cancellation upstream")


def test_a_second_signal_stops_at_once(start_gateway: StartGateway, upstream: FaultyServer, tmp_path: Path) -> None:
    up = {"url": upstream.url(era="modern"), "call_timeout": "10m"}
    servers = {"up": up, "local": stdio("stubborn", tmp_path / "notes")}
    gateway = start_gateway({"version": 1, "servers": servers, "bounds": {"drain": "5m"}})
    gateway.client().call("local__echo", {"text": "x"})
    below = gateway.descendants()
    assert below
    running, _ = start_slow(gateway, upstream)
    gateway.signal(signal.SIGTERM)
    wait_for(lambda: gateway.ready().status == 503, "the drain")
    gateway.signal(signal.SIGTERM)
    gateway.wait()  # where nobody would have to end for minutes
    running.wire.wait_closed()
    gateway.assert_nothing_left(below)


def test_sigint_is_like_sigterm(start_gateway: StartGateway, upstream: FaultyServer) -> None:
    gateway = start_gateway(config(upstream, bounds={"drain_accept": "0s"}))
    gateway.signal(signal.SIGINT)
    assert gateway.wait() == 0


@pytest.mark.parametrize("kind", ["good", "silent-call", "grandchild"])
def test_kill_9_leaves_no_process_behind(start_gateway: StartGateway, tmp_path: Path, kind: str) -> None:
    gateway = start_gateway({"version": 1, "servers": {"local": stdio(kind, tmp_path / "notes")}})
    gateway.client().tools()
    below = gateway.descendants()
    assert below
    gateway.process.kill()
    gateway.process.wait()
    wait_for(lambda: not alive(below | with_home(gateway.folder)), "the end of the children")


# --- reload -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["edit", "sighup"])
def test_a_reload_changes_what_is_served_and_running_calls_go_on(
    start_gateway: StartGateway, upstream: FaultyServer, how: str
) -> None:
    gateway = start_gateway(config(upstream))
    session = gateway.client(era="legacy")
    assert session.tools() == ["up__echo", "up__slow"]
    running, seen = start_slow(gateway, upstream)
    kept = gateway.client()
    gateway.write({"version": 1, "servers": {"new": {"url": upstream.url()}}})
    if how == "sighup":
        gateway.signal(signal.SIGHUP)
    wait_for(lambda: kept.tools() == ["new__echo", "new__slow"], "the new server")
    assert session.tools() == ["new__echo", "new__slow"], "the session did not live on"
    check_error(kept.call_error("up__echo"), -32602)
    assert not seen.gone
    upstream.release.set()
    assert text(running.answer()["result"]) == "done"


def test_a_reload_keeps_what_is_unchanged(start_gateway: StartGateway, upstream: FaultyServer, tmp_path: Path) -> None:
    servers = {"local": stdio("good", tmp_path / "notes"), "up": {"url": upstream.url()}}
    gateway = start_gateway({"version": 1, "servers": servers})
    client = gateway.client()
    client.tools()
    before, opened = gateway.descendants(), len(upstream.requests("initialize"))
    gateway.write({"version": 1, "servers": {**servers, "more": {"url": upstream.url("good", "list")}}})
    wait_for(lambda: "more__echo" in client.tools(), "the new server")
    client.call("local__echo", {"text": "x"})
    client.call("up__echo", {"text": "x"})
    assert gateway.descendants() == before
    assert len(upstream.requests("initialize", "/call/good")) == opened


@pytest.mark.parametrize("how", ["edit", "sighup"])
def test_a_bad_file_changes_nothing_and_the_log_says_where(
    start_gateway: StartGateway, upstream: FaultyServer, how: str
) -> None:
    gateway = start_gateway(config(upstream))
    gateway.write("version: 1\nservers:\n  up:\n    ulr: http://127.0.0.1/mcp\n")
    if how == "sighup":
        gateway.signal(signal.SIGHUP)
    line = wait_for(
        lambda: next((one for one in gateway.lines if "narthex.yaml:4:5" in one), ""), "the place of the fault"
    )
    assert "url" in line, "the nearest right key"
    echoes(gateway)
    gateway.write({"version": 1, "servers": {"right": {"url": upstream.url()}}})
    if how == "sighup":
        gateway.signal(signal.SIGHUP)
    client = gateway.client()
    wait_for(lambda: client.tools() == ["right__echo", "right__slow"], "the right file")


def test_a_server_that_is_taken_out_ends_with_its_process(
    start_gateway: StartGateway, upstream: FaultyServer, tmp_path: Path
) -> None:
    servers = {"local": stdio("good", tmp_path / "notes"), "up": {"url": upstream.url()}}
    gateway = start_gateway({"version": 1, "servers": servers})
    gateway.client().call("local__echo", {"text": "x"})
    below = gateway.descendants(STDIO)
    assert below
    gateway.write({"version": 1, "servers": {"up": servers["up"]}})
    wait_for(lambda: not alive(below), "the end of its process")
    echoes(gateway)


# --- cancellation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server_era", ["legacy", "modern"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_modern_client_that_leaves_cancels(
    start_gateway: StartGateway, upstream: FaultyServer, server_era: str, how: str
) -> None:
    gateway = start_gateway(config(upstream, server_era))
    running, seen = start_slow(gateway, upstream)
    running.wire.close() if how == "close" else running.wire.reset()
    if server_era == "legacy":
        told = wait_for(lambda: upstream.requests("notifications/cancelled"), "the cancellation")
        assert told[0].params["requestId"] == seen.id
        assert told[0].headers["mcp-session-id"] == seen.headers["mcp-session-id"]
    wait_for(lambda: seen.gone, "the end of the upstream stream")
    echoes(gateway)


@pytest.mark.parametrize("server_era", ["legacy", "modern"])
def test_a_legacy_client_that_leaves_does_not_cancel(
    start_gateway: StartGateway, upstream: FaultyServer, server_era: str
) -> None:
    gateway = start_gateway(config(upstream, server_era))
    running, seen = start_slow(gateway, upstream, "legacy")
    running.wire.close()
    for _ in range(5):
        echoes(gateway)
    assert not seen.gone and not upstream.requests("notifications/cancelled")
    upstream.release.set()
    wait_for(lambda: seen.sent, "the answer of the server")


@pytest.mark.parametrize("server", ["legacy", "modern", "stdio"])
def test_a_legacy_cancellation_reaches_the_server(
    start_gateway: StartGateway, upstream: FaultyServer, server: str, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    entry = stdio("good", notes) if server == "stdio" else {"url": upstream.url(era=server)}
    gateway = start_gateway({"version": 1, "servers": {"up": entry}})
    client = gateway.client(era="legacy")
    running = client.start("tools/call", SLOW)

    def received() -> list[dict[str, Any]]:
        if server == "stdio":
            return json_lines(notes)
        return [seen.body for seen in upstream.seen if isinstance(seen.body, dict)]

    def sent(method: str) -> list[dict[str, Any]]:
        return [one for one in received() if one.get("method") == method]

    wait_for(lambda: sent("tools/call"), "the call")
    cancel = client.post("notifications/cancelled", {"requestId": running.id, "reason": "enough"}, notification=True)
    assert cancel.status == 202
    if server == "modern":
        wait_for(lambda: _slow(upstream)[0].gone, "the end of the upstream stream")
    else:
        wait_for(lambda: sent("notifications/cancelled"), "the cancellation")
        assert sent("notifications/cancelled")[0]["params"]["requestId"] == sent("tools/call")[0]["id"]
    assert "result" in client.ask("tools/call", {"name": "up__echo", "arguments": {"text": "x"}})


def test_nobody_cancels_the_call_of_another(start_gateway: StartGateway, upstream: FaultyServer) -> None:
    gateway = start_gateway(config(upstream, "legacy"))
    mine, other = gateway.client(era="legacy"), gateway.client(era="legacy")
    running = mine.start("tools/call", SLOW)
    wait_for(lambda: _slow(upstream), "the call")
    for client in (other, gateway.client()):
        client.post("notifications/cancelled", {"requestId": running.id}, notification=True)
    echoes(gateway)
    assert not upstream.requests("notifications/cancelled")
    upstream.release.set()
    assert text(running.answer()["result"]) == "done"


# --- overload -----------------------------------------------------------------------------------------------------


def test_more_calls_than_a_server_may_have_are_refused_at_once(
    start_gateway: StartGateway, upstream: FaultyServer
) -> None:
    servers = {
        "up": {"url": upstream.url(era="modern"), "max_in_flight": 2},
        "other": {"url": upstream.url(era="modern")},
    }
    gateway = start_gateway({"version": 1, "servers": servers})
    running = [start_slow(gateway, upstream)[0] for _ in range(2)]
    client = gateway.client()
    data = check_error(client.call_error("up__echo"), -31009, "overloaded")
    assert data["retryAfterSeconds"] >= 1
    assert text(client.call("other__echo", {"text": "x"})) == "x"
    upstream.release.set()
    assert [text(one.answer()["result"]) for one in running] == ["done"] * 2
    echoes(gateway)


def test_more_calls_than_the_gateway_may_have_are_refused_at_once(
    start_gateway: StartGateway, upstream: FaultyServer
) -> None:
    gateway = start_gateway(config(upstream, bounds={"max_calls": 2}))
    running = [start_slow(gateway, upstream)[0] for _ in range(2)]
    check_error(gateway.client().call_error("up__echo"), -31009, "overloaded")
    upstream.release.set()
    assert [text(one.answer()["result"]) for one in running] == ["done"] * 2
    echoes(gateway)


def test_a_cancelled_call_gives_its_place_back(start_gateway: StartGateway, upstream: FaultyServer) -> None:
    gateway = start_gateway({"version": 1, "servers": {"up": {"url": upstream.url(era="modern"), "max_in_flight": 1}}})
    for _ in range(3):
        running, seen = start_slow(gateway, upstream)
        running.wire.close()
        wait_for(lambda seen=seen: seen.gone, "the cancellation")  # type: ignore[misc]
    echoes(gateway)


# --- slow readers and large bodies --------------------------------------------------------------------------------


@pytest.mark.parametrize("server_era", ["legacy", "modern"])
def test_a_slow_reader_holds_its_server_back_and_costs_no_memory(
    start_gateway: StartGateway, upstream: FaultyServer, server_era: str
) -> None:
    servers = {"big": {"url": upstream.url("big", "call", server_era)}, "up": {"url": upstream.url()}}
    gateway = start_gateway({"version": 1, "servers": servers})
    client = gateway.client()
    client.tools()
    echoes(gateway)
    before = gateway.rss()
    running = client.start("tools/call", {"name": "big__echo", "arguments": {}}, receive_buffer=65536)
    seen = wait_for(lambda: upstream.requests("tools/call", "/big"), "the call")[0]
    still = _settled(seen)
    assert still < BIG, "the server could send everything to a client that reads nothing"
    assert gateway.rss() - before < 8 * MIB, f"{(gateway.rss() - before) / MIB:.1f} MiB"
    echoes(gateway)
    result = running.answer()["result"]
    assert result["content"][0]["text"] == "y" * BIG


def _settled(seen: Seen) -> int:
    """The bytes sent, once that does not change for a while."""
    last, since = -1, time.monotonic()

    def settled() -> bool:
        nonlocal last, since
        if seen.sent != last:
            last, since = seen.sent, time.monotonic()
        return last > 0 and time.monotonic() - since > 0.4

    wait_for(settled, "the server to be held back")
    return last


def test_a_slow_reader_of_a_shared_pipe_holds_nobody_up(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = start_gateway({"version": 1, "servers": {"local": stdio("good", tmp_path / "notes")}})
    client = gateway.client()
    client.tools()
    params = {"name": "local__echo", "arguments": {"text": "y", "times": 20 * MIB}}
    slow = [client.start("tools/call", params, receive_buffer=65536) for _ in range(3)]
    for n in range(10):
        assert text(client.call("local__echo", {"text": f"n{n}"})) == f"n{n}"
    assert len(text(slow[0].answer()["result"])) == 20 * MIB
    for one in slow[1:]:
        one.wire.close()
    assert text(client.call("local__echo", {"text": "after"})) == "after"


def test_an_event_reaches_the_client_before_the_stream_ends(
    start_gateway: StartGateway, upstream: FaultyServer
) -> None:
    """Streams are relayed as they come: the first event is read while the server still holds the second back."""
    servers = {"up": {"url": upstream.url("progresses-slowly", "call", "modern")}}
    client = start_gateway({"version": 1, "servers": servers}).client()
    params = {"name": "up__echo", "arguments": {"text": "x"}, "_meta": {"progressToken": "mine"}}
    running = client.start("tools/call", params)
    with running.wire as wire:
        messages = wire.events(wire.read_head())
        first = next(messages)
        assert first["params"]["progressToken"] == "mine"
        assert not upstream.release.is_set()
        upstream.release.set()
        assert text(list(messages)[-1]["result"]) == "x"


def test_a_silent_stream_gets_comments(start_gateway: StartGateway, upstream: FaultyServer) -> None:
    servers = {"up": {"url": upstream.url("progresses-slowly", "call", "modern")}}
    client = start_gateway({"version": 1, "servers": servers, "bounds": {"sse_comment": "1s"}}).client()
    params = {"name": "up__echo", "arguments": {"text": "x"}, "_meta": {"progressToken": "mine"}}
    running = client.start("tools/call", params)
    with running.wire as wire:
        head = wire.read_head()
        parts = wire.read_body(head)
        wait_for(lambda: next(parts).startswith(b":"), "a comment")
        upstream.release.set()
        assert b'"result"' in b"".join(parts)


def test_a_large_body_passes_both_ways(start_gateway: StartGateway, upstream: FaultyServer) -> None:
    gateway = start_gateway(config(upstream, bounds={"max_body": "16MiB"}))
    sent = "é" * (2 * MIB)
    assert text(gateway.client().call("up__echo", {"text": sent})) == sent


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def tls_config(authority: Authority, upstream: FaultyServer, **more: str) -> dict[str, Any]:
    pair = authority.issue("gateway")
    tls = {"cert": pair.cert, "key": pair.key}
    return config(upstream, tls={**tls, **more}, admin={"tls": tls})


def test_both_listeners_speak_tls(start_gateway: StartGateway, upstream: FaultyServer, authority: Authority) -> None:
    context = authority.client_context()
    gateway = start_gateway(tls_config(authority, upstream), tls=context)
    assert gateway.mcp.startswith("https://") and gateway.admin.startswith("https://")
    for era in ("modern", "legacy"):
        assert text(gateway.client(era=era).call("up__echo", {"text": "sealed"})) == "sealed"
    with Wire(gateway.mcp, tls=context) as wire:
        assert isinstance(wire._socket, ssl.SSLSocket)
        assert wire._socket.selected_alpn_protocol() == "http/1.1"
        assert wire._socket.version() in ("TLSv1.2", "TLSv1.3")
    assert gateway.ready().status == 200
    for hostile in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 500):
        with Wire(gateway.mcp.replace("https", "http")) as plain:
            plain.send(hostile)
            plain.wait_closed()
    with pytest.raises(ssl.SSLCertVerificationError):
        Wire(gateway.mcp, tls=ssl.create_default_context())
    assert text(gateway.client().call("up__echo", {"text": "on"})) == "on"
    big = "z" * (3 * MIB)
    assert text(gateway.client().call("up__echo", {"text": big})) == big


def test_a_client_certificate_is_asked_for_where_configured(
    start_gateway: StartGateway, upstream: FaultyServer, authority: Authority, tmp_path: Path
) -> None:
    own = authority.client_context(authority.issue("client"))
    gateway = start_gateway(tls_config(authority, upstream, client_ca=authority.file), tls=own)
    assert text(gateway.client().call("up__echo", {"text": "known"})) == "known"
    stranger = Authority(tmp_path, "stranger").issue("stranger")
    for context in (authority.client_context(), authority.client_context(stranger)):
        with pytest.raises((ssl.SSLError, Closed, ConnectionError)), Wire(gateway.mcp, tls=context) as wire:
            wire.request("GET")
    echo = gateway.client().call("up__echo", {"text": "on"})
    assert text(echo) == "on"


def test_a_server_over_tls_is_verified(start_gateway: StartGateway, authority: Authority, tmp_path: Path) -> None:
    with FaultyServer(tls=authority.server_context(authority.issue("upstream"))) as upstream:
        trusting = start_gateway(config(upstream, egress={"ca": authority.file}))
        echoes(trusting)
        other = start_gateway(config(upstream, egress={"ca": Authority(tmp_path, "other").file}))
        assert check_error(other.client().call_error("up__echo"), -31005)["sent"] is False
        byname = config(upstream, egress={"ca": authority.file})
        byname["servers"]["up"]["url"] = upstream.url().replace("127.0.0.1", "localhost")
        echoes(start_gateway(byname))


# --- beside other proxies -----------------------------------------------------------------------------------------


def status_of(gateway: Gateway, host: str | None = None, **headers: str) -> int:
    call = message("tools/call", {"name": "up__echo", "arguments": {"text": "x"}})
    with Wire(gateway.mcp) as wire:
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        rows = [("host", host or wire.host), *routing_headers(call), *named]
        wire.send(render("POST", wire.path, rows, json.dumps(call).encode()))
        return wire.read().status


def test_forwarded_headers_count_only_from_trusted_proxies(start_gateway: StartGateway, upstream: FaultyServer) -> None:
    public = {"public_url": "https://gateway.example.com"}
    alone = start_gateway(config(upstream, **public))
    assert status_of(alone) == 200
    assert status_of(alone, "gateway.example.com") == 200
    assert status_of(alone, Origin="https://gateway.example.com") == 200
    assert status_of(alone, X_Forwarded_Host="evil.example.com") == 200, "believed without being told to"
    assert status_of(alone, "internal:9", X_Forwarded_Host="gateway.example.com") == 403
    behind = start_gateway(config(upstream, **public, trusted_proxies=["127.0.0.0/8"]))
    assert status_of(behind, "internal:9", X_Forwarded_Host="gateway.example.com") == 200
    assert status_of(behind, X_Forwarded_Host="evil.example.com") == 403
    assert status_of(behind) == 200
    elsewhere = start_gateway(config(upstream, **public, trusted_proxies=["10.0.0.0/8"]))
    assert status_of(elsewhere, "internal:9", X_Forwarded_Host="gateway.example.com") == 403


INSIDE = "upstream.example.com"
"""A name that only the egress proxy can resolve; what is on this machine itself never goes through a proxy."""


def through_proxy(upstream: FaultyServer, **egress: Any) -> dict[str, Any]:
    url = upstream.url().replace("127.0.0.1", INSIDE)
    return {"version": 1, "servers": {"up": {"url": url}}, "egress": egress}


@pytest.mark.parametrize("by", ["configuration", "environment"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_servers_are_reached_through_the_egress_proxy(
    start_gateway: StartGateway, authority: Authority, by: str, scheme: str
) -> None:
    tls = authority.server_context(authority.issue("upstream")) if scheme == "https" else None
    with FaultyServer(tls=tls) as upstream, HttpProxy({INSIDE: "127.0.0.1"}) as proxy:
        if by == "configuration":
            gateway = start_gateway(through_proxy(upstream, ca=authority.file, proxy=proxy.url))
        else:
            env = {"HTTP_PROXY": proxy.url, "HTTPS_PROXY": proxy.url, "NO_PROXY": "example.org"}
            gateway = start_gateway(through_proxy(upstream, ca=authority.file), env=env)
        echoes(gateway)
        verb = "CONNECT" if scheme == "https" else "POST"
        assert f"{verb} {INSIDE}:{upstream.port}" in proxy.targets


def test_no_proxy_is_respected_and_a_refusing_proxy_is_a_clear_error(
    start_gateway: StartGateway, upstream: FaultyServer
) -> None:
    with HttpProxy(refuse="407 Proxy Authentication Required") as proxy:
        refused = start_gateway(through_proxy(upstream, proxy=proxy.url))
        assert check_error(refused.client().call_error("up__echo"), -31005)["sent"] is False
        assert proxy.targets
        proxy.targets.clear()
        exempt = start_gateway(through_proxy(upstream, proxy=proxy.url, no_proxy=["example.com"]))
        assert check_error(exempt.client().call_error("up__echo"), -31005)["sent"] is False
        echoes(start_gateway(config(upstream, egress={"proxy": proxy.url})))
        assert not proxy.targets


# --- clients without manners --------------------------------------------------------------------------------------


def test_clients_that_never_say_goodbye_leave_nothing_behind(
    start_gateway: StartGateway, upstream: FaultyServer
) -> None:
    gateway = start_gateway(config(upstream))
    echoes(gateway)

    def rude() -> None:
        wires = []
        for n in range(100):
            wire = Wire(gateway.mcp)
            call = message("tools/call", {"name": "up__echo", "arguments": {"text": "x" * 1000}})
            wire.send(
                render("POST", wire.path, [("host", wire.host), *routing_headers(call)], json.dumps(call).encode())
            )
            wires.append(wire)
            if n % 3 == 0:
                wire.reset()
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.close()
        echoes(gateway)

    for _ in range(3):
        rude()
    open_before, rss = _descriptors(gateway), gateway.rss()
    for _ in range(5):
        rude()
    wait_for(lambda: _descriptors(gateway) <= open_before + 10, "the end of the connections")
    assert gateway.rss() - rss < 6 * MIB


def _descriptors(gateway: Gateway) -> int:
    return len(list(Path(f"/proc/{gateway.process.pid}/fd").iterdir()))
