"""The kinds of value that a setting can have: each reads a node, shows a default, and describes itself as JSON Schema.

In: `Node`s. Out: values, with every fault gathered in the `Reading`. `schema` says which setting has which kind.
Cases: `tests/config/test_load.py`, `tests/config/test_values.py`.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from narthex import __version__
from narthex.config import values
from narthex.config.document import SHAPES, Fault, Node, Path, Reading, quote, suggest
from narthex.config.expand import Expanded, expand

JsonSchema = dict[str, Any]


class Kind(Protocol):
    """What every kind can do. `label` names it in the reference; `read` raises `Fault` or gathers several."""

    @property
    def label(self) -> str: ...

    def read(self, node: Node, path: Path, reading: Reading) -> Any: ...

    def show(self, value: Any) -> str: ...

    def schema(self) -> JsonSchema: ...


class Setting(msgspec.Struct, frozen=True):
    """What a key means, for reading and for the reference.

    Args:
        kind: How it is written.
        help: One or two sentences for the operator.
        default: The default in words, where it depends on something else; otherwise the field's own default is shown.
        nullable: `null` may be written, and gives None.
        secret: Its value is never shown.
        later: True while the part that will read it is not built: the key is known, and refused.
    """

    kind: Kind
    help: str
    default: str = ""
    nullable: bool = False
    secret: bool = False
    later: bool = False


def later(help: str) -> Setting:
    """A key of the contract whose part is not built yet."""
    return Setting(Nothing(), help, later=True)


@functools.cache
def settings_of(struct: type[msgspec.Struct]) -> dict[str, tuple[Setting, Any]]:
    """Key -> (setting, default), in the order of the class."""
    hints = typing.get_type_hints(struct, include_extras=True)
    return {
        field.name: (
            next(extra for extra in typing.get_args(hints[field.name]) if isinstance(extra, Setting)),
            field.default if field.default is not msgspec.NODEFAULT else field.default_factory(),
        )
        for field in msgspec.structs.fields(struct)
    }


class Nothing(msgspec.Struct, frozen=True):
    label: str = "not in this version"

    def read(self, node: Node, path: Path, reading: Reading) -> Any:
        raise Fault(reading.mark(path), f"'{path[-1]}' is not in this version of Narthex ({__version__})")

    def show(self, value: Any) -> str:
        return ""

    def schema(self) -> JsonSchema:
        return {"not": {}}


class Scalar(msgspec.Struct, frozen=True):
    """One value from one text. Numbers are taken as written, so `args: [--port, 8080]` needs no quotes."""

    label: str
    parse: Callable[[str], Any]
    display: Callable[[Any], str] = str
    json: JsonSchema = {}
    low: Any = None
    high: Any = None

    def read(self, node: Node, path: Path, reading: Reading) -> Any:
        if node.shape == "flag":
            raise Fault(node.mark, f"wants {self.label}, not true or false; if it is a text, write it in quotes")
        if node.shape not in ("text", "number"):
            raise Fault(node.mark, f"wants {self.label}, not {SHAPES[node.shape]}")
        return self.of_text(node.text, node, reading)

    def of_text(self, text: str, node: Node, reading: Reading) -> Any:
        try:
            value = self.parse(text)
        except ValueError as error:
            raise Fault(node.mark, str(error)) from None
        if self.low is not None and value < self.low:
            raise Fault(node.mark, f"{text} is too small; the least is {self.display(self.low)}")
        if self.high is not None and value > self.high:
            raise Fault(node.mark, f"{text} is too large; the most is {self.display(self.high)}")
        return value

    def show(self, value: Any) -> str:
        return self.display(value)

    def schema(self) -> JsonSchema:
        return {"type": "string", **self.json}


class Template(Scalar, frozen=True):
    """A text in which `${VAR}` is expanded, then checked."""

    secrets: bool = False
    """May `${secret:NAME}` stand in it?"""

    def of_text(self, text: str, node: Node, reading: Reading) -> Expanded:
        try:
            expanded = expand(text, reading.env, reading.variables, secrets=self.secrets)
            self.parse(expanded.value)
        except ValueError as error:
            raise Fault(node.mark, str(error)) from None
        for name in expanded.text.names:
            reading.references.setdefault(name, node.mark)
        return expanded

    def schema(self) -> JsonSchema:
        return {"type": ["string", "number"]}


class Flag(msgspec.Struct, frozen=True):
    label: str = "`true` or `false`"

    def read(self, node: Node, path: Path, reading: Reading) -> bool:
        if node.shape != "flag":
            hint = (
                "; YAML 1.2 knows only these two" if node.text.lower() in ("yes", "no", "on", "off", "y", "n") else ""
            )
            raise Fault(
                node.mark, f"wants true or false, not {quote(node.text) if node.text else SHAPES[node.shape]}{hint}"
            )
        return node.text == "true"

    def show(self, value: bool) -> str:
        return "true" if value else "false"

    def schema(self) -> JsonSchema:
        return {"type": "boolean"}


class Count(msgspec.Struct, frozen=True):
    low: int
    high: int

    @property
    def label(self) -> str:
        return f"a whole number, {self.low} to {self.high}"

    def read(self, node: Node, path: Path, reading: Reading) -> int:
        if node.shape != "number" or not node.text.lstrip("-").isdigit():
            raise Fault(node.mark, f"wants {self.label}, not {quote(node.text) if node.text else SHAPES[node.shape]}")
        if len(node.text) > 18 or not self.low <= int(node.text) <= self.high:
            raise Fault(node.mark, f"{quote(node.text)} is out of bounds; {self.label}")
        return int(node.text)

    def show(self, value: int) -> str:
        return str(value)

    def schema(self) -> JsonSchema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


class Choice(msgspec.Struct, frozen=True):
    words: tuple[str, ...]

    @property
    def label(self) -> str:
        return "one of " + ", ".join(f"`{word}`" for word in self.words)

    def read(self, node: Node, path: Path, reading: Reading) -> str:
        if node.shape not in ("text", "number", "flag") or node.text not in self.words:
            found = quote(node.text) if node.text else SHAPES[node.shape]
            hint = suggest(node.text, self.words) if node.text else ""
            raise Fault(node.mark, f"wants one of {', '.join(self.words)}, not {found}{hint}")
        return node.text

    def show(self, value: str) -> str:
        return value

    def schema(self) -> JsonSchema:
        return {"enum": list(self.words)}


class Listed(msgspec.Struct, frozen=True):
    """A list of one kind. A fault in one element does not hide the next one's."""

    item: Kind
    what: str
    most: int = 1000

    @property
    def label(self) -> str:
        return f"a list of {self.what}"

    def read(self, node: Node, path: Path, reading: Reading) -> tuple[Any, ...]:
        if node.shape != "list":
            hint = "; write it in [ ]" if node.shape in ("text", "number") else ""
            raise Fault(node.mark, f"wants {self.label}, not {SHAPES[node.shape]}{hint}")
        if len(node.items) > self.most:
            raise Fault(node.mark, f"more than {self.most} {self.what}")
        found = []
        for number, item in enumerate(node.items):
            reading.marks[(*path, str(number))] = item.mark
            try:
                found.append(self.item.read(item, (*path, str(number)), reading))
            except Fault as fault:
                reading.fault(fault.mark, fault.text)
        return tuple(found)

    def show(self, value: tuple[Any, ...]) -> str:
        return "[" + ", ".join(self.item.show(item) for item in value) + "]"

    def schema(self) -> JsonSchema:
        return {"type": "array", "items": self.item.schema()}


