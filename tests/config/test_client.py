"""A client's own `mcp.json`: what is taken, what is named in a notice, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.compile import Examined, examine
from narthex.types import HttpTarget, StdioTarget

CLAUDE = """{
  "mcpServers": {
    "Git Hub": {"type": "http", "url": "${BASE:-https://mcp.example.com}/mcp",
      "headers": {"Authorization": "Bearer ${TOKEN}"}},
    "time": {"command": "mcp-server-time", "args": ["--local-timezone", "UTC"], "env": {"PORT": 80}, "timeout": 5},
    "old": {"type": "sse", "url": "http://127.0.0.1:9/sse"},
    "off": {"command": "x", "disabled": true},
  },
  "theme": "dark",
}
"""
CODE = """// VS Code
{
  "inputs": [{"type": "promptString", "id": "api-key", "password": true}],
  "servers": {
    "fs": {"type": "stdio", "command": "${workspaceFolder}/run",
      "args": ["${userHome}/x", "${env:TOKEN}"], "cwd": "${workspaceFolder}/sub"},
    "web": {"type": "http", "url": "https://mcp.example.com/mcp", "headers": null},
  }
}
"""
ENV = {"TOKEN": "t0p", "HOME": "/home/me", "PATH": ""}


def examined(path: Path, text: str) -> Examined:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return examine(path, env=ENV)


def test_claude_and_cursor(tmp_path: Path) -> None:
    found = examined(tmp_path / ".mcp.json", CLAUDE)
    assert found.snapshot is not None
    servers = found.snapshot.servers
    assert list(servers) == ["git-hub", "time", "old"]
    http, stdio = servers["git-hub"].target, servers["time"].target
    assert isinstance(http, HttpTarget)
    assert (http.url, http.headers) == ("https://mcp.example.com/mcp", (("Authorization", "Bearer t0p"),))
    assert isinstance(stdio, StdioTarget)
    assert (stdio.command, stdio.args, stdio.env) == ("mcp-server-time", ("--local-timezone", "UTC"), (("PORT", "80"),))
    assert (servers["git-hub"].transport, servers["old"].transport, servers["time"].transport) == (
        "http",
        "sse",
        "stdio",
    )
    assert [problem.text for problem in found.notices] == [
        "server 'Git Hub' is called 'git-hub' here",
        "not used here: 'timeout' of server 'time'",
        "server 'off' is disabled there, so it is left out here",
        "not used here: 'theme' of the file",
    ]
    assert found.snapshot.notices == tuple(map(str, found.notices))


def test_vs_code(tmp_path: Path) -> None:
    found = examined(tmp_path / ".vscode" / "mcp.json", CODE)
    assert found.snapshot is not None
    stdio = found.snapshot.servers["fs"].target
    assert isinstance(stdio, StdioTarget)
    assert stdio.command == f"{tmp_path}/run"
    assert (stdio.args, stdio.cwd) == (("/home/me/x", "t0p"), f"{tmp_path}/sub")
    assert found.snapshot.servers["web"].transport == "auto"  # VS Code's http falls back to SSE
    assert found.notices == ()


def test_its_state_lies_in_the_users_data_directory(tmp_path: Path) -> None:
    found = examined(tmp_path / ".mcp.json", CLAUDE)
    other = examined(tmp_path / "other.json", CLAUDE)
    assert found.snapshot is not None
    assert other.snapshot is not None
    assert found.snapshot.state_dir.startswith("/home/me/")
    assert found.snapshot.state_dir != other.snapshot.state_dir
    moved = examine(tmp_path / ".mcp.json", env={**ENV, "XDG_DATA_HOME": str(tmp_path / "data")}).snapshot
    assert moved is not None
    assert moved.state_dir.startswith(f"{tmp_path}/data/narthex/")


@pytest.mark.parametrize(
    ("server", "place", "says"),
    [
        pytest.param(
            '{"command": "x", "env": {"K": "${input:api-key}"}}',
            "2:30",
            "narthex secrets set api-key",
            id="VS Code's question",
        ),
        pytest.param('{"command": "x", "args": ["${NOPE}"]}', "2:32", "NOPE is not set", id="variable"),
        pytest.param('{"type": "ws", "url": "http://a"}', "2:15", "wants one of stdio, http, sse", id="unknown type"),
        pytest.param(
            '{"type": "http", "command": "x"}', "2:15", "type 'http' goes with a url", id="type without its url"
        ),
        pytest.param(
            '{"type": "stdio", "url": "http://a"}',
            "2:15",
            "type 'stdio' goes with a command",
            id="stdio without command",
        ),
        pytest.param('{"command": "x", "url": "http://a"}', "2:23", "has both", id="both"),
        pytest.param("{}", "2:1", "needs `command`", id="neither"),
        pytest.param('"x"', "2:6", "wants a map", id="not a map"),
    ],
)
def test_refused(tmp_path: Path, server: str, place: str, says: str) -> None:
    path = tmp_path / "mcp.json"
    text = '{"mcpServers": {\n"a": ' + server + "}}"
    found = examined(path, text)
    assert found.problems, found
    line = str(found.problems[0])
    assert says in line
    assert line.split(": ")[0].split(":")[1] == "2"
    expected = int(place.split(":")[1])
    assert found.problems[0].mark is not None
    if "K" not in server and "NOPE" not in server:
        assert found.problems[0].mark.column == expected


def test_names_that_fall_together_are_refused(tmp_path: Path) -> None:
    found = examined(
        tmp_path / "mcp.json", '{"mcpServers": {"a b": {"command": "x"},\n "A_B": {"command": "y"}, "é": {}}}'
    )
    assert [problem.text for problem in found.problems] == [
        "'A_B' would be called 'a-b' here, as another server is; rename one",
        "server 'é' needs a name with letters or digits",
    ]
