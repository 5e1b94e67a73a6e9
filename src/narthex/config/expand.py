"""`${NAME}` in a text: the environment, and the names that clients know.

In: a text, the environment, extra variables. Out: `Expanded`, or a `ValueError` that says what to write instead.
Forms: `${VAR}`, `${VAR:-default}`, `${env:VAR}`, `${env:VAR:-default}`; `$${` is a plain `${`. What is put in is not
expanded again. Cases: `tests/config/test_expand.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

FORM = re.compile(r"\$(\$\{)|\$\{([^}]*)\}|(\$\{)")
NAME = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class Expanded:
    """A text as written and as meant. Equal by both; only `written` is part of a revision (a value may be secret)."""

    __slots__ = ("value", "written")

    def __init__(self, written: str, value: str) -> None:
        self.written, self.value = written, value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expanded) and (self.written, self.value) == (other.written, other.value)

    def __hash__(self) -> int:
        return hash((self.written, self.value))

    def __repr__(self) -> str:
        return f"Expanded({self.written!r})"  # never the value: it may come from a secret of the environment


def expand(text: str, env: Mapping[str, str], variables: Mapping[str, str]) -> Expanded:
    """Put values in.

    Raises:
        ValueError: A name is not set and has no default, or only another program could answer it.
    """

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        if match[3]:
            raise ValueError("'${' without '}'; write $${ for a plain one")
        inner = match[2]
        if inner in variables:
            return variables[inner]
        if inner.startswith("input:"):
            raise ValueError(_input(inner.removeprefix("input:")))
        if inner.startswith("secret:"):
            raise ValueError(f"${{{inner}}}: stored secrets are not in this version; use ${{env:NAME}}")
        name = NAME.fullmatch(inner)
        if name is None:
            raise ValueError(f"${{{inner[:40]}}} is not known here; write $${{ for a plain ${{")
        if name[1] in env and (env[name[1]] or name[2] is None):
            return env[name[1]]
        if name[2] is not None:
            return name[2]
        raise ValueError(f"the environment variable {name[1]} is not set; ${{{inner}:-text}} gives a default")

    return Expanded(text, FORM.sub(value, text))


def _input(name: str) -> str:
    variable = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_") or "VALUE"
    return (
        f"${{input:{name}}} is a question that only VS Code can ask. `narthex secrets set {name}` will keep the value"
        f" once stored secrets are there (not in this version); until then write ${{env:{variable}}} and set it"
    )
