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
            ("l", "tenant a, tool git log", "1 B", "2 B in", "10s"),
            id="a unit",
        ),
        pytest.param(
            {"per": {"agent": "", "principal": "narthex local "}, "unit": "calls", "currency": "", "resets_in": 0},
            ("l", "agent -, principal narthex local", "1", "2 calls", "-"),
            id="without an agent",
        ),
        pytest.param(
            {"per": {}, "unit": "calls", "currency": "", "resets_in": 0},
            ("l", "everybody", "1", "2 calls", "-"),
            id="all",
        ),
        pytest.param(
            {"per": {}, "unit": "money", "currency": "USD", "used": 542_568, "most": 600_000, "resets_in": 90_000},
            ("l", "everybody", "0.542568", "0.60 USD", "1d 1h"),
            id="money, counted in millionths",
        ),
        pytest.param(
            {"per": {}, "unit": "bytes", "currency": "", "used": 1_610_612, "most": 5 << 30, "resets_in": 61},
            ("l", "everybody", "1.5 MiB", "5.0 GiB", "1m 1s"),
            id="bytes",
        ),
        pytest.param(
            {"per": {}, "unit": "tokens_out", "currency": "", "most": 1, "resets_in": 0},
            ("l", "everybody", "1", "1 token out", "-"),
            id="one",
        ),
        pytest.param(
            {"per": {}, "unit": "concurrent", "currency": "", "most": 20, "resets_in": 0},
            ("l", "everybody", "1", "20 at a time", "-"),
            id="at a time",
        ),
    ],
)  # fmt: skip
def test_a_row(given: dict[str, object], row: tuple[str, ...]) -> None:
    assert _row({"limit": "l", "used": 1, "most": 2, **given}) == row
