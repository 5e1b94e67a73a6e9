"""`narthex connect CLIENT`: what a client must be told to reach this gateway, printed or merged into its file.

In: the client, a configuration or a URL. Out: a snippet; with `--write` the client's file, changed in that one place,
its comments, order and mode kept, a backup beside it. Nothing is connected to. Cases: `tests/cli/test_connect.py`.
Sources: code.claude.com/docs/en/mcp; cursor.com/docs/mcp; code.visualstudio.com "MCP configuration reference".
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from narthex.errors import ConfigError

DEFAULT_URL = "http://127.0.0.1:8080/mcp"


class Client(msgspec.Struct, frozen=True):
    """One client: where its file is, the section that holds servers, what an entry is, what to type instead."""

    title: str
    section: str
    file: Callable[[Mapping[str, str], str], Path]
    entry: Callable[[str], dict[str, Any]]
    command: Callable[[str, str], str] | None = None
    after: str = ""


def settings_home(env: Mapping[str, str], platform: str) -> Path:
    """Where programs of this user keep their settings."""
    home = Path(env.get("HOME") or Path.home())
    if platform == "darwin":
        return home / "Library" / "Application Support"
    if platform == "win32":
        return Path(env.get("APPDATA") or home / "AppData" / "Roaming")
    configured = env.get("XDG_CONFIG_HOME", "")
    return Path(configured) if configured.startswith("/") else home / ".config"


def _through_stdio(url: str) -> dict[str, Any]:
    """Claude Desktop's file knows programs only; `mcp-remote` is the bridge, and needs a word to speak http."""
    insecure = ["--allow-http"] if url.startswith("http://") else []
    return {"command": "npx", "args": ["-y", "mcp-remote", url, *insecure]}


def _vscode_command(name: str, url: str) -> str:
    return "code --add-mcp " + shlex.quote(json.dumps({"name": name, "type": "http", "url": url}))


CLIENTS = {
    "claude-code": Client(
        "Claude Code",
        "mcpServers",
        lambda env, platform: Path(".mcp.json"),
        lambda url: {"type": "http", "url": url},
        lambda name, url: f"claude mcp add --transport http {name} {shlex.quote(url)}",
        "Claude Code asks once whether it may use the servers of this project's .mcp.json.",
    ),
    "claude-desktop": Client(
        "Claude Desktop",
        "mcpServers",
        lambda env, platform: settings_home(env, platform) / "Claude" / "claude_desktop_config.json",
        _through_stdio,
        after="Needs Node.js (npx). Quit Claude Desktop and open it again.",
    ),
    "cursor": Client(
        "Cursor",
        "mcpServers",
        lambda env, platform: Path(env.get("HOME") or Path.home()) / ".cursor" / "mcp.json",
        lambda url: {"url": url},
    ),
    "vscode": Client(
        "VS Code",
        "servers",
        lambda env, platform: settings_home(env, platform) / "Code" / "User" / "mcp.json",
        lambda url: {"type": "http", "url": url},
        _vscode_command,
    ),
}


@click.command()
@click.argument("client", type=click.Choice(list(CLIENTS)))
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the URL from this configuration.",
)
@click.option("--endpoint", default="default", show_default=True, help="The endpoint to connect to.")
@click.option("--url", help="The URL itself, instead of a configuration's.")
@click.option("--name", help="What the client calls it; `narthex`, or `narthex-ENDPOINT`.")
@click.option("--write", is_flag=True, help="Merge it into the client's file; a backup is kept.")
@click.option(
    "--path", type=click.Path(dir_okay=False, path_type=Path), help="The client's file, where it is not the usual one."
)
def connect(
    client: str, config: Path | None, endpoint: str, url: str | None, name: str | None, write: bool, path: Path | None
) -> None:
    """Show what CLIENT must be told to reach this gateway, or write it there.

    The URL comes from --url, else from --config, else from ./narthex.yaml or ./.mcp.json, else it is the default
    http://127.0.0.1:8080/mcp. With --write only this one entry of the client's file changes; comments stay.
    """
    chosen = CLIENTS[client]
    other = None if endpoint == "default" else endpoint
    given = {"--config": config, "--endpoint": other, "--url": url, "--name": name, "--path": path}
    if url is not None and config is not None:
        raise click.UsageError("--url and --config both say where the gateway is; give one of them.")
    source = None if url else config or _find_config()
    url = _checked(url) if url else _url_of(source, endpoint)
    name = name or ("narthex" if endpoint == "default" else f"narthex-{endpoint}")
    target = path or chosen.file(os.environ, sys.platform)
    if write:
        _write(chosen, target, name, url, source)
    else:
        _show(client, chosen, target, name, url, given)


def _find_config() -> Path | None:
    from narthex.config.load import find_config

    return find_config(Path())


