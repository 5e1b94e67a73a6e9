"""What a guide shows is a configuration that can be used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from narthex.config.compile import examine
from narthex.config.schema.credentials import KINDS

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
GUIDE = (GUIDES / "upstream-credentials.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
SERVER = "servers: {one: {url: 'https://mcp.example.com/mcp'}}\n"
NAMED = re.compile(r"use: (crm[a-z-]*)")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[1].strip()[:40])
def test_an_example_can_be_used(block: str, tmp_path: Path) -> None:
    whole = block if block.startswith("version:") else "version: 1\n" + block
    text = whole + ("" if "servers:" in block else SERVER)
    if "credentials:" not in block:
        rows = (f"  {name}: {{kind: header, name: X, value: '${{secret:s}}'}}\n" for name in NAMED.findall(block))
        text += "credentials:\n" + "".join(rows)
    path = tmp_path / "narthex.yaml"
    path.write_text(text)
    examined = examine(path, env={"PATH": "/usr/bin:/bin"})
    assert not examined.problems, [str(one) for one in examined.problems]
    assert not any("a secret stands in this file" in str(one) for one in examined.warnings)


def test_every_kind_has_an_example() -> None:
    assert {kind for kind in KINDS if not any(f"kind: {kind}" in block for block in BLOCKS)} == set()


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{name} {at}")
        for name in ("grants", "runs", "approvals", "limits", "costs", "caching")
        for at, block in enumerate(
            re.findall(r"```yaml\n(.*?)```", (GUIDES / f"{name}.md").read_text(encoding="utf-8"), re.DOTALL)
        )
        if block.startswith(("version:", "runs:", "grants:", "approvals:"))
    ],
)
def test_an_example_of_rules_can_be_used(block: str, tmp_path: Path) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text(
        (block if block.startswith("version:") else f"version: 1\n{block}").replace(
            "command: mcp-server-time", "command: sh"
        )
    )
    assert [str(one) for one in examine(path, env={"PATH": "/usr/bin:/bin"}).problems] == []
