"""Rows of the configuration on how much may be used and what it costs, and whom a row is for; in `narthex.types`."""

from __future__ import annotations

from typing import Literal

import msgspec

from narthex.secret import SecretText


class Who(msgspec.Struct, frozen=True):
    """Whom a row is for. What is given must all fit, each by one of its values; nothing given fits everybody."""

    tenant: tuple[str, ...] = ()
    issuer: tuple[str, ...] = ()
    role: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    """The agent that acts for them."""
    scope: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    anonymous: bool = False
    """Those who call without a credential, and nobody else."""


class TokenSpec(msgspec.Struct, frozen=True):
    """Which tokenizer settles what was estimated; `estimate`: none. `models`: glob on a model's name to its own."""

    tokenizer: str = "estimate"
    models: tuple[tuple[str, str], ...] = ()


class CostsKept(msgspec.Struct, frozen=True):
    """How long it is kept what calls have cost: by the hour and the run, and by the day."""

    hours: int = 35 * 24
    days: int = 5 * 366


LimitUnit = Literal[
    "calls", "concurrent", "bytes", "bytes_in", "bytes_out", "tokens", "tokens_in", "tokens_out", "money"
]
Period = Literal["hour", "day", "week", "month"]


class WhenSpent(msgspec.Struct, frozen=True):
    """What becomes of a call for which a limit has no room: it is refused, where this says nothing.

    `hold`: a person may let it through. `use`: the canonical name of the tool that answers in its place. `lower`: it
    goes on, and of these limits only so many hundredths may be used.
    """

    hold: bool = False
    use: str = ""
    lower: tuple[tuple[str, int], ...] = ()


REFUSE = WhenSpent()


class LimitRule(msgspec.Struct, frozen=True):
    """How much of one unit may be used (design §6): `most` of it in a window, a period, or at a time.

    `per` says what has a bucket of its own: `principal`, `subject`, `agent`, `tenant`, `team`, `project`, `role`,
    `group`, `claim:` and a claim, `endpoint`, `server`, `tool`, `arg:` and a JSON pointer; with `global` tenants share
    them. `window` is whole microseconds, 0 for a `period` of the calendar in `zone` and for what is concurrent.
    Patterns are globs on canonical names; none of any kind covers everything. `burst`: of a `bucket`, 0 for `most`.
    """

    name: str
    unit: LimitUnit
    most: int
    per: tuple[str, ...] = ()
    algorithm: Literal["sliding", "bucket", "fixed", "calendar", "concurrent"] = "sliding"
    window: int = 0
    period: Literal["", "hour", "day", "week", "month"] = ""
    zone: str = "UTC"
    burst: int = 0
    who: Who = Who()
    tools: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    soft: bool = False
    """Is what goes beyond it only told of?"""
    alerts: tuple[int, ...] = ()
    """Hundredths of `most` at which somebody is told."""
    currency: str = ""
    """Of money, which is counted in millionths of it."""
    when_spent: WhenSpent = REFUSE


class SharedSpec(msgspec.Struct, frozen=True):
    """Where several gateways count together, and what becomes of calls while that cannot be reached.

    `ca`, `cert`, `key` are paths, empty for the system's authorities and for no certificate. `processes` is how many
    gateways share a limit among them then; 0 for as many as there were when they last were counted.
    """

    host: str
    port: int
    tls: bool = False
    database: int = 0
    username: str = ""
    password: SecretText | None = None
    ca: str = ""
    cert: str = ""
    key: str = ""
    prefix: str = "narthex"
    timeout_s: float = 0.1
    when_down: Literal["local_share", "refuse", "allow"] = "local_share"
    processes: int = 0


class PriceRule(msgspec.Struct, frozen=True):
    """What a call costs, in millionths of `currency` (design §6): `per_call`, and what it has of the rest.

    `units` and `amount` are JSON pointers into the result: a number that `per_unit` is taken times, or the cost itself;
    `expected` is reserved as long as none was seen. `tokens_in` and `tokens_out` are pointers to how many tokens it has
    taken. `model` is a name, or `arg:` or `result:` and a pointer to one: its tokens cost what the list of models says;
    `per_million_tokens_…` where it has none. `formula` is in CEL, in whole `currency`. Patterns are globs on canonical
    names; none of any kind covers everything. `when` is a condition in CEL, empty for none.
    """

    currency: str
    per_call: int = 0
    per_mib: int = 0
    per_million_tokens_in: int = 0
    per_million_tokens_out: int = 0
    per_unit: int = 0
    units: str = ""
    amount: str = ""
    expected: int = 0
    cancelled: Literal["full", "nothing"] = "full"
    tools: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    when: str = ""
    formula: str = ""
    model: str = ""
    tokens_in: str = ""
    tokens_out: str = ""
