"""Settings to a snapshot: defaults, paths, what is worth a warning, the revision."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from narthex.config.compile import Examined, Overrides, endpoint_url, examine, load_snapshot
from narthex.errors import ConfigError
from narthex.types import EndpointSpec, HttpTarget, Limits, Selection, Snapshot, StdioTarget, TlsFiles

FULL = """
version: 1
listen: 127.0.0.1:0
admin: {listen: "[::1]:0"}
public_url: https://gateway.example.com/
allowed_hosts: [Gateway.internal, "10.0.0.5:8080"]
trusted_proxies: [10.0.0.0/8, "::1"]
egress: {proxy: "http://proxy.example.com:3128/", no_proxy: [.internal, 10.0.0.0/8]}
servers:
  time:
    command: ./run.sh
    args: [--port, 8080, 1.50]
    env: {LEVEL: 3, TOKEN: "${TOKEN}"}
    cwd: sub
    start: at_start
    idle_timeout: 1h
    sharing: session
  web:
    url: http://[::1]:9000/mcp?key=1
    headers: {X-Key: "${env:TOKEN}"}
    transport: http
    era: modern
    connect_timeout: 250ms
    call_timeout: 2m
    list_timeout: 3s
    list_ttl: 1d
    era_modern_ttl: 2d
    era_legacy_ttl: 10m
    max_answer: 1MiB
    max_in_flight: 7
    idempotent: ["get_*"]
endpoints:
  default: {servers: [web, time], max_name: 64, resources: prefix}
  plain: {servers: [web], naming: none, headers: lenient, tools: {include: ["web__*"], exclude: ["web__del*"]}}
  all: {resources: {include: ["web__file:*"], uris: plain}}
bounds: {max_body: 1MiB, session_ttl: 7d}
log: {calls: true, format: json}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "narthex.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def snapshot_of(tmp_path: Path, text: str, **env: str) -> Snapshot:
    return load_snapshot(write(tmp_path, text), env={"TOKEN": "t0p", **env})


def texts(found: Examined) -> list[str]:
    return [warning.text for warning in found.warnings]


def test_every_key_arrives(tmp_path: Path) -> None:
    found = snapshot_of(tmp_path, FULL)
    assert (found.listen, found.admin_listen) == (("127.0.0.1", 0), ("::1", 0))
    assert (found.source, found.state_dir) == (str(tmp_path / "narthex.yaml"), str(tmp_path / ".narthex"))
    assert found.public_url == "https://gateway.example.com"
    assert found.allowed_hosts == ("gateway.internal", "10.0.0.5:8080")
    assert [str(network) for network in found.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert (found.egress.proxy, found.egress.no_proxy) == ("http://proxy.example.com:3128", (".internal", "10.0.0.0/8"))
    assert found.limits == Limits(max_body=1024 * 1024, session_ttl_s=7 * 86400.0)
    assert (found.log_calls, found.log_format) == (True, "json")
    time, web = found.servers["time"], found.servers["web"]
    assert time.target == StdioTarget(
        command=str(tmp_path / "run.sh"),
        args=("--port", "8080", "1.50"),
        env=(("LEVEL", "3"), ("TOKEN", "t0p")),
        cwd=str(tmp_path / "sub"),
        start="at_start",
        idle_timeout_s=3600.0,
    )
    assert (time.transport, time.sharing) == ("stdio", "session")
    assert web.target == HttpTarget(
        url="http://[::1]:9000/mcp?key=1",
        scheme="http",
        host="::1",
        port=9000,
        path="/mcp?key=1",
        headers=(("X-Key", "t0p"),),
    )
    assert (web.transport, web.era, web.sharing) == ("http", "modern", "principal")
    assert (web.connect_timeout_s, web.call_timeout_s, web.list_timeout_s, web.list_ttl_s) == (
        0.25,
        120.0,
        3.0,
        86400.0,
    )
    assert (web.era_modern_ttl_s, web.era_legacy_ttl_s) == (172_800.0, 600.0)
    assert (time.era_modern_ttl_s, time.era_legacy_ttl_s) == (86_400.0, 3600.0)
    assert (web.max_answer, web.max_in_flight, web.idempotent) == (1024 * 1024, 7, ("get_*",))
    assert dict(found.endpoints) == {
        "default": EndpointSpec("default", ("web", "time"), max_name=64, resource_uris="prefix"),
        "plain": EndpointSpec(
            "plain", ("web",), naming="none", tools=Selection(("web__*",), ("web__del*",)), headers="lenient"
        ),
        "all": EndpointSpec("all", ("time", "web"), resources=Selection(("web__file:*",))),
    }


def test_without_endpoints_there_is_one_over_all_servers_in_file_order(tmp_path: Path) -> None:
    found = snapshot_of(tmp_path, "version: 1\nservers: {b: {url: http://localhost}, a: {command: x}}\n")
    assert dict(found.endpoints) == {"default": EndpointSpec("default", ("b", "a"))}
    assert (found.servers["a"].sharing, found.servers["b"].sharing) == ("tenant", "principal")
    assert (found.listen, found.admin_listen) == (("127.0.0.1", 8080), ("127.0.0.1", 8081))
    target = found.servers["b"].target
    assert isinstance(target, HttpTarget)
    assert (target.port, target.path) == (80, "/")


def test_a_program_runs_where_the_file_is(tmp_path: Path) -> None:
    found = snapshot_of(
        tmp_path, "version: 1\nservers: {a: {command: ~/bin/x}, b: {command: x, cwd: /srv}}\n", HOME="/home/me"
    )
    a, b = found.servers["a"].target, found.servers["b"].target
    assert isinstance(a, StdioTarget)
    assert isinstance(b, StdioTarget)
    assert (a.command, a.cwd) == ("/home/me/bin/x", str(tmp_path))
    assert (b.command, b.cwd) == ("x", "/srv")


SAME = "version: 1\nservers: {a: {url: http://localhost/, call_timeout: 60s}, b: {command: x}}\n"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        pytest.param("# note\n" + SAME, True, id="comment"),
        pytest.param(SAME.replace("60s", "1m"), True, id="another way to write it"),
        pytest.param(SAME.replace(", call_timeout: 60s", ""), True, id="the default left out"),
        pytest.param(SAME.replace("60s", "61s"), False, id="another value"),
        pytest.param(
            "version: 1\nservers: {b: {command: x}, a: {url: http://localhost/}}\n",
            False,
            id="another order of servers",
        ),
        pytest.param(SAME + "log: {calls: true}\n", False, id="another key"),
    ],
)
def test_a_revision_is_what_the_file_means(tmp_path: Path, text: str, same: bool) -> None:
    first, second = snapshot_of(tmp_path, SAME), snapshot_of(tmp_path, text)
    assert (first.revision == second.revision) is same
    assert len(first.revision) == 64


