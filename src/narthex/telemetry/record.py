"""The record of a call: what an auditor asks of it, as one line of JSON. No argument, result, token or secret is in it.

In: an `Entry`, which the path of a call makes of what it has at hand. Out: a line, made off the path. The names of the
members are a contract: members are added, none changes its meaning. Cases: `tests/telemetry/test_record.py`.
Source: the members that SOC 2 CC7.2, ISO 27001 A.8.15 and HIPAA §164.312(b) ask for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal, Protocol

import msgspec

from narthex import __version__
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.limit.money import show_money
from narthex.flow.limit.spending import Taken
from narthex.flow.policy.check import Check
from narthex.flow.policy.evidence.again import Again, Asked
from narthex.flow.policy.evidence.rules import Ruled, duties_of, rules_of
from narthex.flow.route.names import canonical
from narthex.flow.upstream.port import Dialect
from narthex.telemetry.accounts import OUTCOMES
from narthex.telemetry.inputs import input_of
from narthex.telemetry.payloads.lines import Note
from narthex.telemetry.payloads.rules import KeptParts
from narthex.telemetry.stamps import show_seconds, stamp
from narthex.types import Call, LimitRule, Principal

FORM = 1
Buffer = bytes | memoryview | Raw
Inputs = Literal["none", "digest", "full"]
Event = Literal["call", "refused", "begin", "admin"]
"""`refused`: it was turned away before it was known where it leads, a malformed one say; but not before who calls.
`begin`: it is about to be sent to its server; another record says what became of it.
`admin`: something that was done on the admin side, or denied there."""
LONGEST = 256
"""Characters of a text that a client or a server chose."""
MOST_RULES = 100
"""Rules that a record names; of more it says how many there are."""
_VERSION = re.compile(r"v?[0-9][0-9A-Za-z.+_-]{0,30}")
"""What a server says of its version and is recorded: too short for most of the secrets that it could say there."""
_encode = msgspec.json.Encoder().encode


NO_TRACE = ("", "", "")


class Begun(Protocol):
    """The record that a call begins."""

    @property
    def seq(self) -> int:
        """Its number in the chain."""


class Entry(msgspec.Struct):
    """What the path of a call hands over: references and numbers, nothing large, nothing made for it.

    `outcome` is an index in `accounts.OUTCOMES`; `account` the caller's with the server, its credential's name first;
    `code` the JSON-RPC error code that the client got, 0 for none; `check` has what was decided, and of what. `call` is
    given where the record is to say what was looked at, or what `trial` would have decided: the rules in shadow mode.
    """

    principal: Principal
    source: str
    session: str
    endpoint: str
    server: str
    method: str
    name: str
    request: bytes
    version: str
    outcome: int
    reason: str
    code: int
    decision_id: str
    account: str
    bytes_in: int
    bytes_out: int
    seconds: float
    config: str
    event: Event = "call"
    check: Check | None = None
    call: Call | None = None
    inputs: Inputs = "none"
    trial: Again | None = None
    limit: str = ""
    instead_of: str = ""
    stood_in: str = ""
    approval: str = ""
    cost: tuple[int, str] | None = None
    cache: str = ""
    age: float = 0.0
    arguments_digest: str = ""
    at: float = 0.0
    """Seconds since 1970; set by the journal."""
    begun: Begun | None = None
    """The record that said that it begins, where there is one."""
    result_digest: str = ""
    trace: tuple[str, str, str] = NO_TRACE
    """Of the trace that it is part of: its id, the span that called, and the one that its server was told; each empty
    where there is none."""
    run: str = ""
    server_seconds: float = 0.0
    """From the call's being sent until its server had answered; 0: it was not sent."""
    model: str = ""
    prompt: str = ""
    """These two are the client's words."""
    keep: KeptParts | None = None
    """What is kept of `arguments`, of `answer`, the value of the answer's `result` or `error` in pieces, as it was
    relayed, and of `task`; None: nothing."""
    arguments: Buffer | None = None
    answer: Sequence[Buffer] = ()
    task: Buffer | None = None
    is_error: bool = False
    definition: bytes = b""
    """SHA-256 of what was called, as its server had listed it."""
    dialect: Dialect | None = None
    """What was negotiated with the server that it was sent to; None: it was sent to none."""
    upstream_status: int = 0
    admission_seconds: float = 0.0
    """Until it was sent to its server or answered from memory, without what it has waited; the next one from its
    server's answer to its own."""
    answer_seconds: float = 0.0
    query: str = ""
    did: dict[str, Any] | None = None
    """Of an action on the admin side: what was asked for, and what came of it."""
    waits: dict[str, float] | None = None
    """Seconds that it has waited, by what for."""
    taken: Taken | None = None
    asked: tuple[LimitRule, ...] = ()
    """Of a call that a limit refused: all that it would have counted in."""
    tokens: tuple[int, int, str] | None = None
    """In and out, and who has counted them."""
    held: int = 0
    """Bytes of the call that wait with it; set by the journal, as `id` and `notes`: what the record says of them."""
    id: str = ""
    notes: dict[str, Note] | None = None
    done: Callable[[str], None] | None = None
    """Who waits for the record: told on the event loop that it is on the disk, by an empty text, or why it is not."""
    seq: int = 0
    """Its number in the chain; set by the journal."""


