"""All limits of a configuration at once: a call takes what it needs of each of them, or of none.

In: rules (`LimitRule`), who calls what, how much of each unit that takes, the time. Out: a `Reservation`, to be settled
when it is known what was really used; or the refusal, which names the limit that stands longest in the way. Counters
live in memory. A configuration that is swapped keeps those of limits that count the same thing the same way.
Cases: `tests/flow/limit/test_limiter.py`. Source: design §3 ("Two moments of limits"), §6 (`limits`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from narthex.errors import BudgetExhausted, RateLimited
from narthex.flow.identity.who import includes
from narthex.flow.limit.alerts import Alert, Shares
from narthex.flow.limit.algorithms import NEVER, Algorithm, Concurrent, Periodic, Sliding, TokenBucket
from narthex.flow.limit.buckets import Buckets, Elsewhere, Shard
from narthex.flow.limit.calendar import SECOND, period_of
from narthex.flow.limit.headers import is_told, policy_of, template_of
from narthex.flow.limit.keys import Shown, Subject, digest, keys_of, with_arguments
from narthex.flow.limit.prices import Price
from narthex.flow.limit.spending import Taken, Use
from narthex.flow.limit.state import State
from narthex.flow.limit.tab import Tab
from narthex.flow.route.names import canonical
from narthex.flow.route.patterns import compile_globs
from narthex.quotas import REFUSE
from narthex.types import Kind, LimitRule, LimitUnit, PriceRule, Principal, Who

MOST_BINDINGS = 8192
"""Callers with what they call that are remembered with their keys; the oldest is forgotten."""
SWEPT = 256
"""Buckets looked at in one step of upkeep, or one dict more: under a millisecond."""
BUDGETS: frozenset[LimitUnit] = frozenset({"money", "tokens", "tokens_in", "tokens_out"})
LASTING = 3600 * SECOND
"""Windows of this length and longer are counted on after a restart; periods of the calendar and money always."""
EXPECTED: frozenset[LimitUnit] = frozenset({"bytes", "bytes_out", "tokens", "tokens_out"})
"""Units of which nobody knows beforehand how much it will be."""
PATTERNS: Mapping[Kind, str] = {"tools": "tools", "prompts": "prompts", "resources": "resources"}


def algorithm_of(rule: LimitRule) -> Algorithm:
    if rule.algorithm == "concurrent":
        return Concurrent(rule.most)
    if rule.algorithm == "bucket":
        return TokenBucket(rule.most, rule.window, rule.burst or rule.most)
    if rule.algorithm == "fixed":
        return Periodic(rule.most, partial(_fixed, rule.window))
    if rule.period:
        return Periodic(rule.most, partial(_calendar, rule))
    return Sliding(rule.most, rule.window, by_one=rule.unit == "calls")


def is_lasting(rule: LimitRule) -> bool:
    """Is it counted on after a restart? Rates begin anew; a bucket's level is no sum that could be kept."""
    if rule.algorithm in ("bucket", "concurrent"):
        return False
    return rule.unit == "money" or bool(rule.period) or rule.window >= LASTING


def _fixed(window: int, at: int) -> tuple[int, int]:
    start = at - at % window
    return start, start + window


def _calendar(rule: LimitRule, at: int) -> tuple[int, int]:
    assert rule.period
    return period_of(at, rule.period, rule.zone)


class Limit:
    """One rule with its counters."""

    __slots__ = ("algorithm", "buckets", "counter", "lasting", "measure", "per_arguments", "rule", "shares")

    def __init__(self, rule: LimitRule, buckets: Buckets) -> None:
        self.rule = rule
        self.algorithm = algorithm_of(rule)
        self.buckets = buckets
        self.counter = counter_of(rule)
        """Names what is counted, over restarts."""
        self.lasting = is_lasting(rule)
        self.shares = Shares(rule.alerts) if rule.alerts else None
        self.measure = rule.currency or rule.unit
        """What of a call's demand it takes."""
        self.per_arguments = any(word.startswith("arg:") for word in rule.per)

    def covers(self, kind: Kind, subject: Subject) -> bool:
        """Does a call count here? Patterns of one kind leave out the others."""
        rule = self.rule
        if rule.endpoints and subject.endpoint not in rule.endpoints:
            return False
        if rule.tools or rule.prompts or rule.resources:
            patterns: tuple[str, ...] = getattr(rule, PATTERNS[kind]) if kind in PATTERNS else ()
            if not compile_globs(patterns)(canonical(subject.server, subject.name)):
                return False
        return includes(rule.who, subject.principal)


