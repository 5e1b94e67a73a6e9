"""`who`: callers, in the rows of `credential` and in `grants`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from narthex.config import values
from narthex.config.document import Fault, Node, Path, Reading
from narthex.config.kinds import Choice, Flag, Group, JsonSchema, Kind, Listed, Scalar, Setting


class OneOrMore(msgspec.Struct, frozen=True):
    """One value, or a list of them: any of them will do."""

    item: Kind
    label: str

    def read(self, node: Node, path: Path, reading: Reading) -> tuple[str, ...]:
        if node.shape == "list":
            found: tuple[str, ...] = Listed(self.item, "values").read(node, path, reading)
            if not found and not node.items:
                raise Fault(node.mark, "an empty list fits nobody; leave the key out for everybody")
            return found
        return (self.item.read(node, path, reading),)

    def show(self, value: Any) -> str:
        return "anything"

    def schema(self) -> JsonSchema:
        one = self.item.schema()
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


TEXTS = OneOrMore(Scalar("a text", values.parse_text), "a text, or a list of texts")


KINDS = OneOrMore(Choice(("human", "service")), "`human`, `service`, or a list")


def _texts(help: str) -> Setting:
    return Setting(TEXTS, help, default="anything")


class WhoSettings(msgspec.Struct, frozen=True):
    """Callers. What is given must all fit; nothing given fits everybody."""

    tenant: Annotated[tuple[str, ...] | None, _texts("The caller's tenant.")] = None
    issuer: Annotated[tuple[str, ...] | None, _texts("Who vouches for the caller.")] = None
    role: Annotated[tuple[str, ...] | None, _texts("One of the caller's roles.")] = None
    group: Annotated[tuple[str, ...] | None, _texts("One of the caller's groups.")] = None
    subject: Annotated[
        tuple[str, ...] | None, _texts("The human or service; with `issuer`, where there are several.")
    ] = None
    client: Annotated[tuple[str, ...] | None, _texts("The agent that acts for them.")] = None
    agent: Annotated[tuple[str, ...] | None, _texts("Another word for `client`.")] = None
    scope: Annotated[tuple[str, ...] | None, _texts("One of the scopes of the caller's token or key.")] = None
    kind: Annotated[
        tuple[str, ...] | None, Setting(KINDS, "`human` or `service`, or both in a list.", default="anything")
    ] = None


WHO = Group(WhoSettings, "a map of who calls")


class AnybodySettings(WhoSettings, frozen=True):
    """The same, with callers that nobody vouches for."""

    anonymous: Annotated[
        bool, Setting(Flag(), "`true`: those who call without a credential (an endpoint with `auth: anonymous`).")
    ] = False


ANYBODY = Group(AnybodySettings, "a map of who calls")
