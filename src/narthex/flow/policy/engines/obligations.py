"""What a policy lets a call through for: conditions that the gateway has to keep, or the call is denied.

In: the `obligations` of a result; then a call's arguments, its caller, its result. Out: `Obligation`s; the arguments
that go on; what of a result goes on. One that nobody here knows, or that cannot be kept for this call, denies it.
Cases: `tests/flow/policy/engines/test_obligations.py`. Reference: `docs/guides/rego.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import msgspec

from narthex.errors import ContentBlocked
from narthex.flow.codec.jsonrpc import BAD_JSON, Incoming, Raw, encode
from narthex.flow.codec.jsonrpc import is_request as asks

MOST_RESULT = 1024 * 1024
"""Bytes of a result that is held to be worked on (design §3: held is a whole message of at most 1 MiB)."""
MOST_POINTERS = MOST_STEPS = 64
REDACTED = "[redacted]"


class Obligation(msgspec.Struct, frozen=True):
    """One of them. `value` is what JSON decodes to, in the form that `FORMS` has checked."""

    kind: str
    value: Any


class BadObligation(ValueError):
    """It has not the form of its kind."""


class UnknownObligation(BadObligation):
    """Nobody here knows it."""


def _texts(value: Any) -> Any:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found or not all(isinstance(one, str) and one for one in found):
        raise BadObligation("wants a text or a list of them")
    return tuple(found)


def _pointers(value: Any) -> Any:
    found = _texts(value)
    if len(found) > MOST_POINTERS or not all(one.startswith("/") for one in found):
        raise BadObligation(f"wants at most {MOST_POINTERS} JSON pointers such as /structuredContent/ssn")
    if max(one.count("/") for one in found) > MOST_STEPS:  # they are followed by recursion
        raise BadObligation(f"wants at most {MOST_STEPS} steps in a JSON pointer")
    return found


def _flag(value: Any) -> Any:
    if not isinstance(value, bool):
        raise BadObligation("wants true or false")
    return value


def _count(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadObligation("wants a whole number")
    return value


def _seconds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 86_400:
        raise BadObligation("wants seconds, 0 to 86400")
    return value


def _map(value: Any) -> Any:
    if not isinstance(value, dict):
        raise BadObligation("wants an object")
    level: list[Any] = [value]
    for _ in range(MOST_STEPS + 1):
        level = [inner for one in level if isinstance(one, dict) for inner in one.values()]
        if not level:
            return value
    raise BadObligation(f"wants at most {MOST_STEPS} objects in each other")  # it is applied by recursion


def _log(value: Any) -> Any:
    if value not in ("full", "redacted", "meta", "none"):
        raise BadObligation("wants full, redacted, meta or none")
    return value


FORMS: Mapping[str, Callable[[Any], Any]] = {
    "redact": _pointers,
    "require_approval": _flag,
    "max_results": _count,
    "rewrite": _map,
    "step_up_scope": _texts,
    "cache_ttl_s": _seconds,
    "log": _log,
}


def read(value: Any) -> tuple[Obligation, ...]:
    """The obligations of a result, as their map says them. Raises BadObligation."""
    if not isinstance(value, dict):
        raise BadObligation("obligations: an object is wanted")
    found = []
    for kind, said in value.items():
        if (form := FORMS.get(kind)) is None:
            raise UnknownObligation(f"{str(kind)[:64]}: no such obligation")
        try:
            found.append(Obligation(kind, form(said)))
        except BadObligation as error:
            raise BadObligation(f"{kind}: {error}") from None
    return tuple(found)


def value_of(obligations: Iterable[Obligation], kind: str) -> Any:
    """What one says; None where it is not among them."""
    return next((one.value for one in obligations if one.kind == kind), None)


def rewritten(arguments: Any, patch: Mapping[str, Any]) -> Any:
    """Arguments with a merge patch applied (RFC 7396): members replaced, those that are null taken out."""
    found = dict(arguments) if isinstance(arguments, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = rewritten(found.get(key), value) if isinstance(value, dict) else value
    return found


class Duties(msgspec.Struct, frozen=True):
    """What has to be done with the result of a call. While there are any, nothing else of its server reaches the client
    on the way to it."""

    redact: tuple[str, ...] = ()
    max_results: int | None = None

    def kept(self, message: Incoming) -> Incoming | None:
        """A message of the server as it goes on; None: it does not.

        Raises:
            ContentBlocked: The result is too large, or cannot be read; or the server asks the client something.
        """
        if message.method:
            if asks(message):
                raise ContentBlocked("the server asks the client something, and its words may not be passed on unseen")
            return None
        if not message.result:
            return message
        if len(message.result) > MOST_RESULT:
            raise ContentBlocked("the result is too large to be worked on as the policy demands")
        try:
            result = msgspec.json.decode(message.result)
        except BAD_JSON:
            raise ContentBlocked("the result cannot be read") from None
        if not isinstance(result, dict) or result.get("resultType", "complete") != "complete":
            raise ContentBlocked("the call goes on beyond its answer, and what comes then would not be looked at")
        return msgspec.structs.replace(message, result=Raw(encode(self.applied(result))))

    def applied(self, result: dict[str, Any]) -> dict[str, Any]:
        """A result as it may be seen. What a tool says in `structuredContent` it may say again as JSON in a text."""
        for pointer in self.redact:
            steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
            result = _without(result, steps)
            if steps[0] == "structuredContent":
                result = _in_texts(result, partial(_without, steps=steps[1:]))
        if (most := self.max_results) is not None:
            result = {key: value[:most] if isinstance(value, list) else value for key, value in result.items()}
            if "structuredContent" in result:
                result = {**result, "structuredContent": _capped(result["structuredContent"], most)}
                result = _in_texts(result, lambda value: _capped(value, most))
        return result


def duties_of(obligations: Iterable[Obligation]) -> Duties | None:
    """None where results pass as they are."""
    redact, most = value_of(obligations, "redact"), value_of(obligations, "max_results")
    return None if redact is None and most is None else Duties(redact or (), most)


def _capped(value: Any, most: int) -> Any:
    """At most so many elements in a list, or in each list that stands in an object."""
    if isinstance(value, list):
        return value[:most]
    if isinstance(value, dict):
        return {key: one[:most] if isinstance(one, list) else one for key, one in value.items()}
    return value


def _without(value: Any, steps: list[str]) -> Any:
    """The same without what a pointer leads to (RFC 6901); `*` is every element, or every member."""
    if not steps:
        return REDACTED
    step, rest = steps[0], steps[1:]
    if isinstance(value, dict):
        return {key: _without(one, rest) if step in ("*", key) else one for key, one in value.items()}
    if isinstance(value, list):
        return [_without(one, rest) if step in ("*", str(at)) else one for at, one in enumerate(value)]
    return value


def _in_texts(result: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """The result with JSON in its text blocks changed, too."""
    content = result.get("content")
    if not isinstance(content, list):
        return result
    blocks = []
    for block in content:
        if isinstance(block, dict) and isinstance(text := block.get("text"), str):
            try:
                value = msgspec.json.decode(text)
            except BAD_JSON:
                value = None
            if isinstance(value, (dict, list)):
                block = {**block, "text": encode(change(value)).decode()}
        blocks.append(block)
    return {**result, "content": blocks}
