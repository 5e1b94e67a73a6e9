"""`narthex limits` without a gateway, and what it makes of a document."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from narthex.cli.limits import _row
from narthex.cli.main import cli


def test_where_no_gateway_answers_it_says_so(tmp_path: Path) -> None:
    file = tmp_path / "narthex.yaml"
    file.write_text("version: 1\nadmin: {listen: 127.0.0.1:1}\n")
    done = CliRunner().invoke(cli, ["limits", "--config", str(file)])
    assert done.exit_code == 1
    assert "no gateway answers at http://127.0.0.1:1" in done.stderr


@pytest.mark.parametrize(
    ("given", "row"),
    [
        pytest.param(
            {"per": {"tenant": "a", "tool": "git log"}, "unit": "bytes_in", "currency": "", "resets_in": 9.6},
            ("l", "tenant a, tool git log", "1", "2 bytes in", "10 s"),
            id="a unit",
        ),
        pytest.param(
            {"per": {}, "unit": "calls", "currency": "", "resets_in": 0},
            ("l", "everybody", "1", "2 calls", "-"),
            id="all",
        ),
    ],
)  # fmt: skip
def test_a_row(given: dict[str, object], row: tuple[str, ...]) -> None:
    assert _row({"limit": "l", "used": 1, "most": 2, **given}) == row
