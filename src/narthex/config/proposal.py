"""The grants of a configuration as they would suffice, as text that can stand in their place.

In: the configuration file, what is to be left out and what is to be narrowed. Out: a `grants:` section in YAML, each
grant otherwise as it was written. Cases: `tests/config/test_proposal.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from narthex.config.cases import plain
from narthex.config.document import decode
from narthex.config.jsonc import parse_jsonc
from narthex.config.yamlfile import parse_yaml

Patterns = Mapping[Any, tuple[str, ...]]
CLOSED = '  - {name: nothing is granted, deny: ["*"]}'
"""Without any grant, everybody may call everything: what is left of a proposal must not say that."""


def propose(path: Path, without: Mapping[str, str], narrower: Mapping[str, Patterns]) -> str:
    """The section.

    Args:
        without: Names of grants that are left out -> why, which becomes a comment.
        narrower: Names of grants -> their patterns, for tools, prompts and resources.
    """
    text = decode(path.read_bytes())
    root = plain(parse_jsonc(text) if path.suffix in (".json", ".jsonc") else parse_yaml(text))
    lines = ["grants:"]
    for grant in root.get("grants") or []:
        name = str(grant["name"])
        if name in without:
            lines.append(f"  # left out: {' '.join(name.split())}: {without[name]}")
            continue
        if name in narrower:
            grant = {**grant, "allow": _patterns(grant["allow"], narrower[name])}
        written = yaml.safe_dump(grant, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
        lines.append(f"  - {written.strip()}")
    if all(line.lstrip().startswith("#") for line in lines[1:]):
        lines.append(CLOSED)
    return "\n".join(lines) + "\n"


def _patterns(written: Any, patterns: Patterns) -> Any:
    """In the form that they were written in: a list means tools, a map may say more than patterns on what is called."""
    if isinstance(written, list):
        return list(patterns["tools"])
    kept = {key: list(globs) for key, globs in patterns.items() if globs}
    return {**kept, **{key: value for key, value in written.items() if key not in patterns}}
