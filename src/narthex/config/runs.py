"""`runs` to what the gateway works with: checked against itself, the grants and the servers.

In: the settings. Out: a `RunSpec`; or a fault at the place it stands at.
Cases: `tests/config/test_runs.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from narthex.config.data import KINDS
from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading, suggest
from narthex.config.grants import check_patterns, compile_who
from narthex.config.schema.grants import PatternSettings
from narthex.config.schema.runs import LabelSettings, RunRuleSettings, RunSettings
from narthex.flow.policy.conditions import BadCondition, compile_condition
from narthex.types import Grant, LabelRow, Patterns, RunRule, RunSpec


def compile_runs(
    settings: RunSettings | None, servers: Iterable[str], grants: Sequence[Grant], reading: Reading
) -> RunSpec | None:
    """What is watched over several calls. No rule is called as a grant is: decisions name what said them."""
    if settings is None:
        return None
    known = tuple(servers)
    labels = tuple(_label(one, ("runs", "labels", str(at)), known, reading) for at, one in enumerate(settings.labels))
    added = {label for row in labels for label in row.adds}
    rules: list[RunRule] = []
    for number, one in enumerate(settings.rules):
        at: KeyPath = ("runs", "rules", str(number))
        if not one.name:
            reading.fault(at, "'name' is missing: what the rule is called in decisions and records")
        elif any(one.name == other.name for other in rules):
            reading.fault((*at, "name"), f"a rule '{one.name}' stands there already")
        elif any(one.name == grant.name for grant in grants):
            reading.fault((*at, "name"), f"a grant is called '{one.name}' already")
        for label in one.labels:
            if label not in added:
                hint = suggest(label, added)
                reading.fault((*at, "labels"), f"nothing in `runs.labels` adds '{label}'{hint}: it would never hold")
        rules.append(_rule(one, at, known, reading))
    return RunSpec(
        window_s=settings.window,
        endpoints=settings.endpoints,
        trusted=tuple(
            compile_who(who, ("runs", "trusted_agents", str(at)), reading)
            for at, who in enumerate(settings.trusted_agents)
        ),
        run_id=settings.run_id,
        most_runs=settings.most_runs,
        labels=labels,
        rules=tuple(rules),
    )


def _label(one: LabelSettings, at: KeyPath, servers: Sequence[str], reading: Reading) -> LabelRow:
    if not one.adds:
        reading.fault(at, "'adds' is missing: which label?")
    named = one.tools or one.prompts or one.resources
    if not (named or one.classification or one.privacy):
        reading.fault(at, "a row of `labels` needs `tools`, `prompts`, `resources`, `classification` or `privacy`")
    for key in KINDS:
        check_patterns(getattr(one, key), (*at, key), servers, reading)
    what = Patterns(one.tools, one.prompts, one.resources) if named else None
    return LabelRow(one.adds, what, frozenset(one.classification), frozenset(one.privacy))


def _rule(one: RunRuleSettings, at: KeyPath, servers: Sequence[str], reading: Reading) -> RunRule:
    if (one.deny is None) == (one.hold is None):
        reading.fault(at, f"rule '{one.name}' needs one of `deny` and `hold`")
    if not (one.labels or one.after or one.unless_after or one.at_most or one.cool_down):
        reading.fault(
            at,
            f"rule '{one.name}' says nothing of the run: give it `labels`, `after`, `unless_after`, `at_most` or"
            " `cool_down`; what is always denied belongs into `grants`",
        )
    if one.within and one.at_most is None:
        reading.fault((*at, "within"), "within: how often? `at_most` is missing")
    return RunRule(
        name=one.name,
        effect="deny" if one.deny is not None else "hold",
        what=_patterns(
            one.deny or one.hold or PatternSettings(), (*at, "deny" if one.deny else "hold"), servers, reading
        ),
        who=compile_who(one.who, (*at, "who"), reading),
        labels=one.labels,
        after=_patterns(one.after, (*at, "after"), servers, reading) if one.after else None,
        unless_after=_patterns(one.unless_after, (*at, "unless_after"), servers, reading) if one.unless_after else None,
        at_most=one.at_most or 0,
        within_s=one.within,
        cool_down_s=one.cool_down,
        line=reading.mark(at).line,
        shadow=one.mode == "shadow",
    )


def _patterns(one: PatternSettings, at: KeyPath, servers: Sequence[str], reading: Reading) -> Patterns:
    for key in KINDS:
        check_patterns(getattr(one, key), at, servers, reading)
    return Patterns(one.tools, one.prompts, one.resources)


def check_conditions(grants: Sequence[Grant], runs: RunSpec | None, reading: Reading) -> None:
    """A condition on runs that nobody watches would always find them empty."""
    for number, grant in enumerate(grants):
        if runs is None and grant.when and _speaks_of_runs(grant.when):
            reading.fault(
                ("grants", str(number), "when"), "when: `run` is known only where `runs:` says what is watched"
            )


def _speaks_of_runs(when: str) -> bool:
    try:
        return "run" in compile_condition(when).reads
    except BadCondition:  # told where it stands
        return False
