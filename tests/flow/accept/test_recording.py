"""Each call that is answered, refused or given up leaves one record; without a taker nothing is made."""

from __future__ import annotations

import json
from hashlib import sha256
from ipaddress import ip_network
from typing import Any

import pytest

from narthex.flow.accept import records
from narthex.telemetry.record import Entry, line_of
from narthex.testing import FakeServer, JsonRpcError
from narthex.types import Grant, LimitRule
from tests.flow.accept.test_exchange import Mcp
from tests.flow.gateway import Running, run, spec, until
from tests.flow.upstream.test_http import HOLD, answer, rpc

TOOLS: list[dict[str, Any]] = [{"name": "echo", "inputSchema": {"type": "object"}}]
CALL = {"name": "one__echo", "arguments": {"password": "s3cr3t-argument"}}
ERAS = pytest.mark.parametrize("modern", [False, True], ids=["legacy client", "modern client"])


def recorded(gateway: Running) -> list[dict[str, Any]]:
    """What was recorded so far, as it will stand in the file; grows."""
    found: list[dict[str, Any]] = []

    def take(entry: Entry) -> None:
        found.append(json.loads(line_of(entry, "id")))

    gateway.front.record = take
    return found


@ERAS
def test_a_call_that_is_answered(modern: bool) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client(session=not modern)
            found = recorded(gateway)
            got = await (client.modern if modern else client.legacy)("tools/call", CALL)
            (one,) = found
            assert (one["server"], one["name"], one["outcome"], one["decision"]) == ("one", "echo", "ok", "allow")
            assert (one["source"], one["tenant"], one["endpoint"]) == ("127.0.0.1", "default", "default")
            assert one["principal"]["subject"] == "local" and one["config"] == gateway.front.snapshot.revision
            assert one["bytes_out"] == len(got.body) and one["bytes_in"] > 0
            assert ("session" in one) == (not modern)
            assert "s3cr3t-argument" not in json.dumps(found), "no argument, no result"

    run(main)


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        pytest.param({"content": [], "isError": True}, "tool_error", 0, id="a tool error"),
        pytest.param(JsonRpcError(-32050, "no"), "rpc_error", -32050, id="an error of the server"),
    ],
)
def test_what_a_server_refuses_was_allowed(answer: Any, outcome: str, code: int) -> None:
    def answers(_: dict[str, Any]) -> dict[str, Any]:
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    async def main() -> None:
        fake = FakeServer(tools=TOOLS, answers={"echo": answers})
        async with fake as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            found = recorded(gateway)
            await client.modern("tools/call", CALL)
            (one,) = found
            assert (one["outcome"], one["decision"], one.get("code", 0)) == (outcome, "allow", code)

    run(main)


@ERAS
@pytest.mark.parametrize("tool", ["echo", "delete"], ids=["sent", "denied"])
def test_what_was_called_is_known_by_what_its_server_had_listed(modern: bool, tool: str) -> None:
    async def main() -> None:
        listed = [*TOOLS, {"name": "delete", "description": "before"}]
        async with FakeServer(tools=listed) as server:
            upstream, grants = {"one": spec("one", server.url)}, {"grants": GRANTS}
            async with Running(upstream, settings=grants) as gateway:
                client = await gateway.client(session=not modern)
                found = recorded(gateway)
                call = {"name": f"one__{tool}", "arguments": {"amount": 1}}
                await (client.modern if modern else client.legacy)("tools/call", call)
                (one,) = found
                as_listed = json.dumps(next(item for item in listed if item["name"] == tool)).encode()
                assert one.get("definition_digest") == f"sha256:{sha256(as_listed).hexdigest()}"

    run(main)


