"""Numbers as Prometheus reads them: the text format 0.0.4, and OpenMetrics 1.0 with exemplars for who asks for it.

In: families of `Accounts`. Out: bytes, in slices of well under 1 ms each, so that the loop can breathe in between.
Cases: `tests/telemetry/test_exposition.py`, read by Prometheus' own parsers.
Source: OpenMetrics 1.0.0 (exemplars only at buckets of histograms, counters' families without `_total`, `# EOF`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Final

from narthex import __version__
from narthex.telemetry.accounts import Family, Labels, Times, Value

TEXT: Final = "text/plain; version=0.0.4"
OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0"
BUILD: Final = Family(
    "narthex_build_info", "Version of Narthex and Python.", "gauge",
    [[((("version", __version__), ("python", sys.version.split()[0])), 1.0)]],
)  # fmt: skip
LONGEST: Final = 128
"""Characters of a label's value."""


def wants_open(accept: str) -> bool:
    """Does an `Accept` header name OpenMetrics? Prometheus does, before all else, where it may."""
    return "application/openmetrics-text" in accept


def render(families: Iterable[Family], *, open_metrics: bool = False) -> Iterator[bytes]:
    """All of them, each with its head; a slice may be empty."""
    for family in (BUILD, *families):
        yield _header(family, open_metrics)
        for points in family.slices:
            yield b"".join([_point(family, labels, value, open_metrics) for labels, value in points])
    if open_metrics:
        yield b"# EOF\n"


def _header(family: Family, open_metrics: bool) -> bytes:
    name = family.name.removesuffix("_total") if open_metrics and family.type == "counter" else family.name
    text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {text}\n# TYPE {name} {family.type}\n".encode()


def _point(family: Family, labels: Labels, value: Value, open_metrics: bool) -> bytes:
    if not isinstance(value, Times):
        return f"{family.name}{_shown(labels)} {float(value)!r}\n".encode()
    lines, total = [], 0
    for index, (bound, count) in enumerate(zip([*value.bounds(), None], value.counts(), strict=True), value.first):
        total += count
        limit = repr(bound) if bound is not None else "+Inf"
        exemplar = value.exemplars.get(index) if open_metrics else None
        shown = ""
        if exemplar is not None:
            ids = f'{{trace_id="{exemplar.trace_id}",span_id="{exemplar.span_id}"}}'
            shown = f" # {ids} {exemplar.seconds!r} {exemplar.at:.3f}"
        lines.append(f"{family.name}_bucket{_shown((*labels, ('le', limit)))} {total}{shown}\n")
    lines.append(f"{family.name}_sum{_shown(labels)} {value.seconds!r}\n")
    lines.append(f"{family.name}_count{_shown(labels)} {total}\n")
    return "".join(lines).encode()


def _shown(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join([f'{key}="{_escape(text)}"' for key, text in labels]) + "}"


def _escape(text: str) -> str:
    """A label value, cut; backslash, quote and line feed escaped, what is no text replaced."""
    if text.isascii() and text.isprintable() and len(text) <= LONGEST and '"' not in text and "\\" not in text:
        return text
    text = text[:LONGEST].encode(errors="replace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
