"""The messages of subscriptions, in both eras and on both sides: listening, what comes of it, and its end.

In: a client's `subscriptions/listen`, and what an upstream sends on one, or pushes in the legacy era. Out: a `Wanted`,
notifications as structs, bodies to send; or the error to answer with. Of what an upstream sends, anything malformed,
unknown or meant for another subscription is nothing. Cases: `tests/flow/codec/test_subscriptions.py`.
Source: MCP 2026-07-28, basic/patterns/subscriptions and `SubscriptionFilter` of its schema; the tasks extension
(SEP-2663), "Task Status Notifications"; MCP 2025-11-25, server/resources ("Subscriptions") and basic/utilities/tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from narthex.errors import InvalidParams, MissingCapability
from narthex.flow.codec.handshake import CLIENT_INFO
from narthex.flow.codec.jsonrpc import BAD_JSON, Incoming, Raw, RawMap, decode_map, encode, read_string
from narthex.flow.codec.revisions import META_CAPABILITIES, META_CLIENT, META_SERVER, META_VERSION

ListKind = Literal["tools", "prompts", "resources"]
"""`resources` stands for the templates too: they have no notification of their own."""
LIST_KINDS: tuple[ListKind, ...] = ("tools", "prompts", "resources")
META_SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
TASKS = "io.modelcontextprotocol/tasks"
TASKS_CAPABILITY: dict[str, Any] = {"extensions": {TASKS: {}}}
MOST_NAMED = 1024
"""Resources, and tasks, of one request or acknowledgement."""
LONGEST = 4096
"""Characters of a URI or a task's id."""


class Wanted(msgspec.Struct, frozen=True):
    """What one listens for: lists, resources by URI, tasks by id. Two that are equal ask for the same."""

    kinds: frozenset[ListKind] = frozenset()
    uris: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()


class ListChanged(msgspec.Struct, frozen=True):
    """A list may be asked for again."""

    kind: ListKind


class Updated(msgspec.Struct, frozen=True):
    """A resource may be read again. From an upstream it may be a part of the one subscribed to."""

    uri: str


class TaskChanged(msgspec.Struct, frozen=True):
    """A task's whole state; `params` are the notification's as they came."""

    id: str
    params: bytes


class Logged(msgspec.Struct, frozen=True):
    """A log message of a server that belongs to no call; `params` as they came. For legacy clients alone."""

    params: bytes


class Elicited(msgspec.Struct, frozen=True):
    """What a legacy client was to do at a URL is done: which elicitation, and `params` as they came."""

    id: str
    params: bytes


class Progressed(msgspec.Struct, frozen=True):
    """How far a legacy task is: the token that its client has given, as JSON, and `params` with it."""

    token: bytes
    params: bytes


class Acknowledged(msgspec.Struct, frozen=True):
    """The upstream listens, for this much of what was asked."""

    wanted: Wanted


class Ended(msgspec.Struct, frozen=True):
    """The upstream has ended the subscription: with a JSON-RPC error, or in good order (None)."""

    error: bytes | None = None


Notification = ListChanged | Updated | TaskChanged | Logged | Elicited | Progressed


class _Filter(msgspec.Struct, omit_defaults=True):
    """`SubscriptionFilter`. What is none of its members belongs to an extension that is not ours: never agreed to."""

    tools: bool = msgspec.field(name="toolsListChanged", default=False)
    prompts: bool = msgspec.field(name="promptsListChanged", default=False)
    resources: bool = msgspec.field(name="resourcesListChanged", default=False)
    uris: list[str] = msgspec.field(name="resourceSubscriptions", default_factory=list)
    tasks: list[str] = msgspec.field(name="taskIds", default_factory=list)


class _Capabilities(msgspec.Struct):
    extensions: RawMap = {}


class _Stamped(msgspec.Struct):
    meta: RawMap = msgspec.field(name="_meta", default_factory=dict)


class _AcknowledgedParams(msgspec.Struct):
    agreed: _Filter = msgspec.field(name="notifications")


class _UpdatedParams(msgspec.Struct):
    uri: str


class _TaskParams(msgspec.Struct):
    id: str = msgspec.field(name="taskId")


class _ElicitedParams(msgspec.Struct):
    id: str = msgspec.field(name="elicitationId")


class _ProgressParams(msgspec.Struct):
    token: int = msgspec.field(name="progressToken")


class _CancelledParams(msgspec.Struct):
    id: int | str = msgspec.field(name="requestId")


