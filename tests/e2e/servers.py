"""The official servers as upstreams: their entries for a configuration, and those that must run beside the gateway."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.e2e.harness import listening_ports, wait_for

PACKAGES = "@modelcontextprotocol"


def npm_server(node: str, node_modules: Path, name: str, *args: str) -> dict[str, Any]:
    """The entry of an npm server over stdio."""
    return {"command": node, "args": [str(node_modules / PACKAGES / name / "dist" / "index.js"), *args]}


@contextlib.contextmanager
def everything_over_http(node: str, node_modules: Path, kind: str) -> Iterator[str]:
    """`server-everything` on a port of its own; `kind` is `sse` or `streamableHttp`. Yields its URL."""
    entry = npm_server(node, node_modules, "server-everything", kind)
    process = subprocess.Popen(
        [entry["command"], *entry["args"]],
        env={**os.environ, "PORT": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = wait_for(lambda: listening_ports(process.pid), f"server-everything over {kind}").pop()
        yield f"http://127.0.0.1:{port}/{'sse' if kind == 'sse' else 'mcp'}"
    finally:
        process.kill()
        process.wait()


def make_repository(folder: Path) -> Path:
    """A git repository with one commit."""
    folder.mkdir()
    identity = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.com"}
    committer = {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.com"}
    (folder / "hello.txt").write_text("hello\n")
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "the first commit"]):
        subprocess.run(["git", *command], cwd=folder, check=True, env={**os.environ, **identity, **committer})
    return folder


def official(node: str, node_modules: Path, python_servers: Callable[[str], str], folder: Path) -> dict[str, Any]:
    """All official servers over stdio, with their data in `folder`."""
    repository = make_repository(folder / "repository")
    files = folder / "files"
    files.mkdir()
    (files / "note.txt").write_text("a note\n")
    return {
        "time": {"command": python_servers("mcp-server-time"), "args": ["--local-timezone", "UTC"]},
        "git": {"command": python_servers("mcp-server-git"), "args": ["--repository", str(repository)]},
        "fetch": {
            "command": python_servers("mcp-server-fetch"),
            "args": ["--ignore-robots-txt", "--allow-private-ips"],
        },
        "everything": npm_server(node, node_modules, "server-everything", "stdio"),
        "filesystem": npm_server(node, node_modules, "server-filesystem", str(files)),
        "memory": {
            **npm_server(node, node_modules, "server-memory"),
            "env": {"MEMORY_FILE_PATH": str(folder / "memory.jsonl")},
        },
    }
