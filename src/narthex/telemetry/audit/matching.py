"""What is looked for in records, and whether a record is that: the one place where both are said.

In: a `Wanted`, records as they stand in lines. Out: yes or no. A record may come from anywhere and have any shape.
Pure. Cases: `tests/telemetry/audit/test_reading.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from narthex.flow.route.names import SEPARATOR, canonical
from narthex.flow.route.patterns import compile_globs

Record = dict[str, Any]
OWN = frozenset({"open", "segment", "close"})
"""Events that are the journal's own, and no record of anything."""
MARKS = ("id", "decision_id", "approval", "session", "run", "trace", "call", "upstream_status")
"""What says which one, call or group of calls, and not of which kind; and a status of HTTP that is rare: no 200."""
_HEX = re.compile("[0-9A-Fa-f]{64}")
_ANSWERED = frozenset({"ok", "tool_error", "rpc_error"})
"""Outcomes of calls that their server has answered."""


class Wanted(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is looked for; an empty member asks nothing. `since` and `until` are times as records have them
    (`reading.moment` makes them), or the beginning of one, the second left out; `tools` patterns of `<server>__<name>`,
    `text` a part of that name or of an address, in any case; `id` the record's or its decision's; `rule` one of
    policy, `run` and `trace` what ties calls together; `call` the id of the call that a recount is of;
    `upstream_status` with which status of HTTP its server has answered, where that was no 200; `definition` the digest
    of what was called, as its server had listed it: as records have it, or its 64 hexadecimal digits."""

    since: str = ""
    until: str = ""
    principal: str = ""
    client: str = ""
    tenant: str = ""
    endpoint: str = ""
    server: str = ""
    tools: tuple[str, ...] = ()
    text: str = ""
    method: str = ""
    decision: str = ""
    outcome: str = ""
    event: str = ""
    rule: str = ""
    id: str = ""
    approval: str = ""
    session: str = ""
    run: str = ""
    trace: str = ""
    call: str = ""
    upstream_status: str = ""
    definition: str = ""

    def __post_init__(self) -> None:
        if _HEX.fullmatch(self.definition):
            msgspec.structs.force_setattr(self, "definition", f"sha256:{self.definition.lower()}")


COLUMNS: tuple[tuple[str, str], ...] = (
    ("event", "event"), ("tenant", "tenant"), ("principal", "subject"), ("client", "client"), ("endpoint", "endpoint"),
    ("server", "server"), ("method", "method"), ("decision", "decision"), ("outcome", "outcome"), ("rule", "rule"),
    ("definition", "definition"),
)  # fmt: skip
"""Members of `Wanted` that a record must have as they are, and what `facts_of` calls them."""


class Matcher:
    """`matcher(record)`: is it what is looked for?"""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._exact = [(name, value) for key, name in COLUMNS if (value := getattr(wanted, key))]
        self._marks = [(name, value) for name in MARKS[2:] if (value := getattr(wanted, name))]
        self._tools = compile_globs(wanted.tools) if wanted.tools else None
        self._text = wanted.text.casefold()

    def __call__(self, record: Record) -> bool:
        wanted, time = self._wanted, str(record.get("time", ""))
        if (wanted.since and time < wanted.since) or (wanted.until and time >= wanted.until):
            return False
        if str(record.get("event")) in OWN:
            return False
        if self._exact:
            facts = facts_of(record)
            if any(facts[name] != value for name, value in self._exact):
                return False
        if wanted.id and wanted.id not in (record.get("id"), record.get("decision_id")):
            return False
        if self._marks and not set(self._marks) <= set(marks_of(record)):
            return False
        if self._tools is None and not self._text:
            return True
        what = what_of(record)
        return (self._tools is None or self._tools(what)) and self._text in what.casefold()


def facts_of(record: Record) -> dict[str, str]:
    """What a record says of each column but its target; empty where it says nothing."""
    who, said = record.get("principal"), record.get("policy")
    who, said = who if isinstance(who, dict) else {}, said if isinstance(said, dict) else {}
    event, rule = record.get("event"), said.get("rule") or record.get("rule")
    return {
        "event": _text(event), "tenant": _text(record.get("tenant")), "subject": _text(who.get("subject")),
        "client": _text(who.get("client")), "endpoint": _text(record.get("endpoint")),
        "server": _text(record.get("server")), "method": _text(record.get("method")),
        "decision": _text(record.get("decision")), "outcome": _text(record.get("outcome")), "rule": _text(rule),
        "config": _text(record.get("config")), "definition": _text(record.get("definition_digest")),
    }  # fmt: skip


def marks_of(record: Record) -> Iterator[tuple[str, str]]:
    """What a record says of `MARKS`."""
    for name in MARKS:
        if (value := record.get(name)) and isinstance(value, str):
            yield name, value
    upstream = record.get("upstream")
    if isinstance(upstream, dict) and isinstance(status := upstream.get("status"), int) and status != 200:
        yield "upstream_status", str(status)


def what_of(record: Record) -> str:
    """The canonical name of what was called, which rules match; of an admin action its path; empty where there is none.

    `policy.resource` is that. Without it `name` is the server's own where the server has answered, and in a step of an
    approval; else it is as the client called it, which mostly has the server in front already.
    """
    said, event = record.get("policy"), record.get("event")
    if event != "admin" and isinstance(said, dict) and said.get("resource"):
        return str(said["resource"])
    server, name = (str(record.get(key) or "") for key in ("server", "name"))
    is_own = event == "approval" or str(record.get("outcome")) in _ANSWERED
    if not server or not name or (not is_own and name.startswith(server + SEPARATOR)):
        return name
    return canonical(server, name)


def doer_of(record: Record) -> str:
    """Who did what is no call: at the terminal, approving, changing the configuration. Empty where nobody is named."""
    hold = record.get("hold")
    return _text(record.get("by") or (hold.get("by") if isinstance(hold, dict) else ""))


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
