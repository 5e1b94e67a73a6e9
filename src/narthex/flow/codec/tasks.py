"""Tasks of both eras: whose a request about a task is, and an answer with ids that only its owner can use.

A server that goes on with a call later answers with a task; its id goes to the client in our seal (`handles.Task`), so
that a request about it finds the server that made it. In: a client's call, a server's result or notification. Out: the
task that is meant, the same message with the ids that this client knows, or the error to answer with. Tasks do not
cross eras: how they are made, asked about and ended differs in all of it.

| client | server | a call that would be a task |
| --- | --- | --- |
| modern | modern | is one where both declare the extension: the server decides |
| modern | legacy | is none; a tool that wants one answers -32601 (2025-11-25, tasks, "Tool-Level Negotiation") |
| legacy | modern | is none: the extension is not declared, a tool that wants one answers -32021 (here: -32600) |
| legacy | legacy | is one with `params.task`, on a server whose sessions are one client's alone |

Cases: `tests/flow/codec/test_tasks.py`, one row a rule. Source: the tasks extension of 2026-07-28 (SEP-2663); MCP
2025-11-25, basic/utilities/tasks (experimental).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from narthex.errors import MethodNotFound, MissingCapability, NotVisible, UpstreamUnavailable
from narthex.flow.codec.capabilities import TASKS_EXTENSION, ClientCaps, bits_of
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap, decode_map, encode
from narthex.flow.codec.revisions import LATEST_LEGACY, META_CAPABILITIES
from narthex.flow.upstream.port import Dialect
from narthex.types import Call

ABOUT_A_TASK = frozenset({"tasks/get", "tasks/update", "tasks/result", "tasks/cancel"})
"""Requests that name one task, of either era. `tasks/list` of 2025-11-25 names none."""
RELATED = "io.modelcontextprotocol/related-task"
MOST_LISTED = 1000
"""Tasks on one page of a server."""
_EXTENSION: dict[str, Any] = {"extensions": {TASKS_EXTENSION: {}}}
_decode_string = msgspec.json.Decoder(str).decode

Rename = Callable[[str], str]
"""A server's id of a task -> the one that the client knows."""


# --- what a client asks


def check_speaks(call: Call) -> None:
    """May this client ask about tasks?

    Raises:
        MissingCapability: A modern one that does not declare the extension ("Error Handling": servers MUST).
        MethodNotFound: A legacy one of a revision without tasks.
    """
    if call.era == "legacy":
        if call.version != LATEST_LEGACY:
            raise MethodNotFound(f"method not found: {call.method}")
    elif not bits_of(call.meta[META_CAPABILITIES]) & ClientCaps.TASKS_EXTENSION:
        raise MissingCapability("missing required client capability", data={"requiredCapabilities": _EXTENSION})


def unknown() -> NotVisible:
    """The one answer about a task that is not there, or another's (both eras, "Protocol Errors": -32602)."""
    return NotVisible("task not found")


def may_run_as_task(call: Call, dialect: Dialect, *, alone: bool) -> bool:
    """Does `params.task` make a task of this call?

    Args:
        alone: The server's session serves this client alone.
    """
    return call.era == "legacy" and call.version == LATEST_LEGACY and alone and runs_tasks(dialect)


def runs_tasks(dialect: Dialect) -> bool:
    """Does a legacy server run tools as tasks (2025-11-25, tasks, "Server Capabilities")?"""
    return dialect.era == "legacy" and _declares(dialect, "requests", "tools", "call")


def lists_tasks(dialect: Dialect) -> bool:
    return dialect.era == "legacy" and _declares(dialect, "list")


def _declares(dialect: Dialect, *path: str) -> bool:
    value: Any = dialect.capabilities.get("tasks")
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return isinstance(value, dict)


def without_task(params: RawMap) -> RawMap:
    """The parameters of a call that is to run plainly: whoever gets `task` and did not declare it ignores it."""
    return {key: value for key, value in params.items() if key != "task"}


# --- what a server answers


def is_task(kind: Raw) -> bool:
    """Is this the `resultType` of a task?"""
    try:
        return _decode_string(kind) == "task"
    except BAD_JSON:
        return False


