"""A configuration file as a tree in which every value knows its line and column, and the list of what is wrong with it.

In: nothing; `yamlfile` and `jsonc` build the tree. Out: `Node`, `Problem`, `Reading`, `nearest`.
Cases: `tests/config/test_load.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

MAX_FILE = 4 * 1024 * 1024
"""Bytes of a configuration file; a larger one is refused unread."""
MAX_DEPTH = 32
MAX_NODES = 100_000
"""Values in a file, aliases counted as often as they are used: so a few lines cannot unfold into gigabytes."""

Path = tuple[str, ...]
Shape = Literal["map", "list", "text", "number", "flag", "null"]
SHAPES: Mapping[Shape, str] = {
    "map": "a map",
    "list": "a list",
    "text": "a text",
    "number": "a number",
    "flag": "true or false",
    "null": "nothing",
}
# What YAML calls printable, in both kinds of file: a NUL in a path or an escape sequence in a log helps nobody.
UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Mark(msgspec.Struct, frozen=True, order=True):
    """Where something stands in the file; both count from 1, columns in characters."""

    line: int = 1
    column: int = 1


START = Mark()


class Entry(msgspec.Struct, frozen=True):
    """One `key: value` of a map, with the place of the key."""

    key: str
    mark: Mark
    node: Node
    start: int = 0


class Node(msgspec.Struct, frozen=True):
    """One value. `text` is a scalar as written (without quotes); `start` and `end` are offsets, set by `jsonc` only."""

    shape: Shape
    mark: Mark
    text: str = ""
    items: tuple[Node, ...] = ()
    entries: tuple[Entry, ...] = ()
    size: int = 1
    start: int = 0
    end: int = 0

    def get(self, key: str) -> Node | None:
        return next((entry.node for entry in self.entries if entry.key == key), None)


class Fault(Exception):
    """Something at one place is wrong. Raised by readers, gathered by whoever can go on with the next value."""

    def __init__(self, mark: Mark, text: str) -> None:
        super().__init__(text)
        self.mark, self.text = mark, text


class Problem(msgspec.Struct, frozen=True):
    """One line for the operator. `mark` is None where no place in the file is to blame (a file missing, an option)."""

    file: str
    mark: Mark | None
    text: str

    def __str__(self) -> str:
        place = f":{self.mark.line}:{self.mark.column}" if self.mark else ""
        return f"{self.file}{place}: {self.text}"


class Reading:
    """One pass over one file: what went wrong, what is worth saying, and where each setting stands.

    Args:
        file: The file's name as the operator gave it; it begins every line.
        env: Environment for `${VAR}`.
        variables: Further names for `${…}`, such as `workspaceFolder`.
    """

    def __init__(self, file: str, *, env: Mapping[str, str], variables: Mapping[str, str] | None = None) -> None:
        self.file = file
        self.env = env
        self.variables = dict(variables or {})
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.notices: list[Problem] = []
        self.marks: dict[Path, Mark] = {}
        self.references: dict[str, Mark] = {}
        """Secrets that are referred to, and where first."""

    def mark(self, path: Path) -> Mark:
        """The place of a setting, or of the nearest one around it that was written."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path, START)

    def fault(self, at: Mark | Path, text: str) -> None:
        self.problems.append(self._problem(at, text))

    def warn(self, at: Mark | Path, text: str) -> None:
        self.warnings.append(self._problem(at, text))

    def notice(self, at: Mark | Path, text: str) -> None:
        self.notices.append(self._problem(at, text))

    def _problem(self, at: Mark | Path, text: str) -> Problem:
        return Problem(self.file, at if isinstance(at, Mark) else self.mark(at), text)


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """As they stand in the file; what has no place comes first."""
    return tuple(sorted(problems, key=lambda problem: problem.mark or Mark(0, 0)))


def decode(data: bytes) -> str:
    """Bytes of a file to text.

    Raises:
        Fault: Too large, not UTF-8, or with a character that has no business in a configuration.
    """
    if len(data) > MAX_FILE:
        raise Fault(START, f"the file is larger than {MAX_FILE // 1024 // 1024}MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        raise Fault(mark_of(before, len(before)), "the file is not UTF-8") from None
    if bad := UNPRINTABLE.search(text):
        raise Fault(mark_of(text, bad.start()), f"a character that cannot be here: U+{ord(bad[0]):04X}")
    return text


def mark_of(text: str, offset: int) -> Mark:
    """Line and column of an offset, for the one place where reading stopped."""
    return Mark(text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1)


def quote(text: str) -> str:
    """A value in an error message: short, on one line."""
    shown = text if len(text) <= 60 else text[:57] + "..."
    return "'" + shown.replace("\n", "\\n").replace("\r", "\\r") + "'"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like `word`; None if nothing is known, or none is close among very many."""
    import difflib  # only needed once something is wrong

    plain = {_plain(name): name for name in reversed(list(known))}
    close = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=0.6)
    if not close and len(plain) <= 100:  # the exact comparison is slow, and there may be thousands of faults
        close = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=0.0)
    return plain[close[0]] if close else None


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for an error message, the nearest in any case, empty if nothing is known."""
    best = nearest(word, known)
    if best is None:
        return ""
    return f"; did you mean '{best}'?" if _alike(word, best) else f"; the nearest one is '{best}'"


def likely(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `word` is probably a misspelling of; None where none is so near."""
    best = nearest(word, known)
    return best if best is not None and _alike(word, best) else None


def _alike(word: str, other: str) -> bool:
    import difflib

    return difflib.SequenceMatcher(None, _plain(word), _plain(other)).ratio() >= 0.6


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")[:200]
