"""`telemetry`: traces and metrics sent out."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from narthex.config.expand import Expanded
from narthex.config.kinds import (
    BASE_URL,
    HEADER_NAME,
    SECRET_HEADER,
    SHARE,
    WORD,
    Choice,
    Flag,
    Group,
    Mapped,
    Setting,
    duration,
)


class OtlpSettings(msgspec.Struct, frozen=True):
    """Where traces and metrics go: an OpenTelemetry collector, or whatever else takes OTLP over HTTP (protobuf)."""

    url: Annotated[
        str | None,
        Setting(
            BASE_URL,
            "The collector's address; `/v1/traces` and `/v1/metrics` are added. https, except on loopback and for hosts"
            " in `egress.allow_http`.",
            default="required",
        ),
    ] = None
    headers: Annotated[
        dict[str, Expanded],
        Setting(
            Mapped(HEADER_NAME, SECRET_HEADER, "headers"),
            "Sent along, such as `Authorization: Bearer ${secret:NAME}`.",
            secret=True,
        ),
    ] = {}
    traces: Annotated[bool, Setting(Flag(), "Whether traces are sent.")] = True
    metrics: Annotated[bool, Setting(Flag(), "Whether metrics are sent, the same as `/metrics` has.")] = True
    every: Annotated[float, Setting(duration("100ms", "1m"), "Traces are sent this often.")] = 1.0
    metrics_every: Annotated[float, Setting(duration("1s", "1h"), "Metrics are sent this often.")] = 60.0
    service: Annotated[str, Setting(WORD, "What this gateway is called there: `service.name`.")] = "narthex"


class TraceSettings(msgspec.Struct, frozen=True):
    """Which calls are traced, where traces are sent."""

    ratio: Annotated[
        float, Setting(SHARE, "Of calls that come without a trace of their own, this share begins one.")
    ] = 0.01
    parent: Annotated[
        Literal["follow", "ignore"],
        Setting(
            Choice(("follow", "ignore")),
            "Calls that come with a trace: `follow` traces those whose trace is sampled, and no other; `ignore` draws"
            " by `ratio`, so that no client decides how much is traced. Their trace goes on either way.",
        ),
    ] = "follow"


class TelemetrySettings(msgspec.Struct, frozen=True):
    """Traces and metrics sent out. `/metrics` is there without this section."""

    otlp: Annotated[
        OtlpSettings | None,
        Setting(Group(OtlpSettings, "a map `{url}`"), "Where they go.", default="nowhere", nullable=True),
    ] = None
    traces: Annotated[
        TraceSettings, Setting(Group(TraceSettings, "a map `{ratio, parent}`"), "Which calls are traced.")
    ] = TraceSettings()


TELEMETRY = Setting(
    Group(TelemetrySettings, "a map `{otlp, traces}`"), "Traces and metrics sent out.", default="none is sent",
    nullable=True,
)  # fmt: skip
