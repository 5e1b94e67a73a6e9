"""The command that the suite's client scenarios run: our gateway is the client they look at.

In: the URL of the scenario's mock server as the last argument, the scenario's name and revision in the environment.
It starts a gateway in front of that URL and does through it what the scenario is about; the mock server judges what
reaches it. Exits 0 when every step was answered as it should be. `suites.py` calls it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.conformance import auth
from tests.conformance.suites import gateway, in_front_of
from tests.e2e.harness import CAPABILITIES, MODERN, Client, Gateway, Wire, message

PLAIN = re.compile(r"[!-~](?:[ -~]*[!-~])?|")
INVALID = (
    *("empty_header", "object_header", "array_header", "null_header", "number_header", "duplicate_same_case"),
    *("duplicate_diff_case", "space_in_name", "colon_in_name", "non_ascii_name", "control_char_name"),
)
Step = Callable[[Gateway, Any], None]
MAY_ASK: dict[str, Any] = {"_meta": {CAPABILITIES: {"elicitation": {}}}}


def call(client: Client, name: str, arguments: Mapping[str, Any], **params: Any) -> Any:
    """A modern call with the headers that the tool's schema asks for; the JSON-RPC answer."""
    tools = {tool["name"]: tool for tool in client.result("tools/list")["tools"]}
    properties = tools.get(name, {}).get("inputSchema", {}).get("properties", {})
    mirrored = [
        (f"mcp-param-{schema['x-mcp-header']}", encoded(arguments[key]))
        for key, schema in properties.items()
        if "x-mcp-header" in schema and arguments.get(key) is not None
    ]
    body = message("tools/call", {"name": name, "arguments": dict(arguments), **params}, client.next_id())
    with Wire(client.url) as wire:
        wire.send(client.render(body, extra=mirrored))
        return wire.read().answer


def encoded(value: Any) -> str:
    """A header's value: as it is where it can be, else in its base64 form."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if PLAIN.fullmatch(text) else f"=?base64?{base64.b64encode(text.encode()).decode()}?="


# --- 2026-07-28 ---------------------------------------------------------------------------------------------------


def each_request_names_its_revision(gate: Gateway, context: Any) -> None:
    client = gate.client()
    for method in ("tools/list", "server/discover"):
        client.ask(method)


def state_is_echoed(gate: Gateway, context: Any) -> None:
    client = gate.client()
    for name in ("test_mrtr_echo_state", "test_mrtr_no_state"):
        asked = call(client, name, {}, **MAY_ASK)["result"]
        assert asked["resultType"] == "input_required", asked
        state = {"requestState": asked["requestState"]} if "requestState" in asked else {}
        answers = {key: {"action": "accept", "content": {"confirmed": True}} for key in asked["inputRequests"]}
        if state:
            assert call(client, "test_mrtr_unrelated", {}, **MAY_ASK)["result"]["content"]
        assert call(client, name, {}, inputResponses=answers, **state, **MAY_ASK)["result"]["content"]
    untyped = call(client, "test_mrtr_no_result_type", {}, **MAY_ASK)["result"]
    assert untyped.get("resultType", "complete") == "complete"


def requests_have_their_headers(gate: Gateway, context: Any) -> None:
    client = gate.client()
    for tool in client.tools():
        client.call(tool)
    for resource in client.result("resources/list")["resources"]:
        client.result("resources/read", {"uri": resource["uri"]})
    for prompt in client.result("prompts/list")["prompts"]:
        client.result("prompts/get", {"name": prompt["name"]})


def arguments_travel_in_headers(gate: Gateway, context: Any) -> None:
    """Once by a client that sends the headers, once by one of an era that has none."""
    modern, legacy = gate.client(), gate.client(era="legacy")
    for one in context["toolCalls"]:
        assert "result" in call(modern, one["name"], one["arguments"]), one
        legacy.call(one["name"], one["arguments"])


def bad_tools_are_dropped(gate: Gateway, context: Any) -> None:
    """Neither listed nor, when asked for by name, passed on."""
    client = gate.client()
    listed = client.tools()
    assert listed == ["valid_tool"], listed
    assert "result" in call(client, "valid_tool", {"region": "north"})
    for name in INVALID:
        assert client.call_error(f"invalid_{name}", {})["code"] == -32602, name


def schemas_are_listed_unread(gate: Gateway, context: Any) -> None:
    assert gate.client().tools()


def schemas_pass_whole(gate: Gateway, context: Any) -> None:
    client = gate.client(era="modern" if revision() >= MODERN else "legacy")
    tools = {tool["name"]: tool for tool in client.result("tools/list")["tools"]}
    client.call("json_schema_echo", {"schema": tools["json_schema_2020_12_tool"]["inputSchema"]})


# --- both ---------------------------------------------------------------------------------------------------------


def a_tool_is_called(gate: Gateway, context: Any) -> None:
    client = gate.client(era="modern" if revision() >= MODERN else "legacy")
    assert client.tools() == ["add_numbers"]
    assert client.call("add_numbers", {"a": 5, "b": 3})["content"]


# --- 2025-11-25 ---------------------------------------------------------------------------------------------------


def a_session_begins(gate: Gateway, context: Any) -> None:
    gate.client(era="legacy").tools()


def defaults_are_applied(gate: Gateway, context: Any) -> None:
    """Applying them is the work of the client behind the gateway; that it is asked and heard is the gateway's."""
    from mcp import Client as SdkClient  # slow to import, and no other step needs it
    from mcp.types import ElicitResult

    async def accept(context: Any, params: Any) -> ElicitResult:
        properties = params.requested_schema["properties"]
        return ElicitResult(action="accept", content={key: one["default"] for key, one in properties.items()})

    async def talk() -> None:
        async with SdkClient(gate.mcp, mode="legacy", elicitation_callback=accept) as client:
            for tool in (await client.list_tools()).tools:
                await client.call_tool(tool.name, {})

    asyncio.run(talk())


def a_stream_is_taken_up_again(gate: Gateway, context: Any) -> None:
    assert gate.client(era="legacy").call("test_reconnection")["content"]


STEPS: dict[str, Step] = {
    "request-metadata": each_request_names_its_revision,
    "sep-2322-client-request-state": state_is_echoed,
    "http-standard-headers": requests_have_their_headers,
    "http-custom-headers": arguments_travel_in_headers,
    "http-invalid-tool-headers": bad_tools_are_dropped,
    "json-schema-ref-no-deref": schemas_are_listed_unread,
    "json-schema-2020-12-preservation": schemas_pass_whole,
    "tools_call": a_tool_is_called,
    "initialize": a_session_begins,
    "elicitation-sep1034-client-defaults": defaults_are_applied,
    "sse-retry": a_stream_is_taken_up_again,
}


def revision() -> str:
    return os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"]


def main() -> None:
    scenario = os.environ["MCP_CONFORMANCE_SCENARIO"]
    step = {**STEPS, **auth.STEPS}[scenario]
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    beside, entry = auth.credential_of(scenario, context)
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway({**in_front_of(sys.argv[-1], **entry), **beside}, Path(folder)) as gate,
    ):
        step(gate, context)
    print("done")


if __name__ == "__main__":
    main()
