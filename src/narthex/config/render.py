"""What is written from the schema, the commands and the errors: JSON Schema and the pages of `docs/reference/`.

In: the code. Out: `PAGES`; `python -m narthex.config.render --write` writes them, `--check` names the stale (exit 1).
Proof: `tests/docs/test_reference.py`.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from narthex import errors
from narthex.config.kinds import Group, Listed, Mapped, Setting, settings_of
from narthex.config.schema.credentials import TableKind, UseSettings
from narthex.config.schema.endpoints import ResourceSettings, ResourcesKind
from narthex.config.schema.root import ROOT, Settings

if TYPE_CHECKING:
    import click

REFERENCE = Path("docs/reference")
HINT = "<!-- Written by `python -m narthex.config.render --write`; edit the code instead. -->"
CONFIGURATION = """\
Narthex reads `narthex.yaml` (or the same keys as JSON), or a client's own `mcp.json`. Everything is optional except
`version`. Unknown, misspelt and duplicate keys are errors with line and column; `narthex check` shows all at once.

Durations are written `250ms 30s 1m 2h 7d`, sizes `512B 64KiB 1MiB 2GiB`. Booleans are `true` and `false` only. Paths
are relative to the configuration file. Where `${VAR}` is expanded, `${VAR:-text}` gives a default, `${env:VAR}` means
the same, and `$${` is a plain `${`; a variable that is not set is an error. Patterns are globs on the canonical name
`<server>__<name>`, whatever an endpoint shows.

```yaml
version: 1
servers:
  time: {command: mcp-server-time, args: [--local-timezone, UTC]}
  docs: {url: "https://mcp.example.com/mcp", headers: {Authorization: "Bearer ${DOCS_TOKEN}"}}
endpoints:
  default: {servers: [time, docs]}
  reading: {servers: [docs], tools: {exclude: ["docs__delete_*"]}}
```

