"""Servers that misbehave: each costs its own call a clear error and nothing else.

Every row has a server of its own on an endpoint of its own, beside one that is well: after the fault the same client
still reaches that one, over the same endpoint.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from narthex.flow.upstream.breaker import IN_A_ROW
from tests.conftest import StartGateway
from tests.counterparts.ports import Port
from tests.e2e.harness import Client, Era, Gateway, alive, check_error, json_lines, text, wait_for
from tests.faulty.server import BIG, FAULTS, HUGE, FaultyServer

pytestmark = pytest.mark.e2e
MIB = 1024 * 1024
STDIO = str(Path(__file__).parents[1] / "faulty" / "stdio.py")
SHORT, LONG = "2s", "60s"
"""Deadlines that are reached, long enough for a call to reach its server first, and such that are not."""

BREAKS = [
    "closes", "resets", "dies-mid-answer", "resets-mid-answer", "dies-mid-headers", "dies-mid-stream", "half-chunk",
    "no-last-chunk", "length-too-short", "length-too-long", "length-twice", "length-and-chunked", "bad-chunk-size",
    "huge-chunk-size", "garbage", "header-flood", "long-header", "bad-json", "bad-utf8", "wrong-id", "null-id",
    "text-id", "neither", "bad-error", "batch", "html", "gzip", "no-content", "empty", "accepted",
    "stream-without-answer", "stream-of-garbage", "status-400", "status-401", "status-403", "status-405", "status-429",
    "status-500", "status-502", "status-503", "status-999", "redirects", "redirects-away", "never-a-session",
]  # fmt: skip
"""Faults that must end in -31005: the server may have acted on the call, so that it is not sent again."""
STALLS = [
    "stalls",
    "stalls-mid-headers",
    "stalls-mid-answer",
    "stalls-mid-stream",
    "endless-stream",
    "endless-comments",
]
"""Faults that must end in -31006 at the deadline, and be told upstream."""
WELL = [
    "good", "good-stream", "interim", "close-delimited", "http10", "chunk-by-byte", "odd-stream", "twice", "drips",
    "closes-idle", "loses-session", "asks-back",
]  # fmt: skip
"""Unusual, but answered as if nothing were."""
OPENING = [
    "resets",
    "garbage",
    "html",
    "bad-json",
    "status-500",
    "status-401",
    "redirects",
    "wrong-id",
    "empty",
    "header-flood",
]
LISTING = [*OPENING, "dies-mid-answer", "deep-json", "huge", "neither", "dies-mid-stream"]


def entry(url: str, timeout: str = LONG, **more: Any) -> dict[str, Any]:
    return {"url": url, "call_timeout": timeout, "list_timeout": timeout, **more}


def endpoints(servers: dict[str, Any], well: str = "well") -> dict[str, Any]:
    """One endpoint a server, each with the one that is well beside it."""
    return {name: {"servers": [name, well]} for name in servers if name != well} | {"default": {"servers": [well]}}


@pytest.fixture(scope="module")
def gateway(module_gateway: StartGateway, faulty: FaultyServer) -> Gateway:
    servers = {"well": entry(faulty.url())}
    for era in ("legacy", "modern"):
        short = era[0]
        for fault in FAULTS:
            timeout = SHORT if fault in STALLS or fault == "endless-interim" else LONG
            servers[f"{short}-{fault}"] = entry(faulty.url(fault, "call", era), timeout)
        for fault in OPENING:
            servers[f"{short}o-{fault}"] = entry(faulty.url(fault, "open", era), LONG)
        for fault in LISTING:
            servers[f"{short}l-{fault}"] = entry(faulty.url(fault, "list", era), LONG)
        for moment in ("open", "list"):
            servers[f"{short}{moment[0]}-stalls"] = entry(faulty.url("stalls", moment, era), SHORT)
    servers = {name[:24]: value for name, value in servers.items()}
    return module_gateway({"version": 1, "servers": servers, "endpoints": endpoints(servers)})


def name_of(fault: str, moment: str, era: str) -> str:
    return f"{era[0]}{'' if moment == 'call' else moment[0]}-{fault}"[:24]


both_eras = pytest.mark.parametrize("era", ["legacy", "modern"])


def attempt(gateway: Gateway, fault: str, moment: str, upstream: str, client_era: Era = "modern") -> tuple[Client, Any]:
    """Call `echo` of the faulty server; the client and the response."""
    name = name_of(fault, moment, upstream)
    client = gateway.client(name, client_era)
    return client, client.ask("tools/call", {"name": f"{name}__echo", "arguments": {"text": "hello"}})


def check_the_other_is_well(client: Client) -> None:
    assert text(client.call("well__echo", {"text": "still here"})) == "still here"


@both_eras
@pytest.mark.parametrize("fault", BREAKS)
def test_a_call_that_breaks_is_answered_with_upstream_unavailable(
    gateway: Gateway, faulty: FaultyServer, fault: str, era: str
) -> None:
    client, answer = attempt(gateway, fault, "call", era)
    data = check_error(answer["error"], -31005, "upstream_unavailable")
    assert isinstance(data["sent"], bool)
    if not fault.startswith(("status-", "redirects", "never")):
        assert data["sent"] is True
    if fault in ("status-429", "status-503"):
        assert data["retryAfterSeconds"] == (7 if fault == "status-429" else 3)
    assert "secret-realm" not in json.dumps(answer)
    calls = faulty.requests("tools/call", f"/{era}/call/{fault}")
    assert len(calls) == (2 if fault == "never-a-session" and era == "legacy" else 1), "sent again"
    check_the_other_is_well(client)
    assert f"{name_of(fault, 'call', era)}__echo" in client.tools()


@both_eras
@pytest.mark.parametrize("fault", STALLS)
def test_a_call_that_stalls_ends_at_its_deadline_and_is_cancelled(
    gateway: Gateway, faulty: FaultyServer, fault: str, era: str
) -> None:
    wait_for(lambda: f"{name_of(fault, 'call', era)}__echo" in gateway.client(name_of(fault, "call", era)).tools())
    client, answer = attempt(gateway, fault, "call", era)
    check_error(answer["error"], -31006, "upstream_timeout")
    seen = faulty.requests("tools/call", f"/{era}/call/{fault}")
    assert len(seen) == 1
    wait_for(lambda: seen[0].gone, "the end of the upstream connection")
    if era == "legacy":
        told = wait_for(lambda: faulty.requests("notifications/cancelled", f"/{era}/call/{fault}"), "the cancellation")
        assert told[0].params["requestId"] == seen[0].id
    check_the_other_is_well(client)


@both_eras
def test_endless_interim_answers_end(gateway: Gateway, era: str) -> None:
    client, answer = attempt(gateway, "endless-interim", "call", era)
    assert answer["error"]["code"] in (-31005, -31006)
    check_the_other_is_well(client)


@both_eras
@pytest.mark.parametrize("fault", WELL)
@pytest.mark.parametrize("client_era", ["legacy", "modern"])
def test_what_is_only_unusual_is_answered(
    gateway: Gateway, faulty: FaultyServer, fault: str, era: str, client_era: Era
) -> None:
    client, answer = attempt(gateway, fault, "call", era, client_era)
    assert text(answer["result"]) == "hello"
    for n in range(3):
        name = f"{name_of(fault, 'call', era)}__echo"
        assert text(client.call(name, {"text": f"again {n}"})) == f"again {n}"
    check_the_other_is_well(client)


UNDECLARED = [-32602, -32601, -32601]
"""For elicitation, sampling and roots, none of which was declared (2025-11-25, "Error Handling" of each)."""


def test_a_server_that_asks_back_is_answered(gateway: Gateway, faulty: FaultyServer) -> None:
    faulty.replies.clear()
    attempt(gateway, "asks-back", "call", "legacy")
    assert faulty.replies["d"]["result"] == {}
    assert [faulty.replies[refused]["error"]["code"] for refused in "abc"] == UNDECLARED


def test_a_lost_session_is_opened_anew_once(gateway: Gateway, faulty: FaultyServer) -> None:
    attempt(gateway, "loses-session", "call", "legacy")
    before = len(faulty.requests("initialize", "/legacy/call/loses-session"))
    faulty.forget()
    _, answer = attempt(gateway, "loses-session", "call", "legacy")
    assert text(answer["result"]) == "hello"
    assert len(faulty.requests("initialize", "/legacy/call/loses-session")) == before + 1


def test_many_calls_that_lose_one_session_open_one_new_one(gateway: Gateway, faulty: FaultyServer) -> None:
    attempt(gateway, "good", "call", "legacy")
    before = len(faulty.requests("initialize", "/legacy/call/good"))
    faulty.forget()
    params = {"name": "l-good__echo", "arguments": {"text": "x"}}
    running = [gateway.client("l-good").start("tools/call", params) for _ in range(20)]
    assert [text(one.answer()["result"]) for one in running] == ["x"] * 20
    assert len(faulty.requests("initialize", "/legacy/call/good")) <= before + 2


@both_eras
@pytest.mark.parametrize("fault", ["tool-error", "error-with-json", "result-and-error"])
def test_an_error_of_the_server_is_relayed_as_it_is(gateway: Gateway, fault: str, era: str) -> None:
    client, answer = attempt(gateway, fault, "call", era)
    if fault == "tool-error":
        code = -32603 if era == "legacy" else -32050  # what a legacy server means by it is not what 2026-07-28 reserves
        assert answer["error"] == {"code": code, "message": "the tool says no", "data": {"why": ["because"]}}
    elif fault == "result-and-error":
        assert answer["error"]["message"] == "both" and "result" not in answer
    else:
        assert (answer["error"]["code"], answer["error"]["message"]) == (-32602, "bad arguments")
    check_the_other_is_well(client)


@both_eras
def test_an_answer_that_nobody_asked_for_is_given_to_nobody(gateway: Gateway, faulty: FaultyServer, era: str) -> None:
    """A whole response behind the right one, or later on the idle connection, and made for the next request's id."""
    for _ in range(2):
        faulty.release.clear()
        client, answer = attempt(gateway, "late-second-response", "call", era)
        assert text(answer["result"]) == "hello"
        faulty.release.set()
        asked = faulty.requests("tools/call", f"/{era}/call/late-second-response")
        wait_for(lambda asked=asked: asked[-1].gone, "the end of the connection")  # type: ignore[misc]
    for _ in range(4):
        _, answer = attempt(gateway, "second-response", "call", era)
        assert "planted" not in json.dumps(answer)
        if "error" in answer:  # bytes behind an answer make it a doubtful one
            assert check_error(answer["error"], -31005)["sent"] is True
    check_the_other_is_well(client)