def counter_of(rule: LimitRule) -> bytes:
    """Names what a limit counts, over restarts."""
    return digest(_counting(rule))


def _counting(rule: LimitRule) -> tuple[Any, ...]:
    """The same of rules that count the same thing in the same way, whatever they allow."""
    depth = (rule.most, rule.burst) if rule.algorithm == "bucket" else ()  # its numbers are of that rate
    return rule.name, rule.unit, rule.per, rule.algorithm, rule.window, rule.period, rule.zone, rule.currency, depth


def refused(rule: LimitRule, wait: int) -> RateLimited:
    """The refusal by a limit, with what it says of such calls. `wait`: microseconds until there is room, or `NEVER`."""
    kind = BudgetExhausted if rule.unit in BUDGETS else RateLimited
    error = kind(rule.name, None if wait == NEVER else wait / SECOND)
    error.holds, error.use = rule.when_spent.hold, rule.when_spent.use
    return error


Place = tuple[Algorithm, Shard, bytes, Limit]


class Binding:
    """The buckets that the calls of one caller to one thing count in. `shown` says for people what each is for."""

    __slots__ = (
        "_taken", "alerts", "buckets", "counts_tokens", "groups", "has_buckets", "held", "kind", "known", "lasting",
        "lowers", "names", "ones", "places", "plain", "policy", "prices", "reads_arguments", "rules", "shown",
        "subject", "template",
    )  # fmt: skip

    def __init__(
        self, kind: Kind, subject: Subject, places: Sequence[Place], shown: Sequence[Shown], prices: Sequence[Price]
    ) -> None:
        self.kind: Kind = kind
        self.subject = subject
        self.places = tuple(places)
        self.shown = tuple(shown)
        self.ones = (1,) * len(places)
        self.known: Sequence[tuple[int, int]] | None = None
        """What is used of each place, and until when, as it was last heard from those who count elsewhere."""
        self.names: Any = None
        """What its places are called there."""
        self.prices = tuple(prices)
        self.reads_arguments = any(limit.per_arguments for *_, limit in places) or any(
            price.reads_arguments for price in prices
        )
        self.lasting = tuple(at for at, (*_, limit) in enumerate(places) if limit.lasting)
        """The places that are counted on after a restart."""
        self.lowers = any(limit.rule.when_spent.lower for *_, limit in places)
        self.buckets = tuple(at for at, (*_, limit) in enumerate(places) if limit.rule.algorithm == "bucket")
        """The places whose receipt is another one than the time."""
        self.has_buckets = bool(self.buckets)
        self._taken: Taken | None = None
        self.rules = rules = tuple([limit.rule for *_, limit in places])
        self.plain = not prices and not any(
            limit.per_arguments or limit.rule.unit not in ("calls", "concurrent") for *_, limit in places
        )
        """Every call takes one of each: nothing of it needs to be looked at."""
        self.counts_tokens = any(rule.unit.startswith("tokens") for rule in rules) or any(
            price.counts_tokens for price in prices
        )
        self.alerts = tuple(at for at, rule in enumerate(rules) if rule.alerts)
        """The places where somebody wants to be told of shares."""
        self.held = tuple(at for at, rule in enumerate(rules) if rule.unit == "concurrent")
        """The places that are given back when a call ends, whatever became of it."""
        told = [rule for rule in rules if is_told(rule)]
        self.policy, self.template = policy_of(told), template_of(told)
        names = [rule.name for rule in rules]
        self.groups = tuple(
            tuple(at for at, one in enumerate(names) if one == name)
            for name in dict.fromkeys(rule.name for rule in told)
        )
        """The places of each limit: several, where a caller has several roles."""

    def taken(self, amounts: tuple[int, ...]) -> Taken:
        """What a call has taken, for its record; the same object where it is what the call before has taken."""
        last = self._taken
        if last is not None and last.amounts == amounts:
            last.usual = True
            return last
        self._taken = last = Taken(self.rules, amounts)
        return last


