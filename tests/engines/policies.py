"""Policies for tests of engines, and what engines are asked."""

from __future__ import annotations

import json
from typing import Any

from narthex.engines.frames import Source
from narthex.flow.policy.bundles.bundle import Bundle, read_bundle
from narthex.flow.policy.document import Document
from narthex.types import Call, Principal

ENTRY = "narthex/decision"
HEAD = "package narthex\n\nimport rego.v1\n\n"
LOOPS = (
    HEAD
    + """default decision := false

decision if input.action == "list"

decision if {
	not input.mcp.arguments.loop
	not input.mcp.arguments.eat
	input.mcp.arguments.amount <= 100
}

decision if {
	input.mcp.arguments.loop
	every x in numbers.range(1, 100000) {
		every y in numbers.range(1, 100000) {
			x + y > 0
		}
	}
}

decision if {
	input.mcp.arguments.eat
	count(numbers.range(1, 10000000000)) > 0
}
"""
)
"""Small amounts are fine; `loop` takes for ever, `eat` takes all memory."""
REAL = (
    HEAD
    + """default decision := {"allow": false, "reasons": ["no rule allows it"]}

decision := {"allow": true, "reasons": reasons, "obligations": obligations} if {
	granted
	count(violations) == 0
}

decision := {"allow": false, "reasons": violations} if {
	granted
	count(violations) > 0
}

granted if {
	some role in input.subject.roles
	some pattern in data.roles[role].tools
	glob.match(pattern, [], input.resource.name)
}

violations contains "too much at once" if {
	input.action == "tools/call"
	endswith(input.resource.name, "__refund")
	input.mcp.arguments.amount > 100
}

violations contains "deletes need an admin" if {
	regex.match(`__(delete|drop)_`, input.resource.name)
	not "admin" in input.subject.roles
}

violations contains "only from the office" if {
	input.context.endpoint == "internal"
	input.action != "list"
	not net.cidr_contains("10.0.0.0/8", input.context.ip)
}

reasons contains "a role grants it" if granted

obligations := {"max_results": 100} if {
	startswith(input.resource.server, "crm")
} else := {}
"""
)
"""Some 45 lines as somebody would write them: roles in data, patterns, networks, reasons and obligations."""
ROLES = {"roles": {f"role{n}": {"tools": [f"srv{n}{i}__*" for i in range(4)] + ["crm__*"]} for n in range(20)}}


def bundle(text: str, data: dict[str, Any] | None = None, **more: str) -> Bundle:
    files = {"policy.rego": text.encode(), **{f"{name}.rego": one.encode() for name, one in more.items()}}
    if data is not None:
        files["data.json"] = json.dumps(data).encode()
    return read_bundle(files, None, now=0)


def source(text: str, data: dict[str, Any] | None = None) -> Source:
    return Source({"policy.rego": text}, data or {}, ENTRY)


def asks(**arguments: Any) -> bytes:
    """A document as a helper gets it, with as much in it as `LOOPS` looks at."""
    return json.dumps({"action": "tools/call", "mcp": {"arguments": arguments}}).encode()


def document(
    arguments: Any = None,
    *,
    roles: tuple[str, ...] = (),
    server: str = "crm",
    name: str = "refund",
    endpoint: str = "default",
    address: str = "10.0.0.1",
    now: float = 1_800_000_000.0,
    lists: bool = False,
) -> Document:
    principal = Principal("default", "https://sso", "ann", "bot", roles)
    call = Call("tools/call", {}, {}, b"1", "modern", "2026-07-28", principal, endpoint, "x")
    return Document(
        principal, endpoint, "tools", server, name, now, None if lists else call, arguments, 10,
        "" if lists else address,
    )  # fmt: skip
