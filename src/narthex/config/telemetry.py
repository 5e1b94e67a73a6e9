"""`telemetry` to what the gateway works with.

In: its settings. Out: an `OtlpSpec`, None where nothing is sent; or a fault at the place it stands at.
Cases: `tests/config/test_telemetry.py`.
"""

from __future__ import annotations

from narthex.authority.addresses import Allowed
from narthex.config.document import Path, Reading
from narthex.config.schema.telemetry import TelemetrySettings
from narthex.config.urls import check_https
from narthex.outlet import OtlpSpec

HERE: Path = ("telemetry", "otlp")


def compile_telemetry(settings: TelemetrySettings | None, allowed: Allowed, reading: Reading) -> OtlpSpec | None:
    """Args: allowed: Whom `egress` lets be asked without TLS."""
    otlp = settings.otlp if settings is not None else None
    if settings is None or otlp is None:
        return None
    if otlp.url is None:
        if (*HERE, "url") not in reading.marks:
            reading.fault(HERE, "telemetry.otlp: 'url' is missing: where do they go?")
        return None
    check_https((*HERE, "url"), otlp.url, allowed, reading)
    if not (otlp.traces or otlp.metrics):
        reading.warn(HERE, "telemetry.otlp: neither traces nor metrics: nothing is sent")
    return OtlpSpec(
        url=otlp.url.rstrip("/"),
        headers=tuple((name, value.text) for name, value in otlp.headers.items()),
        traces=otlp.traces,
        metrics=otlp.metrics,
        every_s=otlp.every,
        metrics_every_s=otlp.metrics_every,
        service=otlp.service,
        ratio=settings.traces.ratio,
        parent=settings.traces.parent,
    )
