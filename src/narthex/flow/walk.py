"""The way of a call through the rooms and back, as plain generators: no I/O, no clock.

A walk yields what it needs (`Find`, `Question`, `Begin`, `Open`, `Send`) and is sent the answer. The driver in
`accept/exchange.py` answers from memory at once (`accept/needs.py`), or parks it and resumes it later; a test feeds it
from a table.
A time-out or a failure is thrown in at the yield; a call that is given up is closed.
Cases: `tests/flow/test_walk.py`.
"""

from __future__ import annotations

from collections.abc import Container, Generator
from typing import Any, Final

import msgspec

from narthex.errors import InvalidParams, MethodNotFound, NotVisible, RateLimited, UpstreamUnavailable
from narthex.flow.cache.recall import Recalls, recalled
from narthex.flow.cache.requests import RECALLED
from narthex.flow.codec.bridge import outgoing_body
from narthex.flow.codec.completion import completed
from narthex.flow.codec.crowds import refuse_crowd
from narthex.flow.codec.handles import Task
from narthex.flow.codec.headers import NAMED_BY
from narthex.flow.codec.inputs import Ask, InputRequired, with_round
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap, encode, read_string
from narthex.flow.codec.offers import has_skills, reads_directories
from narthex.flow.codec.param_headers import Said, check_param_headers, forwarded_lines, param_lines
from narthex.flow.codec.tasks import may_run_as_task, unknown, without_task
from narthex.flow.limit.reserve import Reserve, taken
from narthex.flow.limit.reserving import Reserving
from narthex.flow.otherwise import NOTHING_SAID, FindNamed, otherwise
from narthex.flow.policy.admission import refusal
from narthex.flow.policy.approvals.holding import Hold
from narthex.flow.policy.check import Check
from narthex.flow.policy.deciding import Look, Question, decided
from narthex.flow.route.index import Target
from narthex.flow.upstream.port import Channel, Outgoing
from narthex.types import Call, Kind

MOST_ROUNDS: Final = 32
"""Questions that a server may put to a legacy client, one after the other, for one call."""
LOST: Final = "lost"
"""`Send`'s answer when the server had forgotten our session: nothing was done, a new one may be opened."""


class Find:
    """Needs the target that a shown name leads to. Answer: `Target`, or None where there is none.

    `check`: what is not visible to the caller takes the way of what is missing, and as long.
    """

    __slots__ = ("check", "kind", "name")

    def __init__(self, kind: Kind, name: str, check: Check | None = None) -> None:
        self.kind: Final = kind
        self.name: Final = name
        self.check: Final = check


class Open:
    """Needs a channel to a server that can take a request. Answer: `Channel`."""

    __slots__ = ("server",)

    def __init__(self, server: str) -> None:
        self.server: Final = server


class Send:
    """Needs `out` sent and its answer relayed to the client. Answer: None when it was, `LOST`, or `InputRequired`."""

    __slots__ = ("channel", "out", "target")

    def __init__(self, channel: Channel, out: Outgoing, target: Target) -> None:
        self.channel: Final = channel
        self.out: Final = out
        self.target: Final = target


class Begin:
    """Needs the record on the disk that a call begins. Answer: None. Nothing has been sent to a server before."""

    __slots__ = ("target",)

    def __init__(self, target: Target) -> None:
        self.target: Final = target


Need = Begin | Find | FindNamed | Open | Send | Ask | Question | Hold | Reserve
Walk = Generator[Need, Any, None]

KIND_OF: Final[dict[str, Kind]] = {
    "tools/call": "tools",
    "prompts/get": "prompts",
    "resources/read": "resources",
    "skills/get": "skills",
    "resources/directory/read": "skills",
}
LISTS: Final[dict[str, Kind]] = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "templates",
    "skills/list": "skills",
}


SERVED: Final = frozenset({*KIND_OF, "completion/complete"})
"""What goes to a server, call by call."""
_NAMED_BY: Final = {**NAMED_BY, "tasks/result": "taskId", "skills/get": "uri", "resources/directory/read": "uri"}
"""The parameter that a server gets its own name in."""
_OF_SKILLS: Final = frozenset({"skills/get", "resources/directory/read"})
_WHAT: Final = {
    "tools/call": "tool",
    "prompts/get": "prompt",
    "skills/get": "skill",
    "resources/directory/read": "directory",
}