def test_a_revision_holds_no_value_of_the_environment(tmp_path: Path) -> None:
    text = "version: 1\nservers: {a: {url: http://localhost/, headers: {X: '${TOKEN}'}}}\n"
    first, second = snapshot_of(tmp_path, text, TOKEN="a"), snapshot_of(tmp_path, text, TOKEN="b")
    assert first.revision == second.revision
    assert first.servers != second.servers


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "version: 1\nlisten: 0.0.0.0:80\nservers: {}\n")
    found = load_snapshot(path, listen="127.0.0.1:9", admin_listen="localhost:0", env={})
    assert (found.listen, found.admin_listen) == (("127.0.0.1", 9), ("localhost", 0))
    with pytest.raises(ConfigError) as caught:
        load_snapshot(path, listen="0.0.0.0:9", admin_listen="9", env={})
    assert caught.value.problems[0].startswith("--listen: 0.0.0.0:9 can be reached from other machines")
    assert caught.value.problems[1].startswith("--admin-listen: '9' is not an address")


def test_tls_files_are_absolute_and_their_content_counts(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (tmp_path / name).write_text(name)
    text = "version: 1\nservers: {}\ntls: {cert: cert.pem, key: key.pem, client_ca: ca.pem}\n"
    text += "admin: {tls: {cert: cert.pem, key: key.pem}}\n"
    first = snapshot_of(tmp_path, text)
    assert isinstance(first.tls, TlsFiles)
    assert (first.tls.cert, first.tls.client_ca) == (str(tmp_path / "cert.pem"), str(tmp_path / "ca.pem"))
    assert first.admin_tls is not None
    assert endpoint_url(first, "default").startswith("https://")
    (tmp_path / "cert.pem").write_text("renewed")
    second = snapshot_of(tmp_path, text)
    assert first != second
    assert first.revision == second.revision


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        pytest.param("version: 1\n", "no servers", id="no servers"),
        pytest.param("version: 1\nservers: {a: {command: /no/such}}\n", "is not a program", id="program missing"),
        pytest.param("version: 1\nservers: {a: {command: sh, cwd: gone}}\n", "is not a directory", id="cwd missing"),
        pytest.param(
            "version: 1\nservers: {a: {url: http://a/, headers: {X: y}}}\n", "unencrypted", id="headers over http"
        ),
        pytest.param(
            "version: 1\nservers: {a: {url: http://a/}}\nendpoints: {x: {}}\n", "no endpoint 'default'", id="no default"
        ),
        pytest.param(
            "version: 1\nservers: {a: {url: http://a/}, b: {url: http://b/}}\nendpoints: {default: {servers: [a]}}\n",
            "server 'b' is in no endpoint",
            id="server unused",
        ),
        pytest.param("version: 1\nservers: {}\ntrusted_proxies: [0.0.0.0/0]\n", "everybody", id="everybody trusted"),
        pytest.param(
            "version: 1\nservers: {a: {url: http://a/}}\nendpoints: {default: {tools: {exclude: [delete_*]}}}\n",
            "'delete_*' matches nothing",
            id="pattern without a server",
        ),
        pytest.param(
            "version: 1\nservers: {a: {url: http://a/}}\n",
            "no grants: every caller may call everything",
            id="no grants",
        ),
        pytest.param(
            "version: 1\nservers: {a: {url: http://a/}}\ngrants: [{name: r, allow: ['a__*'], mode: shadow}]\n",
            "all grants are in shadow mode: every caller may call everything",
            id="all grants in shadow mode",
        ),
        pytest.param(
            "version: 1\nservers: {a: {url: http://a/}}\ngrants: [{name: r, allow: ['a__*'], expires: 2020-01-01}]\n",
            "grant 'r' has expired",
            id="a grant that has expired",
        ),
        pytest.param(
            "version: 1\nservers: {a: {url: http://a/}}\ngrants: [{name: r, allow: ['a__*'], mode: shadow}]\n",
            "grant 'r' is in shadow mode, and nothing is recorded",
            id="shadow mode that nobody sees",
        ),
        pytest.param(
            "version: 1\nservers: {a: {url: http://a/}}\npolicy: {opa: {url: http://127.0.0.1:1}, mode: shadow}\n",
            "the policy is in shadow mode, and nothing is recorded",
            id="a policy in shadow mode that nobody sees",
        ),
        pytest.param(
            "version: 1\nservers: {a: {url: http://a/}}\npolicy: {opa: {url: http://127.0.0.1:1}, mode: shadow}\n",
            "no grants, and the policy is in shadow mode: every caller may call everything",
            id="nothing but a policy in shadow mode",
        ),
        pytest.param(
            "version: 1\nservers: {a: {url: http://a/}}\n"
            "runs: {rules: [{name: r, deny: [a__x], at_most: 1, mode: shadow}]}\n",
            "rule 'r' is in shadow mode, and nothing is recorded",
            id="a rule on runs in shadow mode that nobody sees",
        ),
    ],
)
def test_worth_a_warning(tmp_path: Path, text: str, warning: str) -> None:
    found = examine(write(tmp_path, text), env={"PATH": os.defpath})
    assert found.snapshot is not None
    assert any(warning in line for line in texts(found))
    assert any(warning in line for line in found.snapshot.warnings)


