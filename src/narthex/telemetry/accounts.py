"""What is counted: calls by endpoint, server, method, name and outcome, their time and their bytes.

In: one `Counter.add` a call, on the event loop, memory only. Out: the Prometheus text format 0.0.4.
The caller keeps the `Counter` beside what it looked up for the call anyway, so a call costs one method and no hashing.
Label sets are bounded: names come from servers and clients, and whoever invents names must not fill the memory.
Cases: `tests/telemetry/test_accounts.py`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

from narthex import __version__
from narthex.errors import Denied, GatewayError

CallKey = tuple[str, str, str, str]
"""(endpoint, server, method, name), each as it is labelled. `name` is the server's own name of the tool or prompt."""
Labels = tuple[tuple[str, str], ...]
Reading = float | Iterable[tuple[Labels, float]]
MetricType = Literal["gauge", "counter"]

OUTCOMES: Final = (
    "ok",
    "tool_error",
    "rpc_error",
    "cancelled",
    "invalid_request",
    "not_found",
    "upstream_unavailable",
    "upstream_timeout",
    "credential_unavailable",
    "unauthorized",
    "insufficient_scope",
    "claims_required",
    "authority_unavailable",
    "denied",
    "rate_limited",
    "budget_exhausted",
    "approval_required",
    "audit_unavailable",
    "content_blocked",
    "overloaded",
    "internal",
    "other",
)
"""`tool_error`: a result with `isError`; `rpc_error`: a JSON-RPC error of the server; from the fifth on our reasons."""
OUTCOME: Final = {name: index for index, name in enumerate(OUTCOMES)}
OTHER: Final = "other"
METHODS: Final = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "tools/list",
        "tools/call",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "completion/complete",
        "tasks/get",
        "tasks/update",
        "tasks/result",
        "tasks/list",
        "tasks/cancel",
        "refused",
    }
)
"""Methods with a label of their own; a client may send any text as a method, so all else is `other`. `refused` stands
for what was turned away before it was known to be a call."""

