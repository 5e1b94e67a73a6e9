"""`data`, and the words for how data is classed: in entries of servers, in `grants` and in `runs`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from narthex.config.document import SHAPES, Fault, Node, Path, Reading, quote, suggest
from narthex.config.kinds import GLOBS, Choice, Group, JsonSchema, Listed, Setting
from narthex.types import CLASSIFICATIONS, PRIVACY

CLASSIFICATION = Setting(
    Choice(CLASSIFICATIONS),
    "How confidential what it gives is: `public` for everybody, `internal` for the organisation, `confidential` for"
    " those who need it, `restricted` for those who are named.",
    default="`restricted`, wherever a rule asks",
)
PERSONAL = Setting(
    Choice(PRIVACY),
    "Whose data it gives: `none` nobody's, `pseudonymous` people's whom only a key kept apart identifies, `personal`"
    " people's, `sensitive` what the law protects further, such as health.",
    default="`sensitive`, wherever a rule asks",
)


class LevelsKind(msgspec.Struct, frozen=True):
    """Levels, as a set: one word, a list, or a bound."""

    words: tuple[str, ...]

    @property
    def label(self) -> str:
        words = ", ".join(f"`{word}`" for word in self.words)
        return f"one of {words}; a list of them; `{{at_most: LEVEL}}` or `{{at_least: LEVEL}}`"

    def read(self, node: Node, path: Path, reading: Reading) -> tuple[str, ...]:
        one = Choice(self.words)
        if node.shape == "list":
            found: tuple[str, ...] = Listed(one, "levels").read(node, path, reading)
            if not node.items:
                raise Fault(node.mark, "an empty list fits nothing; leave the key out for every level")
            return found
        if node.shape != "map":
            return (one.read(node, path, reading),)
        if len(node.entries) != 1:
            raise Fault(node.mark, "wants one of at_most and at_least")
        (entry,) = node.entries
        if entry.key not in ("at_most", "at_least"):
            raise Fault(entry.mark, f"unknown key {quote(entry.key)}{suggest(entry.key, ('at_most', 'at_least'))}")
        if entry.node.shape not in ("text", "number", "flag"):
            raise Fault(entry.node.mark, f"wants a level, not {SHAPES[entry.node.shape]}")
        at = self.words.index(one.read(entry.node, (*path, entry.key), reading))
        return self.words[: at + 1] if entry.key == "at_most" else self.words[at:]

    def show(self, value: Any) -> str:
        return "any"

    def schema(self) -> JsonSchema:
        one = Choice(self.words).schema()
        bounds = [
            {"type": "object", "properties": {key: one}, "required": [key], "additionalProperties": False}
            for key in ("at_most", "at_least")
        ]
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}, *bounds]}


OF_CLASSIFICATION = LevelsKind(CLASSIFICATIONS)
OF_PRIVACY = LevelsKind(PRIVACY)


class DataSettings(msgspec.Struct, frozen=True):
    """How what some names give is classed, whatever the entry of their server says. Of several rows that fit a name the
    strictest counts."""

    tools: Annotated[tuple[str, ...], Setting(GLOBS, "Tools.")] = ()
    prompts: Annotated[tuple[str, ...], Setting(GLOBS, "Prompts.")] = ()
    resources: Annotated[tuple[str, ...], Setting(GLOBS, "Resources and templates: `<server>__<URI>`.")] = ()
    classification: Annotated[
        str | None, Setting(Choice(CLASSIFICATIONS), "How confidential it is.", default="as the server's")
    ] = None
    privacy: Annotated[str | None, Setting(Choice(PRIVACY), "Whose data it is.", default="as the server's")] = None


DATA = Setting(
    Listed(Group(DataSettings, "a map `{tools, prompts, resources, classification, privacy}`"), "rows"),
    "How single tools, prompts and resources are classed, where that is not as their server.",
)
