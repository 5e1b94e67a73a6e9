"""A POST: what its body says, in which era, of which session; then what the gateway answers itself, a list, a task, or
an `Exchange`.

In: a request whose endpoint and principal are known. Out: it is answered, or under way. Cheapest checks first.
Cases: `tests/flow/accept/test_front.py`, `tests/e2e/test_requests.py`.
Source: MCP 2026-07-28 and 2025-11-25, Streamable HTTP transport; design §5 and §6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from narthex.errors import CodecError, GatewayError, HeaderMismatch, HttpRefusal, Overloaded, Unauthorized
from narthex.flow.accept.batches import Batch
from narthex.flow.accept.exchange import Exchange
from narthex.flow.accept.forms import JSON
from narthex.flow.accept.greeting import Discovering, Initializing
from narthex.flow.accept.listing import Listing
from narthex.flow.accept.metering import COUNTED, Metered
from narthex.flow.accept.recording import Traced, Turned
from narthex.flow.accept.replying import Replying
from narthex.flow.accept.retrying import Retrying
from narthex.flow.accept.tasking import Tasking, TaskListing
from narthex.flow.accept.unanswered import take_unanswered
from narthex.flow.accept.unfinished import remember, retried
from narthex.flow.codec.batch import REVISION, is_batch, split_batch
from narthex.flow.codec.bridge import client_bits
from narthex.flow.codec.handles import HeldCall, RequestState, owner_of
from narthex.flow.codec.inbound import read_params
from narthex.flow.codec.inputs import origin_of, read_answers, read_state
from narthex.flow.codec.jsonrpc import UNSET, RawMap, Request, decode_request, encode, encode_result
from narthex.flow.codec.revisions import ERA_OF_HEADER, META_LOG_LEVEL, era_of
from narthex.flow.codec.tasks import ABOUT_A_TASK
from narthex.flow.notify.settings import SETTINGS, Setting
from narthex.flow.notify.streams import Listen
from narthex.flow.policy.check import Check
from narthex.flow.upstream.fleet import Viewer
from narthex.flow.walk import LISTS, SERVED
from narthex.flow.whole import Headers, HttpRequest
from narthex.telemetry.accounts import OUTCOME
from narthex.telemetry.traces import Trace
from narthex.types import Call, EndpointSpec, Era, Principal, Session

if TYPE_CHECKING:
    from narthex.flow.accept.front import Front

_OK: Final = OUTCOME["ok"]
_TAKES: Final[dict[bytes | None, tuple[bool, bool]]] = {None: (True, True)}


def post(
    front: Front,
    connection: Replying,
    request: HttpRequest,
    endpoint: EndpointSpec,
    principal: Principal,
    began_at: float,
) -> None:
    """Answer it, or begin to.

    Args:
        began_at: When it was taken up, in seconds of the clock.
    Raises:
        HttpRefusal, CodecError: It says nothing that an answer could name.
    """
    takes_events = _check_form(request.headers)
    try:
        message = decode_request(request.body)
    except CodecError:
        if not is_batch(request.body):
            raise
        _batch(front, connection, request, endpoint, principal)
    else:
        _take(front, connection, request, endpoint, principal, message, takes_events, began_at)


def _check_form(headers: Headers) -> bool:
    """Does whoever sends this take an event stream? Raises HttpRefusal: it is no JSON, or they take none."""
    kind = headers.get(b"content-type", b"")
    if kind != JSON and kind.partition(b";")[0].strip().lower() != JSON:
        raise HttpRefusal(415, "unsupported_media_type", "the body must be application/json")
    if b"content-encoding" in headers:
        raise HttpRefusal(415, "unsupported_encoding", "the body must not be compressed")
    takes_json, takes_events = takes(headers.get(b"accept"))
    if not takes_json:
        raise HttpRefusal(406, "not_acceptable", "accept application/json and text/event-stream")
    return takes_events


def _take(
    front: Front,
    connection: Replying,
    request: HttpRequest,
    endpoint: EndpointSpec,
    principal: Principal,
    message: Request,
    takes_events: bool,
    began_at: float,
) -> None:
    """Take one message to whoever answers it; what it is refused with bears its id."""
    headers, method, params = request.headers, message.method, message.params
    id_ = None if message.id is UNSET else message.id
    era: Era = "modern"
    version = name = ""
    session: Session | None = None
    check: Check | None = None
    traced: Traced | None = None
    try:
        said = ERA_OF_HEADER.get(headers.get(b"mcp-protocol-version"))
        version, era = (
            said
            if said is not None and method != "initialize"
            else era_of(headers.get(b"mcp-protocol-version"), message, request.body)
        )
        if era == "legacy" and b"mcp-session-id" in headers and method != "initialize":
            session = front.sessions.find(headers[b"mcp-session-id"], principal, endpoint.name)
            version = session.version
        if id_ is None or not method:
            take_unanswered(front, message, session, era, endpoint, principal)
            connection.respond_empty(202)
            return
        try:
            meta, name = read_params(message, version, era, headers, request.repeated)
        except HeaderMismatch as mismatch:
            meta, name = front.leniency.read(message, version, request, endpoint, mismatch)
        id_json = b"%d" % id_ if id_.__class__ is int else encode(id_)
        call = Call(method, params, meta, id_json, era, version, principal, endpoint.name, name, session)
        trace = front.tracer.begin(meta, headers) if front.tracer is not None else None
        if trace is not None and trace.sampled:
            traced = Traced(trace, call, front.source(connection, request), len(request.body), began_at)
        if method in SERVED or method in ABOUT_A_TASK:
            check = front.check(call, connection, request)
            _begin(front, connection, request, endpoint, call, check, takes_events, trace, began_at)
        elif method == "subscriptions/listen" and not takes_events:
            raise HttpRefusal(406, "not_acceptable", "accept text/event-stream")
        else:
            _answer(front, connection, call, endpoint, traced, began_at)
    except GatewayError as error:
        url, gate = "", front.gate
        if isinstance(error, Unauthorized) and gate is not None:
            url = gate.metadata_url(connection, request, request.path)
        turned = None
        if front.record is not None:
            source, size = front.source(connection, request), len(request.body)
            id_json = encode(id_) if id_ is not None else b""
            in_session = session.id if session is not None else ""
            turned = Turned(
                principal, endpoint.name, source, size, began_at, method, name, id_json, version, in_session, check
            )
        front.refuse(connection, id_, error, era, url, turned, traced)


def _begin(
    front: Front,
    connection: Replying,
    request: HttpRequest,
    endpoint: EndpointSpec,
    call: Call,
    check: Check | None,
    takes_events: bool,
    trace: Trace | None,
    began_at: float,
) -> None:
    """Begin a call of a server; what it ends with, its exchange says. Raises what it is refused with before."""
    method, session, size = call.method, call.session, len(request.body)
    state: RequestState | None = None
    answers: RawMap = {}
    if call.era == "modern" and "requestState" in call.params and method in SERVED:
        answers = read_answers(call.params)  # first: a call that is held is not lost by answers that cannot be read
        call, state = _retried(front, call)
        if isinstance(state, HeldCall):
            retry = Retrying(front, connection, call, state, takes_events, answers, size, trace, began_at)
            retry.start(request, check)
            return
    if front.is_crowded:
        raise Overloaded("the gateway has too many calls")
    viewer = _viewer(front, call, endpoint)
    if (session is not None and session.id in front.hub.live.by_id) or META_LOG_LEVEL in call.meta:
        call = call.but(log_level=front.hub.level(call))
    if trace is not None and trace.context is not None:
        call = call.but(context=trace.context)
    as_task = method not in SERVED or ("task" in call.params and method == "tools/call")
    make: type[Exchange] = Tasking if as_task else Exchange
    one = make(front, connection, call, viewer, size, takes_events, began_at, began_at + front.call_s)
    if state is not None:
        one.only_server = state.server
        remember(one, state, answers)
    one.trace = trace
    if front.record is not None or trace is not None:
        one.source = front.source(connection, request)
    if check is not None:
        one.check = check
        if front.gate is not None and (check.admission.scopes is not None or check.is_judged):
            one.metadata_url = front.gate.metadata_url(connection, request, request.path)
    if front.limited and method in COUNTED:
        one.metered = Metered(front.metering, size)
    connection.exchange = one
    front.calls.active.add(one)
    if session is not None:
        front.calls.cancellable[session.id, call.id_json] = one
    one.start(request)


def _retried(front: Front, call: Call) -> tuple[Call, RequestState]:
    """A modern client's retry of a call that asked for input: the call as it goes on, and what its state says.

    Raises:
        SealError: Its state is none of ours, another's, expired, or of another request.
    """
    owner = owner_of(call.principal, call.endpoint)
    state = front.handles.open_state(read_state(call.params), owner, origin_of(call))
    return (call if isinstance(state, HeldCall) else retried(call, state)), state


def _viewer(front: Front, call: Call, endpoint: EndpointSpec) -> Viewer:
    bits = client_bits(call) if endpoint.name in front.fleet.by_session else 0
    return front.fleet.viewer(endpoint, call.principal, call.session, bits)


def _answer(
    front: Front, connection: Replying, call: Call, endpoint: EndpointSpec, traced: Traced | None, now: float
) -> None:
    """Answer here what goes to no server, or to all of them."""
    method = call.method
    if method in LISTS:
        Listing(front, connection, call, _viewer(front, call, endpoint), now, traced).start()
    elif method == "initialize":
        viewer = front.fleet.viewer(endpoint, call.principal, None)
        Initializing(front, connection, call, viewer, now, traced).start()
    elif method == "server/discover":
        Discovering(front, connection, call, _viewer(front, call, endpoint), now, traced).start()
    elif method == "subscriptions/listen":
        Listen(front, connection, call, traced)
    elif method == "tasks/list":
        TaskListing(front, connection, call, _viewer(front, call, endpoint), now, traced).start()
    elif method in SETTINGS:
        Setting(front, connection, call, _viewer(front, call, endpoint), now, traced).start()
    else:
        body = encode_result(front.decode_id(call.id_json), {})
        connection.respond(200, JSON, (body,), len(body))
        front.accounts.counter(endpoint.name, "", method, "", call.era).add(_OK, 0.0, 0, len(body))
        if traced is not None:
            front.span(traced, _OK, len(body))


def _batch(
    front: Front, connection: Replying, request: HttpRequest, endpoint: EndpointSpec, principal: Principal
) -> None:
    """Several messages in one body: each takes the way of a request of its own, with the headers of this one."""
    headers = request.headers
    version, era = era_of(headers.get(b"mcp-protocol-version"), Request("2.0"), b"")
    if era == "legacy" and b"mcp-session-id" in headers:
        version = front.sessions.find(headers[b"mcp-session-id"], principal, endpoint.name).version
    if version != REVISION:
        raise CodecError("batches are not part of this revision")
    headers = {**headers, b"accept": JSON}
    messages = split_batch(request.body)
    first = messages[0]  # it was counted as the request

    def take(slot: Replying, message: bytes) -> None:
        began_at = front.clock()
        one = HttpRequest(b"POST", request.path, b"", headers, request.repeated, message)
        try:
            if message is not first:
                front.count(principal)
            post(front, slot, one, endpoint, principal, began_at)
        except Exception as error:
            source = front.source(connection, request)
            front.failed(slot, error, "legacy", Turned(principal, endpoint.name, source, len(message), began_at))

    connection.exchange = batch = Batch(connection, messages, take, front.new_id)
    batch.start()


def takes(accept: bytes | None) -> tuple[bool, bool]:
    """Whether a client accepts JSON, and event streams. Parameters and order are nobody's business here."""
    known = _TAKES.get(accept)
    if known is not None or accept is None:
        return known or (True, True)
    kinds = {part.partition(b";")[0].strip().lower() for part in accept.split(b",")}
    anything = b"*/*" in kinds
    known = (
        anything or bool(kinds & {b"application/json", b"application/*"}),
        anything or bool(kinds & {b"text/event-stream", b"text/*"}),
    )
    if len(_TAKES) < 256:
        _TAKES[accept] = known
    return known