class Who(msgspec.Struct, omit_defaults=True):
    """The principal. `actors` act for the subject, the last first; `proof` says how all of this was proved."""

    issuer: str
    subject: str
    proof: str
    client: str = ""
    kind: str = ""
    actors: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    authenticated: str | None = None


class Said(msgspec.Struct, omit_defaults=True):
    """What policy decided of the call: by which rule, on which line of its file, and of what.

    `resource` is the canonical name, which rules match. `reason` `not_granted`: it does not exist for the caller.
    `engine`, its `bundle` and `decision_id`: who decided beside the grants, by which revision, and how it calls that.
    `obligations` are the kinds of what the call was let through for, `duties` what each of them says. `rules` are all
    that apply, where there are others than the one of `rule`; `more_rules`: so many more.
    """

    effect: str
    reason: str
    rule: str = ""
    line: int = 0
    detail: str = ""
    kind: str = ""
    resource: str = ""
    engine: str = ""
    bundle: str = ""
    decision_id: str = ""
    obligations: tuple[str, ...] = ()
    duties: dict[str, Any] | None = None
    rules: tuple[Ruled, ...] = ()
    more_rules: int = 0


class Upstream(msgspec.Struct, omit_defaults=True):
    """The conversation in which the call was sent to its server. `status`: of HTTP, as it was answered last; none over
    stdio. `protocol`: the revision of MCP. `session`: 16 hexadecimal digits of the SHA-256 of the server's own id of
    it. `version`: of itself, by the server's word."""

    protocol: str
    status: int = 0
    session: str = ""
    version: str = ""


class Tokens(msgspec.Struct):
    """`counted`: `server`, who reported them; `estimate`, of bytes; or the tokenizer."""

    tokens_in: int = msgspec.field(name="in")
    tokens_out: int = msgspec.field(name="out")
    counted: str