@both_eras
def test_deep_json_harms_nobody(gateway: Gateway, era: str) -> None:
    client = gateway.client(name_of("deep-json", "call", era))
    name = f"{name_of('deep-json', 'call', era)}__echo"
    response = client.post("tools/call", {"name": name, "arguments": {}})
    assert response.status == 200
    assert response.body.count(b"[" * 100_000) or response.json["error"]["code"] == -31005
    check_the_other_is_well(client)


@both_eras
def test_a_connection_that_dies_under_a_call_is_reported_and_the_next_call_works(gateway: Gateway, era: str) -> None:
    client, answer = attempt(gateway, "dies-once", "call", era)
    assert check_error(answer["error"], -31005)["sent"] is True
    _, answer = attempt(gateway, "dies-once", "call", era)
    assert text(answer["result"]) == "hello"


@both_eras
def test_an_idempotent_call_is_sent_again(module_gateway: StartGateway, era: str) -> None:
    with FaultyServer() as faulty:
        server = entry(faulty.url("dies-once", "call", era), idempotent=["ec*"])
        client = module_gateway({"version": 1, "servers": {"up": server}}).client()
        assert text(client.call("up__echo", {"text": "hello"})) == "hello"
        assert len(faulty.requests("tools/call")) == 2


@both_eras
def test_a_pooled_connection_that_the_server_closes_is_not_used_again(
    gateway: Gateway, faulty: FaultyServer, era: str
) -> None:
    """It answers once on a connection and resets it at the next request: nothing says so beforehand."""
    client, answer = attempt(gateway, "closes-at-next", "call", era)
    name = f"{name_of('closes-at-next', 'call', era)}__echo"
    outcomes = [answer, *(client.ask("tools/call", {"name": name, "arguments": {"text": "hello"}}) for _ in range(4))]
    for outcome in outcomes:
        if "error" in outcome:
            assert check_error(outcome["error"], -31005)["sent"] is True
        else:
            assert text(outcome["result"]) == "hello"
    assert "result" in outcomes[0]
    check_the_other_is_well(client)


