"""Which calls are traced, what their servers are told, and that nothing grows without bound."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from narthex.flow.codec.jsonrpc import Raw, decode_map
from narthex.telemetry.traces import Tracer
from tests.telemetry.otlp.ended import ended

TRACE, SPAN, OTHER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "f" * 32


def tracer(
    ratio: float = 0.5, parent: Literal["follow", "ignore"] = "follow", *, draw: float = 0.9, capacity: int = 4
) -> Tracer:
    return Tracer(ratio, parent, chance=lambda: draw, bits=lambda count: (1 << count) - 1, capacity=capacity)


def said(trace: str, flags: str) -> str:
    return f"00-{trace}-{SPAN}-{flags}"


def meta(trace: str, flags: str = "01") -> dict[str, Raw]:
    return decode_map(json.dumps({"traceparent": said(trace, flags)}).encode())


def header(trace: str, flags: str = "01") -> dict[bytes, bytes]:
    return {b"traceparent": said(trace, flags).encode(), b"tracestate": b"a=1"}


SAMPLED, NOT = "sampled", "not sampled"


@pytest.mark.parametrize(
    ("given", "meta_", "headers", "becomes"),
    [
        pytest.param({"draw": 0.6}, {}, {}, None, id="no parent, not drawn"),
        pytest.param({"draw": 0.4}, {}, {}, SAMPLED, id="no parent, drawn"),
        pytest.param({"ratio": 1.0, "draw": 0.999}, {}, {}, SAMPLED, id="all"),
        pytest.param({"ratio": 0.0, "draw": 0.0}, {}, {}, None, id="none"),
        pytest.param({"ratio": 0.0}, meta(TRACE), {}, SAMPLED, id="a sampled parent decides"),
        pytest.param({"ratio": 1.0}, meta(TRACE, "00"), {}, NOT, id="a parent that is not sampled decides"),
        pytest.param({"ratio": 0.0}, {}, header(TRACE), SAMPLED, id="a parent in the headers decides"),
        pytest.param({"draw": 0.6, "parent": "ignore"}, meta(TRACE), {}, NOT, id="ignored: not drawn"),
        pytest.param({"draw": 0.4, "parent": "ignore"}, meta(TRACE, "00"), {}, SAMPLED, id="ignored: drawn"),
        pytest.param(
            {"draw": 0.6}, {"traceparent": Raw(b'"nonsense"')}, {}, None, id="what cannot be read is no parent"
        ),
        pytest.param({"draw": 0.4}, {"traceparent": Raw(b"7")}, {}, SAMPLED, id="and then the ratio decides"),
    ],
)
def test_sampling(
    given: dict[str, Any], meta_: dict[str, Raw], headers: dict[bytes, bytes], becomes: str | None
) -> None:
    trace = tracer(**given).begin(meta_, headers)
    assert (None if trace is None else SAMPLED if trace.sampled else NOT) == becomes


def test_a_sampled_call_is_a_child_and_its_server_is_told_of_a_child_of_ours() -> None:
    trace = tracer().begin({}, header(TRACE))
    assert trace is not None
    assert trace.parent is not None
    assert trace.context is not None
    assert (trace.trace_id, trace.parent.span_id) == (TRACE, SPAN)
    assert trace.context.parent == f"00-{TRACE}-{'f' * 16}-01"
    assert trace.context.state == "a=1"


def test_what_the_meta_says_is_the_parent_and_what_the_headers_say_a_link() -> None:
    trace = tracer().begin(meta(TRACE), header(OTHER))
    assert trace is not None
    assert trace.link is not None
    assert (trace.trace_id, trace.link.trace_id) == (TRACE, OTHER)


@pytest.mark.parametrize(
    ("meta_", "headers", "told"),
    [
        pytest.param(meta(TRACE, "00"), {}, None, id="it stands in the meta, which goes on as it is"),
        pytest.param({}, header(TRACE, "00"), said(TRACE, "00"), id="it stands in the headers, which do not"),
        pytest.param(meta(TRACE, "00"), header(OTHER), said(TRACE, "00"), id="both: the server hears of the parent"),
    ],
)
def test_a_trace_that_is_not_sampled_goes_on(
    meta_: dict[str, Raw], headers: dict[bytes, bytes], told: str | None
) -> None:
    trace = tracer().begin(meta_, headers)
    assert trace is not None
    assert (trace.context.parent if trace.context is not None else None) == told


def end(one: Tracer, name: str = "t") -> None:
    one.add(ended(name=name))


def test_the_queue_is_bounded_and_what_is_lost_is_counted() -> None:
    one = tracer(capacity=4)
    for _ in range(6):
        end(one)
    assert (len(one.ended), one.dropped) == (4, 2)


def test_what_could_not_be_sent_waits_first_and_the_oldest_goes() -> None:
    one = tracer(capacity=4)
    for name in "abc":
        end(one, name)
    batch = [one.ended.popleft() for _ in range(3)]
    for name in "de":
        end(one, name)
    assert one.put_back(batch) == 1
    assert [ended.name for ended in one.ended] == ["b", "c", "d", "e"]
    assert one.put_back(batch) == 3
