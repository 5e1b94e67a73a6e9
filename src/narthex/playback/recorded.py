"""Recorded calls as a dry replay can give them again: what was called, what it is found by, what it was answered.

In: records of a run, what was kept of them, the names that the endpoints show; all from files that may be anybody's.
Out: `Recorded`, in the order in which the calls were made. A call that was refused has the refusal as its answer; one
of which the answer is not there says why. Cases: `tests/playback/test_recorded.py`; fuzz target `playback`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from narthex.errors import ApprovalRequired
from narthex.flow.codec.jsonrpc import BAD_JSON, decode_map, encode
from narthex.flow.codec.tasks import is_task
from narthex.flow.route.names import SEPARATOR
from narthex.flow.walk import KIND_OF
from narthex.playback.arguments import NONE, canonical, digest, keys_of
from narthex.telemetry.audit.execution import calls_of
from narthex.telemetry.payloads.reading import Payload
from narthex.types import Kind

Record = dict[str, Any]
Shows = Callable[[str, str, str], str]
"""Endpoint, server, and the server's own name of a tool or prompt -> what the endpoint shows."""
PLAYED: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Methods whose recorded answers can be given again."""
NOT_FOUND: Final = "not_found"
REDACTED: Final = "redacted "
"""In front of the digest of redacted arguments: it is no digest of what a client sends."""
GONE: Final = {
    "erased": "was erased", "missing": "is not in the files of payloads",
    "sealed": "is sealed, and its key is not here", "changed": "is not what was recorded", "none": "was not kept",
}  # fmt: skip


class Recorded(msgspec.Struct):
    """One recorded call. `server` and `name` as its server knows it, empty where nobody can tell; `shown` as the client
    called it, where the record says so; `version` of the protocol that it was called in.

    `keys` are what its arguments are found by, `loose` is the same of arguments from which something was taken out;
    `arguments` what was kept of them. `answer` is the value of `result`, or of `error` where `is_error`; `why`, in a
    few words, why there is none. `asked` counts how often an agent has made this call.
    """

    id: str
    at: str
    endpoint: str
    method: str
    kind: Kind
    version: str
    server: str
    name: str
    shown: str = ""
    keys: frozenset[str] = frozenset()
    loose: str = ""
    arguments: bytes = b""
    answer: bytes = b""
    is_error: bool = False
    why: str = ""
    listed: bool = True
    asked: int = 0

    @property
    def what(self) -> str:
        """What was called, for people."""
        return f"{self.server}{SEPARATOR}{self.name}" if self.server else self.shown


def recorded_in(records: Iterable[Record], kept: Callable[[Record], list[Payload]], shows: Shows) -> list[Recorded]:
    """The calls among these records that can be given again.

    Args:
        kept: What was kept of a record.
    Raises:
        OSError: What was kept cannot be read.
    """
    found = [_recorded(one, kept) for one in calls_of(records) if _text(one, "method") in PLAYED]
    known: dict[tuple[str, Kind, str], tuple[str, str]] = {}
    for one in found:
        if one.server:
            known.setdefault((one.endpoint, one.kind, _shown(one, shows)), (one.server, one.name))
    for one in found:
        if not one.server:  # it was refused before anybody knew where to
            one.server, one.name = known.get((one.endpoint, one.kind, one.shown), ("", ""))
    return found


def _shown(one: Recorded, shows: Shows) -> str:
    return one.name if one.kind == "resources" else shows(one.endpoint, one.server, one.name)


def _recorded(record: Record, kept: Callable[[Record], list[Payload]]) -> Recorded:
    method = _text(record, "method")
    parts = {one.part: one for one in kept(record)}
    server, name = _place(record)
    answer, is_error, why = _answer(record, parts)
    is_hidden = _text(record, "outcome") == NOT_FOUND
    keys, loose, arguments = _arguments(_text(record, "arguments_digest"), parts.get("arguments"))
    return Recorded(
        _text(record, "id"), _text(record, "time"), _text(record, "endpoint"), method, KIND_OF[method],
        _text(record, "version"), server, name,
        _text(record, "name") if is_hidden or not server else "", keys, loose, arguments, answer, is_error, why,
        listed=not is_hidden,
    )  # fmt: skip


def _place(record: Record) -> tuple[str, str]:
    """Server and its own name of what the client called; empty where the record has only the client's name for it.

    Of a call that another tool has answered, it is the one that was called.
    """
    said = record.get("policy")
    whole = _text(record, "instead_of") or (_text(said, "resource") if isinstance(said, dict) else "")
    if whole:
        server, _, name = whole.partition(SEPARATOR)
        return (server, name) if name else ("", "")
    server, name = _text(record, "server"), _text(record, "name")
    was_sent = _text(record, "outcome") in ("ok", "tool_error", "rpc_error") or bool(record.get("server_seconds"))
    if server and was_sent:
        return server, name
    before, _, rest = name.partition(SEPARATOR)
    return (before, rest) if server and before == server and rest else ("", "")


def _arguments(said: str, kept: Payload | None) -> tuple[frozenset[str], str, bytes]:
    """What they are found by: all of it, and with what was taken out; and the arguments as far as they were kept."""
    keys = frozenset((said,)) if said else keys_of(NONE)
    if kept is None or not kept.body:
        return keys, "", b""
    if kept.note.redacted:
        same = canonical(kept.body)
        return keys, REDACTED + digest(same) if same is not None else "", kept.body
    return keys | keys_of(kept.body), "", kept.body


def _answer(record: Record, parts: dict[str, Payload]) -> tuple[bytes, bool, str]:
    """The value of `result` or `error`, which of both it is, and why there is none."""
    if record.get("event") == "begin":
        return b"", False, "its end is not recorded"
    code = record.get("code")
    if isinstance(code, int) and code:
        error = parts.get("error")
        if error is not None and error.body:
            return error.body, True, ""
        return _refusal(record, code), True, ""
    if _text(record, "outcome") == "cancelled":
        return b"", False, "it was given up"
    result = parts.get("result")
    if result is None or not result.body:
        return b"", False, f"its result {GONE.get(result.state if result is not None else 'none', GONE['none'])}"
    return (b"", False, why) if (why := _no_answer(result.body)) else (result.body, False, "")


def _refusal(record: Record, code: int) -> bytes:
    """An error as the gateway gave it; of a server's own, whose text was not kept, its code."""
    reason, decision_id = _text(record, "reason"), _text(record, "decision_id")
    waits = _text(record, "approval").rpartition(" ")[2] if reason == ApprovalRequired.reason else ""
    said = {"reason": reason, "decisionId": decision_id, "approvalId": waits}
    message = f"as recorded: {reason}" if reason else "as recorded: the server's error, whose text was not kept"
    return encode({"code": code, "message": message, "data": {name: text for name, text in said.items() if text}})


def _no_answer(body: bytes) -> str:
    """Why a result is none that can be given again."""
    try:
        members = decode_map(body)
    except BAD_JSON:
        return "its result is no object"
    of_legacy = "task" in members and "content" not in members
    return "it went on as a task" if of_legacy or is_task(members.get("resultType", msgspec.Raw(b'""'))) else ""


def _text(one: Record, name: str) -> str:
    value = one.get(name)
    return value if isinstance(value, str) else ""
