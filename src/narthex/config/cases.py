"""A file of cases for `narthex policy test`: who calls what, and what has to be decided.

In: YAML or JSON. Out: `Case`s, each with its line, or what is wrong with the file. Cases: `tests/config/test_cases.py`.
Reference: `docs/guides/grants.md`.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from narthex.config import values
from narthex.config.document import Fault, Node, Problem, Reading, decode
from narthex.config.document import Path as KeyPath
from narthex.config.jsonc import parse_jsonc
from narthex.config.kinds import FILE, Choice, Group, JsonSchema, Listed, Scalar, Setting
from narthex.config.schema.grants import parse_moment
from narthex.config.schema.runs import LABELS
from narthex.config.schema.who import ANYBODY, AnybodySettings
from narthex.config.yamlfile import parse_yaml
from narthex.types import Kind

Expected = Literal["allow", "deny", "hold", "hidden"]
EXPECTED = ("allow", "deny", "hold", "hidden")


class Anything(msgspec.Struct, frozen=True):
    """A value as JSON has it."""

    label: str = "a value"

    def read(self, node: Node, path: KeyPath, reading: Reading) -> Any:
        return plain(node)

    def show(self, value: Any) -> str:
        return json.dumps(value)

    def schema(self) -> JsonSchema:
        return {}


def plain(node: Node) -> Any:
    """What a node says, as JSON has it."""
    if node.shape == "map":
        return {entry.key: plain(entry.node) for entry in node.entries}
    if node.shape == "list":
        return [plain(one) for one in node.items]
    if node.shape == "null":
        return None
    if node.shape == "flag":
        return node.text == "true"
    if node.shape == "number":
        for read in (int, lambda text: int(text, 0), float):
            with suppress(ValueError):
                return read(node.text)
    return node.text


class ArgumentsKind(Anything, frozen=True):
    label: str = "a map"

    def read(self, node: Node, path: KeyPath, reading: Reading) -> Any:
        if node.shape != "map":
            raise Fault(node.mark, "wants a map of arguments")
        return plain(node)


_WORD = Scalar("a text", values.parse_text)


class CaseSettings(msgspec.Struct, frozen=True):
    """One case."""

    expect: Annotated[
        Expected | None,
        Setting(
            Choice(EXPECTED),
            "What has to be decided; `deny` is met by `hidden`, too: it does not exist for the caller.",
        ),
    ] = None
    name: Annotated[str, Setting(_WORD, "What it is called in the output.")] = ""
    who: Annotated[AnybodySettings, Setting(ANYBODY, "Who calls: the keys of a grant's `who`.")] = AnybodySettings()
    tool: Annotated[str, Setting(_WORD, "The tool: `<server>__<name>`.")] = ""
    prompt: Annotated[str, Setting(_WORD, "Or a prompt.")] = ""
    resource: Annotated[str, Setting(_WORD, "Or a resource: `<server>__<URI>`.")] = ""
    arguments: Annotated[dict[str, Any], Setting(ArgumentsKind(), "The arguments of the call.")] = {}
    address: Annotated[str, Setting(_WORD, "The client's address.")] = ""
    endpoint: Annotated[str, Setting(_WORD, "The endpoint that is called.")] = "default"
    at: Annotated[
        float, Setting(Scalar("a date, or a time with its zone", parse_moment), "When; now where it is left out.")
    ] = 0.0
    rule: Annotated[str, Setting(_WORD, "The rule that has to say so.")] = ""
    run_labels: Annotated[tuple[str, ...], Setting(LABELS, "Labels that the run has.")] = ()
    run_calls: Annotated[
        tuple[str, ...], Setting(Listed(_WORD, "tools"), "Tools that the run has had an answer of, each as often.")
    ] = ()


_CASES = Listed(Group(CaseSettings, "a map of a case"), "cases", most=10_000)


class FileSettings(msgspec.Struct, frozen=True):
    """The whole file."""

    config: Annotated[str, Setting(FILE, "The configuration that is tested, relative to this file.")] = ""
    cases: Annotated[
        tuple[CaseSettings, ...],
        Setting(Listed(Group(CaseSettings, "a map of a case"), "cases", most=10_000), "Cases."),
    ] = ()


class Case(msgspec.Struct, frozen=True):
    """A call that somebody could make, and what has to be decided of it. `at` 0: now."""

    line: int
    name: str
    who: dict[str, list[str]]
    kind: Kind
    server: str
    own: str
    arguments: bytes | None
    endpoint: str
    address: str
    at: float
    expect: Expected
    rule: str
    run_labels: tuple[str, ...] = ()
    run_calls: tuple[str, ...] = ()


class Cases(msgspec.Struct, frozen=True):
    """`config` is empty where the file names none."""

    config: str
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]


def read_cases(path: Path) -> Cases:
    """Read a file; never raises for what it says. Raises OSError: it cannot be read."""
    reading = Reading(str(path), env={})
    settings = FileSettings()
    try:
        text = decode(path.read_bytes())
        root = parse_jsonc(text) if path.suffix in (".json", ".jsonc") else parse_yaml(text)
        settings = Group(FileSettings, "a map with `cases`").read(root, (), reading)
        if not settings.cases and not reading.problems:
            raise Fault(root.mark, "no `cases`: nothing is tested")
    except Fault as fault:
        reading.fault(fault.mark, fault.text)
    found = [_case(one, ("cases", str(number)), reading) for number, one in enumerate(settings.cases)]
    config = str(path.parent / settings.config) if settings.config else ""
    return Cases(config, tuple(one for one in found if one is not None), tuple(reading.problems))


def _case(one: CaseSettings, at: KeyPath, reading: Reading) -> Case | None:
    kinds: dict[Kind, str] = {"tools": one.tool, "prompts": one.prompt, "resources": one.resource}
    named = [(kind, name) for kind, name in kinds.items() if name]
    if len(named) != 1:
        reading.fault(at, "a case needs one of `tool`, `prompt` and `resource`")
        return None
    ((kind, name),) = named
    server, separator, own = name.partition("__")
    if not separator or not own:
        reading.fault((*at, kind[:-1]), f"{name!r} is no canonical name: write <server>__<name>")
        return None
    if one.expect is None:
        reading.fault(at, "'expect' is missing: what has to be decided")
        return None
    return Case(
        reading.mark(at).line,
        one.name or name,
        _who(one.who),
        kind,
        server,
        own,
        msgspec.json.encode(one.arguments) if one.arguments or kind == "tools" else None,
        one.endpoint,
        one.address,
        one.at,
        one.expect,
        one.rule,
        one.run_labels,
        one.run_calls,
    )


def _who(who: AnybodySettings) -> dict[str, list[str]]:
    found = {key: getattr(who, key) for key in who.__struct_fields__}
    if found.pop("anonymous"):
        return {"anonymous": ["true"]}
    return {key: list(value) for key, value in found.items() if value}