# --- too much -----------------------------------------------------------------------------------------------------


@both_eras
@pytest.mark.parametrize("fault", ["huge", "huge-chunked", "huge-event"])
def test_an_answer_without_measure_is_cut_off_and_memory_stays_bounded(
    gateway: Gateway, faulty: FaultyServer, fault: str, era: str
) -> None:
    peak = Peak(gateway)
    before = gateway.rss()
    with peak:
        client, answer = attempt(gateway, fault, "call", era)
    check_error(answer["error"], -31007, "content_blocked")
    seen = faulty.requests("tools/call", f"/{era}/call/{fault}")
    assert len(seen) == 1
    wait_for(lambda: seen[0].gone, "the end of the upstream connection")
    assert seen[0].sent < HUGE
    assert peak.most - before < 120 * MIB, f"{(peak.most - before) / MIB:.0f} MiB"
    check_the_other_is_well(client)


@both_eras
def test_a_stream_that_is_long_in_all_costs_no_memory(gateway: Gateway, era: str) -> None:
    """Each message is small: 200 MB of them pass by, and the answer at their end is still taken."""
    before, peak = gateway.rss(), Peak(gateway)
    with peak:
        client, answer = attempt(gateway, "huge-events", "call", era)
    assert text(answer["result"]) == "hello"
    assert peak.most - before < 16 * MIB, f"{(peak.most - before) / MIB:.0f} MiB"
    check_the_other_is_well(client)