_decode_filter = msgspec.json.Decoder(_Filter).decode
_decode_capabilities = msgspec.json.Decoder(_Capabilities).decode
_decode_stamped = msgspec.json.Decoder(_Stamped).decode
_decode_acknowledged = msgspec.json.Decoder(_AcknowledgedParams).decode
_decode_updated = msgspec.json.Decoder(_UpdatedParams).decode
_decode_task = msgspec.json.Decoder(_TaskParams).decode
_decode_elicited = msgspec.json.Decoder(_ElicitedParams).decode
_decode_progress = msgspec.json.Decoder(_ProgressParams).decode
_decode_cancelled = msgspec.json.Decoder(_CancelledParams).decode
_LIST_CHANGED: dict[ListKind, str] = {kind: f"notifications/{kind}/list_changed" for kind in LIST_KINDS}
_KIND_OF = {method: kind for kind, method in _LIST_CHANGED.items()}


# --- a client's side


def read_listen(params: RawMap, meta: RawMap) -> Wanted:
    """What a client's `subscriptions/listen` asks for; what it left out or set to false is not wanted.

    Raises:
        InvalidParams: `notifications` is missing or has another form, or names too much.
        MissingCapability: It names tasks, and its `meta` does not declare the extension (SEP-2663).
    """
    try:
        asked = _decode_filter(params["notifications"])
    except KeyError:
        raise InvalidParams("params.notifications is missing") from None
    except BAD_JSON as error:
        raise InvalidParams("params.notifications has another form", detail=str(error)) from None
    if problem := _problem(asked):
        raise InvalidParams(f"params.notifications {problem}")
    if asked.tasks and not _declares_tasks(meta):
        raise MissingCapability("missing required client capability", data={"requiredCapabilities": TASKS_CAPABILITY})
    return _wanted(asked)


def read_resource(params: RawMap) -> str:
    """The URI of a legacy `resources/subscribe` or `resources/unsubscribe`. Raises InvalidParams."""
    uri = read_string(params, "uri")
    if not 0 < len(uri) <= LONGEST:
        raise InvalidParams(f"params.uri must have 1 to {LONGEST} characters")
    return uri


def acknowledged(subscription: bytes, agreed: Wanted) -> bytes:
    """The first message of a stream: what it will carry. `subscription` is the listen request's id, as JSON."""
    return _notification(
        "notifications/subscriptions/acknowledged", {"notifications": _filter(agreed)}, {}, subscription
    )


def encode_notification(what: Notification, subscription: bytes | None) -> bytes:
    """A notification as its client gets it, with the names that this client knows.

    Args:
        subscription: The client's listen request's id, as JSON; None for a legacy client, whose stream needs none.
    """
    if isinstance(what, ListChanged):
        return _notification(_LIST_CHANGED[what.kind], {}, {}, subscription)
    if isinstance(what, Updated):
        return _notification("notifications/resources/updated", {"uri": what.uri}, {}, subscription)
    if isinstance(what, Logged):
        return b'{"jsonrpc":"2.0","method":"notifications/message","params":%b}' % what.params
    if isinstance(what, Elicited):
        return b'{"jsonrpc":"2.0","method":"notifications/elicitation/complete","params":%b}' % what.params
    if isinstance(what, Progressed):
        return b'{"jsonrpc":"2.0","method":"notifications/progress","params":%b}' % what.params
    method = "notifications/tasks/status" if subscription is None else "notifications/tasks"
    meta = _decode_stamped(what.params).meta
    meta.pop(META_SUBSCRIPTION, None)  # it names our own request
    members: dict[str, Any] = {**decode_map(what.params), "taskId": what.id}
    members.pop("_meta", None)
    return _notification(method, members, meta, subscription)


def ended(subscription: bytes, server_info: Mapping[str, str]) -> bytes:
    """The response to `subscriptions/listen`: the subscription has ended in good order."""
    meta = {META_SUBSCRIPTION: Raw(subscription), META_SERVER: server_info}
    return encode({"jsonrpc": "2.0", "id": Raw(subscription), "result": {"resultType": "complete", "_meta": meta}})


# --- an upstream's side