@pytest.mark.parametrize("grants", ["", "audit: {dir: audit}\ngrants: [{name: r, allow: ['*'], mode: shadow}]\n"])
@pytest.mark.parametrize("policy", ["{opa: {url: 'http://localhost:8181'}}", "{rego: {bundle: .}}"])
def test_where_a_policy_decides_not_everything_is_open(tmp_path: Path, policy: str, grants: str) -> None:
    (tmp_path / "narthex.rego").write_text("package narthex\n\ndecision := true\n", encoding="utf-8")
    text = f"version: 1\nservers: {{a: {{url: http://a/}}}}\npolicy: {policy}\n{grants}"
    found = examine(write(tmp_path, text), env={})
    assert found.snapshot is not None, texts(found)
    assert not any("may call everything" in line for line in texts(found))


@pytest.mark.parametrize("pattern", ["*", "web__*", "w*", "web__get", "?eb__x", "[w]eb__*", "web_*", "*__delete_*"])
def test_a_pattern_that_may_match_is_not_warned_about(tmp_path: Path, pattern: str) -> None:
    text = "version: 1\nservers: {web: {url: http://localhost/}}\n"
    text += f"endpoints: {{default: {{tools: {{include: ['{pattern}']}}}}}}\n"
    assert texts(examine(write(tmp_path, text), env={})) == ["no grants: every caller may call everything"]


def test_the_url_of_an_endpoint(tmp_path: Path) -> None:
    plain = snapshot_of(tmp_path, "version: 1\nservers: {}\nlisten: '[::1]:0'\n")
    assert endpoint_url(plain, "default", listening=("::1", 4711)) == "http://[::1]:4711/mcp"
    assert endpoint_url(plain, "x", listening=("0.0.0.0", 4711)) == "http://127.0.0.1:4711/mcp/x"
    public = snapshot_of(tmp_path, FULL)
    assert endpoint_url(public, "plain") == "https://gateway.example.com/mcp/plain"


