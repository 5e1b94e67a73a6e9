"""What `audit` says of payloads and of how long things stay, to what the gateway works with.

In: the settings. Out: members of the `Snapshot`; or a fault at the place it stands at.
Cases: `tests/config/test_kept.py`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading, suggest
from narthex.config.grants import check_patterns
from narthex.config.schema.audit import AuditSettings, PayloadSettings
from narthex.kept import PayloadRule, PayloadSpec, Retention
from narthex.types import CLASSIFICATIONS

PARTS = ("arguments", "result", "error")


def compile_kept(
    settings: AuditSettings | None, servers: Iterable[str], endpoints: Container[str], reading: Reading
) -> dict[str, Any]:
    """`audit_payloads` and `retention`. Faults and warnings go into `reading`."""
    if settings is None:
        return {}
    known = tuple(servers)
    rules = [_rule(one, ("audit", "payloads", str(at)), known, endpoints, reading)
             for at, one in enumerate(settings.payloads)]  # fmt: skip
    for at, pointer in enumerate(settings.redact.pointers):
        if pointer.split("/")[1] not in PARTS:
            where = ("audit", "redact", "pointers", str(at))
            reading.fault(where, f"{pointer}: a pointer begins with /arguments/, /result/ or /error/")
    stays = settings.retention
    by_group = {name: value for name in CLASSIFICATIONS if (value := getattr(stays, name)) is not None}
    return {
        "audit_payloads": PayloadSpec(tuple(rules), settings.redact.pointers, settings.redact.detectors, settings.seal),
        "retention": Retention(stays.records, stays.payloads, by_group, settings.compress_after),
    }


def _rule(
    one: PayloadSettings, at: KeyPath, servers: tuple[str, ...], endpoints: Container[str], reading: Reading
) -> PayloadRule:
    if one.keep is None:
        reading.fault(at, "'keep' is missing: full, redacted or none")
    for kind in ("tools", "prompts", "resources"):
        check_patterns(getattr(one, kind), (*at, kind), servers, reading)
    for key, names, there in (("endpoints", one.endpoints, endpoints), ("servers", one.servers, servers)):
        for name in names:
            if name not in there:
                hint = suggest(name, servers) if key == "servers" else ""
                reading.fault((*at, key), f"no {key.removesuffix('s')} '{name}'{hint}")
    return PayloadRule(
        one.keep or "none",
        frozenset(one.parts or ("arguments", "result")),
        frozenset(one.endpoints),
        frozenset(one.servers),
        frozenset(one.classification),
        one.tools,
        one.prompts,
        one.resources,
    )
