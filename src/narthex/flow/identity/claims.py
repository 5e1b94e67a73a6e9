"""From the claims of a verified token to the principal: who, for whom, with which roles, and why.

In: claims whose signature is checked, or an introspection's answer; the rules of the issuer. Out: a `Principal`, and
for `narthex whoami` the steps that led to it. Nothing is had by default: a role comes from a rule that names it, or not
at all. Cases and properties: `tests/flow/identity/test_claims.py`. Source: RFC 9068 §2.2, RFC 8693 §4.1 (`act`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from narthex.flow.identity.presets import PRESETS
from narthex.flow.identity.tokens import Claims, TokenRefused, seconds
from narthex.flow.route.patterns import compile_globs
from narthex.types import ClaimPath, ClaimRules, Principal, Proof

MOST_VALUES = 1000
MAX_TEXT = 512
MOST_ACTORS = 8
_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
_CONTROL = re.compile(r"[\x00-\x1f\x7f]").search
PUBLIC = "the token says too little about its bearer"

Say = Callable[[str, str], None]


def _nobody_listens(step: str, text: str) -> None:
    pass


def principal_of(
    claims: Claims,
    rules: ClaimRules,
    *,
    issuer: str,
    method: Proof,
    includes: Mapping[str, tuple[str, ...]] | None = None,
    say: Say = _nobody_listens,
) -> Principal:
    """Read who a token speaks for.

    Args:
        issuer: Its name in the principal: as configured, whatever alias the token used.
        includes: A scope -> the scopes that it includes.
        say: Told each step, as `(step, what was found and why)`.
    Raises:
        TokenRefused: No subject, no tenant, a subject that is not let in, groups left out, or values of no use.
    """
    subject = _one(claims, rules.subject, "subject", say)
    if not subject:
        raise TokenRefused("subject", f"no subject at {_shown(rules.subject)}", PUBLIC)
    if rules.subjects and not compile_globs(rules.subjects)(subject):
        raise TokenRefused("subject", "the subject is not one of those that are let in", "this subject is not let in")
    client = _one(claims, rules.client, "client", say)
    tenant = _tenant(claims, rules, say)
    _check_overage(claims, rules, say)
    groups = _all(claims, rules.groups, "groups", say)
    roles = _roles(claims, rules, subject, groups, say)
    kind = PRESETS[rules.preset].kind_of(claims, subject, client)
    say("kind", kind)
    return Principal(
        tenant,
        issuer,
        subject,
        client,
        roles=_kept(roles),
        groups=_kept(groups),
        scopes=_scopes(claims, rules, includes or {}, say),
        kind=kind,
        actors=_actors(claims),
        method=method,
        authenticated_at=seconds(claims, "auth_time") or seconds(claims, "iat") or 0.0,
        expires_at=seconds(claims, "exp") or 0.0,
        claims=tuple((name, counted(look(claims, path))) for name, path in rules.kept),
    )


# --- values


def counted(value: Any) -> tuple[str, ...]:
    """The values of a claim that limits count by: a text, a number, or a list of them. Others give none.

    Raises:
        TokenRefused: As `texts`.
    """
    values = value if isinstance(value, list) else [value]
    plain = [str(one).lower() if isinstance(one, (bool, int, float)) else one for one in values]
    return _kept(tuple(sorted(texts(plain))))


def look(claims: Claims, path: ClaimPath) -> Any:
    """What stands at a path, None where nothing does."""
    value: Any = claims
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def texts(value: Any, *, split: bool = False) -> tuple[str, ...]:
    """A text or a list of texts as texts; with `split`, a text is several with spaces between (`scope`).

    Raises:
        TokenRefused: More than anybody needs, or characters that would lie in a log.
    """
    if isinstance(value, str):
        found = value.split(" ") if split else [value]
    elif isinstance(value, list):
        found = [one for one in value if isinstance(one, str)]
    else:
        return ()
    found = [one for one in found if one]
    if len(found) > MOST_VALUES:
        raise TokenRefused("size", f"more than {MOST_VALUES} values in one claim", PUBLIC)
    for one in found:
        if len(one) > MAX_TEXT or _CONTROL(one):
            raise TokenRefused("form", "a claim with a value too long, or with control characters", PUBLIC)
    return tuple(dict.fromkeys(found))


def _one(claims: Claims, paths: Iterable[ClaimPath], what: str, say: Say) -> str:
    for path in paths:
        value = look(claims, path)
        if isinstance(value, str) and (found := texts(value)):
            say(what, f"{found[0]} (from {'.'.join(path)})")
            return found[0]
    say(what, f"none (looked at {_shown(paths)})")
    return ""


def _all(claims: Claims, paths: Iterable[ClaimPath], what: str, say: Say) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for path in paths:
        for one in texts(look(claims, path)):
            if one not in found:
                found[one] = None
                say(what, f"{one} (from {'.'.join(path)})")
    return tuple(found)


def _shown(paths: Iterable[ClaimPath]) -> str:
    return ", ".join(".".join(path) for path in paths) or "nothing"


# --- the rules


def _tenant(claims: Claims, rules: ClaimRules, say: Say) -> str:
    if not rules.tenant_claim:
        say("tenant", f"{rules.tenant} (of the issuer)")
        return rules.tenant
    at = ".".join(rules.tenant_claim)
    value = look(claims, rules.tenant_claim)
    if not isinstance(value, str) or not _TENANT(value):
        raise TokenRefused("tenant", f"no usable tenant at {at}", PUBLIC)
    tenant = rules.tenant_map.get(value) if rules.tenant_map else value
    if tenant is None:
        raise TokenRefused("tenant", f"the tenant at {at} is in no tenant_map", "this tenant is not let in")
    say("tenant", f"{tenant} (from {at})")
    return tenant


def _check_overage(claims: Claims, rules: ClaimRules, say: Say) -> None:
    if not are_left_out(claims):
        return
    if rules.overage == "refuse":
        raise TokenRefused(
            "groups",
            "the token left its groups out because there are too many: send app roles, or only the groups that are "
            "assigned to the application; or `directory`, or `overage: ignore`",
            "the token left its groups out",
        )
    say("groups", "left out by the issuer, because there are too many (overage: ignore)")


def are_left_out(claims: Claims) -> bool:
    """Entra leaves groups out where there are too many, and says so by `_claim_names` or `hasgroups`."""
    names = claims.get("_claim_names")
    return (isinstance(names, dict) and "groups" in names) or claims.get("hasgroups") not in (None, False)


def _roles(claims: Claims, rules: ClaimRules, subject: str, groups: Iterable[str], say: Say) -> tuple[str, ...]:
    found: dict[str, None] = {}

    def give(names: Iterable[str], why: str) -> None:
        for name in names:
            if name not in found:
                found[name] = None
                say("role", f"{name} ({why})")

    for role in _all(claims, rules.roles, "said role", say):
        give(rules.role_map.get(role, ()), f"role_map: {role}")
        if rules.role_prefix and role.startswith(rules.role_prefix) and len(role) > len(rules.role_prefix):
            give((role[len(rules.role_prefix) :],), f"role_prefix: {role}")
    for group in groups:
        give(rules.group_map.get(group, ()), f"group_map: {group}")
    for pattern, names in rules.subject_map.items():
        if compile_globs((pattern,))(subject):
            give(names, f"subject_map: {pattern}")
    if not found:
        say("role", "none: no rule gives one")
    return tuple(found)


def _scopes(claims: Claims, rules: ClaimRules, includes: Mapping[str, tuple[str, ...]], say: Say) -> frozenset[str]:
    """All scopes, and those that they include."""
    found: set[str] = set()
    for path in rules.scopes:
        said = texts(look(claims, path), split=True)
        if said:
            say("scopes", f"{' '.join(said)} (from {'.'.join(path)})")
        found.update(said)
        if rules.scope_prefix:
            found.update(rules.scope_prefix + one for one in said if not one.startswith(rules.scope_prefix))
    return _kept_set(with_included(found, includes))


def with_included(scopes: Iterable[str], includes: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """These scopes and those that they include, through any number of steps."""
    found, left = set(), list(scopes)
    while left:
        scope = left.pop()
        if scope not in found:
            found.add(scope)
            left.extend(includes.get(scope, ()))
    return frozenset(found)


def _actors(claims: Claims) -> tuple[str, ...]:
    """The chain of `act`, the one that acts now first. Only it counts for access (RFC 8693 §4.1); the rest is told."""
    found: list[str] = []
    actor = claims.get("act")
    while isinstance(actor, dict):
        if len(found) == MOST_ACTORS:
            raise TokenRefused("actors", f"more than {MOST_ACTORS} actors", PUBLIC)
        name = next((actor[key] for key in ("sub", "client_id", "azp") if isinstance(actor.get(key), str)), "")
        found.append((texts(name) or ("?",))[0])
        actor = actor.get("act")
    return tuple(found)


# Thousands of principals have the same few roles, groups and scopes: one value each is kept for all of them.


@lru_cache(maxsize=4096)
def _kept(values: tuple[str, ...]) -> tuple[str, ...]:
    return values


@lru_cache(maxsize=4096)
def _kept_set(values: frozenset[str]) -> frozenset[str]:
    return values