def _checked(url: str) -> str:
    from narthex.config.values import split_url

    try:
        split_url(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None
    return url


def _url_of(config: Path | None, endpoint: str) -> str:
    from narthex.config.compile import endpoint_url, load_snapshot
    from narthex.config.document import suggest

    if config is None:
        return DEFAULT_URL if endpoint == "default" else f"{DEFAULT_URL}/{endpoint}"
    snapshot = load_snapshot(config)
    if endpoint not in snapshot.endpoints:
        raise click.BadParameter(
            f"{config} has no endpoint '{endpoint}'{suggest(endpoint, snapshot.endpoints)}", param_hint="--endpoint"
        )
    if snapshot.listen[1] == 0 and not snapshot.public_url:
        raise click.UsageError(f"{config} listens on port 0, so the port is known only once it runs; give --url.")
    return endpoint_url(snapshot, endpoint)


def _show(
    client: str, chosen: Client, target: Path, name: str, url: str, given: Mapping[str, Path | str | None]
) -> None:
    """The snippet, and the command that writes it: with the options that were given, or it would write another URL."""
    snippet = json.dumps({chosen.section: {name: chosen.entry(url)}}, indent=2, ensure_ascii=False)
    if chosen.command is not None:
        click.echo(click.style("Run", bold=True) + f"\n\n  {chosen.command(name, url)}\n")
    click.echo(click.style(f"{'Or put' if chosen.command else 'Put'} this into {target}", bold=True))
    click.echo("\n" + "\n".join(f"  {line}" for line in snippet.splitlines()) + "\n")
    if chosen.after:
        click.echo(chosen.after)
    options = [word for option, value in given.items() if value for word in (option, str(value))]
    again = shlex.join(["narthex", "connect", client, *options, "--write"])
    click.secho(f"`{again}` writes it for you, and keeps a backup of a file that is there.", dim=True)


def _write(chosen: Client, target: Path, name: str, url: str, source: Path | None) -> None:
    """Merge, and say what happened.

    Raises:
        ConfigError: The client's file is not what it should be; it is left alone.
    """
    if source is not None and target.exists() and target.resolve() == source.resolve():
        raise ConfigError(
            [f"{target}: this file is the gateway's own configuration: it would call itself; give --path or --config"]
        )
    file = target.resolve()  # settings are often links into a repository of dotfiles: change the file, keep the link
    try:
        before = file.read_bytes() if file.exists() else None
        after = merge(before, str(target), chosen.section, name, chosen.entry(url))
        if after == before:
            click.echo(f"{target} has it already.")
            return
        backup = _backup(file, before) if before is not None else None
        _replace(file, after)
    except OSError as error:
        raise ConfigError([f"{error.filename or target}: {error.strerror or error}"]) from None
    click.secho(f"{chosen.title} now reaches {url} as '{name}'.", fg="green", bold=True)
    click.echo(f"  written   {target}")
    if backup is not None:
        click.echo(f"  backup    {backup}")
    if chosen.after:
        click.echo(chosen.after)


def merge(before: bytes | None, file: str, section: str, name: str, entry: Mapping[str, Any]) -> bytes:
    """A client's file with one entry set. Whatever else stands there stays byte for byte, comments too.

    Args:
        before: The file's bytes, None where there is none yet.
        file: Its name, for messages.
        section: `mcpServers` or `servers`.
        name, entry: The member to set.
    Raises:
        ConfigError: Not JSON, or not the shape of such a file.
    """
    from narthex.config.document import Fault, Node, Problem, decode
    from narthex.config.jsonc import insert_member, parse_jsonc, replace, to_python

    def section_of(root: Node) -> Node | None:
        found = root.get(section)
        if root.shape != "map" or (found is not None and found.shape != "map"):
            raise Fault((found or root).mark, f"a client's file is a map whose {section} is a map")
        return found

    try:
        text = decode(before or b"")
        root = parse_jsonc(text)
        if root.shape == "null" and not text.strip():
            return (json.dumps({section: {name: entry}}, indent=2, ensure_ascii=False) + "\n").encode()
        servers = section_of(root)
        old = servers.get(name) if servers is not None else None
        if old is not None and to_python(old) == entry:
            return before or b""
        if servers is None:
            changed = insert_member(text, root, section, {name: entry})
        elif old is None:
            changed = insert_member(text, servers, name, entry)
        else:
            changed = replace(text, old, entry)
        # The text was edited, not rewritten: read it again before it goes where a client depends on it.
        now = parse_jsonc(changed)
        expected: Any = to_python(root)
        expected.setdefault(section, {})[name] = entry
        if to_python(now) != expected:
            raise Fault(root.mark, "this file could not be changed safely; add the entry by hand")
    except Fault as fault:
        raise ConfigError([str(Problem(file, fault.mark, fault.text))]) from None
    bom = b"\xef\xbb\xbf" if (before or b"").startswith(b"\xef\xbb\xbf") else b""
    return bom + changed.encode()


def _backup(file: Path, data: bytes) -> Path:
    """A copy beside the file, with its mode and the first free number; never over another backup."""
    mode = file.stat().st_mode & 0o777
    for number in range(1, 10_000):
        backup = file.with_name(f"{file.name}.narthex-backup-{number}")
        try:
            handle = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            continue
        with os.fdopen(handle, "wb") as out:
            os.fchmod(out.fileno(), mode)
            out.write(data)
        return backup
    raise FileExistsError(17, "too many backups", str(file))


def _replace(file: Path, data: bytes) -> None:
    """Write beside and rename: a reader sees the old file or the new one. A new file is for its owner only."""
    import tempfile

    file.parent.mkdir(parents=True, exist_ok=True)
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            os.fchmod(out.fileno(), mode)
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
