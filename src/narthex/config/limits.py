"""`limits` to what the gateway works with: one unit each, a window that fits, names that are there.

In: the settings of all limits. Out: `LimitRule`s; or a fault at the place it stands at.
Cases: `tests/config/test_limits.py`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, get_args

from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading
from narthex.config.grants import check_patterns, compile_who
from narthex.config.schema.limits import LimitSettings
from narthex.config.schema.prices import Money
from narthex.config.schema.who import AnybodySettings
from narthex.config.values import parse_claim_path
from narthex.quotas import REFUSE
from narthex.types import ClaimPath, LimitRule, LimitUnit, Webhook, Who

UNITS: tuple[LimitUnit, ...] = get_args(LimitUnit)


def compile_limits(
    settings: Sequence[LimitSettings], servers: Iterable[str], endpoints: Container[str], reading: Reading
) -> tuple[LimitRule, ...]:
    """All limits, in their order. Faults and warnings go into `reading`."""
    names: set[str] = set()
    known = tuple(servers)
    rules = []
    for number, one in enumerate(settings):
        at: KeyPath = ("limits", str(number))
        if not one.name:
            reading.fault(at, "'name' is missing: what the limit is called in refusals and records")
        elif one.name in names:
            reading.fault((*at, "name"), f"a limit '{one.name}' stands there already")
        names.add(one.name)
        for kind in ("tools", "prompts", "resources"):
            check_patterns(getattr(one, kind), (*at, kind), known, reading)
        for endpoint in one.endpoints:
            if endpoint not in endpoints:
                reading.fault((*at, "endpoints"), f"no endpoint '{endpoint}'")
        _check_spent(one, at, settings, known, reading)
        rules.append(_rule(one, at, reading))
    return tuple(rules)


def _check_spent(
    one: LimitSettings, at: KeyPath, all_: Sequence[LimitSettings], servers: Sequence[str], reading: Reading
) -> None:
    """What becomes of a call that it has no room for must be possible."""
    then, at = one.when_spent, (*at, "when_spent")
    if then != REFUSE and (one.concurrent is not None or one.soft):
        reading.fault(at, "when_spent: goes with limits that are spent, not with `concurrent` or `soft` ones")
    if then.use and then.use.partition("__")[0] not in servers:
        reading.fault(at, f"when_spent: no server '{then.use.partition('__')[0]}'")
    for name, _ in then.lower:
        if name == one.name or all(name != other.name for other in all_):
            reading.fault(at, f"when_spent: no other limit '{name}'")


def compile_teams(
    teams: Mapping[str, AnybodySettings], limits: Sequence[LimitSettings], reading: Reading
) -> tuple[tuple[str, Who], ...]:
    """Who belongs to which team. A limit per team wants some: else all would share its one bucket."""
    for number, one in enumerate(limits):
        if "team" in one.per and not teams:
            reading.fault(("limits", str(number), "per"), "per: `team` wants `teams`, which say who belongs to which")
    return tuple((name, compile_who(who, ("teams", name), reading)) for name, who in teams.items())


def compile_hooks(limits: Sequence[LimitSettings], reading: Reading) -> dict[str, Webhook]:
    """Who is told of which limit's alerts."""
    found = {}
    for number, one in enumerate(limits):
        at: KeyPath = ("limits", str(number), "webhook")
        hook = one.webhook
        if hook is None:
            continue
        if not one.alerts:
            reading.fault(at, "webhook: goes with `alerts`, the shares that it is told of")
        if hook.url is None:
            if (*at, "url") not in reading.marks:
                reading.fault(at, "webhook: 'url' is missing: who is told?")
            continue
        if hook.secret is None:
            reading.warn(at, f"limit '{one.name}': without a 'secret' nothing is signed")
        found[one.name] = Webhook(hook.url.value, hook.secret.text if hook.secret is not None else None)
    return found


def counted_claims(limits: Sequence[LimitSettings]) -> tuple[tuple[str, ClaimPath], ...]:
    """The claims that limits count by, as they name them, and where they stand in a token."""
    words = dict.fromkeys(
        word.removeprefix("claim:") for one in limits for word in one.per if word.startswith("claim:")
    )
    return tuple((name, parse_claim_path(name)) for name in words)


def _rule(one: LimitSettings, at: KeyPath, reading: Reading) -> LimitRule:
    said = [unit for unit in UNITS if getattr(one, unit) is not None]
    if len(said) != 1 and not reading.problems:
        several = " and ".join(f"`{unit}`" for unit in said)
        words = f"has {several}; make a limit of each" if said else f"limits nothing: say one of {', '.join(UNITS)}"
        reading.fault(at, f"limit '{one.name}' {words}")
    unit: LimitUnit = said[0] if said else "calls"
    time = _time(one, unit, at, reading)
    most = getattr(one, unit)
    if isinstance(most, Money):
        time["currency"], most = most.currency, most.amount
        if not most:
            reading.fault((*at, "money"), "money: a budget of nothing; deny the tools instead")
    return LimitRule(
        name=one.name,
        unit=unit,
        most=most or 1,
        per=tuple(dict.fromkeys(one.per)),
        burst=one.burst or 0,
        soft=one.soft,
        alerts=tuple(sorted(set(one.alerts))),
        who=compile_who(one.who, (*at, "who"), reading),
        tools=one.tools,
        prompts=one.prompts,
        resources=one.resources,
        endpoints=one.endpoints,
        when_spent=one.when_spent,
        **time,
    )


def _time(one: LimitSettings, unit: LimitUnit, at: KeyPath, reading: Reading) -> dict[str, Any]:
    """Algorithm and window of a rule."""
    window, algorithm = one.window, one.algorithm
    if unit == "concurrent":
        for key in ("window", "algorithm", "burst", "alerts"):
            if getattr(one, key):
                reading.fault((*at, key), f"{key}: what is concurrent is counted at a time, not over one")
        return {"algorithm": "concurrent"}
    if window is None:
        if (*at, "window") not in reading.marks:
            reading.fault(at, f"limit '{one.name}': 'window' is missing, such as 1m or calendar day")
        return {"window": 1_000_000}
    if window.period:
        if algorithm not in (None, "calendar"):
            reading.fault((*at, "algorithm"), f"algorithm: a calendar's window is not counted as `{algorithm}`")
        chosen = "calendar"
    else:
        if algorithm == "calendar":
            reading.fault((*at, "algorithm"), "algorithm: `calendar` needs a window such as `calendar day`")
        if (*at, "zone") in reading.marks:
            reading.fault((*at, "zone"), "zone: goes with a calendar's window")
        chosen = algorithm or "sliding"
    if one.burst is not None and chosen != "bucket":
        reading.fault((*at, "burst"), f"burst: goes with `algorithm: bucket`, not with `{chosen}`")
    return {
        "algorithm": chosen,
        "window": round(window.seconds * 1_000_000),
        "period": window.period,
        "zone": one.zone,
    }
