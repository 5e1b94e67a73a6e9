"""What is kept of a payload: the JSON of arguments, of a result or an error, without what nobody is to read in it.

In: JSON as it was relayed. Out: JSON in one line, and what was taken out. Pointers and names of members look at the
structure, detectors at every text and number; a text that is JSON itself, as tools like to answer, is looked into.
Cases: `tests/telemetry/payloads/test_redacting.py`; fuzz target `redaction`. Source: RFC 6901 (JSON pointer).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.kept import DETECTORS
from narthex.telemetry.payloads.detectors import is_card, likely, masked, names_a_secret
from narthex.telemetry.payloads.lines import Part

POINTER, NAME = "pointer", "name"
"""What else than a detector takes something out."""
_DEEPEST = 32
"""So deep JSON stands in texts of JSON."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Unreadable(ValueError):
    """It is no JSON, or nested too deeply: nothing of it can be kept."""


class Redactor:
    """Takes out what the operator names.

    Args:
        pointers: `/arguments/…`, `/result/…`, `/error/…`; `*` is every member or element.
        detectors: Of `kept.DETECTORS`.
    """

    def __init__(self, pointers: Iterable[str] = (), detectors: Sequence[str] = DETECTORS) -> None:
        self._steps = [_steps(one) for one in pointers]
        self._detectors = tuple(detectors)

    def applied(self, raw: bytes, part: Part) -> tuple[bytes, tuple[str, ...]]:
        """The same without it, and what has taken out something: kinds of detectors, `pointer`, `name`.

        Raises:
            Unreadable.
        """
        found: set[str] = set()
        try:
            value = _decode(raw)
            for steps in self._steps:
                if steps[:1] == [part]:
                    value = self._pointed(value, steps[1:], found)
            whole = _encode(value)
            if kinds := self._likely(whole.decode()):
                whole = _encode(_Look(kinds, found).at(value))
            return whole, tuple(sorted(found))
        except (*BAD_JSON, RecursionError):
            raise Unreadable from None

    def _likely(self, text: str) -> tuple[str, ...]:
        """Which detectors may find something: mostly none, and then no value is looked at on its own. In JSON that is
        a text of JSON, characters may stand as their numbers: then all."""
        return self._detectors if "\\u" in text else likely(text, self._detectors)

    def _pointed(self, value: Any, steps: list[str], found: set[str]) -> Any:
        """Without what a pointer leads to; what a tool says in `structuredContent` it may say again in its texts."""
        again = steps[1:] if steps[:1] == ["structuredContent"] else None
        value = _taken_out(value, steps, found)
        content = value.get("content") if again is not None and isinstance(value, dict) else None
        if again is None or not isinstance(content, list):
            return value
        return {**value, "content": [self._in_block(one, again, found) for one in content]}

    def _in_block(self, block: Any, steps: list[str], found: set[str]) -> Any:
        inner = _json_in(block.get("text")) if isinstance(block, dict) else None
        if inner is None:
            return block
        return {**block, "text": _encode(_taken_out(inner, steps, found)).decode()}


class _Look:
    """One look at all texts, numbers and names of a value. `found` takes what has taken out something."""

    def __init__(self, kinds: tuple[str, ...], found: set[str]) -> None:
        self._kinds, self._found = kinds, found
        self._by_name, self._cards = "secrets" in kinds, "cards" in kinds
        self._names: dict[str, tuple[str, bool]] = {}

    def at(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, str):
            return self._text(value, depth)
        if isinstance(value, dict):
            return dict(self._member(name, one, depth) for name, one in value.items())
        if isinstance(value, list):
            return [self.at(one, depth) for one in value]
        if self._cards and isinstance(value, int) and value > 10**12:
            return self._masked(str(value)) if is_card(str(value)) else value
        return value

    def _member(self, name: str, value: Any, depth: int) -> tuple[str, Any]:
        known = self._names.get(name)
        if known is None:  # mostly the same few
            known = self._names[name] = self._masked(name), self._by_name and names_a_secret(name)
        shown, is_secret = known
        if is_secret and value is not None and value != "" and not isinstance(value, bool):
            self._found.add(NAME)
            return shown, f"[redacted: {NAME}]"
        return shown, self.at(value, depth)

    def _text(self, text: str, depth: int) -> str:
        inner = _json_in(text) if depth < _DEEPEST else None
        if inner is None:
            return self._masked(text)
        kept = self.at(inner, depth + 1)
        return text if kept == inner else _encode(kept).decode()

    def _masked(self, text: str) -> str:
        text, kinds = masked(text, self._kinds)
        self._found.update(kinds)
        return text


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _json_in(text: Any) -> Any:
    """The object or array that a text is; None for any other text."""
    if not isinstance(text, str) or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = _decode(text)
    except BAD_JSON:
        return None
    return value if isinstance(value, (dict, list)) else None


def _taken_out(value: Any, steps: list[str], found: set[str]) -> Any:
    if not steps:
        found.add(POINTER)
        return f"[redacted: {POINTER}]"
    step, rest = steps[0], steps[1:]
    if isinstance(value, dict):
        return {key: _taken_out(one, rest, found) if step in ("*", key) else one for key, one in value.items()}
    if isinstance(value, list):
        return [_taken_out(one, rest, found) if step in ("*", str(at)) else one for at, one in enumerate(value)]
    return value
