"""What the pages of the repository say is true: commands, links, configurations, error codes, locked files.

In: the files as they stand in the checkout. Nothing is started.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click
import pytest

from narthex import errors
from narthex.cli.main import cli
from narthex.config.compile import load_snapshot
from tools import changelog

from .test_map import SOURCES, imports

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
SKIPPED = {"node_modules", "__pycache__"}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
each_lock = pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)


def code(page: Path) -> Iterator[str]:
    """What stands in code on a page: the lines of blocks, and what stands between backticks."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def pinned(lock: Path) -> dict[str, str]:
    """Name to version. A package with several pins, by platform, keeps the last."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


# --- commands and links -------------------------------------------------------------------------------------------


@each_page
def test_every_make_target_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in code(page):
        for words in re.findall(r"(?:^|\$ )make ([^#]*)", line):
            for target in (word for word in words.split() if re.fullmatch("[a-z-]+", word)):
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"


@each_page
def test_every_command_exists_with_its_options(page: Path) -> None:
    for line in code(page):
        if not (match := re.match(r"(?:\$ )?(?:\.venv/bin/)?narthex ([a-z][a-z-]*)([^|#]*)", line)):
            continue
        command = cli.get_command(click.Context(cli), match[1])
        rest = match[2]
        while isinstance(command, click.Group) and (inner := re.match(r" ([a-z][a-z-]*)", rest)):
            command, rest = command.commands.get(inner[1]), rest[inner.end() :]
        assert command is not None, f"{page.name}: {line}"
        known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
        assert set(re.findall(r"(?<=\s)--[a-z-]+", match[2])) <= known | {"--help"}, f"{page.name}: {line}"


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_every_target_is_phony_or_a_file() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert targets == set(re.findall(r"^\.PHONY: ([a-z-]+)$", makefile, re.MULTILINE))


def test_ci_runs_the_tests_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "exec make test" in script.read_text(encoding="utf-8")
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


# --- configurations and codes -------------------------------------------------------------------------------------


def configurations() -> Iterator[object]:
    for path in sorted((ROOT / "examples").rglob("narthex.yaml")):
        yield pytest.param(path.read_text(encoding="utf-8"), id=str(path.relative_to(ROOT)))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)):
            if block.startswith("version: 1"):
                yield pytest.param(block, id=f"{page.relative_to(ROOT)}:{number}")


@pytest.mark.parametrize("text", list(configurations()))
def test_every_whole_configuration_is_accepted(text: str, tmp_path: Path) -> None:
    path = tmp_path / "narthex.yaml"
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path.write_text(text, encoding="utf-8")
    load_snapshot(path, env={"DOCS_TOKEN": "x", "PATH": os.environ["PATH"]})


def test_codes_on_the_troubleshooting_page_are_those_of_the_errors() -> None:
    page = (ROOT / "docs" / "guides" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = {(int(code), reason) for code, reason in re.findall(r"^\| (-\d+) \| `(\w+)` \|", page, re.MULTILINE)}
    known = {
        (kind.code, kind.reason) for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "reason")
    }
    assert rows and rows <= known


# --- what is installed --------------------------------------------------------------------------------------------


@each_lock
def test_every_requirement_is_pinned_and_hashed(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text and "index-url" not in text
    blocks = [block for block in re.split(r"\n(?=\S)", text) if not block.startswith("#")]
    assert blocks
    for block in blocks:
        assert re.match(r"[a-z0-9-]+==\S+", block) and "--hash=sha256:" in block, block


def test_what_is_tested_is_what_is_shipped() -> None:
    core, dev = pinned(ROOT / "requirements" / "core.txt"), pinned(ROOT / "requirements" / "dev.txt")
    assert core.items() <= dev.items()


def test_every_dependency_is_used_and_every_import_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [entry for entries in project["optional-dependencies"].values() for entry in entries]
    declared = {re.split(r"[><=!~\[; ]", entry)[0] for entry in [*project["dependencies"], *extras]}
    names = {
        "bpe-openai": "bpe_openai",
        "cel-expr-python": "cel_expr_python",
        "gordon-to-regorus": "regorus",
        "pyyaml": "yaml",
    }
    used = {name.partition(".")[0] for path in SOURCES for _, name in imports(path)}
    third_party = used & metadata.packages_distributions().keys() - {"narthex"}
    assert {names.get(name, name) for name in declared} == third_party


@pytest.mark.parametrize("name", sorted(pinned(ROOT / "requirements" / "core.txt")))
def test_core_takes_no_copyleft(name: str) -> None:
    told = metadata.metadata(name)
    said = [told.get("License-Expression") or told.get("License") or "", *(told.get_all("Classifier") or [])]
    assert any(said)
    assert not re.search(r"\bA?L?GPL|GNU", " ".join(said)[:5000])


# --- what must not be in the repository ---------------------------------------------------------------------------


def files() -> Iterator[Path]:
    """What is kept here: everything but caches and installed packages."""
    ours = [
        ROOT / name
        for name in ("src", "tests", "tools", "bench", "fuzz", "docs", "examples", "changes", "requirements", ".ci")
    ]
    for folder in ours:
        yield from (path for path in folder.rglob("*") if path.is_file() and not SKIPPED & set(path.parts))
    yield from (path for path in ROOT.glob("*") if path.is_file())


def test_no_file_names_a_machine_or_a_registry() -> None:
    registry = re.compile(r"\b(?:files\.pythonhosted|pypi|registry\.npmjs|registry\.yarnpkg)\.(?:org|com)\b")
    machine = (f"{ROOT}/", f"{Path.home()}/")
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a corpus of bad bytes
        assert not registry.search(text), path.relative_to(ROOT)
        assert not any(place in text for place in machine), path.relative_to(ROOT)


# --- the changelog ------------------------------------------------------------------------------------------------


def test_changelog_is_fresh() -> None:
    assert (ROOT / "CHANGELOG.md").read_text(encoding="utf-8") == changelog.changelog(ROOT / "changes")


def test_changelog_has_the_newest_release_first(tmp_path: Path) -> None:
    for version, text in (("0.9.1", "- nine"), ("0.10.0", "- ten")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "date").write_text("2026-01-02\n", encoding="utf-8")
        (tmp_path / version / "x.fixed.md").write_text(text, encoding="utf-8")
    (tmp_path / "b.added.md").write_text("- later\n", encoding="utf-8")
    (tmp_path / "a.added.md").write_text("- first\n  and more\n", encoding="utf-8")
    text = changelog.changelog(tmp_path)
    order = [
        "## Not released yet",
        "### Added",
        "- first\n  and more\n- later",
        "## 0.10.0 (2026-01-02)",
        "- ten",
        "## 0.9.1",
        "- nine",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("new.md", "- x", id="no kind"),
        pytest.param("new.improved.md", "- x", id="no such kind"),
        pytest.param("new.added.md", "x", id="not a list item"),
    ],
)
def test_changelog_refuses(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(name)):
        changelog.changelog(tmp_path)