@ERAS
def test_in_which_conversation_it_was_sent(modern: bool) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client(session=not modern)
            found = recorded(gateway)
            await (client.modern if modern else client.legacy)("tools/call", CALL)
            (one,) = found
            (channel,) = gateway.front.fleet.servers["one"].channels.values()
            session, version = channel.dialect.session_id, channel.dialect.server_info.get("version")
            said = {"session": sha256(session.encode()).hexdigest()[:16]} if session else {}
            said |= {"version": version} if version else {}
            assert one["upstream"] == {"protocol": channel.dialect.version, "status": 200, **said}
            assert session is None or session not in json.dumps(one)

    run(main)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param(answer(b"no", "503 Service Unavailable"), 503, id="a refusal"),
        pytest.param(answer(b"", "302 Found", "Location: http://127.0.0.1:1/"), 302, id="a redirect"),
        pytest.param(answer(rpc(3, error={"code": -32602, "message": "no"}), "400 Bad Request"), 400, id="an error"),
        pytest.param(answer(b"nonsense"), 200, id="nonsense"),
        pytest.param("close", None, id="no answer"),
    ],
)
def test_the_http_status_of_the_server(script: Any, status: int | None) -> None:
    async def main() -> None:
        async with Mcp(script) as server, server.gateway() as gateway:
            client = await gateway.client()
            found = recorded(gateway)
            await client.modern("tools/call", CALL)
            (one,) = found
            assert one["upstream"].get("status") == status and one["decision"] == "allow"

    run(main)


def test_what_was_never_sent_had_no_conversation() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            found = recorded(gateway)
            await client.modern("tools/call", {"name": "one__missing"})
            assert not {"upstream", "definition_digest"} & found[0].keys()

    run(main)


@ERAS
def test_where_the_time_went_room_by_room(modern: bool) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}, goes=True) as gateway:
            client = await gateway.client(session=not modern)
            found = recorded(gateway)
            ask = client.modern if modern else client.legacy
            for _ in range(2):
                await ask("tools/call", CALL)
            await ask("tools/call", {"name": "one__missing"})
            first, second, missing = (one["latency"] for one in found)
            assert {"listing", "connection"} & first.keys(), "the first has to find and reach its server"
            assert list(second) == ["admission", "upstream", "answer"] and "upstream" not in missing
            for one in found:
                assert sum(one["latency"].values()) == pytest.approx(one["seconds"], abs=1e-5)

    run(main)


@pytest.mark.parametrize(
    ("proxies", "said", "source"),
    [
        pytest.param("127.0.0.0/8", "203.0.113.7", "203.0.113.7", id="a trusted proxy says whose call it is"),
        pytest.param(
            "127.0.0.0/8", "10.9.9.9, 203.0.113.7, 127.0.0.9", "203.0.113.7", id="the last that is none itself"
        ),
        pytest.param("127.0.0.0/8", "nonsense", "127.0.0.1", id="which cannot be read"),
        pytest.param("10.0.0.0/8", "203.0.113.7", "127.0.0.1", id="another's word is none"),
    ],
)
def test_where_a_call_came_from(proxies: str, said: str, source: str) -> None:
    async def main() -> None:
        behind = {"trusted_proxies": (ip_network(proxies),)}
        async with (
            FakeServer(tools=TOOLS) as server,
            Running({"one": spec("one", server.url)}, settings=behind) as gateway,
        ):
            client = await gateway.client()
            found = recorded(gateway)
            for params in (CALL, {"name": 7}):
                await client.modern("tools/call", params, headers={"X-Forwarded-For": said})
            assert [(one["event"], one["source"]) for one in found] == [("call", source), ("refused", source)]

    run(main)


def test_what_was_taken_of_limits() -> None:
    rules = (LimitRule("calls", "calls", 2, window=60_000_000), LimitRule("size", "bytes", 1 << 30, window=60_000_000))

    async def main() -> None:
        async with (
            FakeServer(tools=TOOLS) as server,
            Running({"one": spec("one", server.url)}, settings={"quotas": rules}) as gateway,
        ):
            client = await gateway.client()
            found = recorded(gateway)
            for _ in range(3):
                await client.modern("tools/call", CALL)
            for one in found[:2]:
                assert one["taken"] == {"calls": 1, "size": one["bytes_in"] + one["bytes_out"]}
            assert found[2]["limit"] == "calls" and "taken" not in found[2], "what is refused takes nothing"

    run(main)


def test_what_we_refuse_has_the_id_that_the_client_was_told() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            found = recorded(gateway)
            got = await client.modern("tools/call", {"name": "one__missing" + "x" * 1000})
            (one,) = found
            assert (one["decision"], one["reason"], one["code"]) == ("deny", "not_found", -32602)
            assert one["decision_id"] == got.error["data"]["decisionId"]
            assert len(one["name"]) == 256, "what a client made up is bounded"

    run(main)