class Peak:
    """The most resident memory that a gateway has while the block runs."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.most = gateway.rss()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.most = max(self.most, self._gateway.rss())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


@both_eras
@pytest.mark.parametrize("fault", ["big", "big-with-blanks"])
def test_a_big_answer_inside_the_bound_arrives_whole(gateway: Gateway, fault: str, era: str) -> None:
    name = name_of(fault, "call", era)
    client = gateway.client(name)
    assert client.call(f"{name}__echo")["content"][0]["text"] == "y" * BIG


# --- lists --------------------------------------------------------------------------------------------------------


def missing(result: dict[str, Any]) -> list[str]:
    return [one["server"] for one in result.get("_meta", {}).get("narthex/missing", [])]


@both_eras
@pytest.mark.parametrize(
    ("moment", "fault"),
    [*(("open", fault) for fault in [*OPENING, "stalls"]), *(("list", fault) for fault in [*LISTING, "stalls"])],
)
def test_a_list_goes_on_without_the_server_and_says_which_one_is_missing(
    gateway: Gateway, moment: str, fault: str, era: str
) -> None:
    name = name_of(fault, moment, era)
    client = gateway.client(name)
    result = client.result("tools/list")
    assert [tool["name"] for tool in result["tools"]] == ["well__echo", "well__slow"]
    assert missing(result) == [name]
    error = client.call_error(f"{name}__echo")
    assert error["code"] in (-31005, -31006, -31007), error
    check_the_other_is_well(client)


def test_a_list_waits_no_longer_than_the_deadline_of_the_slowest(
    module_gateway: StartGateway, faulty: FaultyServer
) -> None:
    servers = {f"s{n}": entry(faulty.url("stalls", moment), SHORT) for n, moment in enumerate(["list", "open"] * 5)}
    gateway = module_gateway({"version": 1, "servers": {**servers, "well": entry(faulty.url())}})
    client = gateway.client()
    with Clock() as clock:
        result = client.result("tools/list")
    assert clock.taken_s < 15.0, "one after the other it would be twenty seconds"
    assert missing(result) == list(servers)
    assert [tool["name"] for tool in result["tools"]] == ["well__echo", "well__slow"]


class Clock:
    taken_s = 0.0

    def __enter__(self) -> Clock:
        import time

        self._time, self._began = time.monotonic, time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.taken_s = self._time() - self._began


def test_a_server_that_comes_back_is_listed_again(module_gateway: StartGateway, faulty: FaultyServer) -> None:
    port = Port()
    servers = {"back": entry(f"http://127.0.0.1:{port.number}/modern/call/good"), "well": entry(faulty.url())}
    client = module_gateway({"version": 1, "servers": servers}).client()
    assert missing(client.result("tools/list")) == ["back"]
    assert check_error(client.call_error("back__echo"), -31005)["sent"] is False
    with FaultyServer(port=port.number):
        wait_for(lambda: "back__echo" in client.tools(), "the server's return to the list")
        assert text(client.call("back__echo", {"text": "hello"})) == "hello"


# --- not there at all ---------------------------------------------------------------------------------------------


@pytest.fixture
def never_answers() -> Iterator[int]:
    """A port whose backlog is full: connecting to it hangs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port
        for filler in fillers:
            filler.close()


