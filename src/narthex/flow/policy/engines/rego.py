"""What Rego reads and calls, from its syntax tree: which inputs decide, and what an engine would only find at a call.

In: the modules of a bundle as the engine has parsed them, and its built-in functions. Out: `Uses`, and what has to be
refused with its place: functions that are not there, rules that need themselves (no engine survives that), an entry
point that is none. Nothing is evaluated. Cases: `tests/flow/policy/engines/test_rego.py`.
Source: Open Policy Agent, Policy Language; the tree is that of regorus (`get_ast_as_json`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

Path = tuple[str, ...]
Tree = Mapping[str, Any]
CHANGING = frozenset({"time.now_ns", "rand.intn", "uuid.rfc4122", "opa.runtime"})
"""Functions that say something else each time."""
TIMES: tuple[Path, ...] = (("context", "time"), ("subject", "auth", "age_s"))
"""Members of the input that do."""
REFUSED = frozenset({"http.send", "opa.runtime"})
"""The engine has them in name only."""
_FORMS = frozenset({"print", "set"})
"""Look like functions, and are none."""


class Flaw(msgspec.Struct, frozen=True):
    """Why a bundle is not taken; `line` and `column` count from 1, 0 where no place is to blame."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text}" if self.line else f"{self.file}: {self.text}"


class Uses(msgspec.Struct, frozen=True):
    """What a decision depends on.

    Attributes:
        paths: The members of the input that are looked at, each with all below it; None where that cannot be known.
        changes: It may be another one the next time, though the input is the same.
        prints: The engine gathers what it prints.
    """

    paths: tuple[Path, ...] | None
    changes: bool = False
    prints: bool = False

    def reads(self, path: Path) -> bool:
        """May this member, or something in it, be looked at?"""
        return self.paths is None or any(path[: len(one)] == one[: len(path)] for one in self.paths)


class Module:
    """One file: its package, what it imports, its rules."""

    def __init__(self, tree: Tree) -> None:
        self.file = str(tree["source"]["file"])
        ast = tree["ast"]
        self.text = str(tree["source"]["contents"]).encode()
        self.package = _static(ast["package"]["refr"])[0]
        self.aliases: dict[str, Path] = {}
        for one in ast["imports"]:
            path, _ = _static(one["refr"])
            self.aliases[self.at(one["as"]) if one.get("as") else path[-1]] = path
        self.rules = [Rule(self, one) for one in ast["rules"]]

    def at(self, span: Mapping[str, int]) -> str:
        """The text at a place."""
        return self.text[span["start"] : span["end"]].decode()

    def full(self, path: Path) -> Path:
        """A reference as it stands in this module, with its beginning spelt out."""
        if path and path[0] in self.aliases:
            return self.aliases[path[0]] + path[1:]
        return path


class Rule:
    """A rule, or one of its parts. `path` is where it is below `data`, as far as that is fixed."""

    def __init__(self, module: Module, tree: Tree) -> None:
        self.module = module
        self.tree: Tree = next(iter(tree.values()))
        head = self.tree.get("head", {"Default": self.tree})
        ((form, said),) = head.items()
        self.is_function = form == "Func" or bool(said.get("args"))
        self.span: Mapping[str, int] = self.tree["span"]
        name, inner = _static(said["refr"])
        self.path: Path = (*module.package, *name)
        self._parts = [inner, self.tree.get("bodies"), *(one for key, one in said.items() if key != "refr")]
        self.locals = frozenset(_locals(module, self.tree))

    def needs(self) -> Iterator[Path]:
        """What it refers to below `data`, as far as that is fixed."""
        package = self.module.package
        for found, _ in _references(self._parts):
            if found[0] in self.locals:
                continue
            full = self.module.full(found)
            if full[0] == "data":
                yield full[1:]
            elif full[0] != "input":
                yield (*package, *full)


def read(modules: Sequence[Tree], functions: frozenset[str], entry: Path) -> tuple[Uses, list[Flaw]]:
    """What a bundle uses, and what is wrong with it.

    Args:
        modules: As the engine's parser gives them.
        functions: Names of the built-in ones.
        entry: The rule that is asked, below `data`.
    """
    read_in = [Module(tree) for tree in modules]
    rules = [rule for module in read_in for rule in module.rules]
    flaws = [flaw for module in read_in for flaw in _unknown(module, rules, functions)]
    flaws += _circles(rules)
    if not any(rule.path == entry and not rule.is_function for rule in rules):
        flaws.append(Flaw(".".join(("data", *entry)), 0, 0, "the entry point is not there: no rule of that name"))
    return _uses(modules), flaws


