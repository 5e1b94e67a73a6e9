"""What is counted: calls by endpoint, server, method, name, era and outcome, their time and their bytes.

In: one `Counter.add` a call, on the event loop, memory only. Out: families of numbers, which `exposition` writes down
for Prometheus and `otlp.metrics` for OpenTelemetry.
The caller keeps the `Counter` beside what it looked up for the call anyway, so a call costs one method and no hashing.
Label sets are bounded: names come from servers and clients, and whoever invents names must not fill the memory.
Cases: `tests/telemetry/test_accounts.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

from narthex.errors import Denied, GatewayError

CallKey = tuple[str, str, str, str, str]
"""(endpoint, server, method, name, era), each as it is labelled. `name` is the server's own name of the tool or prompt,
empty where the caller sees none; `era` the client's, empty where it was not known yet."""
Labels = tuple[tuple[str, str], ...]
MetricType = Literal["gauge", "counter", "histogram"]

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
    "limits_unavailable",
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

NAMED_METHODS: Final = frozenset({"tools/call", "prompts/get"})
"""Methods that are counted by what they call, too. URIs are not among it: callers write them, with what they like."""
_REACHED: Final = tuple(
    OUTCOME[name] for name in ("ok", "tool_error", "rpc_error", "cancelled", "upstream_unavailable", "upstream_timeout")
)
"""Outcomes of calls that were let through to their server."""
_TICK: Final = float(1 << 20)
_BUCKETS: Final = 64
SLICE: Final = 64
"""Label sets that are looked at between two breaths of the loop."""
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class Exemplar:
    """A call that fell into a bucket: its trace, how long it took, and when (Unix seconds)."""

    __slots__ = ("at", "seconds", "span_id", "trace_id")

    def __init__(self, seconds: float, trace_id: str, span_id: str, at: float) -> None:
        self.seconds: Final = seconds
        self.trace_id: Final = trace_id
        self.span_id: Final = span_id
        self.at: Final = at


class Times:
    """How long something took, as a histogram. Bucket n holds durations under 2**n ticks of 2**-20 s: a power of two
    less one tick, which nobody will miss. It is shown from 2**`first` to 2**`last` ticks."""

    __slots__ = ("buckets", "exemplars", "first", "last", "seconds")

    def __init__(self, first: int, last: int) -> None:
        self.first: Final = first
        self.last: Final = last
        self.buckets: Final = [0] * _BUCKETS
        self.seconds = 0.0
        self.exemplars: Final[dict[int, Exemplar]] = {}

    def add(self, seconds: float) -> None:
        self.buckets[int(seconds * _TICK).bit_length()] += 1
        self.seconds += seconds

    def mark(self, exemplar: Exemplar) -> None:
        """Remember which call it was that fell into its bucket last."""
        bucket = min(max(int(exemplar.seconds * _TICK).bit_length(), self.first), self.last + 1)
        self.exemplars[bucket] = exemplar

    def bounds(self) -> list[float]:
        """Upper bounds of the buckets that are shown, in seconds; one more is without a bound."""
        return [2.0 ** (index - 20) for index in range(self.first, self.last + 1)]

    def counts(self) -> list[int]:
        """What is in each of them, the one without a bound too; not added up."""
        first, last = self.first, self.last
        return [sum(self.buckets[: first + 1]), *self.buckets[first + 1 : last + 1], sum(self.buckets[last + 1 :])]


Value = float | Times
Reading = float | Iterable[tuple[Labels, Value]]


class Family:
    """All numbers of one name, in slices that are looked at one after the other."""

    __slots__ = ("help", "name", "slices", "type")

    def __init__(
        self, name: str, help_: str, type_: MetricType, slices: Iterable[Iterable[tuple[Labels, Value]]]
    ) -> None:
        self.name: Final = name
        self.help: Final = help_
        self.type: Final = type_
        self.slices: Final = slices


class Shared:
    """What all names of an endpoint, server, method and era share: their times, in all, at the server and here."""

    __slots__ = ("call", "gateway", "key", "upstream")

    def __init__(self, key: tuple[str, str, str, str]) -> None:
        self.key: Final = key
        self.call: Final = Times(7, 27)  # 122 µs to 128 s
        self.upstream: Final = Times(7, 27)
        self.gateway: Final = Times(4, 20)  # 15 µs to 1 s


