"""What is recorded of a call: made of what is at hand when it ends, nothing that it said, and nothing large.

In: an exchange that is being accounted for, or a request that never became one. Out: an `Entry`.
Cases: `tests/flow/accept/test_recording.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from narthex.errors import GatewayError, RateLimited
from narthex.flow.accept.needs import found
from narthex.flow.accept.relayed import Relayed, digest_of, value_of
from narthex.flow.codec.revisions import META_TASK
from narthex.flow.codec.trace_context import PARENT, in_meta
from narthex.flow.policy.check import Check
from narthex.flow.policy.engines.obligations import value_of as obligation
from narthex.flow.policy.evidence.again import Again
from narthex.flow.policy.runs.runs import id_in
from narthex.flow.upstream.viewers import account_in
from narthex.flow.walk import KIND_OF
from narthex.telemetry.accounts import NAMED_METHODS, OUTCOME, outcome_of
from narthex.telemetry.payloads.rules import LOG, KeptParts
from narthex.telemetry.record import LONGEST, NO_TRACE, Entry
from narthex.telemetry.traces import Ended, Trace
from narthex.types import Call, Principal, Snapshot

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange

_OK, _HELD = OUTCOME["ok"], OUTCOME["approval_required"]
MODEL, PROMPT = "gen_ai.request.model", "gen_ai.prompt.name"
"""Members of `_meta` by which a client says for which model it calls, and by which prompt (OpenTelemetry, GenAI)."""


def entry_of(
    one: Exchange,
    snapshot: Snapshot,
    trial: Again | None,
    outcome: int,
    seconds: float,
    size: int,
    error: GatewayError | None,
    decision_id: str,
) -> Entry:
    """The record of a call.

    Args:
        snapshot: The configuration: its revision, and how much is recorded. trial: what would decide with the rules in
            shadow mode; it is asked when the record is written.
        outcome: Index in `accounts.OUTCOMES`. seconds: from request to answer. size: bytes of the answer.
        error: What it was refused with, or failed by; None for an answer of the server.
    """
    call = one.call
    arguments = call.params.get("arguments")
    result_digest, pieces, is_error = result_of(one, outcome) if error is None else ("", (), False)
    one.answer = ()
    keep = kept_of(one)
    has_shadow = one.check is not None and one.check.shadow is not None
    instead = one.metered.instead if one.metered is not None else None
    scope = one.viewer.scopes.get(one.server_name)
    out, channel, metered = one.out, one.channel, one.metered
    one.stop_waiting()
    entry = Entry(
        call.principal,
        one.source,
        call.session.id if call.session is not None else "",
        call.endpoint,
        one.server_name,
        call.method,
        one.target_name or call.name[:LONGEST],
        call.id_json if len(call.id_json) <= LONGEST else b"",
        call.version,
        outcome,
        error.reason if error is not None else "",
        error.code if error is not None else one.code,
        decision_id,
        account_in(scope) if scope is not None else "",
        one.size_in,
        size,
        seconds,
        snapshot.revision,
        approval=_approvals_of(one, outcome),
        check=one.check,
        call=call if snapshot.audit_inputs != "none" or has_shadow else None,
        inputs=snapshot.audit_inputs,
        trial=trial,
        limit=error.limit if isinstance(error, RateLimited) else instead.limit if instead is not None else "",
        instead_of=instead.asked if instead is not None else "",
        stood_in=one.metered.stood_in if one.metered is not None else "",
        cost=one.metered.cost if one.metered is not None else None,
        cache=one.caching.word if one.caching is not None else "",
        age=one.caching.age_s if one.caching is not None else 0.0,
        arguments_digest=f"sha256:{sha256(arguments).hexdigest()}" if arguments is not None else "",
        result_digest=result_digest,
        trace=trace_of(one),
        run=id_in(call.meta, one.front.metering.run_id) if call.meta else "",
        server_seconds=(one.heard_at or one.began_at + seconds) - one.sent_at if one.sent_at else 0.0,
        model=id_in(call.meta, MODEL) if call.meta else "",
        prompt=id_in(call.meta, PROMPT) if call.meta else "",
        keep=keep,
        arguments=arguments if keep is not None else None,
        answer=pieces if keep is not None else (),
        task=call.meta.get(META_TASK) if keep is not None else None,
        is_error=is_error,
        definition=one.definition or _definition_of(one.check),
        dialect=channel.dialect if out is not None and channel is not None else None,
        upstream_status=out.status if out is not None else 0,
        admission_seconds=(one.sent_at or one.heard_at or one.began_at + seconds) - one.began_at - one.ahead_s,
        answer_seconds=one.began_at + seconds - one.heard_at if one.heard_at else 0.0,
        waits=dict(one.waits) if one.waits else None,
        taken=metered.taken if metered is not None else None,
        asked=metered.asked if metered is not None and isinstance(error, RateLimited) else (),
        tokens=metered.tokens if metered is not None else None,
    )
    if metered is not None and metered.recounts:
        metered.entry = entry
    return entry


def result_of(one: Exchange, outcome: int) -> tuple[str, Sequence[Any], bool]:
    """The digest of what the client is answered, its pieces, and whether it is an error."""
    answer = one.answer
    if isinstance(answer, Relayed):
        if outcome != _OK:
            return "", (), False
        digest, kept = answer.end()
        return digest, kept, False
    if not answer:
        return "", (), False
    pieces, is_error = value_of(answer)
    return digest_of(pieces), pieces, is_error


def _approvals_of(one: Exchange, outcome: int) -> str:
    """Ids of those that it has passed by; of a call that waits, the one that it waits for behind them."""
    approved = one.approved
    if approved is None:
        return ""
    return f"{approved.ids} {approved.waits}".strip() if outcome == _HELD else approved.ids


def _definition_of(check: Check | None) -> bytes:
    """Of what was decided on, also where the call was denied."""
    target = check.target if check is not None else None
    return target.definition if target is not None else b""


def trace_of(one: Exchange) -> tuple[str, str, str]:
    """What trace it is part of: as it is traced here, or else as the client has said in `_meta`."""
    trace, meta = one.trace, one.call.meta
    if trace is not None:
        told = trace.context.span_id if trace.sampled and trace.context is not None else ""
        return trace.trace_id, trace.parent.span_id if trace.parent is not None else "", told
    context = in_meta(meta) if PARENT in meta else None
    return (context.trace_id, context.span_id, "") if context is not None else NO_TRACE


def kept_of(one: Exchange) -> KeptParts | None:
    """What is kept of what it says: mostly nothing."""
    rules, check, call, log = one.front.payloads, one.check, one.call, None
    if rules is None:
        return None
    if check is not None and check.decision is not None and check.decision.obligations:
        log = obligation(check.decision.obligations, LOG)
    if log is None and not rules.asks:
        return None
    kind, server, name = KIND_OF.get(call.method, "tools"), one.server_name, one.target_name
    if not name:  # it was not sent, or is not sent yet
        target = check.target if check is not None else None
        target = target or one.front.fleet.find_now(one.viewer, kind, call.name)
        server, name = (target.server, target.name) if target is not None else ("", call.name)
    keep = rules.of(call.endpoint, kind, server, name, log)
    if keep is not None and META_TASK not in call.meta and (keep.arguments, keep.result) == ("none", "none"):
        return None
    return keep


def seen_of(one: Exchange) -> tuple[str, str]:
    """Of a call that was not sent, the server and its own name of what was called, as far as the caller sees it; else
    no name: what a client wrote there may be any text, and is none to count by."""
    method = one.call.method
    target = found(one, KIND_OF[method], one.call.name) if method in NAMED_METHODS else None
    return (target.server, target.name) if target is not None else (one.server_name, "")


def ended_of(
    one: Exchange,
    trace: Trace,
    name: str,
    config: str,
    outcome: int,
    size: int,
    now: float,
    error: GatewayError | None,
    decision_id: str,
) -> Ended:
    """What the spans of a sampled call are made of.

    Args as `entry_of`; name: as it is counted by. now: when it ended, in seconds of the clock.
    """
    call = one.call
    who = call.principal
    return Ended(
        trace,
        call.method[:LONGEST],
        name[:LONGEST],
        call.endpoint,
        one.server_name,
        who.tenant,
        who.client,
        call.session.id if call.session is not None else "",
        call.version,
        call.id_json[:LONGEST],
        one.source,
        outcome,
        error.reason if error is not None else "",
        error.code if error is not None else one.code,
        decision_id,
        config,
        one.size_in,
        size,
        one.began_at,
        one.sent_at,
        one.heard_at,
        now,
    )


class Traced:
    """A sampled request that is answered, or refused, without an exchange: what its span is made of."""

    __slots__ = ("began_at", "call", "size_in", "source", "trace")

    def __init__(self, trace: Trace, call: Call, source: str, size_in: int, began_at: float) -> None:
        self.trace: Final = trace
        self.call: Final = call
        self.source: Final = source
        self.size_in: Final = size_in
        self.began_at: Final = began_at


def ended_of_traced(
    one: Traced, config: str, outcome: int, size: int, now: float, error: GatewayError | None, decision_id: str
) -> Ended:
    """What its span is made of. Args as `ended_of`."""
    call = one.call
    return Ended(
        one.trace, call.method[:LONGEST], "", call.endpoint, "", call.principal.tenant, call.principal.client,
        call.session.id if call.session is not None else "", call.version, call.id_json[:LONGEST], one.source, outcome,
        error.reason if error is not None else "", error.code if error is not None else 0, decision_id, config,
        one.size_in, size, one.began_at, 0.0, 0.0, now,
    )  # fmt: skip


def begin_of(one: Exchange, snapshot: Snapshot) -> Entry:
    """The record of a call that is about to be sent to its server."""
    entry = entry_of(one, snapshot, None, OUTCOME["ok"], 0.0, 0, None, "")
    entry.event, entry.call, entry.inputs = "begin", None, "none"
    entry.admission_seconds, entry.waits = 0.0, None  # the record of its end says where the time went
    return entry


class Turned:
    """What was known of a request when it was turned away; the caller always is."""

    __slots__ = (
        "began_at", "check", "endpoint", "method", "name", "principal", "request", "session", "size_in", "source",
        "version",
    )  # fmt: skip

    def __init__(
        self,
        principal: Principal,
        endpoint: str,
        source: str,
        size_in: int,
        began_at: float,
        method: str = "",
        name: str = "",
        request: bytes = b"",
        version: str = "",
        session: str = "",
        check: Check | None = None,
    ) -> None:
        self.principal: Final = principal
        self.endpoint: Final = endpoint
        self.source: Final = source
        self.size_in: Final = size_in
        self.began_at: Final = began_at
        self.method: Final = method
        self.name: Final = name
        self.request: Final = request
        self.version: Final = version
        self.session: Final = session
        self.check: Final = check


def turned_of(call: Call, source: str, size_in: int, began_at: float, check: Check | None) -> Turned:
    """The same of what has become a call, and may not go on."""
    session = call.session.id if call.session is not None else ""
    return Turned(
        call.principal, call.endpoint, source, size_in, began_at, call.method, call.name, call.id_json, call.version,
        session, check,
    )  # fmt: skip


def entry_of_turned(
    one: Turned, config: str, error: GatewayError, decision_id: str, size: int, seconds: float
) -> Entry:
    """The record of a request that was refused before it became a call. `size`: bytes of the answer. `seconds`: from
    its being taken up to that."""
    return Entry(
        one.principal,
        one.source,
        one.session,
        one.endpoint,
        "",
        one.method,
        one.name[:LONGEST],
        one.request if len(one.request) <= LONGEST else b"",
        one.version,
        outcome_of(error),
        error.reason,
        error.code,
        decision_id,
        "",
        one.size_in,
        size,
        seconds,
        config,
        event="refused",
        check=one.check,
        definition=_definition_of(one.check),
    )
