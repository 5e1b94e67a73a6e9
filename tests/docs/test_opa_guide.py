"""The guide to Open Policy Agent: its example can be used, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from narthex.config.compile import examine
from narthex.flow.policy import decision
from narthex.flow.policy.document import Document
from tests.e2e.certificates import Authority
from tests.engines.test_opa import document

CRM = "{url: 'https://crm.example.com/mcp'}"
GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "opa.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: re.findall(r"^  (\w+):", text, re.MULTILINE)[-1])
def test_an_example_can_be_used(example: str, tmp_path: Path) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text(example if example.startswith("version:") else f"version: 1\nservers: {{crm: {CRM}}}\n{example}")
    authority = Authority(tmp_path, "opa-ca")
    mine = authority.issue("gateway")
    for source, name in ((mine.cert, "gateway.pem"), (mine.key, "gateway.key")):
        Path(source).rename(tmp_path / name)
    examined = examine(path, env={})
    assert not examined.problems, [str(one) for one in examined.problems]


def test_every_member_of_the_document_is_named() -> None:
    asked: Document = document()
    for name, member in asked.input().items():
        assert f"`{name}`" in GUIDE
        for inner in member if isinstance(member, dict) else ():
            assert f"`{inner}`" in GUIDE or f"`{inner}." in GUIDE, inner


def test_every_reason_is_a_reason() -> None:
    known = {value for name, value in vars(decision).items() if name.isupper() and isinstance(value, str)}
    assert set(re.findall(r"`(\w+_\w+)` \| (?:let through|denied|the same)", GUIDE)) < known
