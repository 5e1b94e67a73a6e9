"""`docs/reference/` says what the code says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from narthex import errors
from narthex.config.kinds import settings_of
from narthex.config.render import PAGES, REFERENCE, _groups
from narthex.config.schema.root import Settings

ROOT = Path(__file__).parents[2]
KEYS = [f"{prefix}.{key}" if prefix else key for prefix, struct in _groups(Settings, "") for key in settings_of(struct)]


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_stale(page: str) -> None:
    text = (ROOT / REFERENCE / page).read_text(encoding="utf-8")
    assert text == PAGES[page](), "run `python -m narthex.config.render --write`"


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_documented(key: str) -> None:
    text = (ROOT / REFERENCE / "configuration.md").read_text(encoding="utf-8")
    assert f"### `{key}`\n" in text or f"- `{key}`: " in text


def test_every_error_is_documented() -> None:
    text = PAGES["errors.md"]()
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.GatewayError) and error is not errors.HttpRefusal:
            assert f"`{error.code}` | {error.status} | `{error.reason}`" in text


def test_check_and_write(tmp_path: Path) -> None:
    def render(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-m", "narthex.config.render", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    assert render("--check").returncode == 1
    assert render("--write").returncode == 0
    assert render("--check").returncode == 0
    (tmp_path / REFERENCE / "errors.md").write_text("old")
    stale_now = render("--check")
    assert (stale_now.returncode, stale_now.stdout) == (1, "stale: docs/reference/errors.md\n")
    assert render().returncode == 2
