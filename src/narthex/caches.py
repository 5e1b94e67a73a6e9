"""Rows of the configuration on answers that are kept and given again; in `narthex.types`."""

from __future__ import annotations

import msgspec


class CacheRule(msgspec.Struct, frozen=True):
    """Answers of what these patterns cover are kept for `ttl_s`, and given `stale_s` longer while one is renewed.

    `annotated`: of the tools only those whose annotations say that they only read and may be called twice, at servers
    whose annotations are trusted. `shared`: one caller's answer may be given to another of the tenant. `hit`:
    hundredths of its price that an answer from memory costs. `counts`: it counts in limits of calls. `most` is in
    bytes. Patterns are globs on canonical names.
    """

    name: str
    ttl_s: float
    tools: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    annotated: bool = False
    stale_s: float = 0.0
    shared: bool = False
    hit: int = 0
    counts: bool = True
    most: int = 256 * 1024


class ClearRule(msgspec.Struct, frozen=True):
    """A call of one of the tools `after` ends what is kept of the rest. `same`: only where the value at the first JSON
    pointer in its arguments is that at the second in those of the call whose answer is kept."""

    after: tuple[str, ...]
    tools: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    same: tuple[tuple[str, str], ...] = ()


class CacheSpec(msgspec.Struct, frozen=True):
    """Answers that are kept, in memory: the first rule that covers a call counts. `tenant_share`: hundredths of the
    whole that one tenant's may take up."""

    rules: tuple[CacheRule, ...] = ()
    clears: tuple[ClearRule, ...] = ()
    most_bytes: int = 64 * 1024 * 1024
    most_entries: int = 10_000
    tenant_share: int = 100