class Record(msgspec.Struct, omit_defaults=True):
    """One line. What has no value is left out; times are UTC (RFC 3339), sizes bytes of the bodies.

    `decision` is `allow` where nothing of ours stood against the call, `hold` where a person must approve it first,
    `deny` where we refused it, by `reason`. `approval` is the id by which one that was held has passed, or for which it
    waits.
    """

    v: int
    id: str
    time: str
    event: str
    tenant: str
    principal: Who
    endpoint: str
    method: str
    decision: str
    bytes_in: int
    bytes_out: int
    seconds: Raw
    config: str
    gateway: str
    outcome: str = ""
    begin: int = 0
    """Number of the record that said that it begins."""
    server_seconds: Raw | None = None
    latency: dict[str, Raw] | None = None
    """Where its seconds went, room by room."""
    server: str = ""
    name: str = ""
    definition_digest: str = ""
    """`sha256:` and the hexadecimal digits of what was called, as its server had listed it when the call was made."""
    upstream: Upstream | None = None
    reason: str = ""
    code: int = 0
    decision_id: str = ""
    credential: str = ""
    source: str = ""
    session: str = ""
    request: str = ""
    version: str = ""
    limit: str = ""
    """The one that refused it, or for which another tool has answered."""
    instead_of: str = ""
    """The canonical name of the tool that was called, where another one has answered."""
    limits: str = ""
    """`local_share` or `allow`: what has decided about its limits while the counters of several gateways were away."""
    taken: dict[str, int | str] | None = None
    """What it has used of limits, by name, in the unit of each; money with its currency."""
    counts_in: tuple[str, ...] = ()
    """All limits that it counts in, where `taken` does not name each of them."""
    tokens: Tokens | None = None
    approval: str = ""
    cost: str = ""
    cache: str = ""
    """What the cache did: `hit`, `stale`, `joined`, `miss`, `renewal`; empty: nothing."""
    age: float | None = None
    """Of an answer from memory: seconds since its server gave it."""
    arguments_digest: str = ""
    """`sha256:` and the hexadecimal digits of what the client sent, byte for byte."""
    result_digest: str = ""
    """The same of the `result`, or of the server's `error`, as the client got it."""
    trace: str = ""
    """Id of the trace that it is part of (W3C Trace Context): as the client said it, or as it was begun here."""
    parent: str = ""
    """The span that called."""
    span: str = ""
    """The span that its server was told, where the call is sampled."""
    run: str = ""
    """Id of the run that the agent has said."""
    model: str = ""
    prompt: str = ""
    """By the client's word: which model it calls for, and by which prompt."""
    query: str = ""
    did: dict[str, Any] | None = None
    payload: dict[str, Note] | None = None
    policy: Said | None = None
    shadow: Said | None = None
    input: dict[str, Any] | None = None


class Lost(msgspec.Struct):
    """Instead of so many records that could not be written."""

    v: int
    id: str
    time: str
    event: str
    count: int


ALLOWED = frozenset({"ok", "tool_error", "rpc_error", "cancelled", "upstream_unavailable", "upstream_timeout", ""})
"""Outcomes of calls that we let through, whatever became of them; the rest we refused."""
COMPLETES = "completion/complete"
HELD = "approval_required"
"""The outcome of those that wait for a person."""


def line_of(entry: Entry, id_: str) -> bytes:
    """The record of a call, an object of JSON without line ends."""
    who = entry.principal
    outcome = OUTCOMES[entry.outcome] if entry.event != "begin" else ""
    record = Record(
        v=FORM,
        id=id_,
        time=stamp(entry.at),
        event=entry.event,
        tenant=who.tenant,
        principal=Who(
            who.issuer, who.subject, who.method, who.client, who.kind, who.actors, who.roles,
            stamp(who.authenticated_at) if who.authenticated_at else None,
        ),
        endpoint=entry.endpoint,
        method=entry.method[:LONGEST],
        outcome=outcome,
        begin=entry.begun.seq if entry.begun is not None else 0,
        decision="allow" if outcome in ALLOWED else "hold" if outcome == HELD else "deny",
        bytes_in=entry.bytes_in,
        bytes_out=entry.bytes_out,
        seconds=_shown(entry.seconds),
        config=entry.config,
        gateway=__version__,
        server=entry.server,
        name=entry.name,
        definition_digest=f"sha256:{entry.definition.hex()}" if entry.definition else "",
        upstream=_upstream(entry.dialect, entry.upstream_status) if entry.dialect is not None else None,
        reason=entry.reason,
        code=entry.code,
        decision_id=entry.decision_id,
        credential="" if entry.account == "?" else entry.account.partition(" ")[0],
        source=entry.source,
        session=entry.session,
        request=entry.request.decode(errors="replace") if len(entry.request) <= LONGEST else "",
        version=entry.version,
        limit=entry.limit,
        instead_of=entry.instead_of,
        limits=entry.stood_in,
        taken=(taken := limits_of(entry.taken) if entry.taken is not None else None),
        counts_in=_counts_in(entry, taken or {}),
        tokens=tokens_of(entry.tokens) if entry.tokens is not None else None,
        approval=entry.approval,
        cost=show_money(*entry.cost) if entry.cost is not None else "",
        cache=entry.cache,
        age=round(entry.age, 3) if entry.cache in ("hit", "stale") else None,
        arguments_digest=entry.arguments_digest,
        result_digest=entry.result_digest,
        trace=entry.trace[0],
        parent=entry.trace[1],
        span=entry.trace[2],
        run=entry.run,
        server_seconds=_shown(entry.server_seconds) if entry.server_seconds > 0 else None,
        latency=_latency(entry) if entry.event == "call" else None,
        model=entry.model,
        prompt=entry.prompt,
        query=entry.query,
        did=entry.did,
        payload=entry.notes,
        policy=_said(entry.check, entry.method) if entry.check is not None else None,
        shadow=_would(entry),
        input=_input(entry),
    )  # fmt: skip
    return _encode(record)