def test_overrides_by_name(tmp_path: Path) -> None:
    found = examine(write(tmp_path, "version: 1\n"), Overrides(listen="127.0.0.1:1"), env={})
    assert found.snapshot is not None
    assert found.snapshot.listen == ("127.0.0.1", 1)


@pytest.mark.parametrize(
    ("listen", "url", "refused"),
    [
        pytest.param("127.0.0.1:8080", "http://127.0.0.1:8080/mcp", True, id="the same address"),
        pytest.param("127.0.0.1:8080", "http://localhost:8080/mcp/x", True, id="another name for it"),
        pytest.param("127.0.0.1:8080", "http://127.0.0.1:8081/mcp", False, id="another port"),
        pytest.param("127.0.0.1:8080", "http://mcp.example.com:8080/mcp", False, id="another host"),
    ],
)
def test_a_server_that_is_the_gateway_itself_is_refused(tmp_path: Path, listen: str, url: str, refused: bool) -> None:
    file = tmp_path / "narthex.yaml"
    file.write_text(f"version: 1\nlisten: {listen}\nservers:\n  loop: {{url: '{url}'}}\n")
    problems = examine(file).problems
    assert [problem.text for problem in problems] == (
        ["'loop' is this gateway itself: a call would go round"] if refused else []
    )


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        pytest.param("", "", id="none: nothing is recorded"),
        pytest.param("audit: null\n", "", id="null: nothing is recorded"),
        pytest.param("audit: {dir: .narthex/audit}\n", ".narthex/audit", id="relative to the file"),
        pytest.param("audit: {dir: /var/log/narthex}\n", "/var/log/narthex", id="absolute"),
    ],
)
def test_where_calls_are_recorded(tmp_path: Path, text: str, folder: str) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text(f"version: 1\n{text}")
    found = load_snapshot(path, env={}).audit_dir
    assert found == (str(tmp_path / folder) if folder else "")
    assert [one.name for one in tmp_path.iterdir()] == ["narthex.yaml"], "nothing is made"


@pytest.mark.parametrize(
    ("text", "durable", "blocks", "reads"),
    [
        pytest.param("dir: x", "writes", True, (), id="what may change something waits, by default"),
        pytest.param("dir: x, durable: none, on_failure: degrade", "none", False, (), id="nobody waits"),
        pytest.param("dir: x, durable: all", "all", True, (), id="all wait"),
        pytest.param('dir: x, reads: ["a__get_*"]', "writes", True, ("a__get_*",), id="but for what only reads"),
    ],
)
def test_who_waits_for_the_disk(tmp_path: Path, text: str, durable: str, blocks: bool, reads: tuple[str, ...]) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text(f"version: 1\naudit: {{{text}}}\n")
    found = load_snapshot(path, env={})
    assert (found.audit_durable, found.audit_blocks, found.audit_reads) == (durable, blocks, reads)


@pytest.mark.parametrize(("text", "wait_s"), [("dir: x", 5.0), ("dir: x, wait: 250ms", 0.25)])
def test_how_long_the_disk_is_waited_for(tmp_path: Path, text: str, wait_s: float) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text(f"version: 1\naudit: {{{text}}}\n")
    assert load_snapshot(path, env={}).audit_wait_s == wait_s


def test_an_endpoint_says_itself_what_waits_for_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text(
        "version: 1\nservers: {a: {command: x}}\naudit: {dir: x, durable: none, reads: ['a__get_*']}\n"
        "endpoints: {default: {}, pay: {audit: {durable: writes, on_failure: block}},"
        " look: {audit: {on_failure: degrade}}}\n"
    )
    found = load_snapshot(path, env={})
    said = {name: (one.durable, one.blocks) for name, one in found.endpoints.items()}
    assert said == {"default": (None, None), "pay": ("writes", True), "look": (None, False)}
    assert not any("audit.reads" in one for one in found.warnings), "it says something at one of them"


def test_patterns_that_say_nothing_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text('version: 1\naudit: {dir: x, durable: all, reads: ["a__*"]}\n')
    assert any("audit.reads says nothing" in one for one in load_snapshot(path, env={}).warnings)


@pytest.mark.parametrize(
    "text",
    [
        "audit: {}",
        "audit: {dir: x, durable: sometimes}",
        "audit: {dir: x, on_failure: ignore}",
        "audit: {dir: x, checkpoints: x}",
        "endpoints: {default: {audit: {durable: all}}}",
        "audit: {dir: x}\nendpoints: {default: {audit: {durable: sometimes}}}",
        "audit: {dir: x}\nendpoints: {default: {audit: {dir: y}}}",
    ],
)
def test_what_a_record_cannot_be_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "narthex.yaml"
    path.write_text(f"version: 1\n{text}\n")
    with pytest.raises(ConfigError):
        load_snapshot(path, env={})