def test_what_cannot_be_reached_was_never_sent(
    module_gateway: StartGateway, faulty: FaultyServer, never_answers: int
) -> None:
    servers = {
        "refused": entry("http://127.0.0.1:1/mcp"),
        "silent": entry(f"http://127.0.0.1:{never_answers}/mcp", connect_timeout="500ms"),
        "notls": entry(faulty.url().replace("http:", "https:")),
        "noname": entry("http://no-such-host.invalid/mcp"),
        "well": entry(faulty.url()),
    }
    gateway = module_gateway({"version": 1, "servers": servers, "endpoints": endpoints(servers)})
    for name in ("refused", "silent", "notls", "noname"):
        client = gateway.client(name)
        error = client.call_error(f"{name}__echo")
        assert check_error(error, -31005)["sent"] is False
        assert "127.0.0.1" not in error["message"] and "invalid" not in error["message"], "an address of the inside"
        assert missing(client.result("tools/list")) == [name]
        check_the_other_is_well(client)


# --- the breaker --------------------------------------------------------------------------------------------------


def test_a_server_that_keeps_failing_is_left_alone_for_a_while_and_tried_again(module_gateway: StartGateway) -> None:
    with FaultyServer() as faulty:
        gateway = module_gateway({"version": 1, "servers": {"up": entry(faulty.url("resets", "call", "modern"))}})
        client = gateway.client()

        def asks() -> bool:
            error = client.call_error("up__echo")
            assert error["code"] == -31005
            assert error["data"]["sent"] or error["data"]["retryAfterSeconds"] >= 1
            return bool(error["data"]["sent"])

        wait_for(lambda: not asks(), "the breaker to open")
        asked = len(faulty.requests("tools/call"))
        assert asked >= IN_A_ROW
        wait_for(asks, "a probe")
        assert len(faulty.requests("tools/call")) == asked + 1


