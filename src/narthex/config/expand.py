"""`${NAME}` in a text: the environment, and the names that clients know.

In: a text, the environment, extra variables. Out: `Expanded`, or a `ValueError` that says what to write instead.
Forms: `${VAR}`, `${VAR:-default}`, `${env:VAR}`, `${env:VAR:-default}`; `$${` is a plain `${`. What is put in is not
expanded again. `${secret:NAME}`, where it is allowed, stays a reference. Cases: `tests/config/test_expand.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from narthex.config.values import parse_secret_name
from narthex.types import SecretName, SecretText

FORM = re.compile(r"\$(\$\{)|\$\{([^}]*)\}|(\$\{)")
NAME = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class Expanded:
    """A text as written and as meant. Equal by both; only `written` is part of a revision (a value may be secret).

    `text` holds the references to secrets; in `value` they stand as they were written.
    """

    __slots__ = ("text", "value", "written")

    def __init__(self, written: str, value: str, text: SecretText | None = None) -> None:
        self.written, self.value, self.text = written, value, text or SecretText((value,))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expanded) and (self.written, self.value) == (other.written, other.value)

    def __hash__(self) -> int:
        return hash((self.written, self.value))

    def __repr__(self) -> str:
        return f"Expanded({self.written!r})"  # never the value: it may come from a secret of the environment


def expand(text: str, env: Mapping[str, str], variables: Mapping[str, str], *, secrets: bool = False) -> Expanded:
    """Put values in.

    Args:
        secrets: May `${secret:NAME}` stand here? It is kept as a reference, for whoever sends the text.
    Raises:
        ValueError: A name is not set and has no default, or only another program could answer it.
    """
    pieces: list[str | SecretName] = []
    end = 0
    for match in FORM.finditer(text):
        pieces += [text[end : match.start()], _piece(match, env, variables, secrets)]
        end = match.end()
    pieces.append(text[end:])
    value = "".join(piece if isinstance(piece, str) else f"${{secret:{piece.name}}}" for piece in pieces)
    return Expanded(text, value, SecretText(_joined(pieces)))


def _piece(
    match: re.Match[str], env: Mapping[str, str], variables: Mapping[str, str], secrets: bool
) -> str | SecretName:
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
        if not secrets:
            raise ValueError(
                f"${{{inner[:72]}}}: secrets are for `credentials`, where they are kept out of everything else"
            )
        return SecretName(parse_secret_name(inner.removeprefix("secret:")))
    name = NAME.fullmatch(inner)
    if name is None:
        raise ValueError(f"${{{inner[:40]}}} is not known here; write $${{ for a plain ${{")
    if name[1] in env and (env[name[1]] or name[2] is None):
        return env[name[1]]
    if name[2] is not None:
        return name[2]
    raise ValueError(f"the environment variable {name[1]} is not set; ${{{inner}:-text}} gives a default")


def _joined(pieces: list[str | SecretName]) -> tuple[str | SecretName, ...]:
    """The same with plain pieces that touch put together, and empty ones left out."""
    joined: list[str | SecretName] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        elif piece != "":
            joined.append(piece)
    return tuple(joined)


def _input(name: str) -> str:
    variable = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_") or "VALUE"
    return (
        f"${{input:{name}}} is a question that only VS Code can ask. Keep the value with `narthex secrets set {name}`"
        f" and send it by a credential of a narthex.yaml (${{secret:{name}}}), or write ${{env:{variable}}} and set it"
    )
