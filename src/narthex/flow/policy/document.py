"""The input document, version 1: what engines are told of a call, or of a thing that somebody may see in a list.

In: who calls, what is called, the call. Out: a `Document`, whose `input()` is the same for every engine, in decision
logs and in recorded decisions. Members are added; none changes its meaning without another `v`.
Cases: `tests/flow/policy/test_document.py`. Reference: `docs/guides/rego.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from narthex.flow.policy.site import NOWHERE, Site
from narthex.flow.route.names import canonical
from narthex.types import Call, Kind, Principal

VERSION = 1
LIST = "list"
KINDS: Mapping[Kind, str] = {
    "tools": "tool",
    "prompts": "prompt",
    "resources": "resource",
    "templates": "template",
    "skills": "skill",
    "admin": "admin",
}
_AUTH: Mapping[str, str] = {"api_key": "key", "jwt": "oauth", "introspection": "oauth", "xfcc": "mtls"}


class Document:
    """What is asked of an engine. The parts are references; the document itself is made when somebody wants it.

    `call` is None where only visibility is asked: then nothing of a call is in it, and no time but the gateway's.
    """

    __slots__ = (
        "address", "arguments", "call", "endpoint", "kind", "name", "now", "principal", "run", "server", "site", "size",
        "trace",
    )  # fmt: skip

    def __init__(
        self,
        principal: Principal,
        endpoint: str,
        kind: Kind,
        server: str,
        name: str,
        now: float,
        call: Call | None = None,
        arguments: Any = None,
        size: int = 0,
        address: str = "",
        site: Site = NOWHERE,
        run: Mapping[str, Any] | None = None,
        trace: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """
        Args:
            name: As the server gives it.
            now: Unix seconds.
            arguments: Decoded; size: their bytes as they came.
            address: The client's.
            site: Where it is decided.
            run: What its run was before it: labels, and calls by canonical name.
            trace: The trace that the call is part of, as headers for whoever is asked: no part of the input.
        """
        self.principal: Final = principal
        self.endpoint: Final = endpoint
        self.kind: Final = kind
        self.server: Final = server
        self.name: Final = name
        self.now: Final = now
        self.call: Final = call
        self.arguments: Final = arguments
        self.size: Final = size
        self.address: Final = address
        self.site: Final = site
        self.run: Final = run
        self.trace: Final = trace

    @property
    def action(self) -> str:
        return self.call.method if self.call is not None else LIST

    def input(self) -> dict[str, Any]:
        """The document: what JSON can say, and nothing shared with another one that somebody could change."""
        call = self.call
        mcp: dict[str, Any] = {"method": f"{self.kind}/list"}
        context: dict[str, Any] = {
            "time": stamp(self.now),
            "endpoint": self.endpoint,
            "tenant": self.principal.tenant,
            "env": self.site.environment,
        }
        if call is not None:
            mcp = {
                "version": call.version,
                "method": call.method,
                "session": call.session.id if call.session is not None else "",
                "arguments": self.arguments,
                "arguments_size": self.size,
            }
            context["ip"] = self.address
        run = self.run if call is not None and self.run is not None else {}
        return {
            "v": VERSION,
            "action": self.action,
            "phase": "list" if call is None else "admin" if self.kind == "admin" else "request",
            "subject": subject(self.principal, self.now),
            "resource": resource(self.kind, self.server, self.name, self.site),
            "mcp": mcp,
            "run": {"labels": list(run.get("labels", ())), "calls": dict(run.get("calls", {}))},
            "context": context,
        }


def subject(principal: Principal, now: float) -> dict[str, Any]:
    """Who calls, and the agent that acts for them."""
    since = principal.authenticated_at
    return {
        "id": principal.subject,
        "issuer": principal.issuer,
        "type": "user" if principal.kind == "human" else "service",
        "groups": list(principal.groups),
        "roles": list(principal.roles),
        "scopes": sorted(principal.scopes),
        "actor": {"client_id": principal.client, "chain": list(principal.actors)},
        "auth": {
            "method": _AUTH.get(principal.method, principal.method),
            "at": int(since),
            "age_s": max(0, int(now - since)) if since else None,
        },
    }


def resource(kind: Kind, server: str, name: str, site: Site) -> dict[str, Any]:
    """What is called, by its canonical name and by its server's, and how its data is classed."""
    full = canonical(server, name)
    data = site.data(kind, full)
    return {
        "kind": KINDS[kind],
        "server": server,
        "name": full,
        "upstream_name": name,
        "classification": data.classification,
        "privacy": data.privacy,
    }


def stamp(now: float) -> str:
    """RFC 3339, UTC, milliseconds."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
