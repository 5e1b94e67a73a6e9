"""`cache` to what the gateway works with: names that are there, rules that can keep something.

In: its settings, the servers. Out: a `CacheSpec`, None where nothing is kept; or a fault at the place it stands at.
Cases: `tests/config/test_cache.py`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading
from narthex.config.grants import check_patterns
from narthex.config.schema.cache import CacheRuleSettings, CacheSettings, ClearSettings
from narthex.flow.cache.plans import shows_callers
from narthex.types import CacheRule, CacheSpec, ClearRule, ServerSpec

KINDS = ("tools", "prompts", "resources")


def compile_cache(
    settings: CacheSettings | None, servers: Mapping[str, ServerSpec], endpoints: Container[str], reading: Reading
) -> CacheSpec | None:
    """Faults and warnings go into `reading`."""
    if settings is None:
        return None
    names: set[str] = set()
    for number, rule in enumerate(settings.rules):
        at: KeyPath = ("cache", "rules", str(number))
        if not rule.name:
            reading.fault(at, "'name' is missing: what the rule is called where the cache is shown")
        elif rule.name in names:
            reading.fault((*at, "name"), f"a rule '{rule.name}' stands there already")
        names.add(rule.name)
        _check_rule(rule, at, servers, endpoints, reading)
    for number, clear in enumerate(settings.clears):
        _check_clear(clear, ("cache", "clears", str(number)), servers, reading)
    if not settings.rules:
        reading.warn(("cache",), "cache: no `rules`, so nothing is kept")
        return None
    return CacheSpec(
        rules=tuple(map(_rule, settings.rules)),
        clears=tuple(
            ClearRule(one.after, one.tools, one.prompts, one.resources, tuple(one.same.items()))
            for one in settings.clears
        ),
        most_bytes=settings.max_bytes,
        most_entries=settings.max_entries,
        tenant_share=settings.tenant_share,
    )


def _rule(one: CacheRuleSettings) -> CacheRule:
    return CacheRule(
        one.name, one.ttl or 1.0, one.tools, one.prompts, one.resources, one.endpoints, one.annotated, one.stale,
        one.shared, one.hit, one.counts, one.max_entry,
    )  # fmt: skip


def _check_rule(
    one: CacheRuleSettings, at: KeyPath, servers: Mapping[str, ServerSpec], endpoints: Container[str], reading: Reading
) -> None:
    for kind in KINDS:
        check_patterns(getattr(one, kind), (*at, kind), tuple(servers), reading)
    for endpoint in one.endpoints:
        if endpoint not in endpoints:
            reading.fault((*at, "endpoints"), f"no endpoint '{endpoint}'")
    if not (one.tools or one.prompts or one.resources):
        reading.fault(at, f"rule '{one.name}' covers nothing: say `tools`, `prompts` or `resources`")
    if one.ttl is None and (*at, "ttl") not in reading.marks:
        reading.fault(at, f"rule '{one.name}': 'ttl' is missing: how long is an answer fresh?")
    if not one.counts and one.hit:
        reading.fault((*at, "counts"), "counts: what counts in no limit costs nothing; it goes with `hit: free`")
    if one.annotated and not one.tools:
        reading.fault((*at, "annotated"), "annotated: only tools have annotations")
    if one.annotated and not any(server.trusts_annotations for server in servers.values()):
        reading.warn((*at, "annotated"), "annotated: no server has `annotations: trusted`, so nothing is kept")
    if one.shared:
        for server in servers.values():
            if shows_callers(server) and any(
                _names(glob, server.name) for kind in KINDS for glob in getattr(one, kind)
            ):
                reading.warn(
                    (*at, "shared"),
                    f"shared: server '{server.name}' is shown the caller's own token, so its answers are not shared",
                )


def _check_clear(one: ClearSettings, at: KeyPath, servers: Mapping[str, ServerSpec], reading: Reading) -> None:
    for kind in ("after", *KINDS):
        check_patterns(getattr(one, kind), (*at, kind), tuple(servers), reading)
    if not one.after:
        reading.fault(at, "'after' is missing: whose calls end kept answers?")
    if not (one.tools or one.prompts or one.resources):
        reading.fault(at, "it ends nothing: say `tools`, `prompts` or `resources`")
    if one.same and one.resources:
        reading.warn((*at, "same"), "same: resources have no arguments, so all that are covered end")


def _names(glob: str, server: str) -> bool:
    """Does a pattern name this server?"""
    return glob.startswith(f"{server}__")
