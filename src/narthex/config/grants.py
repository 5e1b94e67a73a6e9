"""`grants` to what the gateway works with: checked against each other and against the servers and endpoints.

In: the settings of all grants. Out: `Grant`s, with the line of each; or a fault at the place it stands at.
Cases: `tests/config/test_grants.py`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading, suggest
from narthex.config.schema.grants import DAYS, GrantSettings, PatternSettings
from narthex.config.schema.who import WhoSettings
from narthex.flow.policy.conditions import BadCondition, compile_condition
from narthex.types import Grant, Hours, Who

_SPLIT = "__"


def compile_who(who: WhoSettings, at: KeyPath, reading: Reading) -> Who:
    """`agent` is another word for `client`."""
    if who.client is not None and who.agent is not None:
        reading.fault((*at, "agent"), "agent: another word for `client`; keep one")
    found = {key: getattr(who, key, None) or () for key in Who.__struct_fields__ if key != "anonymous"}
    found["client"] = who.client or who.agent or ()
    return Who(**found, anonymous=getattr(who, "anonymous", False))


def compile_grants(
    settings: Sequence[GrantSettings], servers: Iterable[str], endpoints: Container[str], reading: Reading
) -> tuple[Grant, ...]:
    """All grants, in their order. Faults and warnings go into `reading`."""
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
        grants.append(_grant(one, at, known, endpoints, reading))
    return tuple(grants)


def _grant(
    one: GrantSettings, at: KeyPath, servers: Sequence[str], endpoints: Container[str], reading: Reading
) -> Grant:
    if (one.allow is None) == (one.deny is None):
        said = "both `allow` and `deny`; make two grants of it" if one.allow else "needs `allow` or `deny`"
        reading.fault(at, f"grant '{one.name}' {'has ' if one.allow else ''}{said}")
    patterns = one.allow or one.deny or PatternSettings()
    key = "allow" if one.allow is not None else "deny"
    check_patterns((*patterns.tools, *patterns.prompts, *patterns.resources), (*at, key), servers, reading)
    for endpoint in one.endpoints:
        if endpoint not in endpoints:
            reading.fault((*at, "endpoints"), f"no endpoint '{endpoint}'")
    _check_condition(one.when, (*at, "when"), reading)
    hours = one.hours
    return Grant(
        name=one.name,
        effect="allow" if one.allow is not None else "deny",
        who=compile_who(one.who, (*at, "who"), reading),
        tools=patterns.tools,
        prompts=patterns.prompts,
        resources=patterns.resources,
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
    )


def check_patterns(globs: Iterable[str], at: KeyPath, servers: Sequence[str], reading: Reading) -> None:
    """A pattern that fits no server's names covers nothing, and nobody would see why."""
    for glob in globs:
        server, _, rest = glob.partition(_SPLIT)
        if not rest and not any(char in glob for char in "*?"):
            reading.warn(at, f"{glob!r} is no canonical name: write <server>__<name>")
        elif rest and not any(char in server for char in "*?") and server not in servers:
            reading.warn(at, f"{glob!r}: no server '{server}'{suggest(server, servers)}")


def _check_condition(text: str, at: KeyPath, reading: Reading) -> None:
    if not text:
        return
    try:
        compile_condition(text)
    except BadCondition as error:
        place = f", character {error.column}" if error.column is not None else ""
        reading.fault(at, f"when: {error}{place}")