**A client's `mcp.json`** (comments and trailing commas allowed) gives its servers: `mcpServers` as Claude and Cursor
write it, `servers` as VS Code does. `type`, `url`, `headers`, `command`, `args`, `env` and `cwd` are used, a server
that is `disabled` is left out, names are made to fit, and a notice says what else was not used. `${workspaceFolder}`,
`${userHome}` and the environment are expanded; `${input:…}` is a question only VS Code can ask, so it is an error.
"""


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of `narthex.yaml`, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "narthex.yaml",
        "description": "Configuration of Narthex, the MCP gateway.",
        **ROOT.schema(),
        "required": ["version"],
    }


def schema_file() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def configuration_page() -> str:
    parts = [HINT, "# Configuration", CONFIGURATION.rstrip()]
    pending = []
    for prefix, struct in _groups(Settings, ""):
        title = f"## `{prefix}`" if prefix else "## The file"
        parts.append(f"{title}\n\n{inspect.cleandoc(struct.__doc__ or '')}")
        for key, (setting, default) in settings_of(struct).items():
            name = f"{prefix}.{key}" if prefix else key
            if setting.later:
                pending.append(f"- `{name}`: {setting.help}")
            else:
                parts.append(f"### `{name}`\n\n{_entry(setting, default)}")
    parts.append(
        "## Not in this version\n\nThese keys are known and refused, never ignored, until their part is built."
    )
    return "\n\n".join(parts) + "\n\n" + "\n".join(pending) + "\n"


def _groups(struct: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """Every settings class below `struct`, with the way to it."""
    yield prefix, struct
    for key, (setting, _) in settings_of(struct).items():
        name = f"{prefix}.{key}" if prefix else key
        kind = setting.kind
        if isinstance(kind, Mapped):
            name, kind = f"{name}.<name>", kind.item
        if isinstance(kind, Listed) and isinstance(kind.item, Group):
            name, kind = f"{name}.<row>", kind.item
        if isinstance(kind, TableKind):
            yield from _groups(UseSettings, f"{name}.<row>")
        elif isinstance(kind, ResourcesKind):
            yield from _groups(ResourceSettings, name)
        elif isinstance(kind, Group):
            yield from _groups(kind.struct, name)


def _entry(setting: Setting, default: Any) -> str:
    nested = isinstance(setting.kind, Group | Mapped | ResourcesKind | TableKind)
    shown = setting.default
    if not shown and not (nested and default is not None):
        shown = "none" if default is None else setting.kind.show(default)
        shown = "required" if shown == "required" else f"`{shown}`" if default is not None else shown
    lines = [setting.help, "", f"- Value: {setting.kind.label}{', or `null`' if setting.nullable else ''}"]
    if shown:
        lines.append(f"- Default: {shown}")
    if isinstance(setting.kind, Listed | Mapped) and setting.secret:
        lines.append("- Secret: never shown in output or logs")
    return "\n".join(lines)


def errors_page() -> str:
    rows = []
    for error in _errors(errors.GatewayError):
        code = str(error.code)
        as_given = error is errors.HttpRefusal
        rows.append(
            f"| `{code}` | {'as given' if as_given else error.status} "
            f"| {'as given' if as_given else f'`{error.reason}`'} | {_summary(error)} |"
        )
    words = (
        "Every refusal of an endpoint carries a JSON-RPC code and `data: {reason, decisionId, retryAfterSeconds?}`. "
        "Codes from -31001 to -31009 are Narthex's own; the others belong to JSON-RPC and MCP. `data.sent` of "
        "`upstream_unavailable` says whether the server may have acted on the call."
    )
    table = ["| Code | HTTP | Reason | When |", "| --- | --- | --- | --- |", *rows]
    return "\n\n".join([HINT, "# Errors", words, "\n".join(table)]) + "\n"


def _errors(base: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    """The tree below `base` as `errors.py` writes it; a subclass from elsewhere (a test) does not count."""
    yield base
    for error in base.__subclasses__():
        if error.__module__ == errors.__name__:
            yield from _errors(error)


def _summary(error: type[errors.GatewayError]) -> str:
    if error is errors.GatewayError:
        return "A fault of the gateway itself."
    first = " ".join(inspect.cleandoc(error.__doc__ or "").split("\n\n")[0].split())
    return re.sub(r" \(design §\d+\)", "", first)


def cli_page() -> str:
    """Every command as its own `--help` tells it, at 80 columns whatever the terminal."""
    import click

    from narthex.cli.main import cli

    top = click.Context(cli, info_name="narthex", terminal_width=80, max_content_width=80, **cli.context_settings)
    words = "Exit codes: 0 done or allowed, 1 said no or found a fault, 2 misused."
    parts = [HINT, "# Commands", words, f"```text\n{cli.get_help(top)}\n```"]
    for name in cli.list_commands(top):
        if (command := cli.get_command(top, name)) is not None:
            parts += _command(command, click.Context(command, parent=top, info_name=name))
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    """Its help, then that of the commands in it."""
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```"
    for name, inner in command.commands.items() if hasattr(command, "commands") else ():
        yield from _command(inner, type(context)(inner, parent=context, info_name=name))


PAGES: dict[str, Callable[[], str]] = {
    "configuration.md": configuration_page,
    "cli.md": cli_page,
    "errors.md": errors_page,
    "narthex.schema.json": schema_file,
}
"""File name in `docs/reference/` -> what writes it."""


def stale(root: Path) -> list[str]:
    """Pages under `root` that are missing or say something else than the code."""
    return [name for name, page in PAGES.items() if _current(root / REFERENCE / name) != page()]


def _current(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def main(arguments: list[str]) -> int:
    """Run from the root of the repository with `--check` or `--write`."""
    if arguments not in (["--check"], ["--write"]):
        print("usage: python -m narthex.config.render --check|--write", file=sys.stderr)
        return 2
    old = stale(Path())
    if arguments == ["--write"]:
        REFERENCE.mkdir(parents=True, exist_ok=True)
        for name in old:
            (REFERENCE / name).write_text(PAGES[name](), encoding="utf-8")
    for name in old:
        print(f"{'written' if arguments == ['--write'] else 'stale'}: {REFERENCE / name}")
    return 1 if old and arguments == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
