"""The guide to embedded Rego: its example can be used, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from narthex.config.compile import examine
from narthex.engines.evaluator import functions
from narthex.flow.policy import decision
from narthex.flow.policy.engines.obligations import FORMS, BadObligation, read
from tests.engines.policies import document

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "rego.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
LACKS = GUIDE.partition("## What the engine lacks")[2]


@pytest.mark.parametrize("example", EXAMPLES, ids=["a folder", "a bundle server"])
def test_an_example_can_be_used(example: str, tmp_path: Path) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text(example.replace("examples/", f"{ROOT}/examples/"))
    examined = examine(path, env={})
    assert not examined.problems, [str(one) for one in examined.problems]


def test_every_member_of_the_document_is_named() -> None:
    for name, member in document({"a": 1}).input().items():
        assert f"`{name}`" in GUIDE
        for inner in member if isinstance(member, dict) else ():
            assert f"`{inner}`" in GUIDE or f"`{inner}." in GUIDE, inner


def test_every_reason_is_a_reason() -> None:
    known = {value for name, value in vars(decision).items() if name.isupper() and isinstance(value, str)}
    said = set(re.findall(r"\| `(\w+_\w+)` \|\n", GUIDE))
    assert len(said) == 7 and said < known


def test_every_obligation_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `(\w+): ", GUIDE, re.MULTILINE)) == set(FORMS)
    with pytest.raises(BadObligation):
        read({"fly": True})


def test_what_the_engine_is_said_to_lack_it_lacks() -> None:
    said = {name for name in re.findall(r"`([a-z0-9_.*]+)`", LACKS) if "." in name or "*" in name}
    there = {"net.cidr_contains", "net.cidr_expand"}
    assert there < functions()
    for name in said - there - {"http.send", "opa.runtime"}:
        prefix = name.rstrip("*")
        assert not any(one == name or (name.endswith("*") and one.startswith(prefix)) for one in functions()), name
