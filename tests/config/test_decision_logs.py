"""`policy.decision_logs`: what it becomes, and what is wrong with it at which place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from narthex.config.compile import Examined, examine
from narthex.types import DecisionLogSpec, SecretName, SecretText

HEAD = """version: 1
servers: {git: {url: "http://localhost:2/"}}
policy:
  opa: {url: "http://127.0.0.1:8181"}
"""


def examined(tmp_path: Path, text: str) -> Examined:
    file = tmp_path / "narthex.yaml"
    file.write_text(f"{HEAD}  decision_logs: {text}\n")
    return examine(file, env={})


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        pytest.param('{url: "http://127.0.0.1:1/logs"}', {"url": "http://127.0.0.1:1/logs"}, id="a service"),
        pytest.param("{file: decisions.jsonl}", {"file": "decisions.jsonl"}, id="a file"),
        pytest.param(
            '{url: "https://logs.example.com/logs", token: "${secret:logs}", labels: {env: prod}, every: 1s,'
            ' max_buffer: 1MiB, lists: true, mask: ["/input/mcp/arguments/*/iban", "/input/subject/id"]}',
            {
                "url": "https://logs.example.com/logs", "token": SecretText((SecretName("logs"),)),
                "labels": {"env": "prod"}, "every_s": 1.0, "max_buffer": 1024 * 1024, "lists": True,
                "mask": (("input", "mcp", "arguments", "*", "iban"), ("input", "subject", "id")),
            },
            id="all of it",
        ),
        pytest.param('{file: d, mask: []}', {"file": "d", "mask": ()}, id="everything"),
    ],
)  # fmt: skip
def test_what_it_becomes(tmp_path: Path, text: str, spec: dict[str, Any]) -> None:
    found = examined(tmp_path, text)
    assert found.snapshot is not None, found.problems
    if "file" in spec:
        spec = spec | {"file": str(tmp_path / spec["file"])}
    assert found.snapshot.decision_log == msgspec.structs.replace(DecisionLogSpec(), **spec)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{}", "needs `url` or `file`", id="nowhere"),
        pytest.param('{url: "https://logs.example.com/logs", file: d}', "keep one", id="both"),
        pytest.param('{url: "http://logs.example.com/logs"}', "https, except on loopback", id="in the clear"),
        pytest.param("{file: nothing/decisions.jsonl}", "no folder", id="a folder that is not there"),
        pytest.param('{file: d, mask: ["input.mcp"]}', "JSON pointer", id="no pointer"),
        pytest.param('{file: d, mask: ["/decision_id"]}', "JSON pointer", id="what it cannot do without"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    found = examined(tmp_path, text)
    assert found.snapshot is None
    assert said in "\n".join(map(str, found.problems))
