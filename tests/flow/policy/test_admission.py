"""Grants at the gateway: lists and calls agree through every way in, and what is hidden answers as what is missing."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from narthex.flow.policy.admissions import Admissions
from narthex.flow.policy.grants import Grants
from narthex.flow.policy.runs.runs import UNWATCHED
from narthex.testing import FakeServer
from narthex.types import LOCAL, DataRow, DataSpec, EndpointSpec, Grant, Who
from tests.flow.gateway import Answer, Client, Running, run, spec
from tests.flow.upstream.test_fleet import tools

NAMES = ("read", "write", "delete_all")
EACH_ERA = pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
READS = Grant("reads", "allow", tools=("*__read",), prompts=("*__hello",), resources=("one__docs:*",))
SMALL = Grant("small", "allow", tools=("*__write",), when="args.amount <= 100")
NO_DELETES = Grant("no deletes", "deny", tools=("*__delete_*",))
NEVER = Grant("never large", "deny", tools=("*__write",), when="args.amount > 1000")


def server(**more: Any) -> FakeServer:
    return FakeServer(
        tools=tools(*NAMES),
        prompts=[{"name": "hello"}, {"name": "secret"}],
        resources=[{"uri": "docs:a", "name": "a"}, {"uri": "keys:b", "name": "b"}],
        templates=[{"uriTemplate": "docs:{x}", "name": "d"}, {"uriTemplate": "keys:{x}", "name": "k"}],
        answers={
            "hello": {"messages": []},
            "secret": {"messages": []},
            "docs:a": {"contents": [{"uri": "docs:a", "text": "a"}]},
            "keys:b": {"contents": [{"uri": "keys:b", "text": "b"}]},
        },
        **more,
    )


def gateway(one: FakeServer, *grants: Grant, naming: Any = "prefix") -> Running:
    endpoints = {"default": EndpointSpec("default", ("one",), naming=naming)}
    return Running({"one": spec("one", one.url)}, endpoints, settings={"grants": grants})


async def ask(client: Client, modern: bool, method: str, params: Any = None) -> Answer:
    return await (client.modern if modern else client.legacy)(method, params)


async def call(client: Client, modern: bool, tool: str, **arguments: Any) -> Answer:
    return await ask(client, modern, "tools/call", {"name": tool, "arguments": arguments})


async def listed(client: Client, modern: bool, kind: str = "tools", key: str = "name") -> list[str]:
    method = {"resourceTemplates": "resources/templates"}.get(kind, kind)
    return [item[key] for item in (await ask(client, modern, f"{method}/list")).result[kind]]


@EACH_ERA
def test_lists_show_what_is_granted(modern: bool) -> None:
    async def main() -> None:
        async with server() as one, gateway(one, READS, SMALL, NO_DELETES) as running:
            client = await running.client(session=not modern)
            assert await listed(client, modern) == ["one__read", "one__write"]
            assert await listed(client, modern, "prompts") == ["one__hello"]
            assert await listed(client, modern, "resources", "uri") == ["docs:a"]
            assert await listed(client, modern, "resourceTemplates", "uriTemplate") == ["docs:{x}"]

    run(main)


@EACH_ERA
@pytest.mark.parametrize(
    ("method", "hidden", "missing"),
    [
        pytest.param("tools/call", {"name": "one__delete_all"}, {"name": "one__delete_xyz"}, id="tool"),
        pytest.param(
            "tools/call",
            {"name": "one__delete_all", "task": {}},
            {"name": "one__delete_xyz", "task": {}},
            id="tool as a task",
        ),
        pytest.param("prompts/get", {"name": "one__secret"}, {"name": "one__nobody"}, id="prompt"),
        pytest.param("resources/read", {"uri": "keys:b"}, {"uri": "keyz:b"}, id="resource"),
        pytest.param("resources/read", {"uri": "keys:zz"}, {"uri": "keyz:zz"}, id="resource of a template"),
        pytest.param(
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "one__secret"}, "argument": {"name": "a", "value": ""}},
            {"ref": {"type": "ref/prompt", "name": "one__nobody"}, "argument": {"name": "a", "value": ""}},
            id="completion",
        ),
    ],
)
def test_hidden_answers_as_missing(modern: bool, method: str, hidden: dict[str, Any], missing: dict[str, Any]) -> None:
    async def main() -> None:
        async with server() as one, gateway(one, READS, NO_DELETES) as running:
            client = await running.client(session=not modern)
            await listed(client, modern)
            found = []
            for params in (hidden, missing):
                answer = await ask(client, modern, method, params)
                text = answer.body.decode()
                for word in ("delete_all", "delete_xyz", "secret", "nobody", "keys:", "keyz:"):
                    text = text.replace(word, "…")
                error = json.loads(text.partition("data: ")[2] or text)["error"]
                del error["data"]["decisionId"]
                headers = {k: v for k, v in answer.headers.items() if k not in ("date", "content-length")}
                found.append((answer.status, headers, error))
            assert found[0] == found[1]
            assert not [one for one in one.asked if one.method == method]

    run(main)


@EACH_ERA
def test_a_server_of_which_nothing_is_visible_does_not_exist_when_it_is_away(modern: bool) -> None:
    async def main() -> None:
        away = spec("one", "http://127.0.0.1:9/mcp")
        only_two = Grant("two", "allow", tools=("two__*",))
        async with server() as two:
            servers = {"one": away, "two": spec("two", two.url)}
            async with Running(servers, settings={"grants": (only_two,)}) as running:
                client = await running.client(session=not modern)
                answer = await ask(client, modern, "tools/list")
                assert "one" not in json.dumps(answer.result.get("_meta", {}))
                assert [tool["name"] for tool in answer.result["tools"]] == [f"two__{name}" for name in NAMES]
                assert (await call(client, modern, "one__read")).error["code"] == -32602

    run(main)


@EACH_ERA
def test_what_is_listed_depends_on_how_data_is_classed(modern: bool) -> None:
    async def main() -> None:
        everybody = Grant("everybody", "allow", tools=("*",), classification=frozenset({"public", "internal"}))
        private = Grant("private", "deny", tools=("*",), privacy=frozenset({"personal"}), environments=("test",))
        data = DataSpec({"one": ("internal", "none")}, (DataRow(tools=("one__write",), classification="restricted"),))
        more = DataRow(tools=("one__delete_*",), privacy="personal")
        for environment, rows, names in (
            ("production", (*data.rows, more), ["one__read", "one__delete_all"]),
            ("test", (*data.rows, more), ["one__read"]),
            ("test", (), [f"one__{name}" for name in NAMES]),
        ):
            given = {"data": DataSpec(data.servers, rows), "environment": environment}
            endpoints = {"default": EndpointSpec("default", ("one",))}
            async with server() as one:
                given["grants"] = (everybody, private)
                async with Running({"one": spec("one", one.url)}, endpoints, settings=given) as running:
                    client = await running.client(session=not modern)
                    assert await listed(client, modern) == names
                    for name in NAMES:
                        answer = await call(client, modern, f"one__{name}")
                        assert (answer.error["code"] == -32602) if f"one__{name}" not in names else answer.result

    run(main)


@EACH_ERA
@pytest.mark.parametrize("warm", [False, True], ids=["nothing listed before", "listed before"])
def test_conditions_decide_a_call_of_what_is_visible(modern: bool, warm: bool) -> None:
    async def main() -> None:
        async with server() as one, gateway(one, READS, SMALL, NEVER) as running:
            client = await running.client(session=not modern)
            if warm:
                await listed(client, modern)
            assert json.loads((await call(client, modern, "one__write", amount=7)).text) == {"amount": 7}
            reasons = []
            for arguments in ({"amount": 700}, {"amount": 7000}, {}, {"amount": "7"}):
                answer = await call(client, modern, "one__write", **arguments)
                assert answer.status == 200
                assert answer.error["code"] == -31001
                reasons.append(answer.error["data"]["reason"])
            assert reasons == ["condition_not_met", "denied_by_rule", "rule_failed", "rule_failed"]
            assert len([one for one in one.asked if one.method == "tools/call"]) == 1
            assert running.counted("tools/call", "write")["ok"] == 1
            assert sum(running.counted("tools/call", name).get("denied", 0) for name in ("write", "")) == 4
            assert running.settled()

    run(main)


@EACH_ERA
def test_exactly_what_was_looked_at_is_sent(modern: bool) -> None:
    async def main() -> None:
        async with server() as one, gateway(one, READS, SMALL) as running:
            client = await running.client(session=not modern)
            await listed(client, modern)
            raw = b'{"amount": 5000, "amount": 5, "note": "\\u00e9", "big": 123456789012345678}'
            params = {"name": "one__write", "arguments": "@"}
            client.send("tools/call", params, modern=modern)
            await client.read()
            for arguments in (raw, b'{"amount":1e2}'):
                body = json.dumps({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {**params}})
                await send_raw(client, modern, body.replace('"@"', arguments.decode()).encode())
                assert "result" in (await client.read()).messages[-1]
            sent = [asked.params["arguments"] for asked in one.asked if asked.method == "tools/call"]
            assert sent == [{"amount": 5, "note": "é", "big": 123456789012345678}, {"amount": 100}]

    run(main)


async def send_raw(client: Client, modern: bool, body: bytes) -> None:
    headers: dict[str, str | None] = {"MCP-Protocol-Version": "2025-11-25", "Mcp-Session-Id": client.session}
    if modern:
        meta = (
            b'"params": {"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
            b'"io.modelcontextprotocol/clientCapabilities":{}},'
        )
        body = body.replace(b'"params": {', meta)
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "one__write"}
    client.http("POST", "/mcp", headers, body)


def test_no_other_name_slips_past_a_denial() -> None:
    """Rules match the canonical name, whatever an endpoint shows."""

    async def main() -> None:
        everything = Grant("all", "allow", tools=("*",))
        async with server() as one, gateway(one, everything, NO_DELETES, naming="none") as running:
            client = await running.client(session=True)
            assert await listed(client, False) == ["read", "write"]
            for name in ("delete_all", "one__delete_all", "DELETE_ALL", "delete_all ", "one__one__delete_all"):
                assert (await call(client, False, name)).error["code"] == -32602
            assert not [one for one in one.asked if one.method == "tools/call"]

    run(main)


def test_a_list_that_rights_were_asked_for_is_private() -> None:
    async def main() -> None:
        async with server() as one, gateway(one, READS) as running:
            client = await running.client()
            assert (await ask(client, True, "tools/list")).result["cacheScope"] == "private"

    run(main)


def test_subscriptions_are_to_what_may_be_read() -> None:
    async def main() -> None:
        async with server() as one, gateway(one, READS) as running:
            client = await running.client(session=True)
            for uri, code in (("keys:b", -32002), ("nowhere:b", -32002)):
                error = (await client.legacy("resources/subscribe", {"uri": uri})).error
                assert error["code"] == code

    run(main)


def test_a_reload_takes_a_tool_away_at_once() -> None:
    async def main() -> None:
        async with server() as one, gateway(one, READS, SMALL) as running:
            client = await running.client()
            assert await listed(client, True) == ["one__read", "one__write"]
            running.front.apply(msgspec.structs.replace(running.front.snapshot, grants=(SMALL,)))
            assert await listed(client, True) == ["one__write"]
            assert (await call(client, True, "one__read")).error["code"] == -32602

    run(main)


GRANTS = st.lists(
    st.builds(
        Grant,
        name=st.uuids().map(str),
        effect=st.sampled_from(["allow", "allow", "deny"]),
        who=st.sampled_from([Who(), Who(), Who(role=("nobody",)), Who(anonymous=True)]),
        tools=st.lists(st.sampled_from(["*", "one__*", "*__read", "*__delete_*", "one__write", "two__*"])).map(tuple),
        when=st.sampled_from(["", "", "args.amount <= 100", "has(args.amount)"]),
    ),
    min_size=1,
    max_size=4,
).map(tuple)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    grants=GRANTS,
    naming=st.sampled_from(["prefix", "none"]),
    modern=st.booleans(),
    amount=st.sampled_from([None, 5, 500]),
)
def test_what_is_listed_is_exactly_what_is_not_hidden(
    grants: tuple[Grant, ...], naming: str, modern: bool, amount: int | None
) -> None:
    async def main() -> None:
        async with server() as one, gateway(one, *grants, naming=naming) as running:
            client = await running.client(session=not modern)
            shown = set(await listed(client, modern))
            for name in NAMES:
                full = name if naming == "none" else f"one__{name}"
                arguments = {} if amount is None else {"amount": amount}
                message = (await call(client, modern, full, **arguments)).messages[-1]
                code = message.get("error", {}).get("code")
                assert (code == -32602) == (full not in shown)
                assert code in (None, -32602, -31001)

    run(main)


WHEN = st.sampled_from(
    [
        "",
        "args.amount <= 100",
        "!(args.amount <= 100)",
        "size(args) > 0",
        "args.a.all(x, x > 0)",
        "context.endpoint == 'default'",
        "context.arguments_size > 14",
        "context.arguments_size > 14 && args.amount > 1",
        "size(context) > 2",
        "has({'a': args}.a.amount)",
        "!has({'a': args}.a.amount)",
        "{'a': resource}.a.server == 'one'",
        "context.address.startsWith('10.')",
        "principal.id == 'local'",
        "size(principal.roles) > 0",
        "resource.server == 'one'",
        "resource.canonical.endsWith('read')",
        "args.amount in [1, 7] || resource.kind == 'x'",
    ]
)


@given(
    rules=st.lists(
        st.tuples(st.sampled_from(["allow", "deny", "hold"]), WHEN, st.sampled_from([(), (ip_network("10.0.0.0/8"),)])),
        min_size=1,
        max_size=4,
    ),
    arguments=st.sampled_from([None, b"{}", b'{"amount":7}', b'{"amount": 700}', b'{"amount":7,"a":[1,2]}', b"[]"]),
    address=st.sampled_from(["10.1.2.3", "192.0.2.1", ""]),
)
def test_rules_that_are_told_what_they_ask_for_say_what_they_would_say_if_they_were_told_all(
    rules: list[tuple[Any, str, Any]], arguments: bytes | None, address: str
) -> None:
    grants = tuple(
        Grant(f"{at}", effect, tools=("*",), when=when, networks=networks)
        for at, (effect, when, networks) in enumerate(rules)
    )
    admission = Admissions(Grants(grants), {}, lambda: 0.0).of(LOCAL, "default")
    params = {} if arguments is None else {"arguments": msgspec.Raw(arguments)}
    context = {"address": address}
    said, _ = admission.decide("tools", "one", "read", params, context)
    told = {**admission.facts_of("tools", "one", "read", params, context), "run": UNWATCHED}
    assert admission.rights is not None
    assert said == admission.rights.checks("tools", "one", "read").decide(told)
