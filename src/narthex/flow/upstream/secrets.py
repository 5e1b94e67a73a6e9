"""Secrets, cut out of what is shown: what a server's configuration holds, and whatever was handed out to be sent.

In: a text of somebody else (an error, a line on stderr). Out: the same without secrets. `HANDED_OUT` is one for the
process, because a value that was sent anywhere must not be shown anywhere; it holds nothing that nobody uses.
Cases: `tests/flow/upstream/test_secrets.py`, `tests/admin/test_server.py`, `tests/security/test_secrets.py`.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from urllib.parse import parse_qsl, quote, urlsplit

from narthex.types import HttpTarget, ServerSpec

HIDDEN = "[hidden]"
_SHORTEST_SECRET = 6
_SHORTEST_LINE = 16
_MOST_PASSING = 8192


class Redactor:
    """Hides values in time that depends on the text, not on how many values there are.

    Args:
        most: Values that are kept for a while only; the oldest are forgotten.
    """

    def __init__(self, most: int = _MOST_PASSING) -> None:
        self._most = most
        self._lasting: set[str] = set()
        self._passing: OrderedDict[str, None] = OrderedDict()
        self._by_start: dict[str, list[str]] = {}

    def __repr__(self) -> str:
        return f"Redactor({len(self._lasting)} lasting, {len(self._passing)} passing)"

    def add(self, value: str, *, passing: bool = False) -> None:
        """Never show this value, nor as it looks in a URL or in JSON; nor a long line of it, where it has several.

        Args:
            passing: A token that others will follow. Values of the operator last as long as the process.
        """
        for form in _forms(value):
            if passing and form not in self._lasting:
                if form not in self._passing:
                    self._know(form)
                self._passing[form] = None
                self._passing.move_to_end(form)
            elif form not in self._lasting:
                if form not in self._passing:
                    self._know(form)
                self._passing.pop(form, None)
                self._lasting.add(form)
        while len(self._passing) > self._most:
            self._forget(self._passing.popitem(last=False)[0])

    def hide(self, text: str) -> str:
        """The text without them; of several that begin alike the longest is cut out."""
        if not self._by_start:
            return text
        shown, kept, at = [], 0, 0
        while at <= len(text) - _SHORTEST_SECRET:
            for value in self._by_start.get(text[at : at + _SHORTEST_SECRET], ()):
                if text.startswith(value, at):
                    shown += [text[kept:at], HIDDEN]
                    at = kept = at + len(value)
                    break
            else:
                at += 1
        return "".join([*shown, text[kept:]])

    def _know(self, form: str) -> None:
        alike = self._by_start.setdefault(form[:_SHORTEST_SECRET], [])
        alike.append(form)
        alike.sort(key=len, reverse=True)

    def _forget(self, form: str) -> None:
        alike = self._by_start[form[:_SHORTEST_SECRET]]
        alike.remove(form)
        if not alike:
            del self._by_start[form[:_SHORTEST_SECRET]]


HANDED_OUT = Redactor()
"""Every secret and token that this process has sent, or is about to send."""


def secrets_of(spec: ServerSpec) -> tuple[str, ...]:
    """Values that must not be shown, the longest first: a part of one may be another."""
    target = spec.target
    if isinstance(target, HttpTarget):
        parts = urlsplit(target.url)
        found = [value for _, value in target.headers] + [value for _, value in parse_qsl(parts.query)]
        found += [parts.query, parts.password or ""]
        found += [word for _, value in target.headers for word in value.split()]
    else:
        found = [value for _, value in target.env] + list(target.args)
        found += [argument.partition("=")[2] for argument in target.args]
    return tuple(sorted({one for one in found if len(one) >= _SHORTEST_SECRET}, key=len, reverse=True))


def hide(text: str, secrets: tuple[str, ...] = ()) -> str:
    """A text without `secrets`, and without whatever was handed out."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return HANDED_OUT.hide(text)


def _forms(value: str) -> set[str]:
    lines = [line for line in value.splitlines() if len(line) >= _SHORTEST_LINE]
    forms = {form for one in (value, *lines) for form in (one, quote(one, safe=""), json.dumps(one)[1:-1])}
    return {form for form in forms if len(form) >= _SHORTEST_SECRET}
