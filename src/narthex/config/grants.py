"""`grants` to what the gateway works with: checked against each other and against the servers and endpoints.

In: the settings of all grants. Out: `Grant`s, with the line of each; or a fault at the place it stands at.
Cases: `tests/config/test_grants.py`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading, suggest
from narthex.config.schema.approvals import ApprovalSettings, HoldSettings
from narthex.config.schema.grants import DAYS, GrantSettings, PatternSettings
from narthex.config.schema.who import WhoSettings
from narthex.flow.policy.conditions import BadCondition, compile_condition
from narthex.flow.policy.decision import Effect
from narthex.types import ApprovalSpec, Grant, HoldTerms, Hours, Webhook, Who

_SPLIT = "__"
_EFFECTS: tuple[Effect, ...] = ("allow", "deny", "hold")


def compile_who(who: WhoSettings, at: KeyPath, reading: Reading) -> Who:
    """`agent` is another word for `client`."""
    if who.client is not None and who.agent is not None:
        reading.fault((*at, "agent"), "agent: another word for `client`; keep one")
    found = {key: getattr(who, key, None) or () for key in Who.__struct_fields__ if key != "anonymous"}
    found["client"] = who.client or who.agent or ()
    return Who(**found, anonymous=getattr(who, "anonymous", False))


def compile_approvals(settings: ApprovalSettings, reading: Reading) -> ApprovalSpec:
    """`approvals`: what counts for every call that is held."""
    at: KeyPath = ("approvals", "webhook")
    hook, webhook = settings.webhook, None
    if hook is not None and hook.url is None and (*at, "url") not in reading.marks:
        reading.fault(at, "approvals.webhook: 'url' is missing: who is told?")
    if hook is not None and hook.url is not None:
        webhook = Webhook(hook.url.value, hook.secret.text if hook.secret is not None else None, hook.arguments)
        if webhook.secret is None:
            reading.warn(at, "approvals.webhook: without a 'secret' nothing is signed")
    terms = HoldTerms(settings.by, settings.wait, settings.use_within)
    return ApprovalSpec(terms, settings.most, settings.most_each, webhook)


def compile_grants(
    settings: Sequence[GrantSettings],
    servers: Iterable[str],
    endpoints: Container[str],
    terms: HoldTerms,
    reading: Reading,
) -> tuple[Grant, ...]:
    """All grants, in their order. Faults and warnings go into `reading`. `terms`: of those that hold and say none."""
    names: set[str] = set()
    known = tuple(servers)
    grants = []
    for number, one in enumerate(settings):
        at: KeyPath = ("grants", str(number))
        if not one.name:
            reading.fault(at, "'name' is missing: what the rule is called in decisions and records")
        elif one.name in names:
            reading.fault((*at, "name"), f"a grant '{one.name}' stands there already")
        names.add(one.name)
        grants.append(_grant(one, at, known, endpoints, terms, reading))
    return tuple(grants)


def _grant(
    one: GrantSettings,
    at: KeyPath,
    servers: Sequence[str],
    endpoints: Container[str],
    terms: HoldTerms,
    reading: Reading,
) -> Grant:
    said = [effect for effect in _EFFECTS if getattr(one, effect) is not None]
    if not said:
        reading.fault(at, f"grant '{one.name}' needs `allow`, `deny` or `hold`")
    elif len(said) > 1:
        both = f"both {' and '.join(f'`{effect}`' for effect in said)}"
        reading.fault(at, f"grant '{one.name}' has {both}; make {len(said)} grants of it")
    key = said[0] if said else "deny"
    patterns: PatternSettings = getattr(one, key) or PatternSettings()
    if one.approval is not None and key != "hold":
        reading.fault((*at, "approval"), "approval: it goes with `hold`")
    check_patterns((*patterns.tools, *patterns.prompts, *patterns.resources), (*at, key), servers, reading)
    for endpoint in one.endpoints:
        if endpoint not in endpoints:
            reading.fault((*at, "endpoints"), f"no endpoint '{endpoint}'")
    check_condition(one.when, (*at, "when"), reading)
    hours = one.hours
    return Grant(
        name=one.name,
        effect=key,
        who=compile_who(one.who, (*at, "who"), reading),
        tools=patterns.tools,
        prompts=patterns.prompts,
        resources=patterns.resources,
        admin=patterns.admin,
        endpoints=one.endpoints,
        when=one.when,
        networks=one.networks,
        hours=Hours(hours.since, hours.until, hours.zone, frozenset(map(DAYS.index, hours.days))) if hours else None,
        expires_at=one.expires,
        line=reading.mark(at).line,
        classification=frozenset(one.classification),
        privacy=frozenset(one.privacy),
        environments=one.environment,
        shadow=one.mode == "shadow",
        terms=_terms(one.approval or HoldSettings(), terms),
    )


def _terms(one: HoldSettings, default: HoldTerms) -> HoldTerms:
    return HoldTerms(one.by or default.by, one.wait or default.wait_s, one.use_within or default.use_within_s)


def check_patterns(globs: Iterable[str], at: KeyPath, servers: Sequence[str], reading: Reading) -> None:
    """A pattern that fits no server's names covers nothing, and nobody would see why."""
    for glob in globs:
        server, _, rest = glob.partition(_SPLIT)
        if not rest and not any(char in glob for char in "*?"):
            reading.warn(at, f"{glob!r} is no canonical name: write <server>__<name>")
        elif rest and not any(char in server for char in "*?") and server not in servers:
            reading.warn(at, f"{glob!r}: no server '{server}'{suggest(server, servers)}")


def check_condition(text: str, at: KeyPath, reading: Reading) -> None:
    if not text:
        return
    try:
        compile_condition(text)
    except BadCondition as error:
        place = f", character {error.column}" if error.column is not None else ""
        reading.fault(at, f"when: {error}{place}")
