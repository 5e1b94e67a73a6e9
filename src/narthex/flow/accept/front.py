"""The public side of the gateway: a whole HTTP request in, the right thing done with it.

Checks in this order, cheapest first: who may talk to us at all (Host, Origin), which endpoint, who calls, which method;
then what the body says (`posting.py`).
Cases: `tests/flow/accept/test_front.py`, `tests/e2e/test_requests.py`.
Source: MCP 2026-07-28 and 2025-11-25, Streamable HTTP transport; design §5 and §6.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from random import random as draw
from typing import TYPE_CHECKING, Final

import msgspec

from narthex.errors import (
    CodecError,
    GatewayError,
    HttpRefusal,
    RateLimited,
    Unauthorized,
)
from narthex.flow.accept.asgi import AsgiBridge
from narthex.flow.accept.caching import cache_of
from narthex.flow.accept.calls import Calls
from narthex.flow.accept.exchange import Exchange
from narthex.flow.accept.forms import JSON
from narthex.flow.accept.holding import Keeper
from narthex.flow.accept.hosts import HostCheck
from narthex.flow.accept.leniency import Leniency
from narthex.flow.accept.listener import Connection
from narthex.flow.accept.metering import Metering, holds_spent
from narthex.flow.accept.posting import post, takes
from narthex.flow.accept.rates import Rates, rates_of
from narthex.flow.accept.recording import (
    Traced,
    Turned,
    ended_of,
    ended_of_traced,
    entry_of_turned,
    seen_of,
    trace_of,
)
from narthex.flow.accept.records import Ended, Records
from narthex.flow.accept.refusals import error_lines, status_of
from narthex.flow.accept.replying import Replying
from narthex.flow.accept.sessions import Sessions
from narthex.flow.cache.cache import Cache
from narthex.flow.codec.failures import for_era
from narthex.flow.codec.handles import Handles
from narthex.flow.codec.jsonrpc import (
    Id,
    Request,
    encode_error,
)
from narthex.flow.codec.revisions import (
    era_of,
)
from narthex.flow.codec.trace_context import PARENT
from narthex.flow.identity.scopes import Scopes
from narthex.flow.notify.hub import Hub
from narthex.flow.notify.levels import Levels
from narthex.flow.notify.streams import open_standalone
from narthex.flow.policy.admission import Admission
from narthex.flow.policy.admissions import Admissions
from narthex.flow.policy.check import Check
from narthex.flow.policy.durability import durability_of
from narthex.flow.policy.engines.engine import Engine
from narthex.flow.policy.evidence.again import Again
from narthex.flow.policy.grants import Grants
from narthex.flow.policy.runs.rules import RunRules
from narthex.flow.policy.runs.runs import Runs
from narthex.flow.policy.shadow import shadows_of
from narthex.flow.policy.site import Site
from narthex.flow.route.index import Index
from narthex.flow.route.patterns import compile_globs
from narthex.flow.upstream.fleet import Fleet
from narthex.flow.whole import HttpRequest
from narthex.telemetry.accounts import NAMED_METHODS, OUTCOME, Accounts, Exemplar, outcome_of
from narthex.telemetry.behaviour import UNKNOWN, Behaviour
from narthex.telemetry.frames import Frames
from narthex.telemetry.log import Logs
from narthex.telemetry.payloads.rules import Rules, keeps_payloads
from narthex.telemetry.record import Entry
from narthex.telemetry.sign_ins import SignIns
from narthex.telemetry.tally import Tally
from narthex.telemetry.traces import Tracer
from narthex.types import LOCAL, Call, EndpointSpec, Era, Principal, ServerSpec, Snapshot

if TYPE_CHECKING:
    from narthex.authority.identify import Identity
    from narthex.flow.accept.gate import Gate, Identifying

_log: Final = logging.getLogger("narthex.front")
_OK: Final = OUTCOME["ok"]


class Front:
    """Everything the public listener does, for one process. `snapshot` and `fleet` are swapped by a reload.

    Args:
        clock: Monotonic seconds. now: wall clock. new_id: a decision id, lower-case UUID.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        fleet: Fleet,
        sessions: Sessions,
        accounts: Accounts,
        logs: Logs | None,
        bridge: AsgiBridge,
        *,
        handles: Handles,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        now: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
        chance: Callable[[], float] = draw,
        identity: Identity | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.fleet = fleet
        self.sessions = sessions
        self.accounts = accounts
        self.logs = logs
        self.clock = clock
        self.now = now
        self.tick = clock()
        self.new_id = new_id
        self.calls = Calls()
        self.handles = handles
        self.record: Callable[[Entry], None] | None = None
        """Takes the record of each call; None where none is asked for."""
        self.frames: Frames | None = None
        """Has what records have in common, and takes those that are like others; None: each is an entry."""
        self.records = Records()
        self.sign_ins: SignIns | None = None
        """Records who has proved who they are, and who could not; None where nothing is recorded."""
        self.is_full: Callable[[], bool] = bool
        """Is there no room for another record?"""
        self.approvals: Keeper | None = None
        """Who keeps what people say of held calls; without one none passes."""
        self.tracer: Tracer | None = None
        """Decides which calls are traced; None: none is."""
        self.behaviour = Behaviour()
        self.refused_by = Tally("limit", "reason", fixed=1)
        self._bridge = bridge
        self.snapshot = snapshot
        self.levels = Levels()
        self.hub = Hub(self, random=random, chance=chance)
        self.metering = Metering(self.clock, self.now)
        self._rates: Rates | None = None
        self.gate: Gate | None = None
        self.cache: Cache | None = None
        """Answers that are kept; None where none are."""
        self.runs: Runs | None = None
        """What is watched over several calls; None: nothing."""
        self.identifying: set[Identifying] = set()
        self.apply(snapshot, identity, engine)

    def apply(self, snapshot: Snapshot, identity: Identity | None = None, engine: Engine | None = None) -> None:
        """Take over a new snapshot, who may call by it, and who decides beside its grants; running calls keep what
        they have.

        Raises:
            ValueError: The snapshot has an identity or a policy, and none came with it: that would let everybody in.
        """
        if (snapshot.identity is None) != (identity is None) or (snapshot.policy is None) != (engine is None):
            raise ValueError("a snapshot and another one's identity or policy")
        self.records.flush()  # what has ended, by the rules by which it did
        self.cache = cache_of(self.cache, self.snapshot, snapshot)
        self.snapshot = snapshot
        self._log_calls = snapshot.log_calls
        self.max_calls = snapshot.limits.max_calls
        self.calls.most_waiting = snapshot.limits.max_waiting
        self.sessions.stateful = self.fleet.by_session
        self.call_s = max((one.call_timeout_s for one in snapshot.servers.values()), default=60.0)
        self._hosts = HostCheck(snapshot)
        self.leniency = Leniency()
        self._paths: dict[bytes, EndpointSpec] = {}
        for name, endpoint in snapshot.endpoints.items():
            for path in (f"/mcp/{name}", *(["/mcp"] if name == "default" else [])):
                self._paths[path.encode()] = self._paths[path.encode() + b"/"] = endpoint
        self.gate = None
        scoped: Mapping[str, Scopes] = {}
        if identity is not None:
            from narthex.flow.accept.gate import Gate  # signatures and their library: only where they are needed

            self.gate = Gate(identity, snapshot, self._hosts, self._paths)
            scoped = self.gate.scoped
        site = Site(snapshot.environment, snapshot.data)
        grants = Grants(snapshot.grants, site) if snapshot.grants else None
        shadows = shadows_of(snapshot)
        told = engine is not None or snapshot.audit_inputs != "none" or shadows
        self._watch(snapshot, site, grants, told=told)
        engine, advisor = (None, engine) if snapshot.policy_shadow else (engine, None)
        admissions = Admissions(grants, scoped, self.now, engine, site, self.runs, advisor, shadows=shadows)
        self._trial = Again(Grants(snapshot.trial, site), scoped, site=site) if snapshot.trial else None
        decides = grants is not None or scoped or engine is not None or self.runs is not None
        self.admissions = admissions if decides else None
        """Who may what; None where whoever is let in may everything."""
        looked_at = snapshot.audit_inputs != "none" or shadows or holds_spent(snapshot)
        self._admissions = self.admissions or (admissions if looked_at else None)
        self.limited = self.metering.apply(snapshot)
        self.payloads = Rules(snapshot.audit_payloads, site) if keeps_payloads(snapshot) else None
        """What is kept of what calls say; None: nothing."""
        self.durability = durability_of(snapshot)
        """Which calls wait for their records; None: none."""
        self._rates = rates_of(snapshot.limits, self._rates)
        self._idempotent = {
            name: compile_globs(one.idempotent) for name, one in snapshot.servers.items() if one.idempotent
        }
        self.hub.apply()

    def _watch(self, snapshot: Snapshot, site: Site, grants: Grants | None, *, told: bool) -> None:
        """Take over rules on runs. What runs have done is kept while there are any."""
        tallies = told or (grants is not None and grants.reads_run)
        if snapshot.runs is None:
            self.runs = None
        elif self.runs is None:
            self.runs = Runs(RunRules(snapshot.runs, site), self.clock, tallies=tallies, told=told)
        else:
            self.runs.apply(RunRules(snapshot.runs, site), tallies=tallies, told=told)

    # --- HTTP

    def handle(self, connection: Connection, request: HttpRequest) -> None:
        """Answer one request on its connection, now or later. Never raises."""
        headers, path = request.headers, request.path
        try:
            endpoint = self._paths.get(path)
            if endpoint is None or headers.get(b"host") not in self._hosts.passed or b"origin" in headers:
                if path == b"/healthz":  # asked by probes, which know no name of ours
                    connection.respond(200, b"text/plain", (b"ok\n",), 3)
                    return
                path = self._hosts.check(connection.peer[0], request)
                endpoint = self._paths.get(path)
            gate, principal = self.gate, LOCAL  # who calls: all that follows takes it from here
            if endpoint is None:
                if gate is None or not gate.answer_document(connection, request, path):
                    self._bridge.handle(connection, request, path)
                return
            if self._rates is not None:
                self._rates.count_address(self._hosts.client(connection.peer[0], request), self.clock())
            if gate is not None:
                header, known, shown = headers.get(b"authorization"), None, connection.shown
                if header is not None and not request.query:
                    if shown is not None:
                        known = shown.principal(header, endpoint.name, gate.mark, gate.now())
                    known = known or gate.known(connection, header, endpoint.name)
                if known is None:
                    self._identify(gate, connection, request, endpoint, path)
                    return
                principal = known
        except Exception as error:
            self.failed(connection, error, "modern")
        else:
            self.serve(connection, request, endpoint, principal)

    def serve(self, connection: Connection, request: HttpRequest, endpoint: EndpointSpec, principal: Principal) -> None:
        """Answer a request whose principal is known. Never raises."""
        began_at = self.clock()
        try:
            if self._rates is not None:
                self.count(principal)
            if request.method == b"POST":
                post(self, connection, request, endpoint, principal, began_at)
            else:
                self._get_or_delete(connection, request, endpoint, principal)
        except Exception as error:
            turned = None
            if request.method == b"POST":
                source, size = self.source(connection, request), len(request.body)
                turned = Turned(principal, endpoint.name, source, size, began_at)
            self.failed(connection, error, "modern", turned)

    def _identify(
        self, gate: Gate, connection: Connection, request: HttpRequest, endpoint: EndpointSpec, path: bytes
    ) -> None:
        """Find out who calls: at once, or after asking an issuer."""
        try:
            found = gate.identify(connection, request, endpoint)
        except GatewayError as error:
            self.turn_away(connection, request, endpoint, path, error)
            return
        if isinstance(found, Principal):
            self.let_in(connection, request, endpoint, found)
        else:
            gate.wait(self, connection, request, endpoint, path, found)

    def let_in(
        self, connection: Connection, request: HttpRequest, endpoint: EndpointSpec, principal: Principal
    ) -> None:
        """Serve somebody whose credential was not known before."""
        if self.sign_ins is not None:
            self.sign_ins.succeeded(principal, endpoint.name, self.source(connection, request))
        self.serve(connection, request, endpoint, principal)

    def turn_away(
        self, connection: Connection, request: HttpRequest, endpoint: EndpointSpec, path: bytes, error: Exception
    ) -> None:
        """Refuse a request because of its credential, or the lack of one, with what to come back with."""
        gate = self.gate
        if gate is None or not isinstance(error, Unauthorized):
            self.failed(connection, error, "modern")
            return
        _log.debug("not let in: %s %s", error.public, error.detail)
        if self.sign_ins is not None and b"authorization" in request.headers:
            self.sign_ins.refused(error, endpoint.name, self.source(connection, request))
        if not error.scopes:
            error.scopes = endpoint.base_scopes
        self.refuse(connection, None, error, "modern", gate.metadata_url(connection, request, path))

    def failed(self, connection: Replying, error: Exception, era: Era, turned: Turned | None = None) -> None:
        """Refuse a request of which no more is known than that it went wrong, and by whom it was."""
        if not isinstance(error, GatewayError):
            _log.error("a request failed in the gateway", exc_info=error)
            error = GatewayError()
        self.refuse(connection, None, error, era, turned=turned)

    def _get_or_delete(
        self, connection: Connection, request: HttpRequest, endpoint: EndpointSpec, principal: Principal
    ) -> None:
        if request.method == b"DELETE":
            self._delete(connection, request, endpoint, principal)
        elif request.method == b"GET":
            _, takes_events = takes(request.headers.get(b"accept"))
            open_standalone(self, connection, request, endpoint, principal, takes_events=takes_events)
        else:
            raise HttpRefusal(405, "method_not_allowed", "POST here", headers=(("Allow", "GET, POST, DELETE"),))

    def _delete(
        self, connection: Connection, request: HttpRequest, endpoint: EndpointSpec, principal: Principal
    ) -> None:
        era_of(request.headers.get(b"mcp-protocol-version"), Request("2.0"), b"")  # 2025-11-25: an unknown one is 400
        handle = request.headers.get(b"mcp-session-id")
        if handle is None:
            raise HttpRefusal(405, "method_not_allowed", "there is no session to end", headers=(("Allow", "POST"),))
        session = self.sessions.end(handle, principal, endpoint.name)
        self.calls.end_session(session)
        self.hub.end_session(session.id)
        connection.respond_empty(204)

    def count(self, principal: Principal) -> None:
        """One more request of this principal. Raises RateLimited."""
        if self._rates is not None:
            self._rates.count_principal(principal, self.clock())

    def source(self, connection: Replying, request: HttpRequest) -> str:
        """The address that a request comes from, for its record: the client's, where a trusted proxy says so."""
        peer = connection.peer[0]
        return self._hosts.client(peer, request) or peer

    def check(self, call: Call, connection: Replying, request: HttpRequest) -> Check | None:
        """What a call is checked by; None where whoever was let in may everything, and nobody wants to know of what."""
        if self._admissions is None:
            return None
        address = self._hosts.client(connection.peer[0], request)
        check = self._admissions.check(call.principal, call.endpoint, address, call.meta)
        if check.is_judged and b"traceparent" in request.headers and b"traceparent" not in request.repeated:
            state = b"" if b"tracestate" in request.repeated else request.headers.get(b"tracestate", b"")
            check.trace = (request.headers[b"traceparent"], state)
        return check

    def shown(self, endpoint: str, principal: Principal, index: Index) -> int | None:
        """Which items of a list this principal may see, as bits; None for all."""
        admission = self.admission(principal, endpoint)
        return admission.shown(index) if admission is not None else None

    def admission(self, principal: Principal, endpoint: str) -> Admission | None:
        """What a principal may at an endpoint; None: everything."""
        return self.admissions.of(principal, endpoint) if self.admissions is not None else None

    # --- for exchanges

    def is_idempotent(self, spec: ServerSpec, name: str) -> bool:
        """Does the operator call this tool safe to send twice?"""
        matches = self._idempotent.get(spec.name)
        return matches is not None and matches(name)

    def account(
        self, one: Exchange, outcome: int, size: int, error: GatewayError | None = None, decision_id: str = ""
    ) -> None:
        """Count a call that was answered; log and record it where that is asked for, an error with its id."""
        call, trace, now = one.call, one.trace, self.clock()
        seconds = now - one.began_at
        outside = (one.heard_at or now) - one.sent_at if one.sent_at else -1.0
        server, name = (one.server_name, one.target_name) if one.target_name else seen_of(one)
        counter = self.accounts.counters[
            call.endpoint, server, call.method, name if call.method in NAMED_METHODS else "", call.era
        ]
        counter.add(outcome, seconds, one.size_in, size, outside)
        trace_id = trace_of(one)[0] if trace is not None or PARENT in call.meta else ""
        if call.method == "tools/call":
            cost = one.metered.cost if one.metered is not None else None
            self.behaviour.note(call, server, name or UNKNOWN, outcome, seconds, now, trace_id, cost)
        if isinstance(error, RateLimited):
            self.refused_by.add(1, error.limit, error.reason)
        if self.tracer is not None and trace is not None and trace.sampled:
            counter.shared.call.mark(Exemplar(seconds, trace.trace_id, trace.span_id, self.now()))
            self.tracer.add(ended_of(one, trace, name, self.snapshot.revision, outcome, size, now, error, decision_id))
        if self._log_calls and self.logs is not None and (one.check is None or one.check.logged):
            self.logs.call_line(
                endpoint=call.endpoint, server=one.server_name, method=call.method, name=one.target_name or call.name,
                outcome=outcome, seconds=seconds, bytes_out=size, detail=error.detail if error is not None else "",
                decision_id=decision_id, trace_id=trace_id,
            )  # fmt: skip
        if self.record is not None:
            self.records.put(Ended(one, self.snapshot, self._trial, outcome, seconds, size), error, decision_id)

    def span(
        self, one: Traced, outcome: int, size: int, error: GatewayError | None = None, decision_id: str = ""
    ) -> None:
        """The span of a sampled request that had no exchange; it has ended."""
        call, trace, now = one.call, one.trace, self.clock()
        if self.tracer is None or trace.over:
            return
        if error is None:
            times = self.accounts.counters[call.endpoint, "", call.method, "", call.era].shared.call
            times.mark(Exemplar(now - one.began_at, trace.trace_id, trace.span_id, self.now()))
        self.tracer.add(ended_of_traced(one, self.snapshot.revision, outcome, size, now, error, decision_id))

    @staticmethod
    def decode_id(raw: bytes) -> Id:
        """The client's id as a value."""
        return msgspec.json.decode(raw, type=int | str)

    # --- refusals

    def refuse(
        self,
        connection: Replying,
        id_: Id | None,
        error: GatewayError,
        era: Era,
        metadata_url: str = "",
        turned: Turned | None = None,
        traced: Traced | None = None,
    ) -> None:
        """Answer with an error, by its HTTP status, and record it where it is known who asked.

        `metadata_url` is for the challenge of one that has one.
        """
        decision_id = self.new_id()
        body = encode_error(id_, for_era(error, era), decision_id)
        status = status_of(error, era)
        connection.respond(status, JSON, (body,), len(body), error_lines(error, status, metadata_url))
        if isinstance(error, RateLimited):
            self.refused_by.add(1, error.limit, error.reason)
        self.accounts.counter("", "", "refused", "", era).add(outcome_of(error), 0.0, 0, len(body))
        if turned is not None and self.record is not None:
            seconds = self.clock() - turned.began_at
            self.record(entry_of_turned(turned, self.snapshot.revision, error, decision_id, len(body), seconds))
        if traced is not None:
            self.span(traced, outcome_of(error), len(body), error, decision_id)
        if error.code == -32603:
            _log.error("refused: %s %s", error.public, error.detail)
        elif isinstance(error, (CodecError, HttpRefusal)):
            _log.debug("refused: %s %s", error.public, error.detail)

    # --- upkeep

    def sweep(self) -> None:
        """Once a second: end what is past its deadline, keep silent streams alive."""
        now = self.tick = self.clock()
        self.calls.sweep(now, self.snapshot.limits.sse_comment_s)
        self.hub.sweep(now)
        self.levels.sweep()
        self.sessions.sweep()
        if self._rates is not None:
            self._rates.sweep(now)
        if self.runs is not None:
            self.runs.sweep()
        if self.cache is not None:
            self.cache.shelves.sweep(now)

    @property
    def is_crowded(self) -> bool:
        """Are as many calls under way as may be?"""
        return len(self.calls.active) >= self.max_calls

    def sweep_limits(self) -> float:
        """A step of the limits' upkeep. Returns seconds until the next."""
        return self.metering.sweep()
