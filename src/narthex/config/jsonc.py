"""JSON with comments and trailing commas, as clients write their `mcp.json`, to a `Node` tree with offsets.

In: text. Out: the root `Node`, or one `Fault`; `insert_member` and `replace` edit the text and leave the rest as it is.
Cases: `tests/config/test_jsonc.py`.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right

from narthex.config.document import MAX_DEPTH, MAX_NODES, START, Entry, Fault, Mark, Node, quote

# Possessive repeats (`++`, `*+`): without them the engine remembers every step, 100 bytes for each of the file.
BLANK = re.compile(r"(?:[ \t\r\n]++|//[^\n]*+|/\*.*?\*/)*+", re.DOTALL)
STRING = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\.)*+"', re.DOTALL)
WORD = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")
BESIDE = re.compile(r"[ \t]*(?://[^\n]*|/\*[^\n]*?\*/)")
AFTER_WORD = re.compile(r"[A-Za-z0-9_.+-]")


def parse_jsonc(text: str) -> Node:
    """Read one JSON value, comments and trailing commas allowed.

    Raises:
        Fault: Not JSON, a duplicate key, nested too deep, or too many values.
    """
    parser = _Parser(text)
    if parser.skip(0) == len(text):
        return Node("null", START)
    root = parser.value(parser.skip(0), 0)
    rest = parser.skip(root.end)
    if rest < len(text):
        raise parser.fault(rest, "something after the end of the document")
    return root


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = [0] + [match.end() for match in re.finditer("\n", text)]
        self.nodes = 0

    def mark(self, at: int) -> Mark:
        line = bisect_right(self.lines, at)
        return Mark(line, at - self.lines[line - 1] + 1)

    def fault(self, at: int, text: str) -> Fault:
        return Fault(self.mark(at), text)

    def skip(self, at: int) -> int:
        """Over white space and comments."""
        match = BLANK.match(self.text, at)
        at = match.end() if match else at
        if self.text.startswith("/*", at):
            raise self.fault(at, "a comment that does not end")
        return at

    def value(self, at: int, depth: int) -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.fault(at, f"more than {MAX_NODES} values")
        first = self.text[at : at + 1]
        if first in ("{", "["):
            if depth == MAX_DEPTH:
                raise self.fault(at, f"nested deeper than {MAX_DEPTH} levels")
            return self.object(at, depth) if first == "{" else self.array(at, depth)
        if first == '"':
            text, end = self.string(at)
            return Node("text", self.mark(at), text=text, start=at, end=end)
        match = WORD.match(self.text, at)
        if match is None or AFTER_WORD.match(self.text, match.end()):
            raise self.fault(at, "a value is missing here" if first in ("", ",", "}", "]") else "not a JSON value")
        word = match[0]
        shape = {"true": "flag", "false": "flag", "null": "null"}.get(word, "number")
        return Node(shape, self.mark(at), text=word, start=at, end=match.end())  # type: ignore[arg-type]

    def string(self, at: int) -> tuple[str, int]:
        match = STRING.match(self.text, at)
        if match is None:
            raise self.fault(at, "a text that does not end on its line")
        try:
            text: str = json.loads(match[0])
            text.encode()
        except (ValueError, UnicodeEncodeError):
            raise self.fault(at, "an escape in this text is not valid") from None
        return text, match.end()

    def array(self, start: int, depth: int) -> Node:
        items: list[Node] = []
        at = self.skip(start + 1)
        while self.text[at : at + 1] != "]":
            items.append(self.value(at, depth + 1))
            at = self.separator(items[-1].end, "]", start)
        return Node("list", self.mark(start), items=tuple(items), start=start, end=at + 1)

    def object(self, start: int, depth: int) -> Node:
        entries: list[Entry] = []
        seen: dict[str, Mark] = {}
        at = self.skip(start + 1)
        while self.text[at : at + 1] != "}":
            mark, begin = self.mark(at), at
            if self.text[at : at + 1] != '"':
                raise self.fault(
                    at, "a key in double quotes is missing here" if at < len(self.text) else "'}' is missing"
                )
            key, end = self.string(at)
            if key in seen:
                raise Fault(mark, f"duplicate key {quote(key)} (first on line {seen[key].line})")
            seen[key] = mark
            at = self.skip(end)
            if self.text[at : at + 1] != ":":
                raise self.fault(at, f"':' is missing after {quote(key)}")
            node = self.value(self.skip(at + 1), depth + 1)
            entries.append(Entry(key, mark, node, begin))
            at = self.separator(node.end, "}", start)
        return Node("map", self.mark(start), entries=tuple(entries), start=start, end=at + 1)

    def separator(self, at: int, closing: str, start: int) -> int:
        """Over a comma (also one before the closing bracket) to the next member or the bracket."""
        at = self.skip(at)
        following = self.text[at : at + 1]
        if following == ",":
            return self.skip(at + 1)
        if following == closing:
            return at
        if following:
            raise self.fault(at, f"',' or '{closing}' is missing here")
        raise self.fault(at, f"'{closing}' is missing (opened on line {self.mark(start).line})")


def to_python(node: Node) -> object:
    """The plain value of a tree, as `json.loads` gives it."""
    if node.shape == "map":
        return {entry.key: to_python(entry.node) for entry in node.entries}
    if node.shape == "list":
        return [to_python(item) for item in node.items]
    return node.text if node.shape == "text" else json.loads(node.text)


def replace(text: str, node: Node, value: object) -> str:
    """The text with `node` replaced; everything else, comments too, stays byte for byte."""
    return text[: node.start] + _dump(value, _step(text), _indent(text, node.start)) + text[node.end :]


def insert_member(text: str, node: Node, key: str, value: object) -> str:
    """The text with `key: value` as the last member of the object `node`; comments stay where they are."""
    step, outer = _step(text), _indent(text, node.start)
    inner = _indent(text, node.entries[-1].start) if node.entries else outer
    inner = inner if len(inner) > len(outer) else outer + step
    member = f"\n{inner}{json.dumps(key, ensure_ascii=False)}: {_dump(value, step, inner)}"
    if not node.entries:
        return f"{text[: node.end - 1].rstrip()}{member}\n{outer}{text[node.end - 1 :]}"
    last = node.entries[-1].node.end
    comma = _Parser(text).skip(last)
    if text[comma] == ",":  # a trailing comma: ours goes behind it and keeps the habit
        head, at, member = text[: comma + 1], comma + 1, member + ","
    else:
        head, at = text[:last] + ",", last
    beside = BESIDE.match(text, at)
    end = beside.end() if beside else at
    rest = text[end : node.end - 1]
    closing = rest if "\n" in rest else f"\n{outer}{rest.strip()}"
    return head + text[at:end] + member + closing + text[node.end - 1 :]


def _dump(value: object, step: str, current: str) -> str:
    return json.dumps(value, indent=step, ensure_ascii=False).replace("\n", "\n" + current)


def _step(text: str) -> str:
    """The file's own step of indentation, two spaces if it shows none."""
    match = re.search(r"\n([ \t]+)[\"{]", text)
    return match[1] if match else "  "


def _indent(text: str, at: int) -> str:
    """The white space that begins the line on which `at` stands."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]
