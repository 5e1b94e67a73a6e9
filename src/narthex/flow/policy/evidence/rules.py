"""Every rule that applies to a decided call, what each has said, and what the call was let through for.

In: the `Check` of a call, once it is decided. Out: `Ruled`, one a rule, in the order in which they are asked; duties by
their kind. Nothing is noted for it while the call passes, and no condition is looked at again: what a decision stands
on is told by which of the rules it is. Pure. Cases: `tests/flow/policy/evidence/test_rules.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Literal

import msgspec

from narthex.flow.policy.check import Check
from narthex.flow.policy.decision import CONDITION_NOT_MET, RULE_FAILED, Decision
from narthex.flow.policy.engines.obligations import MOST_POINTERS, Obligation
from narthex.flow.policy.grants import Rule
from narthex.flow.policy.runs.rules import uncounted
from narthex.flow.route.names import canonical

LONGEST: Final = 256
"""Characters of a text that a policy chose."""
Word = Literal["met", "not_met", "failed", "not_asked"]


class Ruled(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rule that is for this caller and this thing.

    `said`: `met`, it holds for the call; `not_met`, its condition does not, or could not be told where a later rule
    allowed the call all the same; `failed`, it could not be told, and that denied the call; `not_asked`, it stands
    behind what has decided. `of` is `runs` for a rule over several calls.
    """

    rule: str
    effect: str
    said: Word
    line: int = 0
    of: str = ""


def rules_of(check: Check, *, counts: bool = True) -> list[Ruled]:
    """All of them; none where no name has led to anything.

    Args:
        counts: Is it one of the calls that rules on runs count? Completions are not.
    """
    target, rights = check.target, check.admission.rights
    if target is None:
        return []
    name = canonical(target.server, target.name)
    found: list[Ruled] = []
    if rights is not None:
        rules = rights.covering(check.kind, name)
        for rule, said in zip(rules, _words(rules, check.granted), strict=True):
            found.append(Ruled(rule.grant.name, rule.grant.effect, said, rule.grant.line))
    if check.granted is not None and check.admission.runs is not None:
        plan = check.admission.plans.plan(check.kind, name)
        watching = (plan if counts else uncounted(plan)).rules
        words = _words_of_runs([one.decision for one in watching], check.watched)
        for one, said in zip(watching, words, strict=True):
            found.append(Ruled(one.rule.name, one.rule.effect, said, one.rule.line, "runs"))
    return found


def _words(rules: Sequence[Rule], granted: Decision | None) -> list[Word]:
    """What each grant has said. None: the call did not come so far. A rule that nothing of a call decides about holds
    whether it was asked or not."""
    words: list[Word] = ["met" if one.is_plain else "not_asked" for one in rules]
    if granted is None:
        return words
    last = decided = next((at for at, one in enumerate(rules) if one.decision is granted), None)
    word: Word = "met"
    if granted.reason == RULE_FAILED:
        by = granted.rule, granted.line
        decided = next((at for at, one in enumerate(rules) if (one.grant.name, one.grant.line) == by), None)
        last, word = decided, "failed"
        if decided is not None and rules[decided].grant.effect == "allow":
            last = len(rules) - 1  # the others might have allowed it
    elif granted.reason == CONDITION_NOT_MET:
        last = len(rules) - 1
    if last is not None:
        words[: last + 1] = ["not_met"] * (last + 1)
    if decided is not None:
        words[decided] = word
    return words


def _words_of_runs(rules: Sequence[Decision], watched: Sequence[Decision] | None) -> list[Word]:
    if watched is None:
        return ["not_asked"] * len(rules)
    decided = next((at for at, one in enumerate(rules) if watched and one is watched[0]), len(rules))
    words: list[Word] = ["not_met"] * decided
    if decided < len(rules):
        words += ["met", *["not_asked"] * (len(rules) - decided - 1)]  # type: ignore[list-item]
    return words


def duties_of(obligations: Iterable[Obligation]) -> dict[str, Any]:
    """Obligations as they may be shown: of what replaces arguments only where, because what it puts there may be
    anything."""
    return {one.kind: _shown(one) for one in obligations}


def _shown(one: Obligation) -> Any:
    value = one.value
    if one.kind == "rewrite":
        value = tuple(islice(_places(value), MOST_POINTERS))
    return tuple(text[:LONGEST] for text in value[:MOST_POINTERS]) if isinstance(value, tuple) else value


def _places(patch: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Where a merge patch changes something, as JSON pointers (RFC 6901)."""
    for key, value in patch.items():
        pointer = f"{above}/{key.replace('~', '~0').replace('/', '~1')}"
        if isinstance(value, dict) and value:
            yield from _places(value, pointer)
        else:
            yield pointer