class Counter:
    """The account of one label set."""

    __slots__ = ("bytes_in", "bytes_out", "key", "outcomes", "shared")

    def __init__(self, key: CallKey, shared: Shared) -> None:
        self.key: Final = key
        self.shared: Final = shared
        self.outcomes: Final = [0] * len(OUTCOMES)
        self.bytes_in = 0
        self.bytes_out = 0

    def add(self, outcome: int, seconds: float, bytes_in: int, bytes_out: int, outside: float = -1.0) -> None:
        """Count one call that has ended.

        Args:
            outcome: Index in `OUTCOMES`.
            seconds: From the request read to the answer written, by the monotonic clock.
            bytes_in: Size of the request body.
            bytes_out: Size of the answer body.
            outside: Of `seconds`, how many the server had it; negative: it was sent to none.
        """
        self.outcomes[outcome] += 1
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        shared = self.shared
        shared.call.add(seconds)
        if outside >= 0.0:
            shared.upstream.add(outside)
            shared.gateway.add(max(seconds - outside, 0.0))


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
        self._shared: dict[tuple[str, str, str, str], Shared] = {}
        self._readers: dict[str, tuple[str, MetricType, Callable[[], Reading]]] = {}

    def counter(self, endpoint: str, server: str, method: str, name: str = "", era: str = "") -> Counter:
        """The counter of one label set, as `counters` gives it."""
        return self.counters[endpoint, server, method, name, era]

    def account(self, key: CallKey, outcome: str, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """Count one call by its key. An outcome that is not in `OUTCOMES` counts as `other`."""
        self.counters[key].add(OUTCOME.get(outcome, OUTCOME[OTHER]), seconds, bytes_in, bytes_out)

    def register(self, name: str, help_: str, read: Callable[[], Reading], type_: MetricType = "gauge") -> None:
        """Show `read()` at each rendering: a number, or labelled numbers. Registering a name again replaces it.

        Raises:
            ValueError: `name` is no metric name, or one of the metrics that are always there; or a counter's that does
                not end in `_total`, as OpenMetrics wants it.
        """
        if not _NAME.fullmatch(name) or name in CALL_METRICS:
            raise ValueError(f"not a free metric name: {name!r}")
        if (type_ == "counter") != name.endswith("_total"):
            raise ValueError(f"the metric name of counters, and of nothing else, ends in _total: {name!r}")
        self._readers[name] = (help_, type_, read)

    def called(self) -> dict[str, set[str]]:
        """By server, the tools that somebody has called and was let through to."""
        found: dict[str, set[str]] = {}
        for (_, server, method, name, _), counter in list(self.counters.items()):
            if method == "tools/call" and any(counter.outcomes[one] for one in _REACHED):
                found.setdefault(server, set()).add(name)
        return found

    def _make(self, key: CallKey) -> Counter:
        endpoint, server, method, name, era = key
        if method not in METHODS:
            key = (endpoint, server, OTHER, name, era)
        if len(self.counters) >= self._max_sets:
            # Endpoints, servers and methods are few, but a reload may rename them without end: a second bound.
            few = len(self.counters) < 2 * self._max_sets
            key = (endpoint, server, key[2], OTHER, era) if few else (OTHER, OTHER, OTHER, OTHER, era)
        found = self.counters.get(key)
        if found is None:
            group = (key[0], key[1], key[2], era)
            shared = self._shared.get(group)
            if shared is None:
                shared = self._shared[group] = Shared(group)
            found = self.counters[key] = Counter(key, shared)
        return found

    def families(self) -> Iterator[Family]:
        """Everything that is known, read as it is walked through."""
        for name, (help_, type_, read) in list(self._readers.items()):
            reading = read()
            yield Family(name, help_, type_, [[((), reading)] if isinstance(reading, (int, float)) else reading])
        sums: dict[Shared, _Sum] = {}
        counters = list(self.counters.values())
        for counter in counters:
            sums.setdefault(counter.shared, _Sum(counter.shared)).take(counter)
        groups = list(sums.values())
        for name, help_, attribute in _OF_GROUPS:
            yield Family(name, help_, "counter", _sliced(groups, attribute))
        for name, help_, attribute in _TIMES:
            yield Family(name, help_, "histogram", _sliced(groups, attribute))
        yield Family(NAMED, CALL_METRICS[NAMED], "counter", _sliced([one for one in counters if one.key[3]], ""))


class _Sum:
    """The sum of all names of an endpoint, server, method and era."""

    __slots__ = ("bytes_in", "bytes_out", "labels", "outcomes", "shared")

    def __init__(self, shared: Shared) -> None:
        self.shared: Final = shared
        self.labels: Final[Labels] = tuple(zip(("endpoint", "server", "method", "era"), shared.key, strict=True))
        self.outcomes = [0] * len(OUTCOMES)
        self.bytes_in = 0
        self.bytes_out = 0

    def take(self, counter: Counter) -> None:
        self.outcomes = [mine + more for mine, more in zip(self.outcomes, counter.outcomes, strict=True)]
        self.bytes_in += counter.bytes_in
        self.bytes_out += counter.bytes_out

    def points(self, attribute: str) -> list[tuple[Labels, Value]]:
        shared = self.shared
        if attribute == "outcomes":
            return _by_outcome(self.labels, self.outcomes)
        if attribute == "bytes_in":
            return [(self.labels, float(self.bytes_in))]
        if attribute == "bytes_out":
            return [(self.labels, float(self.bytes_out))]
        times = shared.call if attribute == "call" else shared.upstream if attribute == "upstream" else shared.gateway
        return [(self.labels, times)] if attribute == "call" or any(times.buckets) else []


def _sliced(things: list[_Sum] | list[Counter], attribute: str) -> Iterator[list[tuple[Labels, Value]]]:
    for start in range(0, len(things), SLICE):
        points: list[tuple[Labels, Value]] = []
        for one in things[start : start + SLICE]:
            points += one.points(attribute) if isinstance(one, _Sum) else _by_outcome(_labels(one), one.outcomes)
        yield points


def _labels(counter: Counter) -> Labels:
    return tuple(zip(("endpoint", "server", "method", "name", "era"), counter.key, strict=True))


def _by_outcome(labels: Labels, outcomes: list[int]) -> list[tuple[Labels, Value]]:
    shown = [(index, count) for index, count in enumerate(outcomes) if count]
    return [((*labels, ("outcome", OUTCOMES[index])), float(count)) for index, count in shown]


def outcome_of(error: GatewayError) -> int:
    """Which outcome an error of ours is."""
    if isinstance(error, Denied):
        return OUTCOME["denied"]
    found = OUTCOME.get(error.reason)
    if found is not None:
        return found
    return OUTCOME["invalid_request"] if 400 <= error.status < 500 else OUTCOME[OTHER]


NAMED: Final = "narthex_named_calls_total"
CALLS: Final = "narthex_calls_total"
CALL_SECONDS: Final = "narthex_call_seconds"
UPSTREAM_SECONDS: Final = "narthex_upstream_seconds"
GATEWAY_SECONDS: Final = "narthex_gateway_seconds"
_OF_GROUPS: Final = (
    (CALLS, "Calls that have ended.", "outcomes"),
    ("narthex_call_request_bytes_total", "Bytes of request bodies.", "bytes_in"),
    ("narthex_call_response_bytes_total", "Bytes of answer bodies.", "bytes_out"),
)
_TIMES: Final = (
    (CALL_SECONDS, "From request read to answer written.", "call"),
    (UPSTREAM_SECONDS, "Of that, from the request sent to the server to its answer.", "upstream"),
    (GATEWAY_SECONDS, "Of that, in the gateway.", "gateway"),
)
CALL_METRICS: Final = {
    **{name: help_ for name, help_, _ in (*_OF_GROUPS, *_TIMES)},
    NAMED: "Calls that have ended, by the name of what they called.",
}
"""The metrics that are always there, and what they mean."""
