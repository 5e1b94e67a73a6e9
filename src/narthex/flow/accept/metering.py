"""Limits and prices at one call: what is reserved just before it is sent, and what of that was used when it ends.

In: a call that counts, and how it ends. Out: a reservation that is settled once, whatever the way it ends; the header
lines that tell the client; what was spent, for the books. Given back is only what never went out, or failed by our
fault (design §3).
Cases: `tests/flow/accept/test_metering.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from narthex.errors import GatewayError, InvalidParams, RateLimited, UpstreamUnavailable
from narthex.flow.accept.recounting import Recount, Recounter
from narthex.flow.codec.crowds import refuse_crowd
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap
from narthex.flow.limit.alerts import Alert
from narthex.flow.limit.keys import Subject
from narthex.flow.limit.limiter import Binding, Limiter, Place, Reservation, wanted
from narthex.flow.limit.money import UNIT
from narthex.flow.limit.prices import NO_FACTS, Price, first_fitting, result_in
from narthex.flow.limit.reserving import Counters, Instead
from narthex.flow.limit.spending import Spent, Taken
from narthex.flow.limit.tab import Tab
from narthex.flow.limit.tokenizers import ESTIMATE, chosen
from narthex.flow.limit.tokens import estimate, estimate_size
from narthex.flow.policy.arguments import read_arguments, sent
from narthex.flow.policy.runs.runs import id_in
from narthex.flow.route.index import Target
from narthex.telemetry.log import clean
from narthex.telemetry.record import Entry
from narthex.telemetry.recounted import Recounted
from narthex.telemetry.tally import Tally
from narthex.types import Call, Kind, LimitRule, RunSpec, Snapshot, TokenSpec

_log: Final = logging.getLogger("narthex.limits")
COUNTED: Final[dict[str, Kind]] = {"tools/call": "tools", "prompts/get": "prompts", "resources/read": "resources"}
"""What counts (design §6)."""
FIRST_SIZE: Final = 1024
"""Bytes that the first answer of a tool is expected to have."""
MOST_NAMES: Final = 10_000
LONGEST_NAME: Final = 256
"""Of a longer one nothing is remembered: callers make up URIs."""
STEP_S: Final = 0.02
"""Between two steps of upkeep, where there are many buckets: a million are looked at in a minute."""
_SECOND: Final = 1_000_000
_JUMP: Final = _SECOND
"""So far may the wall clock be from ours before that counts: it is slewed all the time."""
_NO_PARAMS: Final[RawMap] = {}
_NO_USE: Final[Mapping[str, int]] = {}


class Usual:
    """What a figure of each tool usually is: it follows each new one by an eighth of the difference. Bounded."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}

    def of(self, subject: Subject) -> int | None:
        return self._known.get((subject.server, subject.name))

    def was(self, subject: Subject, figure: int) -> None:
        key = subject.server, subject.name
        known = self._known.get(key)
        if known is not None or (len(self._known) < MOST_NAMES and len(subject.name) <= LONGEST_NAME):
            self._known[key] = figure if known is None else known + (figure - known) // 8


