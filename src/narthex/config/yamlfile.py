"""YAML text to a `Node` tree: YAML 1.2 scalars, no tags, no duplicate keys, bounded depth, bounded aliases.

In: text. Out: the root `Node`, or one `Fault` (a file that is not YAML has only its first fault).
The tree is built from libyaml's events, not by `compose`: that one recurses in C and unfolds what it is given.
Cases: `tests/config/test_yamlfile.py`.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from narthex.config.document import MAX_DEPTH, MAX_NODES, START, Entry, Fault, Mark, Node, Shape, quote

# YAML 1.2 core schema (§10.3.2). `yes`, `no`, `on`, `off` and `0777` are not in it: they stay what they look like.
NULL = re.compile(r"|~|null|Null|NULL")
FLAG = re.compile(r"true|True|TRUE|false|False|FALSE")
NUMBER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class _Open:
    """A map or list whose end has not come yet."""

    __slots__ = ("anchor", "entries", "items", "key", "mark", "seen", "shape", "size")

    def __init__(self, shape: Shape, mark: Mark, anchor: str | None) -> None:
        self.shape, self.mark, self.anchor = shape, mark, anchor
        self.items: list[Node] = []
        self.entries: list[Entry] = []
        self.key: Node | None = None
        self.seen: dict[str, Mark] = {}
        self.size = 1

    def add(self, node: Node) -> None:
        self.size += node.size
        if self.shape == "list":
            self.items.append(node)
        elif self.key is None:
            self.key = self._new_key(node)
        else:
            self.entries.append(Entry(self.key.text, self.key.mark, node))
            self.key = None

    def _new_key(self, node: Node) -> Node:
        if node.shape in ("map", "list", "null"):
            raise Fault(
                node.mark, f"a key must be a text, not {'empty' if node.shape == 'null' else 'a ' + node.shape}"
            )
        if node.text == "<<":
            raise Fault(node.mark, "merge keys ('<<') belong to YAML 1.1; repeat the keys, or alias the whole value")
        if node.text in self.seen:
            raise Fault(node.mark, f"duplicate key {quote(node.text)} (first on line {self.seen[node.text].line})")
        self.seen[node.text] = node.mark
        return node

    def close(self) -> Node:
        return Node(self.shape, self.mark, items=tuple(self.items), entries=tuple(self.entries), size=self.size)


def parse_yaml(text: str) -> Node:
    """Read one YAML document.

    Args:
        text: Printable text without a byte order mark.
    Returns:
        The root; an empty file gives a `null` node.
    Raises:
        Fault: Not YAML, or YAML that is refused here.
    """
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    stack: list[_Open] = []
    anchors: dict[str, Node] = {}
    root: Node | None = None
    nodes = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            at: Any = event.start_mark
            mark = Mark(at.line + 1, at.column + 1)
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise Fault(mark, "a second document; one file holds one configuration")
            if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                _no_tag(event, mark)
                if len(stack) == MAX_DEPTH:
                    raise Fault(mark, f"nested deeper than {MAX_DEPTH} levels")
                stack.append(_Open("map" if isinstance(event, yaml.MappingStartEvent) else "list", mark, event.anchor))
                continue
            node: Node
            if isinstance(event, yaml.ScalarEvent):
                _no_tag(event, mark)
                node, anchor = _scalar(event, mark), event.anchor
            elif isinstance(event, yaml.AliasEvent):
                node, anchor = _alias(event, mark, anchors), None
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                done = stack.pop()
                node, anchor = done.close(), done.anchor
            else:
                continue
            if anchor is not None:
                anchors[anchor] = node
            nodes += node.size if isinstance(event, yaml.AliasEvent) else 1
            if nodes > MAX_NODES:
                raise Fault(mark, f"more than {MAX_NODES} values, aliases counted as often as they are used")
            if stack:
                stack[-1].add(node)
            else:
                root = node
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text) from None
    except yaml.YAMLError as error:
        raise Fault(START, f"not YAML: {quote(str(error))}") from None
    return root or Node("null", START)


def _no_tag(event: Any, mark: Mark) -> None:
    if event.tag is not None and event.tag != "!":
        raise Fault(mark, "tags ('!…') are not used here")


def _scalar(event: yaml.ScalarEvent, mark: Mark) -> Node:
    text, shape = event.value, "text"
    if event.implicit[0] and not event.style:
        shape = "null" if NULL.fullmatch(text) else "flag" if FLAG.fullmatch(text) else "text"
        if shape == "text" and NUMBER.fullmatch(text):
            shape = "number"
    return Node(shape, mark, text=text.lower() if shape == "flag" else text)  # type: ignore[arg-type]


def _alias(event: Any, mark: Mark, anchors: dict[str, Node]) -> Node:
    if event.anchor not in anchors:
        raise Fault(mark, f"alias {quote('*' + event.anchor)} has no finished '&{event.anchor}' before it")
    return anchors[event.anchor]


def _syntax(error: yaml.MarkedYAMLError, text: str) -> Fault:
    """libyaml's words, with the place where it stopped."""
    at = error.problem_mark or error.context_mark
    if at is None:
        return Fault(START, f"not YAML: {error.problem}")
    mark = Mark(at.line + 1, at.column + 1)
    lines = text.split("\n")
    line = lines[at.line] if at.line < len(lines) else ""
    if "\t" in line[: at.column + 1] and not line[: at.column].strip():
        return Fault(mark, "a tab; YAML is indented with spaces")
    context = f" ({error.context})" if error.context else ""
    return Fault(mark, f"not YAML: {error.problem}{context}")
