"""`data`, `environment`, and classes in grants: what they become, and what is wrong with them at which place."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.compile import Examined, examine
from narthex.types import DataRow

HEAD = """version: 1
servers:
  web: {url: "http://localhost:1/", classification: public, privacy: none}
  crm: {url: "http://localhost:2/", classification: confidential, privacy: personal}
"""


def examined(tmp_path: Path, *lines: str) -> Examined:
    file = tmp_path / "narthex.yaml"
    file.write_text(HEAD + "".join(f"{one}\n" for one in lines))
    return examine(file, env={})


def problems(found: Examined) -> list[str]:
    return [f"{one.mark.line if one.mark else 0}: {one.text}" for one in found.problems]


def test_data_is_classed(tmp_path: Path) -> None:
    found = examined(
        tmp_path, "environment: production", 'data: [{tools: ["crm__export_*"], classification: restricted}]'
    )
    assert found.snapshot is not None, found.problems
    assert found.snapshot.environment == "production"
    assert found.snapshot.data.servers == {"web": ("public", "none"), "crm": ("confidential", "personal")}
    assert found.snapshot.data.rows == (DataRow(tools=("crm__export_*",), classification="restricted"),)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        pytest.param(['data: [{tools: ["a__*"]}]'], "5: a row of `data` needs `classification` or `privacy`", id="row"),
        pytest.param(
            ["data: [{privacy: none}]"], "5: a row of `data` needs `tools`, `prompts` or `resources`", id="of"
        ),
        pytest.param(
            ['grants: [{name: a, allow: ["*"], classification: {at_most: secret}}]'],
            "5: classification: wants one of public, internal, confidential, restricted, not 'secret';"
            " the nearest one is 'restricted'",
            id="no level",
        ),
        pytest.param(
            ['grants: [{name: a, allow: ["*"], classification: []}]'],
            "5: classification: an empty list fits nothing; leave the key out for every level",
            id="no levels",
        ),
        pytest.param(
            ['grants: [{name: a, allow: ["*"], privacy: {at_last: none}}]'],
            "5: privacy: unknown key 'at_last'; did you mean 'at_least'?",
            id="no bound",
        ),
        pytest.param(
            ['grants: [{name: a, allow: ["*"], environment: test}]'],
            "5: environment: the file does not say which this is",
            id="environment of nothing",
        ),
    ],
)
def test_what_is_wrong(tmp_path: Path, lines: list[str], text: str) -> None:
    assert problems(examined(tmp_path, *lines)) == [text]


def test_what_nobody_has_classed_is_said_where_a_rule_asks(tmp_path: Path) -> None:
    file = tmp_path / "narthex.yaml"
    file.write_text(
        'version: 1\nservers: {new: {command: python3}}\ngrants: [{name: a, allow: ["*"], classification: public}]\n'
    )
    assert "server 'new' has no `classification`: it counts as restricted" in [
        one.text for one in examine(file, env={}).warnings
    ]
    assert examine(file, env={}).snapshot is not None