# --- stdio --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def over_stdio(module_gateway: StartGateway, faulty: FaultyServer, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    notes = tmp_path_factory.mktemp("notes")
    kinds = [
        "dies-at-start", "silent", "garbage-at-start", "dies-in-call", "dies-once-in-call", "garbage-in-call",
        "half-a-line", "huge-line", "silent-call", "wrong-id", "asks-back", "noisy-stderr", "stubborn", "good",
    ]  # fmt: skip
    servers: dict[str, Any] = {"well": entry(faulty.url())}
    for kind in kinds:
        timeout = SHORT if kind in ("silent-call", "silent", "wrong-id") else LONG
        servers[kind] = {
            "command": sys.executable,
            "args": ["-S", STDIO, kind, str(notes / kind)],
            "call_timeout": timeout,
            "list_timeout": timeout,
        }
    servers["nothing"] = {"command": "/no/such/program"}
    gateway = module_gateway({"version": 1, "servers": servers, "endpoints": endpoints(servers)})
    gateway.folder.joinpath("notes").write_text(str(notes))
    return gateway


def received(gateway: Gateway, kind: str) -> list[Any]:
    return json_lines(Path(gateway.folder.joinpath("notes").read_text()) / kind)


@pytest.mark.parametrize(
    ("kind", "codes", "sent"),
    [
        pytest.param("nothing", {-31005}, False, id="no such program"),
        pytest.param("dies-at-start", {-31005}, False, id="dies at start"),
        pytest.param("silent", {-31005, -31006}, None, id="never speaks"),
        pytest.param("dies-in-call", {-31005}, True, id="dies in a call"),
        pytest.param("half-a-line", {-31005}, True, id="dies within its answer"),
        pytest.param("huge-line", {-31007}, None, id="a line of 200 MB"),
        pytest.param("silent-call", {-31006}, None, id="never answers a call"),
        pytest.param("wrong-id", {-31005, -31006}, None, id="answers another id"),
    ],
)
def test_a_stdio_server_that_fails(over_stdio: Gateway, kind: str, codes: set[int], sent: bool | None) -> None:
    before, peak = over_stdio.rss(), Peak(over_stdio)
    client = over_stdio.client(kind)
    with peak:
        error = client.call_error(f"{kind}__echo", {"text": "hello"})
    assert error["code"] in codes, error
    data = check_error(error, error["code"])
    assert sent is None or data["sent"] is sent
    assert peak.most - before < 120 * MIB
    check_the_other_is_well(client)


@pytest.mark.parametrize(
    "kind", ["good", "garbage-at-start", "garbage-in-call", "asks-back", "noisy-stderr", "stubborn"]
)
def test_a_stdio_server_that_is_only_unusual_is_answered(over_stdio: Gateway, kind: str) -> None:
    client = over_stdio.client(kind)
    for n in range(3):
        assert text(client.call(f"{kind}__echo", {"text": f"n{n}"})) == f"n{n}"
    check_the_other_is_well(client)


def test_what_a_stdio_server_asks_is_refused_in_the_code_of_the_protocol(over_stdio: Gateway) -> None:
    over_stdio.client("asks-back").call("asks-back__echo")

    def heard() -> dict[str, Any]:
        return {one["id"]: one for one in received(over_stdio, "asks-back") if "method" not in one and "id" in one}

    replies = wait_for(lambda: len(heard()) >= 4 and heard(), "all four answers")
    assert [replies[f"ask-{n}"]["error"]["code"] for n in range(3)] == UNDECLARED
    assert replies["ask-3"]["result"] == {}


def test_a_stdio_server_that_died_starts_again(over_stdio: Gateway) -> None:
    client = over_stdio.client("dies-once-in-call")
    name = "dies-once-in-call__echo"
    assert check_error(client.call_error(name), -31005)["sent"] is True
    wait_for(lambda: "result" in client.ask("tools/call", {"name": name, "arguments": {"text": "x"}}), "the restart")
    assert len([one for one in received(over_stdio, "dies-once-in-call") if "start" in one]) == 2


