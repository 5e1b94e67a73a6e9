"""What the record of a call has in common with others: those that are alike share a frame, and most calls are.

In: an exchange that went well and is being accounted for. Out: by what its frame is found; a `Short`, which is all that
is handed over then. Cases: `tests/flow/accept/test_likeness.py`, which holds each record against the one of its entry.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from narthex.flow.accept.recording import MODEL, PROMPT, kept_of, result_of, trace_of
from narthex.flow.limit.spending import Taken
from narthex.flow.policy.runs.runs import id_in
from narthex.flow.upstream.viewers import account_in
from narthex.telemetry.frames import DISK, Frames, Likeness, Short
from narthex.telemetry.record import LONGEST, Entry
from narthex.types import Snapshot

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange


def likeness_of(one: Exchange, snapshot: Snapshot, outcome: int, *, begins: bool = False) -> Likeness | None:
    """All that its record says but for `frames.OPEN`: of two that have the same, `entry_of` makes entries that differ
    in nothing else. None: it has a record of its own, as it has waited for something else than the disk, or something
    that it says is kept, or is counted in tokens.

    Args:
        begins: It is the record that the call begins.

    Objects that are compared as such stand in it by their `id`; `learn` keeps them.
    """
    one.stop_waiting()
    call, check, metered, channel, front = one.call, one.check, one.metered, one.channel, one.front
    begun = one.lasting.record if one.lasting is not None and not begins else None
    if one.approved is not None:
        return None
    if not begins and (not one.heard_at or (begun is not None) != (one.waits is not None)):
        return None
    if begun is not None and list(one.waits or ()) != [DISK]:
        return None
    if snapshot.audit_inputs != "none" or (front.payloads is not None and kept_of(one) is not None):
        return None
    decided: tuple[Any, ...] = ()
    if check is not None:
        if check.shadow is not None or check.watched:  # what a rule has said against its run: that is rare
            return None
        target = check.target
        place = (target.server, target.name, target.definition) if target is not None else None
        asked = check.watched is not None
        decided = (id(check.decision), id(check.granted), id(check.admission), asked, check.kind, place)
    taken: Taken | None = None
    cost: tuple[int, str] | None = None
    stood_in = ""
    if metered is not None:
        if metered.tokens is not None or metered.recounts or metered.instead is not None:
            return None
        taken, cost, stood_in = metered.taken, metered.cost, metered.stood_in
        if taken is not None and not taken.usual:
            return None
    cached = ""
    if one.caching is not None:
        if one.caching.age_s:
            return None
        cached = one.caching.word
    said: tuple[str, ...] = ()
    if call.meta:
        said = (id_in(call.meta, front.metering.run_id), id_in(call.meta, MODEL), id_in(call.meta, PROMPT))
    trace = trace_of(one)
    scope = one.viewer.scopes.get(one.server_name)
    return (
        begins,
        begun is not None,
        id(call.principal),
        one.source,
        call.session.id if call.session is not None else "",
        call.endpoint,
        one.server_name,
        call.method,
        one.target_name or call.name,
        call.version,
        outcome,
        one.code,
        account_in(scope) if scope is not None else "",
        snapshot.revision,
        decided,
        stood_in,
        cost,
        cached,
        said,
        one.definition,
        id(channel.dialect) if channel is not None and one.out is not None else 0,
        one.out.status if one.out is not None else 0,
        taken,
        "arguments" in call.params,
        one.sent_at > 0.0 and one.heard_at > one.sent_at,
        trace[0] != "",
        trace[1] != "",
        trace[2] != "",
    )


def put_short(
    one: Exchange, frames: Frames, likeness: Likeness, outcome: int, seconds: float, size: int
) -> bool:  # fmt: skip
    """Record a call in the frame of those that are like it. False: there is none yet, or its id, its answer or its time
    is none that a frame has room for.

    Args as `entry_of`.
    """
    frame, call = frames.find(likeness), one.call
    ended_at = one.began_at + seconds
    if frame is None or not 0 < len(call.id_json) <= LONGEST or ended_at <= one.heard_at:
        return False
    result_digest = result_of(one, outcome)[0]
    if not result_digest:
        return False
    one.answer = ()
    lasting, waits = one.lasting, one.waits
    frames.put(
        Short(
            frame,
            call.id_json,
            one.size_in,
            size,
            seconds,
            one.heard_at - one.sent_at if one.sent_at else 0.0,
            (one.sent_at or one.heard_at) - one.began_at - one.ahead_s,
            ended_at - one.heard_at,
            _digest_of_arguments(one),
            result_digest,
            trace_of(one),
            begun=lasting.record if lasting is not None else None,
            disk_seconds=waits[DISK] if waits else 0.0,
            done=lasting.done if lasting is not None else None,
        )
    )
    return True


def short_begin_of(one: Exchange, frames: Frames, likeness: Likeness, done: Callable[[str], None]) -> Short | None:
    """The record that a call begins, in the frame of those that are like it, for `frames.put`. None: as above."""
    frame, call = frames.find(likeness), one.call
    if frame is None or not 0 < len(call.id_json) <= LONGEST:
        return None
    return Short(
        frame, call.id_json, one.size_in, 0, 0.0, 0.0, 0.0, 0.0, _digest_of_arguments(one), "", trace_of(one),
        begins=True, done=done,
    )  # fmt: skip


def _digest_of_arguments(one: Exchange) -> str:
    arguments = one.call.params.get("arguments")
    return f"sha256:{sha256(arguments).hexdigest()}" if arguments is not None else ""


def learn(one: Exchange, frames: Frames, likeness: Likeness, entry: Entry, now: float) -> None:
    """A call that had no frame: the next but one that is like it has. `now`: seconds."""
    if entry.request and (entry.result_digest or entry.event == "begin") and (entry.begun is not None) == likeness[1]:
        check, channel = one.check, one.channel
        decided = (check.decision, check.granted, check.admission) if check is not None else ()
        of = (one.call.principal, decided, channel.dialect if channel is not None else None)
        frames.learn(likeness, of, entry, now)