def listen_body(id: int, wanted: Wanted, version: str, meta: Mapping[str, Any] = MappingProxyType({})) -> bytes:
    """Our `subscriptions/listen` to a modern upstream. The tasks extension is declared where tasks are named."""
    said = {
        META_VERSION: version,
        META_CAPABILITIES: TASKS_CAPABILITY if wanted.tasks else {},
        META_CLIENT: CLIENT_INFO,
        **meta,
    }
    params = {"_meta": said, "notifications": _filter(wanted)}
    return encode({"jsonrpc": "2.0", "id": id, "method": "subscriptions/listen", "params": params})


def subscribe_body(id: int, uri: str, method: Literal["resources/subscribe", "resources/unsubscribe"]) -> bytes:
    """Our request to a legacy upstream, which is asked for each resource by itself."""
    return encode({"jsonrpc": "2.0", "id": id, "method": method, "params": {"uri": uri}})


def read_event(message: Incoming, listen_id: int | None = None) -> Notification | Acknowledged | Ended | None:
    """What a message of an upstream says; None for nothing of a subscription, or nothing that can be read.

    Args:
        listen_id: Our listen request's, where several subscriptions share one channel (stdio): of what is stamped with
            another, or with none, nothing is taken. None where the stream itself says whose it is (modern HTTP), and
            for a legacy upstream, which stamps nothing.
    """
    try:
        return _read_event(message, listen_id)
    except BAD_JSON:
        return None


def _read_event(message: Incoming, listen_id: int | None) -> Notification | Acknowledged | Ended | None:
    method, params = message.method, message.params
    if not method:
        return Ended(bytes(message.error) or None) if listen_id is None or message.id == listen_id else None
    if method == "notifications/cancelled":
        cancelled = _decode_cancelled(params).id
        return Ended() if listen_id is None or cancelled == listen_id else None
    if listen_id is not None and _decode_stamped(params).meta.get(META_SUBSCRIPTION) != Raw(b"%d" % listen_id):
        return None
    if kind := _KIND_OF.get(method):
        return ListChanged(kind)
    if method == "notifications/resources/updated":
        uri = _decode_updated(params).uri
        return Updated(uri) if 0 < len(uri) <= LONGEST else None
    if method in ("notifications/tasks", "notifications/tasks/status"):
        id_ = _decode_task(params).id
        _decode_stamped(params)  # what is sent on is read again: never a surprise there
        return TaskChanged(id_, bytes(params)) if 0 < len(id_) <= LONGEST else None
    if method == "notifications/subscriptions/acknowledged":
        agreed = _decode_acknowledged(params).agreed
        return None if _problem(agreed) else Acknowledged(_wanted(agreed))
    return None


def read_elicited(message: Incoming) -> Elicited | None:
    """A legacy server's `notifications/elicitation/complete`; None for one that cannot be read."""
    try:
        id_ = _decode_elicited(message.params).id
    except BAD_JSON:
        return None
    return Elicited(id_, bytes(message.params)) if 0 < len(id_) <= LONGEST else None


def read_progress(message: Incoming) -> int | None:
    """The token of ours that a server's progress names; None where it names none."""
    try:
        return _decode_progress(message.params).token
    except BAD_JSON:
        return None


# --- both


def _problem(said: _Filter) -> str:
    """Why a filter of the right form is not borne; empty where it is."""
    for names in (said.uris, said.tasks):
        if len(names) > MOST_NAMED:
            return f"names more than {MOST_NAMED} resources or tasks"
        if not all(0 < len(name) <= LONGEST for name in names):
            return f"has a name that is empty or longer than {LONGEST} characters"
    return ""


def _wanted(said: _Filter) -> Wanted:
    kinds = frozenset(kind for kind in LIST_KINDS if getattr(said, kind))
    return Wanted(kinds, frozenset(said.uris), frozenset(said.tasks))


def _filter(wanted: Wanted) -> _Filter:
    """Sorted, so that the same wish is the same bytes."""
    tools, prompts, resources = (kind in wanted.kinds for kind in LIST_KINDS)
    return _Filter(tools, prompts, resources, sorted(wanted.uris), sorted(wanted.tasks))


def _declares_tasks(meta: RawMap) -> bool:
    try:
        return TASKS in _decode_capabilities(meta[META_CAPABILITIES]).extensions
    except (*BAD_JSON, KeyError):
        return False


def _notification(method: str, members: dict[str, Any], meta: RawMap, subscription: bytes | None) -> bytes:
    if subscription is not None:
        meta = {**meta, META_SUBSCRIPTION: Raw(subscription)}
    params = {"_meta": meta, **members} if meta else members
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params:
        body["params"] = params
    return encode(body)