class Reservation:
    """What a call has taken. It is settled once; what comes later changes nothing.

    `receipts` says for each place what `correct` is to be told of it. `left`: what is used of each place, and until
    when, as it was when it was taken, where only another process knows it. `stint` is whoever counts there.
    """

    __slots__ = ("amounts", "at", "binding", "left", "open", "places", "receipts", "stint")

    def __init__(
        self, binding: Binding, places: tuple[Place, ...], amounts: tuple[int, ...], at: int, receipts: Sequence[int]
    ) -> None:
        self.binding = binding
        self.places = places
        self.amounts = amounts
        self.at = at
        self.receipts = receipts
        self.left: Sequence[tuple[int, int]] | None = None
        self.stint: Any = None
        self.open = True


class Limiter:
    """The limits of a process. `apply` swaps their rules.

    Args:
        clock: Whole microseconds that never go back, near those since 1970.
    """

    def __init__(
        self,
        rules: Sequence[LimitRule],
        clock: Callable[[], int],
        prices: Sequence[PriceRule] = (),
    ) -> None:
        self.clock = clock
        self._make_buckets: Callable[[], Buckets] = Buckets
        self.teams: Sequence[tuple[str, Who]] = ()
        self.models: Mapping[str, tuple[int, int]] = {}
        self.projects: Mapping[str, str] = {}
        """What an endpoint's calls are made for."""
        self.limits: tuple[Limit, ...] = ()
        self.prices: tuple[Price, ...] = ()
        self._bindings: dict[tuple[Any, ...], Binding] = {}
        self._swept = 0
        self.apply(rules, prices)

    def apply(self, rules: Sequence[LimitRule], prices: Sequence[PriceRule] = ()) -> None:
        """Count by these rules from now on; counters of what is counted as before stay."""
        kept = {_counting(limit.rule): limit.buckets for limit in self.limits}
        self.prices = tuple(Price(rule, self.models) for rule in prices)
        self.limits = tuple(Limit(rule, kept.get(_counting(rule)) or self._make_buckets()) for rule in rules)
        self._bindings.clear()

    def count_elsewhere(self) -> None:
        """Another process counts from now on; which buckets there are is still known here."""
        rules, prices = [limit.rule for limit in self.limits], [price.rule for price in self.prices]
        self._make_buckets, self.limits = Elsewhere, ()
        self.apply(rules, prices)

    def binding(self, principal: Principal, endpoint: str, kind: Kind, server: str, name: str) -> Binding:
        """Where calls of this principal to this thing count."""
        key = (id(principal), endpoint, kind, server, name)  # a verified token gives the same object each time
        known = self._bindings.get(key)
        if known is not None and known.subject.principal is principal:
            return known
        team = next((team for team, who in self.teams if includes(who, principal)), "")
        subject = Subject(principal, endpoint, server, name, team, self.projects.get(endpoint, ""))
        places: list[Place] = []
        shown: list[Shown] = []
        for limit in self.limits:
            if limit.covers(kind, subject):
                for key_, words in keys_of(limit.rule.per, subject):
                    shard, placed = limit.buckets.place(key_)
                    places.append((limit.algorithm, shard, placed, limit))
                    shown.append(words)
        if len(self._bindings) >= MOST_BINDINGS:
            del self._bindings[next(iter(self._bindings))]
        prices = [price for price in self.prices if price.covers(kind, subject)]
        made = self._bindings[key] = Binding(kind, subject, places, shown, prices)
        return made

    def reserve(self, binding: Binding, demand: Mapping[str, int] | None = None, arguments: Any = None) -> Reservation:
        """Take all of it, or nothing.

        Args:
            demand: How much of each unit, and of each currency; None where the binding is plain. Calls are one.
            arguments: Of the call, decoded, where a limit is per argument.
        Raises:
            RateLimited, BudgetExhausted: By the limit that stands longest in the way.
        """
        places, amounts = wanted(binding, demand, arguments)
        return self.take(binding, places, amounts)

    def take(self, binding: Binding, places: tuple[Place, ...], amounts: tuple[int, ...]) -> Reservation:
        """Take these amounts of these places, or nothing. Raises as `reserve`."""
        now, taken = self.clock(), 0
        lowering: list[LimitRule] | None = None
        for algorithm, shard, key, limit in places:
            if not algorithm.take(shard, key, amounts[taken], now):
                if limit.rule.when_spent.lower:
                    lowering = [*(lowering or ()), limit.rule]
                elif not limit.rule.soft:
                    break
                algorithm.correct(shard, key, amounts[taken], now, now)
            taken += 1
        else:
            lowered = -1 if lowering is None else _lowered(lowering, places, now)
            if lowered < 0:
                receipts = [now] * len(places)
                for at in binding.buckets:
                    algorithm, shard, key, _ = places[at]
                    receipts[at] = algorithm.receipt(shard, key, now)
                return Reservation(binding, places, amounts, now, receipts)
        back = places[:taken]
        for (algorithm, shard, key, _), amount, at in zip(back, amounts, _receipts(back, now), strict=False):
            if amount:
                algorithm.correct(shard, key, -amount, at, now)
        if lowering is not None and taken == len(places):
            refusal = _refusal_of(lowering, places[lowered], amounts[lowered], now)
        else:
            refusal = self._refusal(places, amounts, now)
        refusal.lines = self.left(Reservation(binding, places, amounts, now, ()))
        raise refusal

    @staticmethod
    def _refusal(places: Sequence[Place], amounts: Sequence[int], now: int) -> RateLimited:
        """By the limit that stands longest in the way; where another one of them refuses plainly, so does this."""
        longest, by, plainly = 0, places[0][3].rule, False
        for (algorithm, shard, key, limit), amount in zip(places, amounts, strict=True):
            goes_on = limit.rule.soft or limit.rule.when_spent.lower
            wait = 0 if goes_on or not amount else algorithm.wait(shard, key, amount, now)
            plainly = plainly or (wait != 0 and limit.rule.when_spent == REFUSE)
            if longest != NEVER and (wait == NEVER or wait > longest):
                longest, by = wait, limit.rule
        error = refused(by, longest)
        if plainly:
            error.holds, error.use = False, ""
        return error

    def settle(self, held: Reservation, used: Mapping[str, int] | None = None) -> None:
        """The call is over.

        Args:
            used: How much it really was, by unit; what is not named was what was reserved.
        """
        if not held.open:
            return
        held.open = False
        now = self.clock()
        for at in held.binding.held:
            algorithm, shard, key, _ = held.places[at]
            algorithm.correct(shard, key, -held.amounts[at], held.receipts[at], now)
        if not used:
            return
        for (algorithm, shard, key, limit), amount, at in zip(held.places, held.amounts, held.receipts, strict=True):
            change = used.get(limit.measure, amount) - amount
            if change:
                algorithm.correct(shard, key, change, at, now)

    def give_back(self, held: Reservation) -> None:
        """The call never went out: it used nothing."""
        if not held.open:
            return
        held.open = False
        now = self.clock()
        for (algorithm, shard, key, _), amount, at in zip(held.places, held.amounts, held.receipts, strict=True):
            if amount:
                algorithm.correct(shard, key, -amount, at, now)

    def alerts(self, held: Reservation) -> list[Alert]:
        """The shares that a settled call was the first to reach."""
        now, found = self.clock(), []
        for at in held.binding.alerts:
            algorithm, shard, key, limit = held.places[at]
            used, _ = algorithm.used(shard, key, now)
            share = limit.shares.reached(key, used, algorithm.most) if limit.shares is not None else 0
            if share:
                found.append(alert_of(held, at, share, used))
        return found

    def told_nobody(self, alert: Alert) -> None:
        """The alert was given up: the next call beyond that share tells of it again."""
        for limit in self.limits:
            if limit.rule.name == alert.limit and limit.shares is not None:
                limit.shares.forget(alert.key)

    def uses(self, held: Reservation, used: Mapping[str, int], ahead: int) -> tuple[Use, ...]:
        """What a settled call has used of lasting limits, for the books."""
        found = []
        for number in held.binding.lasting:
            algorithm, _, key, limit = held.places[number]
            amount = used.get(limit.measure, held.amounts[number]) if used else held.amounts[number]
            if amount:
                slot, ends = algorithm.lasts(held.at, ahead)
                found.append(Use(limit.counter, key, slot, held.at + ahead, ends, amount))
        return tuple(found)

    def tally(self, held: Reservation, used: Mapping[str, int], ahead: int, tab: Tab) -> None:
        """The same, added up at once: of calls that cost nothing."""
        for number in held.binding.lasting:
            algorithm, _, key, limit = held.places[number]
            amount = used.get(limit.measure, held.amounts[number]) if used else held.amounts[number]
            if amount:
                slot, ends = algorithm.lasts(held.at, ahead)
                tab.add((limit.counter, key, slot), held.at + ahead, ends, amount)

    def recount(self, held: Reservation, changes: Mapping[str, int], ahead: int) -> tuple[Use, ...]:
        """A settled call has used more (or, below 0, less) than it was settled by. Returns that of lasting limits. What
        others count, they are told of apart."""
        now, found = self.clock(), []
        for (algorithm, shard, key, limit), at in zip(held.places, held.receipts, strict=True):
            change = changes.get(limit.measure, 0)
            if not change:
                continue
            if held.stint is None:
                algorithm.correct(shard, key, change, at, now)
            if limit.lasting:
                slot, ends = algorithm.lasts(held.at, ahead)
                found.append(Use(limit.counter, key, slot, held.at + ahead, ends, change))
        return tuple(found)

    def restore(self, uses: Iterable[Use], ahead: int) -> None:
        """Count what was counted before a restart, in limits that count the same thing the same way."""
        now, limits = self.clock(), {limit.counter: limit for limit in self.limits if limit.lasting}
        for use in uses:
            limit = limits.get(use.counter)
            if limit is not None:
                shard, key = limit.buckets.place(use.key)
                limit.algorithm.correct(shard, key, use.amount, min(now, use.at - ahead), now)

    def left(self, held: Reservation) -> bytes:
        """The header lines that tell the client what is left of its limits; none of money."""
        binding = held.binding
        if not binding.policy:
            return b""
        now, values = self.clock(), list[int]()
        for group in binding.groups:
            least = wait = 0
            for number, at in enumerate(group):
                algorithm, shard, key, _ = held.places[at]
                used, until = algorithm.used(shard, key, now) if held.left is None else held.left[at]
                if not number or algorithm.most - used < least:
                    least, wait = algorithm.most - used, until
            values.append(least if least > 0 else 0)
            values.append(-(-wait // SECOND))
        return binding.policy + binding.template % tuple(values)

    def set_ahead(self, ahead: int) -> None:
        """How far the wall clock is ahead of ours: it was set."""
        now = self.clock()
        for limit in self.limits:
            if isinstance(limit.algorithm, Periodic):
                limit.algorithm.set_ahead(ahead, now)

    def sweep(self) -> bool:
        """Forget what has run out, a step of it. Returns whether that was the end of a round: there is time then."""
        now = self.clock()
        while self._swept < len(self.limits):
            limit = self.limits[self._swept]
            looked, done = limit.buckets.sweep(limit.algorithm.over(now), SWEPT)
            self._swept += done
            if looked >= SWEPT or not done:
                return False
        self._swept = 0
        return True

    def listed(self, subject: str = "") -> Iterator[tuple[Place, Shown]]:
        """The buckets of callers that were here lately, and what each is for; of one human or service, or of all."""
        told = set()
        for binding in self._bindings.values():
            if subject and binding.subject.principal.subject != subject:
                continue
            for place, words in zip(binding.places, binding.shown, strict=True):
                _, _, key, limit = place
                if (limit.rule.name, key) not in told and not limit.per_arguments:
                    told.add((limit.rule.name, key))
                    yield place, words

    def states(self, subject: str = "") -> Iterator[State]:
        """What is used of them."""
        now = self.clock()
        for (algorithm, shard, key, limit), words in self.listed(subject):
            yield state_of(limit, words, *algorithm.used(shard, key, now))

    def last_known(self) -> Iterator[tuple[Place, int]]:
        """What was used of the buckets of callers that were here lately, as those who count elsewhere last said."""
        for binding in self._bindings.values():
            if binding.known is not None:
                for place, (used, _) in zip(binding.places, binding.known, strict=True):
                    if not place[3].per_arguments:
                        yield place, used


def state_of(limit: Limit, words: Shown, used: int, resets: int) -> State:
    """For people. `resets`: microseconds."""
    rule = limit.rule
    return State(rule.name, rule.unit, dict(words), used, limit.algorithm.most, resets / SECOND, rule.currency)


def alert_of(held: Reservation, at: int, share: int, used: int) -> Alert:
    """One of its places has reached a share. The alert's id is the same whoever finds it out."""
    algorithm, _, key, limit = held.places[at]
    rule, slot = limit.rule, algorithm.lasts(held.at, 0)[0] if limit.lasting else held.at
    id_, most = digest([limit.counter.hex(), key.hex(), slot, share]).hex(), algorithm.most
    return Alert(
        id_, rule.name, share, used, most, rule.unit, held.binding.shown[at], key, rule.currency, rule.soft
    )  # fmt: skip


def shares_of(lowering: Sequence[LimitRule]) -> dict[str, int]:
    """How much of other limits may be used while these are spent, in hundredths, by name."""
    shares: dict[str, int] = {}
    for rule in lowering:
        for name, share in rule.when_spent.lower:
            shares[name] = min(share, shares.get(name, share))
    return shares


def refused_of(held: Reservation, by: int, wait: int) -> RateLimited:
    """The refusal by one of its places, as those who count elsewhere have said it, with what is left."""
    error = refused(held.places[by][3].rule, wait)
    for (algorithm, *_, limit), amount, (used, _) in zip(held.places, held.amounts, held.left or (), strict=True):
        if amount and used + amount > algorithm.most and limit.rule.when_spent == REFUSE and not limit.rule.soft:
            error.holds, error.use = False, ""
    return error


def lowered_of(held: Reservation) -> RateLimited | None:
    """The refusal by a limit that others lower, of what others have granted; None: there is none."""
    left = held.left or ()
    lowering = [
        limit.rule for (algorithm, *_, limit), (used, _) in zip(held.places, left, strict=True)
        if limit.rule.when_spent.lower and used > algorithm.most
    ]  # fmt: skip
    shares = shares_of(lowering)
    for (algorithm, *_, limit), (used, resets) in zip(held.places, left, strict=True):
        share = shares.get(limit.rule.name, 100)
        if share < 100 and used > algorithm.most * share // 100:
            return refused(limit.rule, resets)
    return None


def _lowered(lowering: Sequence[LimitRule], places: Sequence[Place], now: int) -> int:
    """Where more is used, this call included, than may be of a limit that is lowered; -1: nowhere."""
    shares = shares_of(lowering)
    for number, (algorithm, shard, key, limit) in enumerate(places):
        share = shares.get(limit.rule.name, 100)
        if share < 100 and algorithm.used(shard, key, now)[0] > algorithm.most * share // 100:
            return number
    return -1


def _refusal_of(lowering: Sequence[LimitRule], place: Place, amount: int, now: int) -> RateLimited:
    """By a limit that is lowered: until less of it is used."""
    algorithm, shard, key, limit = place
    room = algorithm.most * shares_of(lowering)[limit.rule.name] // 100
    return refused(limit.rule, algorithm.wait(shard, key, amount + algorithm.most - room, now))


def wanted(
    binding: Binding, demand: Mapping[str, int] | None, arguments: Any
) -> tuple[tuple[Place, ...], tuple[int, ...]]:
    """The places that a call counts in, and how much it takes of each."""
    if demand is None:
        return binding.places, binding.ones
    places = tuple(map(partial(_placed, arguments), binding.places))
    return places, tuple([_amount(limit, demand) for *_, limit in places])


def _receipts(places: Sequence[Place], now: int) -> list[int]:
    return [algorithm.receipt(shard, key, now) for algorithm, shard, key, _ in places]


def _amount(limit: Limit, demand: Mapping[str, int]) -> int:
    """What a call takes. An expectation above all that there is takes all that there is: it may be wrong."""
    unit = limit.rule.unit
    amount = demand.get(limit.measure, 0 if unit == "money" else 1)
    return min(amount, limit.algorithm.most) if unit in EXPECTED else amount


def _placed(arguments: Any, place: Place) -> Place:
    """The bucket of a limit that is per argument, for these."""
    algorithm, _, key, limit = place
    if not limit.per_arguments:
        return place
    shard, key = limit.buckets.place(with_arguments(key, limit.rule.per, arguments))
    return algorithm, shard, key, limit
