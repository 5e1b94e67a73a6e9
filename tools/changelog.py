"""CHANGELOG.md out of the entries in `changes/`.

In: `changes/NAME.KIND.md` (not released yet) and `changes/VERSION/NAME.KIND.md` with `changes/VERSION/date` (released).
Out: `CHANGELOG.md`, or with `--check` exit 1 where the file is stale. Proof: `tests/test_repo.py`.

A release moves the entries into a folder named after the version; one file an entry means that two branches that both
add one never collide.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("security", "added", "changed", "deprecated", "removed", "fixed")
HEAD = """# Changelog

Made from `changes/` by `make changelog`; how to write an entry stands in `CONTRIBUTING.md`.
Versions follow [Semantic Versioning](https://semver.org): the configuration, the command line, the error codes and
the admin API are what it speaks of.
"""


def section(title: str, folder: Path) -> str:
    """The entries of one folder under one heading, by kind and then by file name.

    Raises:
        ValueError: A file is not named `NAME.KIND.md` with one of `KINDS`, or does not start with "- ".
    """
    entries: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for path in sorted(folder.glob("*.md")):
        kind = path.stem.rpartition(".")[2]
        text = path.read_text(encoding="utf-8").strip()
        if "." not in path.stem or kind not in entries:
            raise ValueError(f"{path.name}: name it NAME.KIND.md, KIND one of {', '.join(KINDS)}")
        if not text.startswith("- "):
            raise ValueError(f'{path.name}: an entry is a list item and starts with "- "')
        entries[kind].append(text)
    parts = [f"\n## {title}\n"]
    parts += [f"\n### {kind.capitalize()}\n\n" + "\n".join(texts) + "\n" for kind, texts in entries.items() if texts]
    return "".join(parts) if len(parts) > 1 else ""


def version_key(folder: Path) -> tuple[int, ...]:
    """`0.10.0` comes after `0.9.1`."""
    return tuple(int(part) for part in folder.name.split("."))


def changelog(changes: Path) -> str:
    """The whole file: what is not released first, then the releases, newest first."""
    released = sorted((path for path in changes.iterdir() if path.is_dir()), key=version_key, reverse=True)
    titles = [(f"{path.name} ({(path / 'date').read_text(encoding='utf-8').strip()})", path) for path in released]
    return HEAD + section("Not released yet", changes) + "".join(section(*title) for title in titles)


def main(arguments: list[str]) -> int:
    target = ROOT / "CHANGELOG.md"
    try:
        text = changelog(ROOT / "changes")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments != ["--check"]:
        target.write_text(text, encoding="utf-8")
    elif not target.exists() or target.read_text(encoding="utf-8") != text:
        print("CHANGELOG.md is stale; run: make changelog", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