def _shown(seconds: float) -> Raw:
    return Raw(show_seconds(seconds).encode())


def _latency(entry: Entry) -> dict[str, Raw]:
    """In the order of the call's way; what adds up to its seconds."""
    waits = entry.waits or {}
    found = {"admission": max(entry.admission_seconds, 0.0), **waits}
    if entry.server_seconds > 0:
        behind = entry.seconds - entry.answer_seconds - entry.admission_seconds - sum(waits.values())
        found["upstream"] = max(behind, 0.0) if waits else entry.server_seconds
    if entry.answer_seconds > 0:
        found["answer"] = entry.answer_seconds
    return {room: _shown(seconds) for room, seconds in found.items()}


def limits_of(taken: Taken) -> dict[str, int | str] | None:
    """None where nothing was taken. A limit that has several places for a caller takes as much of each."""
    pairs = zip(taken.rules, taken.amounts, strict=True)
    found = {one.name: show_money(amount, one.currency) if one.currency else amount for one, amount in pairs if amount}
    return found or None


def _counts_in(entry: Entry, taken: Mapping[str, object]) -> tuple[str, ...]:
    names = dict.fromkeys(one.name for one in (entry.taken.rules if entry.taken is not None else entry.asked))
    return tuple(names) if names.keys() - taken.keys() else ()


def tokens_of(tokens: tuple[int, int, str]) -> Tokens:
    return Tokens(*tokens)


def _upstream(dialect: Dialect, status: int) -> Upstream:
    version = dialect.server_info.get("version")
    said = version if isinstance(version, str) and _VERSION.fullmatch(version) else ""
    session = dialect.session_id
    return Upstream(dialect.version, status, sha256(session.encode()).hexdigest()[:16] if session else "", said)


def _input(entry: Entry) -> dict[str, Any] | None:
    if entry.check is None or entry.call is None or entry.inputs == "none":
        return None
    return input_of(entry.check, entry.call, full=entry.inputs == "full")


def _would(entry: Entry) -> Said | None:
    """What would have been decided with the rules in shadow mode."""
    check, call, trial = entry.check, entry.call, entry.trial
    if call is None or check is None or check.target is None or check.shadow is None or check.decision is None:
        return None
    granted = check.granted or check.decision
    if trial is not None:
        params = call.but(params=check.params)
        granted = trial.decide_now(Asked(params, check.kind, check.target, check.address, check.at, run=check.run))
    decision = check.shadow.decision(granted)
    return Said(decision.effect, decision.reason, decision.rule, decision.line, decision.detail)


def _said(check: Check, method: str) -> Said | None:
    """None where nothing was decided: no name has led to anything."""
    decision, target = check.decision, check.target
    if decision is None or target is None:
        return None
    rules = rules_of(check, counts=method != COMPLETES)
    if [(one.rule, one.line) for one in rules] == [(decision.rule, decision.line)]:
        rules = []  # it is said already
    return Said(
        decision.effect,
        decision.reason,
        decision.rule,
        decision.line,
        decision.detail,
        check.kind,
        canonical(target.server, target.name),
        decision.engine,
        decision.bundle,
        decision.decision_id,
        tuple(one.kind for one in decision.obligations),
        duties_of(decision.obligations) or None,
        tuple(rules[:MOST_RULES]),
        max(0, len(rules) - MOST_RULES),
    )


def line_of_lost(count: int, at: float, id_: str) -> bytes:
    """What stands in the place of records that are not there."""
    return _encode(Lost(FORM, id_, stamp(at), "lost", count))