def test_a_server_that_is_dead() -> None:
    async def main() -> None:
        async with Running({"one": spec("one", "http://127.0.0.1:1/mcp")}) as gateway:
            client = await gateway.client(session=True)
            found = recorded(gateway)
            await client.legacy("tools/call", CALL)
            (one,) = found
            assert one["reason"] in ("upstream_unavailable", "not_found") and one["decision_id"]

    run(main)


def test_a_call_that_its_client_gave_up() -> None:
    async def main() -> None:
        async with Mcp(HOLD) as server, server.gateway() as gateway:
            client = await gateway.client()
            found = recorded(gateway)
            client.send("tools/call", CALL, modern=True)
            await until(lambda: server.calls)
            client.close()
            await until(lambda: found)
            assert (found[0]["outcome"], found[0]["source"]) == ("cancelled", "127.0.0.1")

    run(main)


GRANTS = (
    Grant("small", "allow", tools=("one__echo",), when="args.amount <= 100", line=7),
    Grant("no deletes", "deny", tools=("*__delete",), line=9),
)


@ERAS
@pytest.mark.parametrize(
    ("name", "arguments", "decision", "policy"),
    [
        pytest.param(
            "one__echo",
            {"amount": 7},
            "allow",
            {"effect": "allow", "reason": "granted", "rule": "small", "line": 7, "resource": "one__echo"},
            id="allowed by a rule",
        ),
        pytest.param(
            "one__echo",
            {"amount": 700},
            "deny",
            {"effect": "deny", "reason": "condition_not_met", "rule": "small", "line": 7, "resource": "one__echo"},
            id="denied by a condition",
        ),
        pytest.param(
            "one__delete",
            {},
            "deny",
            {
                "effect": "deny",
                "reason": "not_granted",
                "resource": "one__delete",
                "rules": [{"rule": "no deletes", "effect": "deny", "said": "met", "line": 9}],
            },
            id="hidden: what the client is not told, the record says",
        ),
        pytest.param("one__nobody", {}, "deny", None, id="missing: nothing was decided"),
    ],
)
def test_what_was_decided_and_by_which_rule(
    modern: bool, name: str, arguments: Any, decision: str, policy: dict[str, Any] | None
) -> None:
    async def main() -> None:
        named = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "delete")]
        async with FakeServer(tools=named) as server:
            grants = {"grants": GRANTS}
            async with Running({"one": spec("one", server.url)}, settings=grants) as gateway:
                client = await gateway.client(session=not modern)
                found = recorded(gateway)
                await (client.modern if modern else client.legacy)("tools/call", {"name": name, "arguments": arguments})
                (one,) = found
                assert (one["event"], one["decision"]) == ("call", decision)
                assert one.get("policy") == (policy and {**policy, "kind": "tools"})

    run(main)


@ERAS
def test_a_call_that_a_limit_refused_names_all_that_it_counts_in(modern: bool) -> None:
    async def main() -> None:
        rules = tuple(LimitRule(name, "calls", most, window=60_000_000) for name, most in (("few", 1), ("many", 9)))
        settings = {"quotas": rules}
        async with FakeServer(tools=TOOLS) as one, Running({"one": spec("one", one.url)}, settings=settings) as gateway:
            client = await gateway.client(session=not modern)
            found = recorded(gateway)
            for _ in range(2):
                await (client.modern if modern else client.legacy)("tools/call", CALL)
            went, refused = found
            assert went["taken"] == {"few": 1, "many": 1} and "counts_in" not in went
            assert (refused["limit"], refused["counts_in"]) == ("few", ["few", "many"]) and "taken" not in refused

    run(main)


SHADOW = Grant("no echo", "deny", tools=("one__echo",), when="args.amount > 5", line=11, shadow=True)


