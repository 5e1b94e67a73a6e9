"""A file of cases: what is wrong with it is said with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.cases import read_cases


def read(tmp_path: Path, text: str, name: str = "cases.yaml") -> list[str]:
    path = tmp_path / name
    path.write_text(text)
    return [str(one).removeprefix(f"{path}:") for one in read_cases(path).problems]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("cases: []\n", "1:1: no `cases`", id="none"),
        pytest.param("", "wants a map with `cases`", id="empty"),
        pytest.param("cases:\n  - {tool: a__b}\n", "2:5: 'expect' is missing", id="no expectation"),
        pytest.param("cases:\n  - {expect: deny}\n", "2:5: a case needs one of", id="nothing called"),
        pytest.param(
            "cases:\n  - {expect: deny, tool: a__b, prompt: a__c}\n", "2:5: a case needs one", id="two called"
        ),
        pytest.param("cases:\n  - {expect: deny, tool: b}\n", "'b' is no canonical name", id="no canonical name"),
        pytest.param(
            "cases:\n  - {expect: maybe, tool: a__b}\n", "expect: wants one of allow", id="what nobody decides"
        ),
        pytest.param("cases:\n  - {expect: deny, tol: a__b}\n", "did you mean 'tool'", id="misspelt"),
        pytest.param("cases:\n  - {expect: deny, tool: a__b, arguments: [1]}\n", "wants a map of", id="no arguments"),
        pytest.param("cases:\n  - {expect: deny, tool: a__b, at: soon}\n", "write a date", id="no time"),
        pytest.param("cases: [\n", "not YAML", id="no YAML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, says: str) -> None:
    assert says in " ".join(read(tmp_path, text))


def test_json_is_read_too_and_values_are_as_json_has_them(tmp_path: Path) -> None:
    path = tmp_path / "cases.json"
    path.write_text(
        '{"cases": [{"expect": "allow", "tool": "a__b", "arguments": {"n": 7, "x": [1.5, null, true, "7"]}}]}'
    )
    (case,) = read_cases(path).cases
    assert case.arguments == b'{"n":7,"x":[1.5,null,true,"7"]}'
    path = tmp_path / "cases.yaml"
    path.write_text("cases: [{expect: allow, tool: a__b, arguments: {n: 0x10, m: 012, x: [1.5, ~, true, '7']}}]\n")
    (case,) = read_cases(path).cases
    assert case.arguments == b'{"n":16,"m":12,"x":[1.5,null,true,"7"]}'