def created(call: Call, members: RawMap, rename: Rename) -> bytes:
    """A modern server's `CreateTaskResult` for its client.

    Raises:
        UpstreamUnavailable: To a client that did not declare the extension, to another request than `tools/call`, or
            without an id ("Capability Negotiation": it MUST NOT, and the client takes it for an invalid response).
    """
    declared = call.era == "modern" and bits_of(call.meta[META_CAPABILITIES]) & ClientCaps.TASKS_EXTENSION
    if not declared or call.method != "tools/call":
        raise UpstreamUnavailable("the server answered with a task that nobody can ask about", sent=True)
    return encode(known_as(members, rename))


def shown(call: Call, result: bytes | Raw, rename: Rename) -> bytes | Raw:
    """A result of a request about a task, or of a legacy call that is to run as one: byte for byte, but for the ids.

    Raises:
        UpstreamUnavailable: It cannot be read, or a task in it has no id.
    """
    try:
        members = decode_map(result)
        if call.method == "tools/call":
            if "task" not in members:  # it ran plainly all the same
                return result
            members = {**members, "task": Raw(encode(known_as(decode_map(members["task"]), rename)))}
        elif call.method != "tasks/result" and "taskId" in members:
            members = known_as(members, rename)
        if "_meta" in members:
            members = _related(members, rename)
    except BAD_JSON as error:
        raise UpstreamUnavailable("the server's task cannot be read", detail=str(error), sent=True) from None
    return encode(members)


def is_answer(method: str, result: bytes | Raw) -> bool:
    """Is this what the tool itself says in the end, and no error? In a result of a request about a task, or of a legacy
    call that is to run as one."""
    try:
        members = decode_map(result)
        if method == "tasks/get":
            if _decode_string(members["status"]) != "completed":
                return False
            members = decode_map(members["result"])
    except (*BAD_JSON, KeyError):
        return False
    own = method in ("tasks/get", "tasks/result") or (method == "tools/call" and "task" not in members)
    return own and bytes(members.get("isError", b"")) != b"true"


def read_page(result: bytes | Raw) -> tuple[list[RawMap], str | None]:
    """A page of a legacy server's `tasks/list`: its tasks, each still to be `known_as`, and its cursor to the next.

    Raises:
        UpstreamUnavailable: It cannot be read, or is too long.
    """
    try:
        page = _decode_page(result)
    except BAD_JSON as error:
        raise UpstreamUnavailable("the server's tasks cannot be read", detail=str(error), sent=True) from None
    if len(page.tasks) > MOST_LISTED:
        raise UpstreamUnavailable("the server lists too many tasks at a time", sent=True)
    return page.tasks, page.cursor


class _Page(msgspec.Struct):
    tasks: list[RawMap]
    cursor: str | None = msgspec.field(name="nextCursor", default=None)


_decode_page = msgspec.json.Decoder(_Page).decode


def related(params: Raw, rename: Rename) -> Raw:
    """The parameters of a notification or a request on the stream of a task, with the id that its client knows."""
    try:
        members = decode_map(params)
        return Raw(encode(_related(members, rename))) if "_meta" in members else params
    except BAD_JSON:
        return params  # whoever takes it says what is wrong with it


def _related(members: RawMap, rename: Rename) -> RawMap:
    """`_meta` says which task a message belongs to ("Associating Task-Related Messages")."""
    meta = decode_map(members["_meta"])
    if RELATED not in meta:
        return members
    meta[RELATED] = Raw(encode(known_as(decode_map(meta[RELATED]), rename)))
    return {**members, "_meta": Raw(encode(meta))}


def known_as(task: RawMap, rename: Rename) -> RawMap:
    """A task, with the id that its client knows. Raises UpstreamUnavailable where it has none."""
    try:
        id_ = _decode_string(task["taskId"])
    except (*BAD_JSON, KeyError):
        raise UpstreamUnavailable("a task of the server has no id", sent=True) from None
    if not id_:
        raise UpstreamUnavailable("a task of the server has no id", sent=True)
    return {**task, "taskId": Raw(encode(rename(id_)))}


# --- places in a list of tasks


def place(server: str, cursor: str | None) -> bytes:
    """Where a list of tasks goes on: at this server, behind its own cursor. Bytes for a sealed cursor."""
    return encode((server, cursor))


def read_place(raw: bytes) -> tuple[str, str | None]:
    return _decode_place(raw)


_decode_place = msgspec.json.Decoder(tuple[str, str | None]).decode


def following(server: str, cursor: str | None, servers: Sequence[str]) -> bytes | None:
    """The place behind a page of `server`: its next page, else the first of the server behind it; None at the end."""
    if cursor is not None:
        return place(server, cursor)
    behind = list(servers)[servers.index(server) + 1 :]
    return place(behind[0], None) if behind else None