def exchange(
    call: Call,
    found: Target | None,
    channel: Channel | None = None,
    said: Said | None = None,
    check: Check | None = None,
    *,
    limited: Reserving | None = None,
    durable: bool = False,
    recalls: Recalls | None = None,
) -> Walk:
    """Take one call to its server and its answer back.

    Args:
        found: Where its name leads by what is in memory; None asks.
        channel: An open one to that server; None asks.
        said: The client's headers, where arguments of the call may go into headers; None: they do not.
        check: Whether the caller may; None: whoever was let in may.
        limited: What counts for it in limits; None: it counts in none. What is refused before counts nowhere; however
            often a server asks, or loses its session, it is one call.
        durable: Whether it is recorded before anything is sent.
        recalls: Who asks the cache for calls that it has a plan for; None: nobody.
    Raises:
        NotVisible: No such tool, prompt or resource here, for this caller.
        Denied, InsufficientScope: The caller sees it, and may not make this call of it.
        InvalidParams: The name is missing, or no string.
        HeaderMismatch: A header that repeats an argument does not; nothing was sent.
        UpstreamUnavailable, UpstreamTimeout, …: thrown in by the driver.
    """
    if call.method == "completion/complete":
        target, params = yield from _locate_reference(call, check)
    else:
        key = _NAMED_BY[call.method]
        if found is None:
            found = yield Find(KIND_OF[call.method], call.name, check)
        if found is None:
            raise not_visible(call, call.name)
        params = call.params
        if check is not None:
            params = check.admit(KIND_OF[call.method], found, params)
            if check.pending:
                params = yield from decided(check, call, KIND_OF[call.method], found, params)
        target, params = found, {**params, key: Raw(found.name_json)}
    if said is not None and call.era == "modern":
        check_param_headers(target.params, said.headers, said.repeated, call.params.get("arguments"))
    spent: RateLimited | None = None
    try:
        if target.caching is not None and recalls is not None and call.method in RECALLED:
            plain = said is None or call.era == "legacy" or not forwarded_lines(target.params, said)
            going = yield from recalled(recalls.recalling(), call, target, params, limited, plain=plain)
            if going is None:
                return
            params = going
        elif limited is not None:
            params = taken((yield Reserve(limited, call, target, params)))
    except RateLimited as error:
        if limited is None or not (error.holds or error.use):
            raise
        spent = error
    if spent is not None and limited is not None:
        other, params = yield from otherwise(spent, call, KIND_OF[call.method], target, params, check, limited)
        if other is not target:
            target, channel, said = other, None, NOTHING_SAID
        if target.caching is not None and recalls is not None:
            recalls.recalling().goes(target, params)
    if durable:
        yield Begin(target)
    rounds: Rounds | None = None
    while True:
        if channel is None:
            channel = yield Open(target.server)
            assert channel is not None
        ending = yield Send(channel, _outgoing(call, target, params, channel, said, rounds), target)
        if ending is None:
            return
        rounds = rounds or Rounds(target.server)
        ask = rounds.turn(ending)
        if ask is not None:
            rounds.answers = yield ask
        if ask is None or not channel.alive:
            channel = None


class Rounds:
    """How often a server has had the call without answering it, and what it has asked meanwhile."""

    __slots__ = ("answers", "asked", "count", "lost", "server")

    def __init__(self, server: str) -> None:
        self.server: Final = server
        self.asked: InputRequired | None = None
        self.answers: RawMap = {}
        self.count = 0
        self.lost = False

    def turn(self, ending: Any) -> Ask | None:
        """What comes before the call is sent once more: a question, or None where the server has lost our session.

        Raises:
            UpstreamUnavailable: It has asked too often, or lost its session twice.
        """
        if ending is LOST:
            if self.lost:
                raise UpstreamUnavailable(f"server {self.server} lost its session twice")
            self.lost = True
            return None
        self.count += 1
        if self.count > MOST_ROUNDS:
            raise UpstreamUnavailable(f"server {self.server} asks again and again", sent=True)
        self.asked = ending
        return Ask(ending)


def _outgoing(
    call: Call, target: Target, params: RawMap, channel: Channel, said: Said | None, rounds: Rounds | None
) -> Outgoing:
    """The request as the server of `channel` gets it. Raises MethodNotFound: it must not be asked this."""
    if call.method in _OF_SKILLS:
        _check_skills(call, channel)
    id_, dialect, told = channel.next_id(), channel.dialect, params
    if dialect.era != call.era:
        asks = rounds if dialect.era == "modern" else None
        told = with_round(params) if asks is None else with_round(params, asks.asked, asks.answers)
    body = outgoing_body(call, told, id_, dialect)
    lines = _lines(call, target, params, channel, said) if said is not None else b""
    if call.context is not None:
        lines += call.context.lines
    name = target.name if call.method in NAMED_BY else None
    return Outgoing(id_, call.method, body, name, False, lines)


def _check_skills(call: Call, channel: Channel) -> None:
    """A server that does not declare what is asked must not be asked (SEP-2640, "Capability Declaration")."""
    directory = call.method == "resources/directory/read"
    if not (reads_directories if directory else has_skills)(channel.dialect):
        raise MethodNotFound(f"the server of this URI does not know {call.method}")


def about_task(call: Call, task: Task, check: Check | None = None, *, durable: bool = False) -> Walk:
    """Take a request about a task to the server that made it.

    Raises:
        NotVisible: The server speaks another era now: it knows no such task any more. Or the caller does not see the
            tool any more that it was a call of.
        UpstreamUnavailable, UpstreamTimeout, …: thrown in by the driver.
    """
    if check is not None and not (yield from _sees_call(check, task)):
        raise unknown()
    if check is not None:
        check.told(task.server, task.tool, tells=call.method == "tasks/update")
    channel = yield Open(task.server)
    if channel.dialect.era != task.era:
        raise unknown()
    yield from exchange(call, Target(task.server, task.id, encode(task.id)), channel, durable=durable)