def test_what_a_failing_stdio_server_said_is_shown_to_the_operator_alone(over_stdio: Gateway) -> None:
    client = over_stdio.client("dies-at-start")
    error = client.call_error("dies-at-start__echo")
    assert "flux capacitor" not in json.dumps(error)
    wait_for(lambda: "flux capacitor" in over_stdio.log(), "its stderr in the log")


def test_a_call_to_a_stdio_server_is_cancelled_at_its_deadline(over_stdio: Gateway) -> None:
    client = over_stdio.client("silent-call")
    wait_for(lambda: "silent-call__echo" in client.tools(), "the start of the server")
    client.call_error("silent-call__echo")
    call = [one["id"] for one in received(over_stdio, "silent-call") if one.get("method") == "tools/call"][-1]

    def told() -> list[Any]:
        notes = [one for one in received(over_stdio, "silent-call") if one.get("method") == "notifications/cancelled"]
        return [one["params"]["requestId"] for one in notes]

    wait_for(lambda: call in told(), "the cancellation")


def test_the_environment_of_a_stdio_server_is_what_its_entry_names(
    module_gateway: StartGateway, tmp_path: Path
) -> None:
    server = {
        "command": sys.executable,
        "args": ["-S", STDIO, "good", str(tmp_path / "notes")],
        "env": {"GIVEN": "yes", "TAKEN": "${FROM_OUTSIDE}"},
        "cwd": str(tmp_path),
    }
    gateway = module_gateway(
        {"version": 1, "servers": {"up": server}}, env={"FROM_OUTSIDE": "taken", "A_SECRET": "s3cret", "TZ": "UTC"}
    )
    found = json.loads(text(gateway.client().call("up__env")))
    assert found["cwd"] == str(tmp_path)
    environment = found["env"]
    assert (environment["GIVEN"], environment["TAKEN"], environment["TZ"]) == ("yes", "taken", "UTC")
    assert environment["HOME"] == str(gateway.folder) and "PATH" in environment
    assert not {"A_SECRET", "FROM_OUTSIDE", "PYTHONPATH"} & environment.keys()


def test_a_stdio_server_ends_with_its_whole_process_group(start_gateway: StartGateway, tmp_path: Path) -> None:
    servers = {
        kind: {"command": sys.executable, "args": ["-S", STDIO, kind, str(tmp_path / kind)]}
        for kind in ("grandchild", "stubborn")
    }
    gateway = start_gateway({"version": 1, "servers": servers})
    client = gateway.client()
    for kind in servers:
        client.call(f"{kind}__echo", {"text": "x"})
    below = gateway.descendants()
    assert len(below) >= 5
    gateway.stop()
    assert not alive(below)


def test_an_idle_stdio_server_is_stopped_and_started_again(start_gateway: StartGateway, tmp_path: Path) -> None:
    server = {"command": sys.executable, "args": ["-S", STDIO, "good", str(tmp_path / "n")], "idle_timeout": "1s"}
    gateway = start_gateway({"version": 1, "servers": {"up": server}})
    client = gateway.client()
    client.call("up__echo", {"text": "x"})
    (first,) = [one["start"] for one in json_lines(tmp_path / "n") if "start" in one]
    wait_for(lambda: first not in {pid for pid, _ in gateway.descendants(STDIO)}, "the end of the idle server")
    assert text(client.call("up__echo", {"text": "again"})) == "again"
    assert len([one for one in json_lines(tmp_path / "n") if "start" in one]) > 1


def test_a_stdio_server_starts_when_it_is_needed_or_at_start(start_gateway: StartGateway, tmp_path: Path) -> None:
    servers = {
        name: {"command": sys.executable, "args": ["-S", STDIO, "good", str(tmp_path / name)], "start": start}
        for name, start in (("early", "at_start"), ("late", "first_use"))
    }
    start_gateway({"version": 1, "servers": servers})
    wait_for((tmp_path / "early").exists, "the server that starts at once")
    assert not (tmp_path / "late").exists()
