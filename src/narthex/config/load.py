"""A configuration file to `Settings`: YAML or JSON, ours or a client's, with everything that is wrong said at once.

In: a path, the environment. Out: `Loaded`. The file is read once; nothing else is opened, nothing is started.
Cases: `tests/config/test_load.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from narthex.config.client import is_client_file, read_client, variables_for
from narthex.config.document import MAX_FILE, START, Fault, Node, Problem, Reading, decode
from narthex.config.jsonc import parse_jsonc
from narthex.config.kinds import settings_of
from narthex.config.schema.root import ROOT, Settings
from narthex.config.yamlfile import parse_yaml

NAMES = ("narthex.yaml", ".mcp.json")
"""What `serve` looks for in the working directory, in this order."""


class Loaded(msgspec.Struct, frozen=True):
    """A file that was read. `settings` is whole only without `reading.problems`; `client`: a client's `mcp.json`."""

    path: Path
    settings: Settings
    reading: Reading
    client: bool


def find_config(cwd: Path) -> Path | None:
    """The configuration that a command takes when none is named."""
    return next((cwd / name for name in NAMES if (cwd / name).is_file()), None)


def load(path: Path, *, env: Mapping[str, str]) -> Loaded:
    """Read a file. Never raises for what the file says: that stands in `reading.problems`."""
    reading = Reading(str(path), env=env)
    try:
        data = _read(path)
    except OSError as error:
        reading.problems.append(Problem(str(path), None, f"cannot be read: {error.strerror or error}"))
        return Loaded(path, Settings(), reading, False)
    try:
        text = decode(data)
        json = _is_json(path, text)
        root = parse_jsonc(text) if json else parse_yaml(text)
        client = is_client_file(root, json=json)
        return Loaded(path, _settings(path, root, client, json, reading), reading, client)
    except Fault as fault:
        reading.fault(fault.mark, fault.text)
        return Loaded(path, Settings(), reading, False)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE + 1)


def _is_json(path: Path, text: str) -> bool:
    if path.suffix in (".yaml", ".yml"):
        return False
    return path.suffix in (".json", ".jsonc") or text.lstrip().startswith(("{", "//", "/*"))


def _settings(path: Path, root: Node, client: bool, json: bool, reading: Reading) -> Settings:
    if root.shape == "null":
        raise Fault(START, "the file is empty; a configuration begins with `version: 1`")
    if client:
        reading.variables |= variables_for(path, reading.env.get("HOME") or os.path.expanduser("~"))
        return read_client(root, reading)
    if root.shape == "map" and root.get("version") is None:
        known = any(entry.key in settings_of(Settings) for entry in root.entries)
        reading.fault(
            START, "`version: 1` is missing" if known or not json else "neither `mcpServers`, `servers` nor `version`"
        )
    settings: Settings = ROOT.read(root, (), reading)
    return settings
