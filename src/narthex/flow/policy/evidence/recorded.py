"""Decisions that were recorded with their input, read from lines of JSON.

In: a line of the journal, or any object with an `input` in the form of the input document. Out: a `Recorded`: what was
asked, and what was said. What is read may come from anywhere: it is checked, and never trusted.
Cases: `tests/flow/policy/test_recorded.py`; fuzz target `recorded`. Reference: `docs/reference/records.md`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, encode
from narthex.flow.policy.decision import Decision, Effect
from narthex.flow.policy.evidence.again import Asked
from narthex.flow.route.target import Target
from narthex.types import Call, Era, Kind, Principal, Proof, Session

MOST_PRINCIPALS = 65_536
_KIND: dict[str, Kind] = {
    "tool": "tools",
    "prompt": "prompts",
    "resource": "resources",
    "template": "templates",
    "skill": "skills",
}
_PROOF: dict[str, Proof] = {"oauth": "jwt", "key": "api_key"}
_PROOFS = frozenset(Proof.__args__)  # type: ignore[attr-defined]
_NULL = b"null"


class BadRecord(ValueError):
    """The line is no record. The text says why."""


class Recorded(msgspec.Struct, frozen=True):
    """A decision, and what it was taken on.

    Args:
        said: None where the line does not say what was decided.
        went: Was the call let through in the end? A person may have had to say so, or a limit stood against it.
        config: The revision of the configuration that decided it; empty where that is not said.
    """

    id: str
    time: str
    asked: Asked
    said: Decision | None
    went: bool = True
    config: str = ""


# --- the line's form, as far as it is read


class _Actor(msgspec.Struct):
    client_id: str = ""
    chain: tuple[str, ...] = ()


class _Auth(msgspec.Struct):
    method: str = "none"
    at: float = 0.0


class _Subject(msgspec.Struct):
    id: str
    issuer: str = ""
    type: str = "service"
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    actor: _Actor = msgspec.field(default_factory=_Actor)
    auth: _Auth = msgspec.field(default_factory=_Auth)


class _Resource(msgspec.Struct):
    kind: Literal["tool", "prompt", "resource", "template", "skill"]
    server: str
    upstream_name: str


class _Mcp(msgspec.Struct):
    method: str
    version: str = ""
    session: str = ""
    arguments: Raw = msgspec.field(default_factory=lambda: Raw(_NULL))
    arguments_size: int = 0


class _Context(msgspec.Struct):
    time: str
    endpoint: str
    tenant: str = "default"
    ip: str = ""


class _Run(msgspec.Struct):
    labels: tuple[str, ...] = ()
    calls: dict[str, int] = {}


class _Input(msgspec.Struct):
    v: int
    subject: Raw
    resource: _Resource
    mcp: _Mcp
    context: _Context
    run: _Run | None = None


class _Said(msgspec.Struct):
    effect: Effect
    reason: str
    rule: str = ""
    line: int = 0
    detail: str = ""


class _Proved(msgspec.Struct):
    proof: str = ""


class _Line(msgspec.Struct):
    input: _Input | None = None
    policy: _Said | None = None
    principal: _Proved = msgspec.field(default_factory=_Proved)
    result: Raw = msgspec.field(default_factory=lambda: Raw(_NULL))
    id: str = ""
    decision_id: str = ""
    decision: str = ""
    config: str = ""


_line = msgspec.json.Decoder(_Line).decode
_subject = msgspec.json.Decoder(_Subject).decode
_object = msgspec.json.Decoder(dict[str, Raw]).decode


class Reader:
    """Reads lines. Who called often is one principal, read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, str, str], Principal] = {}

    def read(self, line: bytes) -> Recorded | None:
        """A recorded decision; None for a line of something else, or of a decision without its input.

        Raises:
            BadRecord: Neither.
        """
        try:
            found = _line(line)
            if found.input is None:
                return None
            return self._recorded(found, found.input)
        except (*BAD_JSON, ValueError, OverflowError, OSError) as error:
            raise BadRecord(f"no record of a decision: {error}"[:500]) from None

    def _recorded(self, line: _Line, input_: _Input) -> Recorded:
        if input_.v != 1:
            raise BadRecord(f"an input document of version {input_.v}; 1 is known here")
        mcp, context, resource, run = input_.mcp, input_.context, input_.resource, input_.run
        era: Era = "modern" if mcp.version >= "2026-07-28" else "legacy"
        principal = self._principal(bytes(input_.subject), context.tenant, line.principal.proof)
        raw = bytes(mcp.arguments)
        known = raw != _NULL
        call = Call(
            mcp.method,
            {"arguments": Raw(raw)} if known else {},
            {},
            _NULL,
            era,
            mcp.version,
            principal,
            context.endpoint,
            resource.upstream_name,
            Session(mcp.session, mcp.version, 0) if mcp.session else None,
        )
        target = Target(resource.server, resource.upstream_name, encode(resource.upstream_name))
        at = datetime.fromisoformat(context.time)
        if at.tzinfo is None:
            raise BadRecord("its time has no zone")
        asked = Asked(
            call,
            _KIND[resource.kind],
            target,
            context.ip,
            at.timestamp(),
            whole=known or not mcp.arguments_size,
            run=None if run is None else {"labels": list(run.labels), "calls": run.calls},
        )
        went = line.decision in ("", "allow")
        return Recorded(line.id or line.decision_id, context.time, asked, _said(line), went, line.config)

    def _principal(self, raw: bytes, tenant: str, proof: str) -> Principal:
        key = (raw, tenant, proof)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MOST_PRINCIPALS:
                self._known.clear()
            known = self._known[key] = _principal(_subject(raw), tenant, proof)
        return known


def _principal(subject: _Subject, tenant: str, proof: str) -> Principal:
    """`proof`: as the journal has it; the input document says it more coarsely."""
    method = proof or _PROOF.get(subject.auth.method, subject.auth.method)
    if method not in _PROOFS:
        raise BadRecord(f"nobody proves who calls by {method[:64]!r}")
    return Principal(
        tenant,
        subject.issuer,
        subject.id,
        subject.actor.client_id,
        subject.roles,
        subject.groups,
        frozenset(subject.scopes),
        "human" if subject.type == "user" else "service",
        subject.actor.chain,
        method,  # type: ignore[arg-type]
        subject.auth.at,
    )


def _said(line: _Line) -> Decision | None:
    """What the journal says, or a decision log of Open Policy Agent (`result`: boolean, or an object with `allow`)."""
    said, raw = line.policy, bytes(line.result)
    if said is not None:
        return Decision(said.effect, said.reason, said.rule, said.line, said.detail)
    if raw == _NULL:
        return None
    allowed = _object(raw).get("allow", Raw(_NULL)) if raw[:1] == b"{" else raw
    return Decision("allow" if bytes(allowed) == b"true" else "deny", "")