def _sees_call(check: Check, task: Task) -> Generator[Need, Any, bool]:
    """May the caller see the tool that a task is a call of?"""
    if check.is_judged and task.tool:
        yield Look(check, "tools", task.server, task.tool)
    return check.sees_call_of(task.server, task.tool)


def again(call: Call, target: Target, check: Check, *, approved: bool = True) -> Walk:
    """May whoever retries a call that is held make it, now and with this token? Raises NotVisible, and as `decided`.

    Args:
        approved: Has a person approved it? Else it is refused where a person has to by now: it is under way, and what
            they would be asked about has been sent.
    """
    kind = KIND_OF[call.method]
    if check.is_judged:
        yield Look(check, kind, target.server, target.name)
    if not check.sees(kind, target):
        raise not_visible(call, call.name)
    params = check.admit(kind, target, call.params)
    if check.pending:
        yield from decided(check, call, kind, target, params, passed=True)
        if not approved and check.decision is not None and check.decision.effect == "hold":
            raise refusal(check.decision)


def as_task(
    call: Call,
    found: Target | None,
    said: Said | None,
    alone: Container[str],
    check: Check | None = None,
    *,
    offered: bool,
    limited: Reserving | None = None,
    durable: bool = False,
    recalls: Recalls | None = None,
) -> Walk:
    """Take a call that is to run as a task (`params.task`) to its server.

    Args:
        alone: Servers whose session serves this client alone: only there a legacy task is its own.
        offered: Was this client told that tools run as tasks here?
    Raises:
        MethodNotFound: It was, and this tool does not (2025-11-25, tasks, "Tool-Level Negotiation": SHOULD). To others
            `task` means nothing ("Task Support and Handling": MUST process normally).
        NotVisible, UpstreamUnavailable, …: as `exchange`.
    """
    if found is None:
        found = yield Find("tools", call.name, check)
    if found is None:
        raise not_visible(call, call.name)
    if check is not None:
        params = check.admit("tools", found, call.params)
        if check.pending:
            params = yield from decided(check, call, "tools", found, params)
        call = call.but(params=params)
    channel = yield Open(found.server)
    if not may_run_as_task(call, channel.dialect, alone=found.server in alone):
        if offered:
            raise MethodNotFound("this tool does not run as a task")
        if call.era == "legacy" or channel.dialect.era == "legacy":
            call = call.but(params=without_task(call.params))
    yield from exchange(call, found, channel, said, limited=limited, durable=durable, recalls=recalls)


def _lines(call: Call, target: Target, params: RawMap, channel: Channel, said: Said) -> bytes:
    """The headers that repeat arguments, as the server gets them; none for one that knows no such headers."""
    if not target.mirrored or channel.dialect.era != "modern":
        return b""
    lines = param_lines(target.params, params.get("arguments"))
    return lines + forwarded_lines(target.params, said) if call.era == "modern" else lines


def _locate_reference(call: Call, check: Check | None) -> Generator[Need, Any, tuple[Target, RawMap]]:
    """Completion names a prompt, or a resource template by its text, in `ref`. Who may use it may complete it."""
    refuse_crowd(call.params.get("ref", b""))
    try:
        ref = msgspec.json.decode(call.params["ref"], type=dict[str, Raw])
    except (*BAD_JSON, KeyError):
        raise InvalidParams("params.ref must be an object") from None
    type_ = read_string(ref, "type")
    if type_ not in ("ref/prompt", "ref/resource"):
        raise InvalidParams("params.ref.type must be ref/prompt or ref/resource")
    key: str = "name" if type_ == "ref/prompt" else "uri"
    name = read_string(ref, key)
    kind: Kind = "prompts" if key == "name" else "templates"
    target: Target | None = yield Find(kind, name, check)
    if target is None and kind == "templates":
        kind = "resources"
        target = yield Find(kind, name, check)
    if target is None:
        raise not_visible(call, name)
    params = call.params
    if check is not None:
        asked, told = completed(params)
        looked = check.admit(kind, target, asked, counts=False)
        if check.pending:
            looked = yield from decided(check, call, kind, target, looked)
        if looked is not asked:  # a condition has looked at them
            params = {**params, **told}
    ref[key] = Raw(target.name_json)
    return target, {**params, "ref": Raw(encode(ref))}


def not_visible(call: Call, name: str) -> NotVisible:
    """The one answer for missing and hidden. A legacy client knows a missing resource as -32002 (2025-11-25)."""
    if call.method == "resources/read":
        error = NotVisible("resource not found", data={"uri": name[:1024]})
        if call.era == "legacy":
            error.code = -32002
        return error
    what = _WHAT.get(call.method, "reference")
    return NotVisible(f"unknown {what}: {name[:128]}")
