"""What telemetry costs a call: tracing at 1 % and at 100 %, and the spans on their way out; what agents do.

In: a gateway that answers a call from bytes. Out: lines of `bench/steps.py`. At 100 % the call's spans are encoded and
packed too, by the process that serves: that is what tracing costs in all.
"""

from __future__ import annotations

import gzip
import random
import re
import time
from collections.abc import Callable
from typing import Any

from rooms import Rooms

from narthex.telemetry.accounts import OUTCOME
from narthex.telemetry.behaviour import Behaviour
from narthex.telemetry.otlp.spans import attributes_of_server, encode_traces
from narthex.telemetry.traces import Ended, Tracer

Least = Callable[[list[Callable[[], Any]], int], list[float]]
BATCH = 512
PARENT = re.compile(rb"(traceparent: [0-9a-f-]{53})[0-9a-f]{2}\r\n")


def traced(r: Rooms, least: Least, repeats: int) -> list[dict[str, Any]]:
    """Beside a call without tracing: calls that say nothing of a trace, and calls that say it is not sampled."""
    front = r.gateway.front
    few, all_ = (Tracer(ratio, "follow", chance=random.random, bits=random.getrandbits) for ratio in (0.01, 1.0))
    plain = PARENT.sub(b"", r.request)
    unsampled = PARENT.sub(rb"\g<1>00\r\n", r.request)

    def with_(tracer: Tracer | None, request: bytes = plain) -> Callable[[], None]:
        def call() -> None:
            front.tracer = tracer
            r.connection.data_received(request)
            if tracer is not None:
                tracer.ended.clear()

        return call

    steps = [with_(None), with_(few), with_(all_), with_(None, unsampled), with_(few, unsampled)]
    without, one_percent, all_of_them, other, goes_on = least(steps, max(repeats, 20))
    front.tracer = all_
    r.connection.data_received(r.request)
    ended = all_.ended.pop()
    front.tracer = None
    peers = {name: attributes_of_server(spec) for name, spec in r.gateway.snapshot.servers.items()}

    def sent() -> bytes:
        return gzip.compress(encode_traces(_different(ended), b"", 1.7e9, peers, int), 1)

    encoded = min(_cpu_us(sent) for _ in range(10)) / BATCH
    made = max(0.0, all_of_them - without)
    few_us = max(0.0, one_percent - without) + (made + encoded) / 100  # the least of many is one that was not drawn
    return [
        {"room": "telemetry", "step": "tracing, where 1 % is sampled", "us": few_us},
        {
            "room": "telemetry",
            "step": "the same, a call whose own trace is not sampled",
            "us": max(0.0, goes_on - other),
        },
        {"room": "telemetry", "step": "tracing, where all is sampled: at the call", "us": made},
        {"room": "telemetry", "step": "tracing, where all is sampled: encoded and packed, off the loop", "us": encoded},
        {"room": "telemetry", "step": "what agents do", "us": noted(ended, r, least, repeats)},
    ]


def _cpu_us(run: Callable[[], Any]) -> float:
    """CPU time of one run, in microseconds: it is long enough to be timed alone."""
    began = time.thread_time_ns()
    run()
    return (time.thread_time_ns() - began) / 1000


def _different(ended: Ended) -> list[Ended]:
    """A batch of calls, each with a time and an id of its own."""
    return [
        ended._replace(began_at=ended.began_at + number, request=b"%d" % number, bytes_out=number)
        for number in range(BATCH)
    ]


def noted(ended: Ended, r: Rooms, least: Least, repeats: int) -> float:
    """A call is taken down for its agent; the same call each time, so the longest way."""
    behaviour, calls = Behaviour(), []
    kept = r.gateway.front.behaviour
    r.gateway.front.behaviour = Listening(calls)  # type: ignore[assignment]
    r.connection.data_received(r.request)
    r.gateway.front.behaviour = kept
    (call,) = calls
    (cost,) = least([lambda: behaviour.note(call, "server", "echo", OUTCOME["ok"], 0.01, 1.0, "", None)], repeats)
    return cost


class Listening:
    """Instead of `Behaviour`: keeps the call."""

    def __init__(self, calls: list[Any]) -> None:
        self._calls = calls

    def note(self, call: Any, *others: Any) -> None:
        self._calls.append(call)
