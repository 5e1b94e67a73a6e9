"""Files, good and bad: every fault with its line and column, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.compile import examine
from narthex.config.load import find_config

S = "version: 1\nservers: "
HEAD = "version: 1\nservers:\n  a: {url: http://localhost:1/mcp}\n"


def problems(tmp_path: Path, text: str, name: str = "narthex.yaml") -> list[str]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return [str(problem).replace(str(path), "F") for problem in examine(path, env={}).problems]


BAD = [
    pytest.param("", "F:1:1: the file is empty", id="empty file"),
    pytest.param("# only a comment\n", "F:1:1: the file is empty", id="comment only"),
    pytest.param("servers: {}\n", "F:1:1: `version: 1` is missing", id="no version"),
    pytest.param("version: 2\n", "F:1:10: version: this Narthex reads version 1", id="another version"),
    pytest.param("version: true\n", "F:1:10: version: this Narthex reads version 1", id="version that is no number"),
    pytest.param("- a\n", "F:1:1: wants a map with `version: 1`, not a list", id="a list"),
    pytest.param("hello\n", "F:1:1: wants a map with `version: 1`, not a text", id="a text"),
    pytest.param(HEAD + "lisen: 1\n", "F:4:1: unknown key 'lisen'; did you mean 'listen'?", id="misspelt key"),
    pytest.param(
        HEAD + "publicUrl: x\n", "F:4:1: unknown key 'publicUrl'; did you mean 'public_url'?", id="camel case"
    ),
    pytest.param(HEAD + "zzz: 1\n", "F:4:1: unknown key 'zzz'; the nearest one is", id="unknown key"),
    pytest.param(HEAD + "version: 1\n", "F:4:1: duplicate key 'version' (first on line 1)", id="duplicate key"),
    pytest.param(HEAD + "listen: 8080\n", "F:4:9: listen: '8080' is not an address", id="port alone"),
    pytest.param(HEAD + "listen:\n", "F:4:8: listen: wants an address `host:port`, not nothing", id="empty value"),
    pytest.param(HEAD + "listen: 0.0.0.0:8080\n", "F:4:1: listen: 0.0.0.0:8080 can be reached", id="off loopback"),
    pytest.param(HEAD + "listen: '[::]:80'\n", "F:4:1: listen: [::]:80 can be reached", id="off loopback, IPv6"),
    pytest.param(
        HEAD + "listen: gateway:80\n", "F:4:1: listen: gateway:80 can be reached", id="a name is not loopback"
    ),
    pytest.param(
        HEAD + "admin: {listen: 10.0.0.1:1}\n", "F:4:9: admin.listen: 10.0.0.1:1 can be", id="admin off loopback"
    ),
    pytest.param(
        HEAD + "admin: {listen: 127.0.0.1:8080}\n", "F:4:9: listen and admin.listen are both", id="same address"
    ),
    pytest.param(HEAD + "admin: 8081\n", "F:4:8: admin: wants a map `{listen, tls}`, not a number", id="no map"),
    pytest.param(
        HEAD + "public_url: ftp://a\n", "F:4:13: public_url: a URL begins with https://", id="public_url scheme"
    ),
    pytest.param(
        HEAD + "public_url: https://a/?x\n", "F:4:13: public_url: this URL is a beginning", id="public_url query"
    ),
    pytest.param(
        HEAD + "allowed_hosts: a.example\n", "F:4:16: allowed_hosts: wants a list of hosts, not a text", id="no list"
    ),
    pytest.param(HEAD + "allowed_hosts: [a, 'b c']\n", "F:4:20: 'b c' is not a host name", id="host with a space"),
    pytest.param(HEAD + "trusted_proxies: [10.0.0.1/8]\n", "F:4:19: '10.0.0.1/8' has bits", id="network"),
    pytest.param(HEAD + "egress: {proxy: socks5://a}\n", "F:4:17: proxy: a URL begins", id="proxy scheme"),
    pytest.param(HEAD + "egress: {ca: gone.pem}\n", "F:4:10: ca: no file", id="CA that is not there"),
    pytest.param(HEAD + "tls: {cert: a.pem}\n", "F:4:1: tls: 'key' is missing", id="certificate without key"),
    pytest.param(HEAD + "tls: {cert: a.pem, key: b.pem}\n", "F:4:7: cert: no file", id="certificate that is not there"),
    pytest.param(
        HEAD + "log: {calls: yes}\n", "F:4:14: calls: wants true or false, not 'yes'; YAML 1.2", id="yes is a text"
    ),
    pytest.param(
        HEAD + "log: {format: jsn}\n",
        "F:4:15: format: wants one of text, json, not 'jsn'; did you mean 'json'?",
        id="choice",
    ),
    pytest.param(HEAD + "bounds: {max_body: 4MB}\n", "F:4:20: max_body: '4MB' is not a size; write 4MiB", id="size"),
    pytest.param(
        HEAD + "bounds: {max_body: 1B}\n", "F:4:20: max_body: 1B is too small; the least is 1KiB", id="size too small"
    ),
    pytest.param(
        HEAD + "bounds: {drain: 30}\n", "F:4:17: drain: a duration needs its unit", id="duration without unit"
    ),
    pytest.param(
        HEAD + "bounds: {drain: 2h}\n", "F:4:17: drain: 2h is too large; the most is 1h", id="duration too long"
    ),
    pytest.param(HEAD + "bounds: {max_calls: 0}\n", "F:4:21: max_calls: '0' is out of bounds", id="count too small"),
    pytest.param(
        HEAD + "bounds: {max_calls: 1e3}\n", "F:4:21: max_calls: wants a whole number", id="count that is no integer"
    ),
    pytest.param(
        HEAD + "bounds: {max_calls: 99999999999999999999}\n", "F:4:21: max_calls: '9999", id="count with many digits"
    ),
    pytest.param(
        S + "{A_b: {url: http://a}}\n",
        "F:2:11: 'A_b' is not a name: 1 to 24 of a-z, 0-9 and '-'; did you mean 'a-b'?",
        id="server name",
    ),
    pytest.param(S + "{a: {}}\n", "F:2:11: server 'a' needs `command` (stdio) or `url` (HTTP)", id="neither"),
    pytest.param(S + "{a: {url: http://a, command: b}}\n", "F:2:15: server 'a' has both", id="both"),
    pytest.param(
        S + "{a: {comand: b}}\n", "F:2:15: unknown key 'comand'; did you mean 'command'?", id="key of a server"
    ),
    pytest.param(S + "{a: {url: http://a, env: {A: b}}}\n", "F:2:30: env: goes with `command`", id="env with url"),
    pytest.param(
        S + "{a: {command: b, headers: {A: b}}}\n", "F:2:27: headers: goes with `url`", id="headers with command"
    ),
    pytest.param(
        S + "{a: {command: b, env: {A: true}}}\n",
        "F:2:36: wants a text, not true or false; if it is a text, write it in quotes",
        id="flag in env",
    ),
    pytest.param(S + "{a: {command: b, args: [[c]]}}\n", "F:2:34: wants a text, not a list", id="list in args"),
    pytest.param(
        S + "{a: {command: b, args: [-x, '${NOPE}']}}\n",
        "F:2:38: the environment variable NOPE is not set",
        id="variable not set",
    ),
    pytest.param(S + "{a: {url: 'http://u:p@a/'}}\n", "F:2:20: url: a URL holds no user name", id="userinfo"),
    pytest.param(
        S + "{a: {url: 'http://${X:-a b}/'}}\n", "F:2:20: url: a URL has no spaces", id="checked after expansion"
    ),
    pytest.param(
        S + '{a: {url: http://a, headers: {X: "a\\nb"}}}\n', "F:2:43: a header value is printable", id="header value"
    ),
    pytest.param(
        S + "{a: {url: http://a, headers: {Host: b}}}\n",
        "F:2:40: the header Host is written by Narthex",
        id="own header",
    ),
    pytest.param(
        S + "{a: {url: http://a, headers: {X: b, x: c}}}\n", "F:2:46: header 'x' stands twice", id="header twice"
    ),
    pytest.param(
        HEAD + "endpoints: {default: {servers: [b]}}\n",
        "F:4:33: endpoint 'default': no server 'b'; the nearest one is 'a'",
        id="unknown server",
    ),
    pytest.param(
        HEAD + "endpoints: {default: {servers: [a, a]}}\n",
        "F:4:36: endpoint 'default': server 'a' stands twice",
        id="server twice",
    ),
    pytest.param(
        HEAD + "endpoints: {default: {servers: []}}\n", "F:4:23: endpoint 'default' names no server", id="no server"
    ),
    pytest.param(HEAD + "endpoints: {Default: {}}\n", "F:4:13: 'Default' is not a name", id="endpoint name"),
    pytest.param(
        HEAD + "endpoints: {default: {resources: both}}\n",
        "F:4:34: resources: wants one of plain, prefix, not 'both'",
        id="resources",
    ),
    pytest.param(
        HEAD + "endpoints: {default: {tools: {include: ['']}}}\n", "F:4:41: a pattern is 1 to 256", id="empty pattern"
    ),
]


@pytest.mark.parametrize(("text", "problem"), BAD)
def test_refused_in_this_one_place(tmp_path: Path, text: str, problem: str) -> None:
    found = problems(tmp_path, text)
    assert found[0].startswith(problem)
    assert len(found) == (2 if "b.pem" in text else 1)  # only where two files are missing are there two problems


NOT_YET = ("screens: []",)


@pytest.mark.parametrize("line", NOT_YET)
def test_a_key_whose_part_is_not_built_is_refused(tmp_path: Path, line: str) -> None:
    key = line.split(":")[0]
    assert problems(tmp_path, HEAD + line)[0].startswith(f"F:4:1: '{key}' is not in this version of Narthex")


@pytest.mark.parametrize("key", ["trust: first"])
def test_a_server_key_whose_part_is_not_built_is_refused(tmp_path: Path, key: str) -> None:
    found = problems(tmp_path, f"version: 1\nservers:\n  a: {{url: http://localhost, {key}}}\n")
    assert found[0].startswith(f"F:3:30: '{key.split(':')[0]}' is not in this version")


@pytest.mark.parametrize("key", ["discovery: {mode: search}"])
def test_an_endpoint_key_whose_part_is_not_built_is_refused(tmp_path: Path, key: str) -> None:
    found = problems(tmp_path, HEAD + f"endpoints:\n  a: {{{key}}}\n")
    assert found[0].startswith(f"F:5:7: '{key.split(':')[0]}' is not in this version")


def test_every_fault_is_said_at_once_and_in_order(tmp_path: Path) -> None:
    text = "version: 1\nlisten: x\nfoo: 1\nservers:\n  a: {url: ftp://b, call_timeout: 5}\n"
    text += "endpoints:\n  e: {servers: [b]}\n"
    assert [problem.split(": ")[0] for problem in problems(tmp_path, text)] == [
        "F:2:9",
        "F:3:1",
        "F:5:12",
        "F:5:35",
        "F:7:17",
    ]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        pytest.param("x.json", "{}", "neither `mcpServers`, `servers` nor `version`", id="JSON of another kind"),
        pytest.param("x.json", '{"mcpServers": []}', "mcpServers wants a map", id="list of servers"),
        pytest.param("x.json", "version: 1", "not a JSON value", id="YAML called JSON"),
        pytest.param("x.json", '{"version": 1, "mcp": 1}', "unknown key 'mcp'", id="ours in JSON"),
        pytest.param(
            "narthex.yaml",
            "version: 1\nmcpServers: {}\n",
            "unknown key 'mcpServers'; did you mean 'servers'?",
            id="a client's key in ours",
        ),
        pytest.param(
            "x.yaml",
            "servers: {a: {type: http, url: http://a}}",
            "`version: 1` is missing",
            id="servers without version in YAML",
        ),
    ],
)
def test_ours_and_a_clients_are_told_apart(tmp_path: Path, name: str, text: str, says: str) -> None:
    assert says in "\n".join(problems(tmp_path, text, name))


@pytest.mark.parametrize("name", ["narthex.json", "narthex.jsonc", "narthex.conf"])
def test_our_keys_may_be_written_as_json(tmp_path: Path, name: str) -> None:
    assert problems(tmp_path, '{"version": 1, /* x */ "servers": {"a": {"url": "http://localhost/mcp"}},}', name) == []


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (problem,) = examine(tmp_path / "gone.yaml", env={}).problems
    assert str(problem).endswith("gone.yaml: cannot be read: No such file or directory")
    (problem,) = examine(tmp_path, env={}).problems
    assert "cannot be read" in str(problem)


def test_what_is_taken_when_nothing_is_named(tmp_path: Path) -> None:
    assert find_config(tmp_path) is None
    (tmp_path / ".mcp.json").touch()
    assert find_config(tmp_path) == tmp_path / ".mcp.json"
    (tmp_path / "narthex.yaml").touch()
    assert find_config(tmp_path) == tmp_path / "narthex.yaml"


def test_no_message_shows_a_secret(tmp_path: Path) -> None:
    text = (
        "version: 1\nservers:\n"
        '  a: {url: "http://hunter2@x/", headers: {A: "hunter2\\n", B: [hunter2]}}\n'
        "  b: {command: x, env: {A: {hunter2: hunter2}}, args: hunter2}\n"
        '  c: {url: "http://x/#hunter2"}\n'
    )
    found = problems(tmp_path, text)
    assert len(found) == 6
    assert "hunter2" not in "\n".join(found)
