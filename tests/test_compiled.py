"""Which form runs: machine code only where it is of exactly the sources that are there. And what may be compiled."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

from narthex import FORM, compiled
from narthex.compiled import look, use
from tools import compile as tool

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A package of one source, and a folder that says that it was compiled of it."""
    (tmp_path / "walk.py").write_text("STEPS = 1\n")
    (tmp_path / "out").mkdir()
    say(tmp_path)
    return tmp_path


def say(folder: Path, **other: Any) -> None:
    manifest = {
        "suffix": EXTENSION_SUFFIXES[0],
        "modules": {"narthex.walk": "narthex.walk.so"},
        "sources": {"walk.py": compiled.digest_of(str(folder / "walk.py"))},
    }
    (folder / "out" / compiled.MANIFEST).write_text(json.dumps({**manifest, **other}))


def form_of(folder: Path) -> str:
    return str(look(str(folder / "out"), str(folder))[0])


def test_what_was_made_of_these_sources_runs(made: Path) -> None:
    form, files = look(str(made / "out"), str(made))
    assert (str(form), files) == ("compiled", {"narthex.walk": str(made / "out" / "narthex.walk.so")})


def test_an_edited_source_runs_itself(made: Path) -> None:
    (made / "walk.py").write_text("STEPS = 2\n")
    assert form_of(made) == "interpreted: walk.py has changed since it was compiled"


def test_an_edit_that_keeps_size_and_time_is_seen(made: Path) -> None:
    before = (made / "walk.py").stat()
    (made / "walk.py").write_text("STEPS = 2\n")
    os.utime(made / "walk.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert form_of(made).startswith("interpreted")


@pytest.mark.parametrize(
    ("other", "why"),
    [
        pytest.param({"suffix": ".cpython-39.so"}, "what is compiled is for another Python", id="another Python"),
        pytest.param({"sources": {"gone.py": "0"}}, "nothing is compiled", id="a source that is gone"),
        pytest.param({"sources": None}, "what is compiled cannot be read", id="not a manifest"),
        pytest.param({"modules": 3}, "what is compiled cannot be read", id="not a list of modules"),
    ],
)
def test_whatever_is_wrong_the_sources_run(made: Path, other: dict[str, Any], why: str) -> None:
    say(made, **other)
    assert form_of(made) == f"interpreted: {why}"


def test_half_a_manifest_is_none(made: Path) -> None:
    (made / "out" / compiled.MANIFEST).write_text('{"suffix": ')
    assert form_of(made) == "interpreted: what is compiled cannot be read"


def test_who_asks_for_the_sources_gets_them(made: Path) -> None:
    assert str(use("0", str(made / "out"), str(made))) == "interpreted: NARTHEX_COMPILE=0"


def test_who_asks_for_nothing_else_gets_nothing_else(made: Path) -> None:
    (made / "walk.py").write_text("STEPS = 2\n")
    with pytest.raises(ImportError, match=r"walk\.py has changed"):
        use("1", str(made / "out"), str(made))


@pytest.mark.skipif(os.environ.get(compiled.VARIABLE) != "1", reason="NARTHEX_COMPILE=1 asks for it, as .ci/run does")
def test_the_tests_run_compiled() -> None:
    from narthex.flow import walk

    assert FORM.name == "compiled" and str(walk.__file__).endswith(EXTENSION_SUFFIXES[0])


@pytest.mark.skipif(FORM.name != "compiled", reason="nothing is compiled here: make compile")
def test_a_gateway_whose_source_was_edited_says_so(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src" / "narthex", tmp_path / "narthex")
    ask = [sys.executable, "-m", "narthex.cli.main", "--version"]
    env = {name: value for name, value in os.environ.items() if name != compiled.VARIABLE}

    def version() -> str:
        done = subprocess.run(
            ask, env={**env, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True, cwd=tmp_path
        )
        return done.stdout

    assert "(compiled)" in version()
    with (tmp_path / "narthex" / "flow" / "walk.py").open("a") as file:
        file.write("# edited\n")
    assert "(interpreted: flow/walk.py has changed since it was compiled)" in version()


def test_no_compiled_module_has_a_struct() -> None:
    """A struct in compiled code does not know the types of its members, and decodes anything."""
    for module in tool.MODULES:
        for node in ast.walk(ast.parse(tool.source_of(module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base) for base in node.bases]
                assert "msgspec.Struct" not in bases, f"{module}: {node.name}"


def test_no_compiled_module_assigns_in_a_conditional_expression() -> None:
    """mypyc makes `a if (a := f()) else b` something else: it gave a method where its answer was meant."""
    for module in tool.MODULES:
        for node in ast.walk(ast.parse(tool.source_of(module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.IfExp):
                assert not any(isinstance(one, ast.NamedExpr) for one in ast.walk(node)), f"{module}:{node.lineno}"


def test_what_a_compiled_module_imports_counts_as_its_source() -> None:
    sources = {str(path.relative_to(tool.PACKAGE)) for path in tool.sources_of(["flow.walk"])}
    assert {"flow/walk.py", "flow/codec/jsonrpc.py", "errors.py", "types.py"} <= sources
    assert "cli/main.py" not in sources