class Mapped(msgspec.Struct, frozen=True):
    """A map with names of the operator's own."""

    name: Scalar
    item: Kind
    what: str
    most: int = 1000

    @property
    def label(self) -> str:
        return f"a map of {self.what}"

    def read(self, node: Node, path: Path, reading: Reading) -> dict[str, Any]:
        if node.shape != "map":
            raise Fault(node.mark, f"wants {self.label}, not {SHAPES[node.shape]}")
        if len(node.entries) > self.most:
            raise Fault(node.mark, f"more than {self.most} {self.what}")
        found: dict[str, Any] = {}
        for entry in node.entries:
            at = (*path, entry.key)
            reading.marks[at] = entry.mark
            try:
                name = self.name.of_text(entry.key, Node("text", entry.mark), reading)
                found[name] = self.item.read(entry.node, at, reading)
            except Fault as fault:
                reading.fault(fault.mark, fault.text)
        return found

    def show(self, value: dict[str, Any]) -> str:
        return "{}"

    def schema(self) -> JsonSchema:
        return {"type": "object", "propertyNames": self.name.schema(), "additionalProperties": self.item.schema()}


class Group(msgspec.Struct, frozen=True):
    """A map with the keys of one settings class."""

    struct: type[msgspec.Struct]
    what: str

    @property
    def label(self) -> str:
        return self.what

    def read(self, node: Node, path: Path, reading: Reading) -> Any:
        if node.shape != "map":
            raise Fault(node.mark, f"wants {self.what}, not {SHAPES[node.shape]}")
        known = settings_of(self.struct)
        found: dict[str, Any] = {}
        for entry in node.entries:
            at = (*path, entry.key)
            reading.marks[at] = entry.mark
            if entry.key not in known:
                reading.fault(entry.mark, f"unknown key {quote(entry.key)}{suggest(entry.key, known)}")
                continue
            setting, _ = known[entry.key]
            if entry.node.shape == "null" and setting.nullable:
                found[entry.key] = None
                continue
            try:
                found[entry.key] = setting.kind.read(entry.node, at, reading)
            except Fault as fault:
                reading.fault(fault.mark, fault.text if setting.later else f"{entry.key}: {fault.text}")
        return self.struct(**found)

    def show(self, value: Any) -> str:
        return "see below"

    def schema(self) -> JsonSchema:
        properties: dict[str, JsonSchema] = {}
        for key, (setting, _) in settings_of(self.struct).items():
            found = setting.kind.schema()
            if setting.nullable:
                found = {"anyOf": [found, {"type": "null"}]}
            properties[key] = {
                **found,
                "description": f"Not in this version. {setting.help}" if setting.later else setting.help,
            }
        return {"type": "object", "properties": properties, "additionalProperties": False}


