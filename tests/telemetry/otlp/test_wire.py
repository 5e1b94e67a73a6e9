"""What is written is what the messages of OTLP read; an answer that cannot be read says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from narthex.telemetry.otlp.wire import (
    attribute,
    attributes,
    double,
    doubles,
    fixed32,
    fixed64,
    fixed64s,
    number,
    read_rejected,
    text,
)

SIXTY_FOUR = st.integers(0, (1 << 64) - 1)


def value_of(data: bytes) -> object:
    read = Span.FromString(data).attributes[0].value
    return getattr(read, read.WhichOneof("value"))


@given(st.text(max_size=300).filter(lambda text: text.isprintable()), st.text(max_size=300))
def test_a_text_attribute(key: str, value: str) -> None:
    read = Span.FromString(attribute(9, key, value)).attributes[0]
    assert read.key == key
    assert read.value.string_value == value.encode(errors="replace").decode()


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_number_attribute(value: int) -> None:
    assert value_of(attribute(9, "k", value)) == value


@given(st.floats(allow_nan=False))
def test_a_float_attribute(value: float) -> None:
    assert value_of(attribute(9, "k", value)) == value


def test_what_is_no_unicode_is_replaced() -> None:
    assert value_of(attribute(9, "k", "\ud800")) == "?"


def test_attributes_without_a_value_are_left_out() -> None:
    read = Span.FromString(attributes(9, [("a", ""), ("b", 0), ("c", "x")]))
    assert [one.key for one in read.attributes] == ["b", "c"]


@given(SIXTY_FOUR, SIXTY_FOUR, st.integers(0, (1 << 32) - 1), st.integers(0, 3))
def test_numbers_of_a_span(began: int, ended: int, flags: int, kind: int) -> None:
    read = Span.FromString(fixed64(7, began) + fixed64(8, ended) + fixed32(16, flags) + number(6, kind))
    assert (read.start_time_unix_nano, read.end_time_unix_nano, read.flags, read.kind) == (began, ended, flags, kind)


@given(st.lists(SIXTY_FOUR), st.lists(st.floats(allow_nan=False)), st.floats(allow_nan=False))
def test_numbers_of_a_histogram(counts: list[int], bounds: list[float], total: float) -> None:
    read = HistogramDataPoint.FromString(fixed64s(6, counts) + doubles(7, bounds) + double(5, total))
    assert (list(read.bucket_counts), list(read.explicit_bounds), read.sum) == (counts, bounds, total)


@pytest.mark.parametrize("rejected", [0, 1, 127, 128, 100_000])
def test_what_a_collector_has_not_taken(rejected: int) -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejected
    answer.partial_success.error_message = "too old"
    assert read_rejected(answer.SerializeToString()) == rejected


@given(st.binary())
def test_any_answer_is_a_number(answer: bytes) -> None:
    assert 0 <= read_rejected(answer) <= 1 << 31


def test_a_key_value_reads_alone() -> None:
    assert KeyValue.FromString(text(1, "k")).key == "k"
