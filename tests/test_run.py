"""What `make test` makes of tests that fail: on CI they are run once more, alone, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
PASSES = "def test_{0}(): pass\n"
FAILS = "def test_{0}(): assert False\n"
FAILS_ONCE = """
def test_{0}():
    from pathlib import Path
    seen = Path("{0}.seen")
    if not seen.exists():
        seen.touch()
        assert False, "the first time"
"""
NO_TEST = "import nothing_of_this_name\n"


def ran(folder: Path, tests: str, *, ci: str = "true") -> tuple[int, str]:
    (folder / "test_some.py").write_text(tests, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, str(RUN), "-q", "test_some.py"]
    env = {**os.environ, "CI": ci}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def several(kind: str, count: int) -> str:
    return "".join(kind.format(number) for number in range(count))


@pytest.mark.parametrize(
    ("tests", "ci", "code", "raced"),
    [
        pytest.param(PASSES.format("other"), "true", 0, 0, id="all pass"),
        pytest.param(several(FAILS_ONCE, 3) + PASSES.format("other"), "true", 0, 3, id="races pass alone"),
        pytest.param(several(FAILS_ONCE, 4), "true", 1, 0, id="four are too many to be chance"),
        pytest.param(FAILS.format("it") + FAILS_ONCE.format("other"), "true", 1, 0, id="what fails twice has failed"),
        pytest.param(several(FAILS_ONCE, 1), "", 1, 0, id="at a desk nothing is run again"),
        pytest.param(NO_TEST, "true", 2, 0, id="a file that is no test"),
    ],
)
def test_what_is_run_again(tmp_path: Path, tests: str, ci: str, code: int, raced: int) -> None:
    got, said = ran(tmp_path, tests, ci=ci)
    assert got == code, said
    assert said.partition("RACES")[2].count("test_some.py::") == raced
    assert ("the first time" in said) == ("seen" in tests)