def duration(low: str, high: str) -> Scalar:
    return Scalar(
        f"a duration, {low} to {high}",
        values.parse_duration,
        values.show_duration,
        {"pattern": "^[0-9]{1,12}(ms|s|m|h|d)$", "examples": ["250ms", "30s", "1m"]},
        values.parse_duration(low),
        values.parse_duration(high),
    )


def size(low: str, high: str) -> Scalar:
    return Scalar(
        f"a size, {low} to {high}",
        values.parse_size,
        values.show_size,
        {"pattern": "^[0-9]{1,15}(B|KiB|MiB|GiB)$", "examples": ["64KiB", "1MiB"]},
        values.parse_size(low),
        values.parse_size(high),
    )


ADDRESS = Scalar("an address `host:port`", values.parse_address, values.show_address, {"pattern": "^.+:[0-9]{1,5}$"})
NETWORK = Scalar("a network such as `10.0.0.0/8`", values.parse_network)
BASE_URL = Scalar("an http or https URL", values.parse_base_url, json={"pattern": "^https?://"})
URL = Template("an http or https URL", values.parse_url)
PROXY = Scalar("`env`, or an http or https URL", values.parse_proxy)
HOST = Scalar("a host, with or without port", values.parse_host_header)
FILE = Scalar("a path", values.parse_path)
TEXT = Template("a text", values.parse_text)
PATH = Template("a path", values.parse_path)
SHARE = Scalar("a share, `0%` to `100%`", values.parse_share, values.show_share, {"pattern": "^[0-9.]+%$"})
WORD = Scalar("a word", values.parse_word)
SECRET_NAME = Scalar("a name", values.parse_secret_name, json={"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"})
SECRET_SOURCE = Scalar(
    "`env:VAR`, `file:PATH` or `vault:MOUNT/PATH#FIELD`",
    values.parse_secret_source,
    values.show_secret_source,
    {"pattern": "^(env|file|vault):"},
)
SECRET_TEXT = Template("a text; `${secret:NAME}` stays a reference", values.parse_text, secrets=True)
SECRET_HEADER = Template("a text; `${secret:NAME}` stays a reference", values.parse_header_value, secrets=True)
GLOB = Scalar("a pattern", values.parse_glob)
GLOBS = Listed(GLOB, "patterns")
SCOPE = Scalar("a scope", values.parse_scope)
NAME = Scalar("a name", values.parse_name, json={"pattern": "^[a-z0-9-]{1,24}$"})
ENV_NAME = Scalar("a variable", values.parse_env_name)
HEADER_NAME = Scalar("a header", values.parse_header_name)
HEADER_VALUE = Template("a text", values.parse_header_value)
