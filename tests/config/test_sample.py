"""The configuration that everybody is shown first (design §6) is read as it stands, but for parts that are not built.

A part that comes takes its key out of `NOT_BUILT`; nothing else of the sample may ever be refused.
"""

from __future__ import annotations

import re
from pathlib import Path

from narthex.config.compile import Examined, examine

SAMPLE = """\
version: 1
listen: 127.0.0.1:8080
admin: {listen: 127.0.0.1:8081}
store: sqlite:///.narthex/narthex.db
shared: null
public_url: null
allowed_hosts: []
tls: null
trusted_proxies: []
egress: {proxy: env, no_proxy: [], ca: system}
servers:
  time:   {command: mcp-server-time, args: [--local-timezone, UTC]}
  github: {url: "https://mcp.example.com/mcp", credential: github, classification: confidential, trust: approve}
  billing: {url: "https://billing.example.com/mcp"}
endpoints:
  default: {servers: [time, github, billing]}
  plain:   {servers: [github], naming: none, auth: anonymous}
  support:
    servers: [github]
    tools: {include: ["github__search_*"]}
    discovery: {mode: search, top_k: 5, pinned: [github__search_issues]}
identity:
  api_keys: true
  issuers:
    corp: {preset: keycloak, issuer: "https://sso.example.com/realms/corp", audiences: ["https://gateway.example.com/mcp"]}
credentials:
  github: {kind: header, name: Authorization, value: "Bearer ${secret:github-pat}"}
grants:
  - {name: support reads, who: {role: support}, allow: ["github__search_*", "time__*"]}
  - name: small refunds
    who: {role: support, agent: helpdesk-bot}
    allow: ["billing__refund"]
    when: "args.amount <= 100"
  - {name: no deletes, who: {}, deny: ["*__delete_*"]}
policy: {opa: {url: "http://127.0.0.1:8181", path: narthex/decision}}
limits:
  - {name: calls, per: [principal], calls: 60, window: 1m}
  - {name: spend, per: [tenant, agent], money: 5.00 USD, window: calendar day}
prices:
  - {tools: ["github__search_*"], per_call: 0.01 USD}
screens:
  - {name: injection, in: [result, description], action: block, tools: ["github__*"]}
  - {name: secrets, in: [arguments, result], action: redact}
audit: {dir: .narthex/audit, durable: writes, on_failure: block}
telemetry: {otlp: null}
"""
NOT_BUILT = {
    "trust", "discovery", "opa", "money", "prices", "screens", "durable", "on_failure"
}  # fmt: skip
"""What `check` still refuses in it, by key."""


def looked_at(tmp_path: Path) -> Examined:
    path = tmp_path / "narthex.yaml"
    path.write_text(SAMPLE)
    return examine(path, env={"PATH": "/usr/bin:/bin"})


def test_nothing_of_the_sample_is_refused_but_what_is_not_built(tmp_path: Path) -> None:
    found = looked_at(tmp_path)
    refused = {}
    for problem in found.problems:
        match = re.fullmatch(r"'(\w+)' is not in this version of Narthex \(.+\)", problem.text)
        assert match, str(problem)
        refused[match[1]] = str(problem)
    assert refused.keys() <= NOT_BUILT, refused
    assert found.snapshot is None or not refused