def _uses(modules: Sequence[Tree]) -> Uses:
    paths: set[Path] = set()
    changes = prints = False
    for tree in modules:
        for path, _ in _references(tree["ast"]):
            if path[0] == "input":
                paths.add(path[1:])
            name = ".".join(path)
            changes, prints = changes or name in CHANGING, prints or name == "print"
    known = () not in paths
    found = Uses(tuple(sorted(paths)) if known else None, changes, prints)
    timed = any(found.reads(path) for path in TIMES)
    return Uses(found.paths, changes or timed, prints)


def _unknown(module: Module, rules: Iterable[Rule], functions: frozenset[str]) -> Iterator[Flaw]:
    ours = {rule.path for rule in rules if rule.is_function}
    for rule in module.rules:
        for call in _calls(rule.tree):
            path, span = _static(call["fcn"])[0], call["span"]
            name = ".".join(path)
            full = module.full(path)
            below = full[1:] if full[0] == "data" else (*module.package, *full)
            if below in ours or name in _FORMS or (name in functions and name not in REFUSED):
                continue
            if full[0] == "data":
                text = f"no function {name}"
            else:
                text = f"{name} is not among the built-in functions of this engine"
            yield Flaw(module.file, span["line"], span["col"], text)


def _circles(rules: Sequence[Rule]) -> list[Flaw]:
    """Rules that need themselves, at whatever distance: the first of each circle."""
    by_path: dict[Path, list[Rule]] = {}
    for rule in rules:
        by_path.setdefault(rule.path, []).append(rule)
    needs = {
        path: {
            other
            for rule in parts
            for needed in rule.needs()
            for other in by_path
            if other[: len(needed)] == needed[: len(other)]
        }
        for path, parts in by_path.items()
    }
    flaws, done = [], set[Path]()
    for start in by_path:
        reached, waiting = set[Path](), list(needs[start])
        while waiting:
            path = waiting.pop()
            if path not in reached:
                reached.add(path)
                waiting += needs[path]
        if start in reached and start not in done:
            done |= {path for path in reached if start in needs[path]} | {start}
            rule = by_path[start][0]
            name = ".".join(("data", *start))
            flaws.append(Flaw(rule.module.file, rule.span["line"], rule.span["col"], f"{name} needs itself"))
    return flaws


# --- the tree


def _references(tree: Any) -> Iterator[tuple[Path, Mapping[str, int]]]:
    """Every reference in it: its beginning as far as that is fixed, and its place; those inside its indices, too."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            if _is_reference(node):
                path, inner = _static(node)
                (said,) = node.values()
                if path:
                    yield path, said["span"]
                waiting += inner
            else:
                waiting += node.values()


def _is_reference(node: Tree) -> bool:
    return len(node) == 1 and next(iter(node)) in ("Var", "RefDot", "RefBrack")


def _static(node: Tree) -> tuple[Path, list[Any]]:
    """The names of a reference up to the first that is not fixed (empty where it begins with none); and what stands in
    its indices."""
    names: list[str | None] = []
    inner: list[Any] = []
    while True:
        ((form, said),) = node.items()
        if form == "Var":
            names.append(str(said["value"]))
            break
        if form == "RefDot":
            names.append(str(said["field"][1]))
        elif form == "RefBrack":
            index = said["index"]
            fixed = index.get("String")
            names.append(str(fixed["value"]) if fixed is not None else None)
            if fixed is None:
                inner.append(index)
        else:
            return (), [node, *inner]
        node = said["refr"]
    names.reverse()
    end = names.index(None) if None in names else len(names)
    return tuple(str(name) for name in names[:end]), inner


def _calls(tree: Any) -> Iterator[Tree]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            if isinstance(call := node.get("Call"), dict):
                yield call
            waiting += node.values()


def _locals(module: Module, tree: Any) -> Iterator[str]:
    """Names that stand for something else inside a rule than outside: parameters, and what is declared."""
    head = tree.get("head", {})
    for said in (*head.values(), tree):
        if isinstance(said, dict):
            for argument in said.get("args", ()):
                yield from (path[0] for path, _ in _references(argument))
    waiting = [tree.get("bodies", []), head]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            for form, said in node.items():
                if form == "AssignExpr" and said.get("op") == "ColEq":
                    yield from (path[0] for path, _ in _references(said["lhs"]))
                elif form == "SomeIn":
                    for key in ("key", "value"):
                        yield from (path[0] for path, _ in _references(said[key]))
                elif form == "SomeVars":
                    yield from (module.at(span) for span in said["vars"])
                elif form == "Every":
                    yield from (module.at(said[key]) for key in ("key", "value") if said[key])
                waiting.append(said)