class Metering:
    """The limits and prices of a process, and what answers usually are. Lives as long as the process does.

    Args:
        clock: Monotonic seconds. now: Seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float], now: Callable[[], float]) -> None:
        self._clock, self._now = clock, now
        self._base = self._offset()
        self.ahead = 0
        """How far the wall clock is ahead of `time`, in microseconds."""
        self.limiter = Limiter((), self.time)
        self.sizes, self.tokens, self.costs = Usual(), Usual(), Usual()
        self.run_id = RunSpec().run_id
        """The member of `_meta` in which an agent says which run a call is part of."""
        self.tell: Callable[[Alert], None] | None = None
        """Hears of shares that are reached, beside the log."""
        self.counted_tokens = Tally("server", "direction", fixed=1)
        self.counted_costs = Tally("endpoint", "server", "currency", fixed=1)
        """What was used and paid, for `/metrics`; of tokens only what a limit or a price counts."""
        self.exact: TokenSpec | None = None
        """Which tokenizer has the last word on tokens, behind the path of a call; None: the estimate has."""
        self.recounter = Recounter()
        self.counters: Counters | None = None
        """Who counts, where several gateways share the limits; None: the limiter, in memory."""
        self.recounted: Callable[[Recounted], None] | None = None
        """Hears of calls whose tokens were other ones than was recorded; None where nothing is."""
        self.book: Callable[[Spent], None] | None = None
        """Takes down what calls have spent; None where nothing of it lasts."""
        self.tab: Tab | None = None
        """The same of calls that cost nothing, and are all alike: it is only added up."""

    def alert(self, alert: Alert) -> None:
        """A share of a limit is reached: rare, and worth a line."""
        _log.warning(
            "limit '%s': %d%% used (%s) by %s", alert.limit, alert.share, alert.amounts, clean(alert.words, 256)
        )
        if self.tell is not None:
            self.tell(alert)

    def apply(self, snapshot: Snapshot) -> bool:
        """Count by this configuration from now on. Is there anything to count by?"""
        self.run_id = (snapshot.runs or RunSpec()).run_id
        self.exact = snapshot.tokens if snapshot.tokens != TokenSpec() else None
        self.limiter.teams, self.limiter.models = snapshot.teams, snapshot.models
        self.limiter.projects = {name: one.project for name, one in snapshot.endpoints.items() if one.project}
        self.limiter.apply(snapshot.quotas, snapshot.prices)
        self.limiter.set_ahead(self.ahead)
        if self.counters is not None:
            self.counters.apply()
        return bool(snapshot.quotas or snapshot.prices)

    def share(self, counters: Counters) -> None:
        """Count with other gateways from now on."""
        self.limiter.count_elsewhere()
        self.counters = counters
        counters.apply()

    def settle(self, held: Reservation, used: Mapping[str, int]) -> None:
        """A call is over, and has used so much."""
        if held.stint is not None and self.counters is not None:
            self.counters.settle(held, used)  # it tells of alerts itself
            return
        self.limiter.settle(held, used)
        if held.binding.alerts:
            for alert in self.limiter.alerts(held):
                self.alert(alert)

    def give_back(self, held: Reservation) -> None:
        """A call never went out."""
        if held.stint is not None and self.counters is not None:
            self.counters.give_back(held)
        else:
            self.limiter.give_back(held)

    def ahead_of(self, held: Reservation) -> int:
        """How far the wall clock is ahead of the time of a reservation: those of shared counters go by it."""
        return self.ahead if held.stint is None else 0

    def _offset(self) -> int:
        return int((self._now() - self._clock()) * _SECOND)

    def time(self) -> int:
        """Whole microseconds since 1970, as they were counted when the process began: this clock is never set."""
        return int(self._clock() * _SECOND) + self._base

    def sweep(self) -> float:
        """A step of upkeep. Returns seconds until the next: a second, or a moment where there is much to do."""
        ahead = self._offset() - self._base
        if abs(ahead - self.ahead) > _JUMP:
            self.ahead = ahead
            self.limiter.set_ahead(ahead)
        return 1.0 if self.limiter.sweep() else STEP_S


class Metered:
    """What one call has reserved. Each way of its end is told once; the first counts."""

    __slots__ = (
        "_amounts", "_arguments", "_beyond", "_binding", "_coming", "_demand", "_expected", "_facts", "_given_back",
        "_held", "_meta", "_metering", "_model", "_params", "_price", "_size_in", "entry", "instead", "reads",
        "recounts", "share", "tokens",
    )  # fmt: skip

    def __init__(self, metering: Metering, size_in: int) -> None:
        self._metering = metering
        self._size_in = size_in
        self._held: Reservation | None = None
        self._binding: Binding | None = None
        self._coming: Awaitable[RawMap | RateLimited] | None = None
        self._params = _NO_PARAMS
        self._price: Price | None = None
        self._demand = _NO_USE
        self._facts: Mapping[str, Any] = NO_FACTS
        self._meta = _NO_PARAMS
        self._model = ""
        self._expected = 0
        self._given_back = False
        self._beyond = _NO_USE
        self._arguments = b""
        self.instead: Instead | None = None
        """Another tool answers, because a limit of the one that was called is spent."""
        self.reads = False
        """Does the answer say what it cost? Then it is looked at whole."""
        self.tokens: tuple[int, int, str] | None = None
        """In and out, and who has counted them: `estimate`, `server`; None: nobody."""
        self.recounts = False
        """Tokens are counted exactly, behind the call."""
        self.entry: Entry | None = None
        """The record of such a call."""
        self._amounts: tuple[int, ...] = ()
        self.share = 100
        """Hundredths of its price that the call costs: less where its answer comes from memory."""

    def reserve(self, call: Call, target: Target, params: RawMap, *, beyond: bool = False) -> RawMap | None:
        """Take it. Returns the parameters that go on: where the arguments were looked at, exactly what was seen, for a
        server may read a name that stands twice otherwise. None: they come in a while (`reserved`).

        Raises:
            RateLimited, BudgetExhausted, LimitsUnavailable.
            InvalidParams: What looks at the arguments cannot read them.
        """
        limiter = self._metering.limiter
        binding = limiter.binding(call.principal, call.endpoint, COUNTED[call.method], target.server, target.name)
        self._binding = binding
        if binding.plain and not beyond:
            self._price = None  # of a tool that was asked for before, and whose limit was spent
            return self._take(binding, params, binding.places, binding.ones) if binding.places else params
        arguments: Any = {}
        if binding.reads_arguments and "arguments" in params:
            arguments = _arguments(params["arguments"])
            params = {**params, "arguments": Raw(sent(arguments))}
        self._demand = demand = self._expect(binding, params)
        price = self._price = first_fitting(binding.prices, binding.kind, binding.subject, arguments)
        if price is not None:
            self._meta, self._facts = call.meta, price.facts(binding.kind, binding.subject, arguments)
            self._model = price.model(arguments)
            self._expected = self._part(price.expected(demand, self._metering.costs.of(binding.subject), self._facts))
            demand[price.rule.currency] = self._expected
            self.reads = price.reads
        places, amounts = wanted(binding, demand, arguments)
        if beyond:
            self._beyond = {"calls": 1, **demand}
            amounts = _let_through(places, amounts)
        return self._take(binding, params, places, amounts)

    def _take(
        self, binding: Binding, params: RawMap, places: tuple[Place, ...], amounts: tuple[int, ...]
    ) -> RawMap | None:
        """Take so much of these, here or where others count."""
        counters = self._metering.counters
        if counters is None or not places:
            self._held = self._metering.limiter.take(binding, places, amounts)
            return params
        self._held = counters.now(binding, places, amounts)
        if self._held is not None:
            return params
        self._params = params
        self._coming = counters.later(binding, places, amounts, self._took)
        return None

    def _took(self, held: Reservation) -> RawMap:
        self._held = held
        return self._params

    def reserved(self) -> Awaitable[RawMap | RateLimited]:
        """What `reserve` has left open."""
        assert self._coming is not None
        return self._coming

    @property
    def stood_in(self) -> str:
        """How it was decided while the shared counters could not be asked; empty where they were, or there are none."""
        held, counters = self._held, self._metering.counters
        return counters.stood_in(held) if held is not None and counters is not None else ""

    def _expect(self, binding: Binding, params: RawMap) -> dict[str, int]:
        """What the call is expected to use, by unit."""
        metering, subject = self._metering, binding.subject
        size = metering.sizes.of(subject) or FIRST_SIZE
        found = {"bytes_in": self._size_in, "bytes_out": size, "bytes": self._size_in + size}
        if binding.counts_tokens:
            arguments = bytes(params.get("arguments", b""))
            if metering.exact is not None:
                self._arguments = arguments
            found["tokens_in"] = tokens = estimate(arguments)
            found["tokens_out"] = usual = metering.tokens.of(subject) or estimate_size(size)
            found["tokens"] = tokens + usual
        return found

    @property
    def cost(self) -> tuple[int, str] | None:
        """What was spent, and the currency; None where it was not sent, or has no price."""
        sent = self._held is not None and not self._held.open and not self._given_back
        priced = self._price is not None and self._price.rule.currency
        return (self._expected, priced) if sent and priced else None

    @property
    def taken(self) -> Taken | None:
        """What it takes of limits, as far as that is known now: in the end what it has used; None where that is
        nothing."""
        held = self._held
        if held is None or self._given_back or not held.places:
            return None
        return held.binding.taken(self._amounts or held.amounts)

    @property
    def asked(self) -> tuple[LimitRule, ...]:
        """All limits that the call counts in, as far as it came to them."""
        return self._binding.rules if self._binding is not None else ()

    def lines(self) -> bytes:
        """Header lines for the answer: which limits there are, and what is left of them."""
        return self._metering.limiter.left(self._held) if self._held is not None else b""

    def answered(self, size: int, parts: Sequence[Any] = ()) -> bytes:
        """The server has answered: with so many bytes, and these, where they came whole. Returns `lines`."""
        held = self._held
        if held is None:
            return b""
        try:
            if held.open:
                used = {} if held.binding.plain else self._use(held.binding, size, parts)
                self._settle(held, used)
                if self._metering.exact is not None and held.binding.counts_tokens and parts:
                    self._count_again(self._metering.exact, held, used, b"".join(parts))
            return self._metering.limiter.left(held)
        except Exception:  # the server's answer is there, and must not be lost over what it cost
            return self._give_up(held)

    def _use(self, binding: Binding, size: int, parts: Sequence[Any]) -> dict[str, int]:
        """What the call has used, by unit; what it is to be remembered by for the next."""
        metering, subject, price = self._metering, binding.subject, self._price
        metering.sizes.was(subject, size)
        used = {"bytes_in": self._size_in, "bytes_out": size, "bytes": self._size_in + size}
        body = b"".join(parts) if binding.counts_tokens or self.reads else b""
        result = result_in(body) if self.reads else None
        if binding.counts_tokens:
            said = price.reported(result) if price is not None else NO_FACTS
            used["tokens_in"] = said.get("tokens_in", self._demand["tokens_in"])
            tokens = said.get("tokens_out")
            used["tokens_out"] = tokens = (
                (estimate(body) if body else estimate_size(size)) if tokens is None else tokens
            )
            used["tokens"] = used["tokens_in"] + tokens
            self.tokens = used["tokens_in"], tokens, "server" if said else ESTIMATE
            metering.tokens.was(subject, tokens)
            metering.counted_tokens.add(used["tokens_in"], subject.server, "in")
            metering.counted_tokens.add(tokens, subject.server, "out")
        if price is None:
            return used
        cost = price.cost(used, result, self._facts)
        if cost is not None:
            self._expected = self._part(cost)
            if self.reads:
                metering.costs.was(subject, cost)
                self._model = price.model(self._facts.get("args"), result)
        used[price.rule.currency] = self._expected
        return used

    def _count_again(self, spec: TokenSpec, held: Reservation, used: dict[str, int], body: bytes) -> None:
        """Have it counted exactly what was estimated; the difference is settled then, and put into the books."""
        metering, price = self._metering, self._price
        name = chosen(self._model, spec.tokenizer, spec.models)
        result = result_in(body) if self.reads else None
        said = price.reported(result) if price is not None else NO_FACTS
        if name == ESTIMATE or len(said) == 2:
            return
        self.recounts = True

        def done(tokens_in: int, tokens_out: int) -> None:
            then = {**used, "tokens_in": tokens_in, "tokens_out": tokens_out, **said}
            then["tokens"] = then["tokens_in"] + then["tokens_out"]
            currency, more = "", 0
            cost: tuple[int, str] | None = None
            if price is not None:
                amount, currency = price.cost(then, result, self._facts), price.rule.currency
                more = self._part(amount) - self._expected if amount is not None else 0
                then[currency] = self._expected + more
            changes = {unit: amount - used[unit] for unit, amount in then.items() if amount != used.get(unit, amount)}
            if held.stint is not None and metering.counters is not None:
                metering.counters.recount(held, changes)
            ahead = metering.ahead_of(held)
            uses = metering.limiter.recount(held, changes, ahead)
            metering.tokens.was(held.binding.subject, then["tokens_out"])
            if self.entry is not None and metering.recounted is not None and changes:
                cost = (self._expected + more, currency) if currency else None
                tokens = then["tokens_in"], then["tokens_out"], name
                metering.recounted(Recounted(self.entry, tokens, cost, Taken(held.binding.rules, _final(held, then))))
            if metering.book is not None and (uses or more):
                at, run = held.at + ahead, id_in(self._meta, metering.run_id) if self._meta else ""
                metering.book(Spent(at, held.binding.subject, currency, more, uses, self._model, run, calls=0))

        metering.recounter.add(Recount(name, self._arguments, body, done))

    def _part(self, cost: int) -> int:
        """The share of a cost that counts, rounded up to a millionth."""
        return cost if self.share == 100 else -(-cost * self.share // 100)

    def ended(self, *, sent: bool, error: GatewayError | None = None) -> None:
        """It ended without an answer. What was sent is used, as was expected, unless the fault is ours."""
        held, price = self._held, self._price
        if held is None or not held.open:
            return
        try:
            if not sent or _is_ours(error):
                self._given_back = True
                self._metering.give_back(held)
            elif price is not None and error is None and price.rule.cancelled == "nothing":
                self._expected = 0
                self._settle(held, {price.rule.currency: 0})
            else:
                self._settle(held, {})
        except Exception:  # the call must come to its end
            self._give_up(held)

    def _give_up(self, held: Reservation) -> bytes:
        """What is concurrent is given back all the same: nobody else would do it."""
        _log.exception("a call could not be settled: it counts as it was reserved")
        if held.open:
            try:
                self._settle(held, {})
            except Exception:
                _log.exception("nor could this be settled")
        return b""

    def _settle(self, held: Reservation, used: dict[str, int]) -> None:
        metering, price, binding = self._metering, self._price, held.binding
        if self._beyond:
            used = {**self._beyond, **used}
        if used:
            self._amounts = _final(held, used)
        metering.settle(held, used)
        if price is not None and price.rule.currency:
            subject, currency = binding.subject, price.rule.currency
            metering.counted_costs.add(self._expected / UNIT, subject.endpoint, subject.server, currency)
        if metering.book is None or not (binding.lasting or price is not None):
            return
        ahead = metering.ahead_of(held)
        if price is None and metering.tab is not None:
            metering.limiter.tally(held, used, ahead, metering.tab)
            return
        currency = price.rule.currency if price is not None else ""
        uses = metering.limiter.uses(held, used, ahead) if binding.lasting else ()
        run = id_in(self._meta, metering.run_id) if self._meta else ""
        metering.book(Spent(held.at + ahead, binding.subject, currency, self._expected, uses, self._model, run))


def _final(held: Reservation, used: Mapping[str, int]) -> tuple[int, ...]:
    """What was used of each place."""
    return tuple(
        [used.get(limit.measure, amount) for (*_, limit), amount in zip(held.places, held.amounts, strict=True)]
    )


def holds_spent(snapshot: Snapshot) -> bool:
    """May a limit that is spent have a call wait for a person?"""
    return any(one.when_spent.hold for one in snapshot.quotas)


def _let_through(places: Sequence[Place], amounts: Sequence[int]) -> tuple[int, ...]:
    """Nothing of limits that hold calls: a person has let this one through. It is counted when it is over."""
    return tuple(
        0 if limit.rule.when_spent.hold else amount for (*_, limit), amount in zip(places, amounts, strict=True)
    )


def _is_ours(error: GatewayError | None) -> bool:
    """Did the call fail by no fault of the caller or the server, or was nothing sent? `Overloaded` of a call that was
    sent is the caller's: too many of its calls wait for its own answers."""
    if isinstance(error, UpstreamUnavailable):
        return not error.sent
    return error is not None and error.code == GatewayError.code


def _arguments(raw: Raw) -> Any:
    refuse_crowd(raw)
    try:
        return read_arguments(bytes(raw))
    except BAD_JSON:
        raise InvalidParams("params.arguments cannot be read") from None
