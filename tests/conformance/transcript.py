"""What a client hears from the fixture, with and without the gateway between them, compared byte by byte.

In: a client of an era, a call. Out: the status and the messages of the answer; and where two such answers differ, as
paths into a message, `result._meta` for one. `transcript.yml` says which of them may; `test_transcript.py` holds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tests.conformance.fixture.call import TASKS
from tests.conformance.fixture.content import PROMPTS, RESOURCES
from tests.conformance.fixture.tools import TOOLS
from tests.e2e.harness import CAPABILITIES, Client, Era, events

ARGUMENTS: dict[str, dict[str, Any]] = {
    "test_sampling": {"prompt": "a prompt"},
    "test_elicitation": {"message": "a message"},
    "greet": {"name": "A"},
    "slow_compute": {"seconds": 0, "label": "x"},
    "confirm_delete": {"filename": "a.txt"},
    "test_prompt_with_arguments": {"arg1": "1", "arg2": "2"},
    "test_prompt_with_embedded_resource": {"resourceUri": "test://example"},
}
ABLE = {"sampling": {}, "elicitation": {"form": {}}, "roots": {"listChanged": True}, "extensions": {TASKS: {}}}
LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")


@dataclass(frozen=True)
class Case:
    """One request. `able` gives the client every capability; only a modern one can say so with the request."""

    id: str
    method: str
    params: dict[str, Any] = field(default_factory=dict)
    able: bool = False


def cases(era: Era) -> list[Case]:
    """A call of everything that the fixture offers, and some of what it does not."""
    named = {"progressToken": "token-1"} | ({"io.modelcontextprotocol/logLevel": "info"} if era == "modern" else {})
    found = [Case(method, method) for method in LISTS]
    found += [tool_case(name, named) for name in (*TOOLS, "no_such_tool")]
    if era == "modern":
        found += [tool_case(name, named, able=True) for name in TOOLS]
    found += [
        Case(f"prompt {name}", "prompts/get", {"name": name, "arguments": ARGUMENTS.get(name, {})})
        for name in (*PROMPTS, "no_such_prompt")
    ]
    uris = (*(one["uri"] for one in RESOURCES), "test://template/7/data", "test://nothing")
    found += [Case(f"read {uri}", "resources/read", {"uri": uri}) for uri in uris]
    for ref in ({"type": "ref/prompt", "name": "test_prompt_with_arguments"}, {"type": "ref/prompt", "name": "nope"}):
        params = {"ref": ref, "argument": {"name": "arg1", "value": "par"}}
        found.append(Case(f"complete {ref['name']}", "completion/complete", params))
    template = {"type": "ref/resource", "uri": "test://template/{id}/data"}
    params = {"ref": template, "argument": {"name": "id", "value": ""}}
    found.append(Case("complete a template", "completion/complete", params))
    return [*found, Case("no such method", "no/such/method")]


def tool_case(name: str, meta: dict[str, Any], *, able: bool = False) -> Case:
    params = {"name": name, "arguments": ARGUMENTS.get(name, {}), "_meta": meta}
    return Case(f"{'able ' if able else ''}tool {name}", "tools/call", params, able)


def ask(client: Client, case: Case) -> list[bytes]:
    """The HTTP status, then the messages of the answer as they came."""
    params = dict(case.params)
    if client.era == "modern":
        params["_meta"] = {**params.get("_meta", {}), CAPABILITIES: ABLE if case.able else {}}
    response = client.post(case.method, params)
    if (response.header("content-type") or "").startswith("text/event-stream"):
        messages = [data.encode() for data in events(response.body)]
    else:
        messages = [response.body]
    return [str(response.status).encode(), *messages]


def differences(direct: list[bytes], through: list[bytes]) -> list[str]:
    """The paths at which the two differ: an object's members one by one, everything else whole."""
    if len(direct) != len(through):
        return ["number of messages"]
    found = [] if direct[0] == through[0] else ["status"]
    for left, right in zip(direct[1:], through[1:], strict=True):
        found += unequal("", left, right)
    return found


def unequal(path: str, direct: bytes, through: bytes) -> Iterator[str]:
    if direct == through:
        return
    left, right = members(direct), members(through)
    if left is None or right is None:
        yield path or "message"
        return
    both = [key for key in left if key in right]
    if both != [key for key in right if key in left]:
        yield f"order of {path or 'message'}"
    for key in [*left, *(key for key in right if key not in left)]:
        below = f"{path}.{key}" if path else key
        if key in both:
            yield from unequal(below, bytes(left[key]), bytes(right[key]))
        else:
            yield below


def members(raw: bytes) -> dict[str, msgspec.Raw] | None:
    """The members of an object with their bytes; None for what is no object."""
    try:
        return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return None
