"""What a server says has changed, and what it agrees to tell.

In: notifications of either era. Out: a `Change`, the filter of `subscriptions/listen`, or what was agreed to. Pure.
Cases: `tests/flow/upstream/test_changes.py`, one row a rule.
Source: MCP 2026-07-28, subscriptions; 2025-11-25, resources, tools, prompts ("list changed"), tasks; the tasks
extension of 2026-07-28 (`taskIds`, `notifications/tasks`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON, Incoming, Raw
from narthex.flow.upstream.port import ListKind, Wanted

LISTEN = "subscriptions/listen"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
UPDATED = "notifications/resources/updated"
LIST_CHANGED: dict[str, ListKind] = {
    "notifications/tools/list_changed": "tools",
    "notifications/prompts/list_changed": "prompts",
    "notifications/resources/list_changed": "resources",
}
TASK_STATUS = frozenset({"notifications/tasks", "notifications/tasks/status"})
CHANGES = frozenset({*LIST_CHANGED, *TASK_STATUS, UPDATED, ACKNOWLEDGED})
TASKS = "io.modelcontextprotocol/tasks"
TASKS_CAPABILITY: dict[str, dict[str, Any]] = {"extensions": {TASKS: {}}}
META_SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
LONGEST = 8192
"""Characters of a URI or a task id; a longer one names nothing that anybody asked for."""
_FLAG: dict[ListKind, str] = {
    "tools": "toolsListChanged",
    "prompts": "promptsListChanged",
    "resources": "resourcesListChanged",
}


class Change(msgspec.Struct, frozen=True):
    """One change: of a list, a resource or a task; just one of the three. `params` are a task's, as received."""

    kind: ListKind | None = None
    uri: str | None = None
    task_id: str | None = None
    params: Raw = Raw()


class _Params(msgspec.Struct):
    uri: str = ""
    task_id: str = msgspec.field(name="taskId", default="")


class _Filter(msgspec.Struct):
    tools: bool = msgspec.field(name="toolsListChanged", default=False)
    prompts: bool = msgspec.field(name="promptsListChanged", default=False)
    resources: bool = msgspec.field(name="resourcesListChanged", default=False)
    uris: list[str] = msgspec.field(name="resourceSubscriptions", default_factory=list)
    task_ids: list[str] = msgspec.field(name="taskIds", default_factory=list)


class _Acknowledged(msgspec.Struct):
    notifications: _Filter


class _Meta(msgspec.Struct):
    subscription: int | str | None = msgspec.field(name=META_SUBSCRIPTION, default=None)


class _Stamped(msgspec.Struct):
    meta: _Meta = msgspec.field(name="_meta", default_factory=_Meta)


_decode_params = msgspec.json.Decoder(_Params).decode
_decode_acknowledged = msgspec.json.Decoder(_Acknowledged).decode
_decode_stamped = msgspec.json.Decoder(_Stamped).decode


def read_change(message: Incoming) -> Change | None:
    """What a notification says has changed; None when it says nothing of the kind, or nothing that can be read."""
    kind = LIST_CHANGED.get(message.method)
    if kind is not None:
        return Change(kind=kind)
    if message.method != UPDATED and message.method not in TASK_STATUS:
        return None
    try:
        params = _decode_params(message.params)
    except BAD_JSON:
        return None
    if message.method == UPDATED:
        return Change(uri=params.uri) if 0 < len(params.uri) <= LONGEST else None
    return Change(task_id=params.task_id, params=message.params) if 0 < len(params.task_id) <= LONGEST else None


def concerns(wanted: Wanted, change: Change) -> bool:
    """Did anybody ask for this? A resource may be reported by one below it (2026-07-28, `resources/updated`)."""
    if change.kind is not None:
        return change.kind in wanted.kinds
    if change.task_id is not None:
        return change.task_id in wanted.task_ids
    uri = change.uri or ""
    return uri in wanted.uris or any(uri.startswith(one) for one in wanted.uris)


def subscription_of(message: Incoming) -> int | None:
    """The request of ours on whose stream a notification came, where one pipe carries all streams (stdio)."""
    try:
        stamp = _decode_stamped(message.params).meta.subscription
    except BAD_JSON:
        return None
    return stamp if isinstance(stamp, int) else None


def listen_params(wanted: Wanted) -> dict[str, Any]:
    """The parameters of `subscriptions/listen`, but for `_meta`."""
    asked: dict[str, Any] = {flag: True for kind, flag in _FLAG.items() if kind in wanted.kinds}
    if wanted.uris:
        asked["resourceSubscriptions"] = sorted(wanted.uris)
    if wanted.task_ids:
        asked["taskIds"] = sorted(wanted.task_ids)
    return {"notifications": asked}


def read_acknowledged(params: Raw, wanted: Wanted) -> Wanted:
    """What of `wanted` the server agrees to. Raises one of `BAD_JSON` for an acknowledgement that cannot be read."""
    said = _decode_acknowledged(params).notifications
    flags = {"tools": said.tools, "prompts": said.prompts, "resources": said.resources}
    return Wanted(
        kinds=frozenset(kind for kind in wanted.kinds if flags[kind]),
        uris=wanted.uris.intersection(said.uris),
        task_ids=wanted.task_ids.intersection(said.task_ids),
    )
