"""`narthex list`: the tools, prompts and resources of a gateway or of any MCP server over HTTP.

In: where to connect. Out: tables, or with `--json` the items as received; exit 0, 1 when there is no list, 2 misused.
Cases: `tests/cli/test_client.py`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from narthex.cli.client import Credential, EraChoice, McpClient, find_url, one_line, safe_url, target_options
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, encode

ESTIMATE, ENCODINGS = "estimate", ("o200k", "cl100k", "voyage3")
"""Tokenizers, as `flow.limit.tokenizers` has them; not imported before one is asked for."""

LISTS = (
    ("tools", "tools/list", "name"),
    ("prompts", "prompts/list", "name"),
    ("resources", "resources/list", "uri"),
)
_WIDEST_NAME = 60


@click.command("list")
@click.option(
    "--tokens",
    "tokenizer",
    is_flag=False,
    flag_value="estimate",
    type=click.Choice((ESTIMATE, *ENCODINGS)),
    help="Show how many tokens of a model's context each definition takes: estimated, or by this tokenizer.",
)
@target_options
def list_(
    url: str | None, endpoint: str, config: Path | None, as_json: bool, era: EraChoice, credential: Credential,
    tokenizer: str | None,
) -> None:  # fmt: skip
    """List tools, prompts and resources of a gateway or server.

    The URL comes from --url, else from --config, ./narthex.yaml or ./.mcp.json, else it is http://127.0.0.1:8080/mcp.
    With --json one document: {"tools": […], "prompts": […], "resources": […]}, each item as received; with --tokens
    {"tokenizer", "total": {"tools", …}, "tools": [{"name", "tokens"}], …}.
    """
    count = counter(tokenizer) if tokenizer else None
    target = find_url(url, config, endpoint)
    found: dict[str, list[Raw]] = {}
    missing: list[str] = []
    with McpClient(target, era, credential) as client:
        for member, method, _ in LISTS:
            found[member], lost = client.listed(method, member)
            missing += [one for one in lost if one not in missing]
    if count is not None:
        _show_tokens(found, str(tokenizer), count, as_json=as_json)
    elif as_json:
        sys.stdout.buffer.write(encode(found) + b"\n")
    else:
        _show(target, found)
    for one in missing:
        click.secho(f"missing: {one_line(one)}", fg="yellow", err=True)


def counter(tokenizer: str) -> Callable[[bytes], int]:
    """What counts tokens. Ends with exit code 2 where its package is not installed."""
    from narthex.flow.limit import tokenizers
    from narthex.flow.limit.tokens import estimate

    if tokenizer == ESTIMATE:
        return estimate
    if not tokenizers.is_installed():
        raise click.UsageError("the exact tokenizers are not installed: pip install 'narthex[tokens]'")
    return tokenizers.tokenizer(tokenizer)


def _show_tokens(found: dict[str, list[Raw]], tokenizer: str, count: Callable[[bytes], int], *, as_json: bool) -> None:
    """What each definition takes of a context, the largest first."""
    rows: dict[str, list[tuple[int, str]]] = {}
    for member, _, key in LISTS:
        rows[member] = sorted(((count(bytes(item)), _row(item, key)[0]) for item in found[member]), reverse=True)
    total = {member: sum(tokens for tokens, _ in one) for member, one in rows.items()}
    if as_json:
        listed = {member: [{"name": name, "tokens": tokens} for tokens, name in one] for member, one in rows.items()}
        sys.stdout.buffer.write(encode({"tokenizer": tokenizer, "total": total, **listed}) + b"\n")
        return
    for member, one in rows.items():
        if one:
            click.secho(f"{member.capitalize()}: {total[member]} tokens ({tokenizer})", bold=True)
            _table([(name, str(tokens)) for tokens, name in one])


def _show(target: str, found: dict[str, list[Raw]]) -> None:
    counts = [f"{len(items)} {member if len(items) != 1 else member[:-1]}" for member, items in found.items()]
    click.echo(f"{safe_url(target)}: {', '.join(counts)}")
    for member, _, key in LISTS:
        if found[member]:
            click.secho(f"\n{member.capitalize()}", bold=True)
            _table([_row(item, key) for item in found[member]])


def _row(item: Raw, key: str) -> tuple[str, str]:
    """Name and first sentence; both are text of others."""
    try:
        value: Any = msgspec.json.decode(item, type=dict[str, Any])
    except BAD_JSON:
        return "?", "(malformed)"
    words = next((value[name] for name in ("description", "title", "name") if isinstance(value.get(name), str)), "")
    return one_line(str(value.get(key, "?")), 200), "" if words == value.get(key) else one_line(words)


def _table(rows: list[tuple[str, str]]) -> None:
    width = min(max(len(name) for name, _ in rows), _WIDEST_NAME)
    room = max(shutil.get_terminal_size((120, 0)).columns - width - 4, 20)
    for name, words in rows:
        shown = words if len(words) <= room else words[: room - 1] + "…"
        click.echo(f"  {click.style(name, fg='cyan')}{' ' * (width - len(name))}  {shown}".rstrip())
