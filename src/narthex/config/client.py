"""A client's own `mcp.json` as Narthex settings: `mcpServers` (Claude, Cursor and most others) or `servers` (VS Code).

In: the tree of such a file. Out: `Settings` with its servers; what is foreign is named in a notice, never an error.
Sources: code.claude.com/docs/en/mcp, cursor.com/docs/mcp, code.visualstudio.com "MCP configuration reference".
Cases: `tests/config/test_client.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Any

from narthex.config.document import Entry, Fault, Node, Reading, quote
from narthex.config.kinds import settings_of
from narthex.config.schema.root import Settings
from narthex.config.schema.servers import ServerSettings

OURS = ("url", "headers", "command", "args", "env", "cwd")
TYPES = {
    "stdio": "auto",
    "http": "http",
    "streamable-http": "http",
    "streamableHttp": "http",
    "streamable_http": "http",
    "sse": "sse",
}
EDITOR_FOLDERS = (".vscode", ".cursor")


def is_client_file(root: Node, *, json: bool) -> bool:
    """Is this a client's file? `version` makes a file ours; without it `servers` alone counts in JSON only."""
    if root.shape != "map":
        return False
    if root.get("mcpServers") is not None:
        return json or root.get("version") is None
    return json and root.get("servers") is not None and root.get("version") is None


def workspace_of(path: FilePath) -> FilePath:
    """The client's workspace: the folder that `.vscode` or `.cursor` lies in, else the file's own."""
    folder = path.absolute().parent
    return folder.parent if folder.name in EDITOR_FOLDERS else folder


def variables_for(path: FilePath, home: str) -> dict[str, str]:
    folder = workspace_of(path)
    return {
        "workspaceFolder": str(folder),
        "workspaceFolderBasename": folder.name,
        "userHome": home,
        "pathSeparator": "/",
        "/": "/",
        "CLAUDE_PROJECT_DIR": str(folder),
    }


def read_client(root: Node, reading: Reading) -> Settings:
    """Take the servers; faults and notices go to `reading`."""
    section = "mcpServers" if root.get("mcpServers") is not None else "servers"
    _foreign(
        reading, "of the file", (entry for entry in root.entries if entry.key not in (section, "inputs", "$schema"))
    )
    table = root.get(section)
    reading.marks["servers",] = next(entry.mark for entry in root.entries if entry.key == section)
    if table is None or table.shape != "map":
        reading.fault(("servers",), f"{section} wants a map of servers")
        return Settings()
    servers: dict[str, ServerSettings] = {}
    for entry in table.entries:
        name = _name(entry, reading)
        if name in servers:
            reading.fault(
                entry.mark, f"{quote(entry.key)} would be called '{name}' here, as another server is; rename one"
            )
            continue
        reading.marks["servers", name] = entry.mark
        if entry.node.shape != "map":
            reading.fault(entry.node.mark, f"server {quote(entry.key)} wants a map")
        elif (off := entry.node.get("disabled")) is not None and off.text == "true":
            reading.notice(entry.mark, f"server '{name}' is disabled there, so it is left out here")
        elif name:
            servers[name] = _server(name, entry.node, section == "servers", reading)
    return Settings(servers=servers)


def _name(entry: Entry, reading: Reading) -> str:
    name = re.sub(r"[^a-z0-9-]", "-", entry.key.lower())[:24]
    if not re.search(r"[a-z0-9]", name):
        reading.fault(entry.mark, f"server {quote(entry.key)} needs a name with letters or digits")
        return ""
    if name != entry.key:
        reading.notice(entry.mark, f"server {quote(entry.key)} is called '{name}' here")
    return name


def _server(name: str, node: Node, vscode: bool, reading: Reading) -> ServerSettings:
    known = settings_of(ServerSettings)
    found: dict[str, Any] = {}
    for entry in node.entries:
        at = ("servers", name, entry.key)
        if entry.node.shape == "null":
            continue  # clients write null for "not set"
        try:
            if entry.key in OURS:
                reading.marks[at] = entry.mark
                found[entry.key] = known[entry.key][0].kind.read(entry.node, at, reading)
            elif entry.key in ("type", "transport"):
                found["transport"] = _transport(entry.node, node, vscode)
        except Fault as fault:
            reading.fault(fault.mark, f"{entry.key}: {fault.text}")
    skipped = (*OURS, "type", "transport", "disabled")
    _foreign(reading, f"of server '{name}'", (entry for entry in node.entries if entry.key not in skipped))
    return ServerSettings(**found)


def _transport(node: Node, server: Node, vscode: bool) -> str:
    if node.shape != "text" or node.text not in TYPES:
        raise Fault(node.mark, f"wants one of stdio, http, sse, not {quote(node.text)}")
    if (node.text == "stdio") != (server.get("url") is None):
        raise Fault(
            node.mark,
            "type 'stdio' goes with a command" if node.text == "stdio" else f"type '{node.text}' goes with a url",
        )
    # VS Code's `http` tries Streamable HTTP and falls back to SSE; Claude's and Cursor's does not.
    return "auto" if vscode and node.text == "http" else TYPES[node.text]


def _foreign(reading: Reading, whose: str, entries: Iterable[Entry]) -> None:
    """One notice for all the keys of one map that mean nothing here."""
    found = list(entries)
    if found:
        names = ", ".join(quote(entry.key) for entry in found[:6]) + (
            f" and {len(found) - 6} more" if len(found) > 6 else ""
        )
        reading.notice(found[0].mark, f"not used here: {names} {whose}")