@ERAS
@pytest.mark.parametrize(
    ("enforced", "amount", "said", "would"),
    [
        pytest.param(GRANTS, 3, "small", ("allow", "granted", "small"), id="it would not matter"),
        pytest.param(GRANTS, 7, "small", ("deny", "denied_by_rule", "no echo"), id="it would deny"),
        pytest.param((), 7, "", ("deny", "not_granted", ""), id="the first grants: they would hide"),
    ],
)
def test_a_rule_in_shadow_mode_is_recorded_and_does_nothing(
    modern: bool, enforced: tuple[Grant, ...], amount: int, said: str, would: tuple[str, str, str]
) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server:
            rules = {"grants": enforced, "trial": (*enforced, SHADOW)}
            async with Running({"one": spec("one", server.url)}, settings=rules) as gateway:
                client = await gateway.client(session=not modern)
                found = recorded(gateway)
                arguments = {"name": "one__echo", "arguments": {"amount": amount}}
                got = await (client.modern if modern else client.legacy)("tools/call", arguments)
                assert "result" in got.messages[-1]
                (one,) = found
                assert (one["policy"]["effect"], one["policy"].get("rule", "")) == ("allow", said)
                shadow = one["shadow"]
                assert (shadow["effect"], shadow["reason"], shadow.get("rule", "")) == would
                assert "input" not in one, "nobody asked for arguments"

    run(main)


@ERAS
@pytest.mark.parametrize("inputs", ["digest", "full"])
def test_what_a_decision_was_taken_on(modern: bool, inputs: str) -> None:
    async def main() -> None:
        settings = {"audit_inputs": inputs}
        async with FakeServer(tools=TOOLS) as one, Running({"one": spec("one", one.url)}, settings=settings) as gateway:
            client = await gateway.client(session=not modern)
            found = recorded(gateway)
            await (client.modern if modern else client.legacy)("tools/call", CALL)
            (record,) = found
            assert record["policy"] == {
                "effect": "allow", "reason": "no_rules", "kind": "tools", "resource": "one__echo",
            }  # fmt: skip
            input_ = record["input"]
            assert input_["resource"]["name"] == "one__echo" and input_["context"]["ip"] == "127.0.0.1"
            assert input_["mcp"]["arguments"] == (CALL["arguments"] if inputs == "full" else None)
            assert ("s3cr3t-argument" in json.dumps(record)) == (inputs == "full")

    run(main)


@pytest.mark.parametrize(
    ("request_", "reason", "method"),
    [
        pytest.param(("tools/call", {"name": 7}), "invalid_params", "tools/call", id="malformed"),
        pytest.param(("tools/call", {**CALL, "requestState": "x"}), "invalid_handle", "tools/call", id="a bad state"),
        pytest.param(("tools/call", {"name": "one__other"}), "header_mismatch", "tools/call", id="a header disagrees"),
    ],
)
def test_what_is_refused_before_it_is_a_call_is_recorded_too(request_: Any, reason: str, method: str) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            found = recorded(gateway)
            headers = {"Mcp-Name": "one__echo"}
            got = await client.modern(*request_, headers=headers)
            (one,) = found
            assert (one["event"], one["decision"], one["reason"]) == ("refused", "deny", reason)
            assert (one["method"], one["principal"]["subject"], one["source"]) == (method, "local", "127.0.0.1")
            assert one["decision_id"] == got.error["data"]["decisionId"] and one["bytes_in"] > 0
            assert not server.asked

    run(main)


def test_what_is_no_message_at_all_is_recorded_with_its_caller() -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            found = recorded(gateway)
            client.http("POST", "/mcp", body=b"{nonsense")
            assert (await client.read()).status == 400
            (one,) = found
            assert (one["event"], one["method"], one["bytes_in"]) == ("refused", "", 9)
            client.http("GET", "/mcp")
            await client.read()
            client.http("POST", "/nowhere", body=b"{}")
            await client.read()
            assert len(found) == 1, "who only looks has called nothing"

    run(main)


@pytest.mark.parametrize("body", [b"{nonsense", b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}'])
def test_how_long_it_took_to_refuse_it(body: bytes) -> None:
    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            found, new_id = recorded(gateway), gateway.front.new_id

            def late() -> str:
                gateway.late_s += 20
                return new_id()

            gateway.front.new_id = late
            client.http("POST", "/mcp", body=body)
            await client.read()
            (one,) = found
            assert one["event"] == "refused" and 20 <= one["seconds"] < 40

    run(main)


def test_nothing_is_made_where_nobody_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("a record was made")

    monkeypatch.setattr(records, "entry_of", never)

    async def main() -> None:
        async with FakeServer(tools=TOOLS) as server, Running({"one": spec("one", server.url)}) as gateway:
            client = await gateway.client()
            assert (await client.modern("tools/call", CALL)).status == 200

    run(main)
