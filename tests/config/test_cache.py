"""`cache`: what it becomes, and what is wrong with it at which place."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.compile import Examined, examine
from narthex.types import CacheRule, CacheSpec, ClearRule

HEAD = """version: 1
servers: {git: {url: "http://localhost:2/", annotations: trusted}, own: {url: "http://localhost:3/"}}
endpoints: {default: {servers: [git, own]}}
"""
RULE = '{name: r, tools: ["git__get"], ttl: 1m}'


def examined(tmp_path: Path, text: str, head: str = HEAD) -> Examined:
    file = tmp_path / "narthex.yaml"
    file.write_text(f"{head}cache: {text}\n")
    return examine(file, env={})


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        pytest.param(f"{{rules: [{RULE}]}}", CacheSpec((CacheRule("r", 60.0, tools=("git__get",)),)), id="a rule"),
        pytest.param(
            '{rules: [{name: r, prompts: ["*"], resources: ["git__*"], endpoints: [default], ttl: 100ms, stale: 1h, '
            "shared: true, hit: 25%, max_entry: 1MiB}]}",
            CacheSpec(
                (CacheRule("r", 0.1, (), ("*",), ("git__*",), ("default",), False, 3600.0, True, 25, True, 1 << 20),)
            ),
            id="with everything",
        ),
        pytest.param(
            '{rules: [{name: r, tools: ["*"], annotated: true, ttl: 1s, hit: free, counts: false}], max_bytes: 1MiB, '
            "max_entries: 5, tenant_share: 50%}",
            CacheSpec((CacheRule("r", 1.0, ("*",), annotated=True, counts=False),), (), 1 << 20, 5, 50),
            id="bounds",
        ),
        pytest.param(
            f'{{rules: [{RULE}], clears: [{{after: ["git__put"], tools: ["git__get"], same: {{/id: /item/id}}}}]}}',
            CacheSpec(
                (CacheRule("r", 60.0, tools=("git__get",)),),
                (ClearRule(("git__put",), ("git__get",), same=(("/id", "/item/id"),)),),
            ),
            id="what ends it",
        ),
        pytest.param("null", None, id="none"),
    ],
)  # fmt: skip
def test_a_cache(tmp_path: Path, text: str, spec: CacheSpec | None) -> None:
    found = examined(tmp_path, text)
    assert found.snapshot is not None, found.problems
    assert found.snapshot.cache == spec
    assert [str(one).rpartition(": ")[2] for one in found.warnings] == ["every caller may call everything"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param('{rules: [{tools: ["*"], ttl: 1m}]}', "'name' is missing", id="no name"),
        pytest.param(f"{{rules: [{RULE}, {RULE}]}}", "a rule 'r' stands there already", id="a name twice"),
        pytest.param('{rules: [{name: r, tools: ["*"]}]}', "'ttl' is missing", id="no time"),
        pytest.param("{rules: [{name: r, ttl: 1m}]}", "covers nothing", id="nothing covered"),
        pytest.param('{rules: [{name: r, tools: ["*"], ttl: 1m, endpoints: [x]}]}', "no endpoint 'x'", id="elsewhere"),
        pytest.param('{rules: [{name: r, tools: ["*"], ttl: 1m, hit: 0%}]}', "`free` or `full`", id="no share"),
        pytest.param('{rules: [{name: r, tools: ["*"], ttl: 1m, hit: full, counts: false}]}', "goes with `hit: free`",
                     id="what counts nowhere and costs"),
        pytest.param('{rules: [{name: r, prompts: ["*"], ttl: 1m, annotated: true}]}', "only tools have annotations",
                     id="annotated prompts"),
        pytest.param(f'{{rules: [{RULE}], clears: [{{tools: ["*"]}}]}}', "'after' is missing", id="nothing that ends"),
        pytest.param(f'{{rules: [{RULE}], clears: [{{after: ["git__put"]}}]}}', "it ends nothing", id="nothing ended"),
        pytest.param(f'{{rules: [{RULE}], clears: [{{after: ["*"], tools: ["*"], same: {{id: /id}}}}]}}',
                     "no JSON pointer", id="no pointer"),
        pytest.param(f"{{rules: [{RULE}], max_bytes: 1KiB}}", "too small", id="too little room"),
    ],
)  # fmt: skip
def test_what_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    found = examined(tmp_path, text)
    assert found.snapshot is None
    assert any(problem in str(one) for one in found.problems), [str(one) for one in found.problems]


TOKEN = """version: 1
servers: {own: {url: "http://localhost:3/", credential: mine}}
credentials:
  mine: {kind: token_exchange, issuer: "http://localhost:4", client_id: me, client_secret: "${secret:s}"}
identity: {issuers: {corp: {issuer: "http://localhost:4", audiences: [me]}}}
"""


@pytest.mark.parametrize(
    ("text", "warning", "head"),
    [
        pytest.param("{max_entries: 5}", "no `rules`, so nothing is kept", HEAD, id="no rules"),
        pytest.param('{rules: [{name: r, tools: ["got__get"], ttl: 1m}]}', "no server 'got'", HEAD, id="no server"),
        pytest.param('{rules: [{name: r, tools: ["*"], annotated: true, ttl: 1m}]}', "no server has `annotations:",
                     HEAD.replace(", annotations: trusted", ""), id="nobody's annotations are trusted"),
        pytest.param(f'{{rules: [{RULE}], clears: [{{after: ["git__*"], resources: ["git__*"], same: {{/a: /b}}}}]}}',
                     "resources have no arguments", HEAD, id="values of resources"),
        pytest.param('{rules: [{name: r, tools: ["own__get"], ttl: 1m, shared: true}]}', "its answers are not shared",
                     TOKEN, id="sharing what callers' own tokens get"),
    ],
)  # fmt: skip
def test_what_is_worth_saying(tmp_path: Path, text: str, warning: str, head: str) -> None:
    found = examined(tmp_path, text, head)
    assert found.snapshot is not None, [str(one) for one in found.problems]
    assert any(warning in str(one) for one in found.warnings), [str(one) for one in found.warnings]
