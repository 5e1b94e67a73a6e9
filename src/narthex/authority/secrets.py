"""The secrets that calls may need, in memory: implements `port.Secrets`.

In: values, or why there is none, by whoever keeps watch over a source. Out: a value at once, or `SecretMissing`.
Whatever comes in is made known to `HANDED_OUT`, so that no log, error or page shows it.
Cases: `tests/authority/test_secrets.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from narthex.errors import SecretMissing
from narthex.flow.upstream.secrets import HANDED_OUT, Redactor


class _Value:
    """Keeps a value out of every repr: a dump of this object's neighbours shows none."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "[hidden]"


class SecretBook:
    """Values by name. Used on the event loop only."""

    def __init__(self, redactor: Redactor = HANDED_OUT) -> None:
        self.version = 0
        self._values: dict[str, _Value] = {}
        self._problems: dict[str, str] = {}
        self._redactor = redactor

    def get(self, name: str) -> str:
        """See `port.Secrets`."""
        value = self._values.get(name)
        if value is None:
            raise SecretMissing(name, self._problems.get(name, "the configuration does not refer to it"))
        return value.text

    @property
    def problems(self) -> dict[str, str]:
        """Names without a value, and what to do about each."""
        return dict(self._problems)

    def put(self, name: str, text: str) -> None:
        """This is its value from now on."""
        self._problems.pop(name, None)
        known = self._values.get(name)
        if known is None or known.text != text:
            self._redactor.add(text)
            self._values[name] = _Value(text)
            self.version += 1

    def lack(self, name: str, problem: str) -> None:
        """It has no value; `problem` says why and the way out."""
        self._problems[name] = problem
        if self._values.pop(name, None) is not None:
            self.version += 1

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget all others: the configuration does not refer to them any more."""
        wanted = set(names)
        for name in [name for name in self._values if name not in wanted]:
            del self._values[name]
            self.version += 1
        self._problems = {name: problem for name, problem in self._problems.items() if name in wanted}
