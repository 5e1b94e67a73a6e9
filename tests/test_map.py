"""The layout is what CONTRIBUTING.md says: imports point one way, pure rooms stay pure, no room is empty.

In: the source files, read and not run. The way of the imports is the table `RANK`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "narthex"
GUARDS = {"src": 700, "tools": 400, "bench": 700, "fuzz": 400, "tests": 1000}
"""Lines. Past 400 a file deserves a second look; past these it has two subjects. Tables of cases may be longer."""

# A file may import what ranks lower or the same; the longest name that fits decides.
RANK = {
    "narthex": 0,
    "narthex.caches": 0,
    "narthex.call": 0,
    "narthex.compiled": 0,
    "narthex.policies": 0,
    "narthex.kept": 0,
    "narthex.outlet": 0,
    "narthex.quotas": 0,
    "narthex.secret": 0,
    "narthex.stores": 0,
    "narthex.trace": 0,
    "narthex.types": 0,
    "narthex.errors": 0,
    "narthex.flow": 1,
    "narthex.flow.held": 1,
    "narthex.flow.cache": 1,
    "narthex.flow.codec": 1,
    "narthex.flow.identity": 1,
    "narthex.flow.limit": 1,
    "narthex.flow.policy": 1,
    "narthex.flow.route": 1,
    "narthex.flow.screen": 1,
    "narthex.flow.order": 1,
    "narthex.flow.notify.debounce": 1,
    "narthex.flow.notify.interests": 1,
    "narthex.flow.notify.log_lines": 1,
    "narthex.flow.notify.news": 1,
    "narthex.flow.notify.resumability": 1,
    "narthex.flow.upstream.outgoing": 1,
    "narthex.flow.notify.task_names": 1,
    "narthex.flow.upstream.port": 1,
    "narthex.flow.walk": 2,
    "narthex.flow.whole": 3,
    "narthex.flow.outbox": 3,
    "narthex.flow.accept": 3,
    "narthex.flow.notify": 3,
    "narthex.flow.upstream": 3,
    "narthex.keys": 3,
    "narthex.playback": 3,
    "narthex.authority": 3,
    "narthex.engines": 3,
    "narthex.authority.assertion": 1,
    "narthex.authority.discovery": 1,
    "narthex.authority.grants": 1,
    "narthex.authority.lease": 1,
    "narthex.config": 3,
    "narthex.store": 3,
    "narthex.telemetry": 3,
    "narthex.app": 4,
    "narthex.listening": 4,
    "narthex.serve": 4,
    "narthex.admin": 4,
    "narthex.console": 4,
    "narthex.doctor": 4,
    "narthex.config.render": 4,
    "narthex.cli": 4,
    "narthex.testing": 4,
}
# The driver in `accept` sends what a walk wants sent; the way out knows nothing of the way in, nor of who listens.
APART = [("narthex.flow.upstream", "narthex.flow.accept"), ("narthex.flow.upstream", "narthex.flow.notify")]
PURE_RANK = 2
NOT_PURE = {
    *(
        "asyncio",
        "concurrent",
        "httptools",
        "selectors",
        "socket",
        "ssl",
        "starlette",
        "urllib.request",
        "uvicorn",
        "uvloop",
    ),
    *("concurrent", "logging", "os", "pathlib", "shutil", "signal", "sqlite3", "subprocess", "tempfile", "threading"),
    *("random", "secrets", "time", "uuid"),
}


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def place(module: str) -> str:
    """The row of `RANK` that a module belongs to; a new room needs a row."""
    return max(
        (row for row in RANK if module == row or module.startswith(row + ".") and row != "narthex"), key=len, default=""
    )


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file with its line, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node.lineno, inner if inner in MODULES else str(node.module)


SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = {module_of(path) for path in SOURCES}
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))


@each_source
def test_imports_point_one_way(path: Path) -> None:
    module = module_of(path)
    assert place(module), f"{module} has no row in RANK: where does it stand in the way of the imports?"
    for line, name in imports(path):
        if name.partition(".")[0] != "narthex":
            continue
        said = f"{path.relative_to(ROOT)}:{line}: {module} imports {name}"
        assert RANK[place(name)] <= RANK[place(module)], said
        assert (place(module), place(name)) not in APART, said


@each_source
def test_a_pure_room_has_no_socket_clock_or_file(path: Path) -> None:
    if RANK[place(module_of(path))] > PURE_RANK or path == PACKAGE / "compiled.py":  # what is run stands in files
        return
    for line, name in imports(path):
        parts = name.split(".")
        prefixes = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
        assert not prefixes & NOT_PURE, f"{path.relative_to(ROOT)}:{line}: imports {name}"


def test_no_room_is_empty() -> None:
    for folder in {path.parent for path in SOURCES}:
        texts = [path.read_text(encoding="utf-8").strip() for path in folder.rglob("*.py")]
        assert any(texts), f"{folder.relative_to(ROOT)} has nothing in it"


@pytest.mark.parametrize(("folder", "guard"), GUARDS.items())
def test_no_file_has_two_subjects(folder: str, guard: int) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        if "node_modules" not in path.parts:
            count = len(path.read_text(encoding="utf-8").splitlines())
            assert count <= guard, f"{path.relative_to(ROOT)}: {count} lines"


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if (text := path.read_text(encoding="utf-8")).strip() and not ast.get_docstring(ast.parse(text))
    ]
    assert not silent, "without a module header"