_TICK: Final = float(1 << 20)
_BUCKETS: Final = 64
_FIRST, _LAST = 7, 27  # 2**-13 s (122 µs) to 2**7 s (128 s)
_SLICE: Final = 64
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class Counter:
    """The account of one label set. `buckets` is shared by all names of an endpoint, server and method."""

    __slots__ = ("buckets", "bytes_in", "bytes_out", "key", "outcomes", "seconds")

    def __init__(self, key: CallKey, buckets: list[int]) -> None:
        self.key = key
        self.outcomes = [0] * len(OUTCOMES)
        self.seconds = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self.buckets = buckets

    def add(self, outcome: int, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """Count one call that has ended.

        Args:
            outcome: Index in `OUTCOMES`.
            seconds: From the request read to the answer written, by the monotonic clock.
            bytes_in: Size of the request body.
            bytes_out: Size of the answer body.
        """
        self.outcomes[outcome] += 1
        self.buckets[int(seconds * _TICK).bit_length()] += 1
        self.seconds += seconds
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out


class _Made(dict[CallKey, Counter]):
    """A dict that makes what it lacks. Where `make` keeps nothing, it is asked again."""

    def __init__(self, make: Callable[[CallKey], Counter]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: CallKey) -> Counter:
        return self._make(key)


class Accounts:
    """All counters of a process. Used from the event loop only.

    Args:
        max_sets: Most label sets with a name of their own; later names of a method share the name `other`.
    """

    def __init__(self, max_sets: int = 4096) -> None:
        self._max_sets = max_sets
        self.counters: dict[CallKey, Counter] = _Made(self._make)
        """The counter of each label set, made on first use. Keep it as long as what it counts."""
        self._buckets: dict[tuple[str, str, str], list[int]] = {}
        self._readers: dict[str, tuple[str, MetricType, Callable[[], Reading]]] = {}

    def counter(self, endpoint: str, server: str, method: str, name: str = "") -> Counter:
        """The counter of one label set, as `counters` gives it."""
        return self.counters[endpoint, server, method, name]

    def account(self, key: CallKey, outcome: str, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """Count one call by its key. An outcome that is not in `OUTCOMES` counts as `other`."""
        self.counters[key].add(OUTCOME.get(outcome, OUTCOME[OTHER]), seconds, bytes_in, bytes_out)

    def register(self, name: str, help_: str, read: Callable[[], Reading], type_: MetricType = "gauge") -> None:
        """Show `read()` at each rendering: a number, or labelled numbers. Registering a name again replaces it.

        Raises:
            ValueError: `name` is no metric name, or one of the metrics that are always there.
        """
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise ValueError(f"not a free metric name: {name!r}")
        self._readers[name] = (help_, type_, read)

    def _make(self, key: CallKey) -> Counter:
        endpoint, server, method, name = key
        if method not in METHODS:
            key = (endpoint, server, OTHER, name)
        if len(self.counters) >= self._max_sets:
            # Endpoints, servers and methods are few, but a reload may rename them without end: a second bound.
            key = (*key[:3], OTHER) if len(self.counters) < 2 * self._max_sets else (OTHER, OTHER, OTHER, OTHER)
        found = self.counters.get(key)
        if found is None:
            buckets = self._buckets.setdefault(key[:3], [0] * _BUCKETS)
            found = self.counters[key] = Counter(key, buckets)
        return found

    def render_prometheus(self) -> bytes:
        """Everything in the text format 0.0.4. With thousands of names this takes milliseconds: see `render_slices`."""
        return b"".join(self.render_slices())

    def render_slices(self) -> Iterator[bytes]:
        """The same in slices of well under 1 ms each, so that the loop can breathe in between."""
        yield _metric("narthex_build_info", "Version of Narthex and Python.", "gauge", [(_BUILD, 1.0)])
        for name, (help_, type_, read) in list(self._readers.items()):
            reading = read()
            yield _metric(name, help_, type_, [((), reading)] if isinstance(reading, (int, float)) else reading)
        counters = list(self.counters.values())
        families: dict[tuple[str, str, str], _Family] = {}
        for start in range(0, len(counters), _SLICE):
            for counter in counters[start : start + _SLICE]:
                families.setdefault(counter.key[:3], _Family(counter)).take(counter)
            yield b""
        yield from _render_families(families)
        yield from _render_names(counters)


class _Family:
    """The sum of all names of an endpoint, server and method."""

    __slots__ = ("buckets", "bytes_in", "bytes_out", "labels", "outcomes", "seconds")

    def __init__(self, first: Counter) -> None:
        endpoint, server, method, _ = first.key
        self.labels: Labels = (("endpoint", endpoint), ("server", server), ("method", method))
        self.outcomes = [0] * len(OUTCOMES)
        self.buckets = list(first.buckets)
        self.seconds = 0.0
        self.bytes_in = 0
        self.bytes_out = 0

    def take(self, counter: Counter) -> None:
        self.outcomes = [mine + more for mine, more in zip(self.outcomes, counter.outcomes, strict=True)]
        self.seconds += counter.seconds
        self.bytes_in += counter.bytes_in
        self.bytes_out += counter.bytes_out


def outcome_of(error: GatewayError) -> int:
    """Which outcome an error of ours is."""
    if isinstance(error, Denied):
        return OUTCOME["denied"]
    found = OUTCOME.get(error.reason)
    if found is not None:
        return found
    return OUTCOME["invalid_request"] if 400 <= error.status < 500 else OUTCOME[OTHER]


def _render_families(families: dict[tuple[str, str, str], _Family]) -> Iterator[bytes]:
    yield _header("narthex_calls_total", "Calls that have ended.", "counter")
    for family in families.values():
        yield _outcome_lines("narthex_calls_total", family.labels, family.outcomes)
    for name, help_, attribute in (
        ("narthex_call_request_bytes_total", "Bytes of request bodies.", "bytes_in"),
        ("narthex_call_response_bytes_total", "Bytes of answer bodies.", "bytes_out"),
    ):
        yield _metric(name, help_, "counter", [(f.labels, float(getattr(f, attribute))) for f in families.values()])
    yield _header("narthex_call_seconds", "From request read to answer written.", "histogram")
    for family in families.values():
        yield _histogram_lines("narthex_call_seconds", family)


def _render_names(counters: list[Counter]) -> Iterator[bytes]:
    yield _header("narthex_named_calls_total", "Calls that have ended, by the name of what they called.", "counter")
    for start in range(0, len(counters), _SLICE):
        lines = []
        for counter in counters[start : start + _SLICE]:
            if counter.key[3]:
                labels = tuple(zip(("endpoint", "server", "method", "name"), counter.key, strict=True))
                lines.append(_outcome_lines("narthex_named_calls_total", labels, counter.outcomes))
        yield b"".join(lines)


def _outcome_lines(name: str, labels: Labels, outcomes: list[int]) -> bytes:
    shown = [(index, count) for index, count in enumerate(outcomes) if count]
    return b"".join(_line(name, (*labels, ("outcome", OUTCOMES[index])), count) for index, count in shown)


def _histogram_lines(name: str, family: _Family) -> bytes:
    """Bucket n holds durations under 2**n ticks of 2**-20 s: a power of two less one tick, which nobody will miss."""
    total = sum(family.buckets[:_FIRST])
    lines = []
    for index in range(_FIRST, _LAST + 1):
        total += family.buckets[index]
        lines.append(_line(f"{name}_bucket", (*family.labels, ("le", repr(2.0 ** (index - 20)))), total))
    count = sum(family.buckets)
    lines.append(_line(f"{name}_bucket", (*family.labels, ("le", "+Inf")), count))
    lines.append(_line(f"{name}_sum", family.labels, family.seconds))
    lines.append(_line(f"{name}_count", family.labels, count))
    return b"".join(lines)


def _metric(name: str, help_: str, type_: str, readings: Iterable[tuple[Labels, float]]) -> bytes:
    return _header(name, help_, type_) + b"".join(_line(name, labels, value) for labels, value in readings)


def _header(name: str, help_: str, type_: str) -> bytes:
    text = help_.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {text}\n# TYPE {name} {type_}\n".encode()


def _line(name: str, labels: Labels, value: float) -> bytes:
    if not labels:
        return f"{name} {value!r}\n".encode()
    shown = ",".join([f'{key}="{_escape(text)}"' for key, text in labels])
    return f"{name}{{{shown}}} {value!r}\n".encode()


def _escape(text: str) -> str:
    """A label value: at most 128 characters; backslash, quote and line feed escaped, what is no text replaced."""
    if text.isascii() and text.isprintable() and len(text) <= 128 and '"' not in text and "\\" not in text:
        return text
    text = text[:128].encode(errors="replace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


_BUILD: Final[Labels] = (("version", __version__), ("python", sys.version.split()[0]))
RESERVED: Final = frozenset(
    {
        "narthex_build_info",
        "narthex_calls_total",
        "narthex_named_calls_total",
        "narthex_call_seconds",
        "narthex_call_request_bytes_total",
        "narthex_call_response_bytes_total",
    }
)
