"""`policy`: what is refused, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.compile import examine


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        pytest.param("{}", ":2:1: policy: needs `rego` or `opa`", id="neither"),
    ],
)
def test_refused(tmp_path: Path, policy: str, said: str) -> None:
    file = tmp_path / "narthex.yaml"
    file.write_text(f"version: 1\npolicy: {policy}\n")
    assert any(said in str(problem) for problem in examine(file, env={}).problems)


def test_null_is_none(tmp_path: Path) -> None:
    file = tmp_path / "narthex.yaml"
    file.write_text("version: 1\npolicy: null\n")
    found = examine(file, env={}).snapshot
    assert found is not None and found.policy is None
