"""`telemetry`: what is sent where, and what is refused at its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from narthex.config.compile import Examined, examine
from narthex.config.values import parse_share, show_share
from narthex.outlet import OtlpSpec
from narthex.types import SecretName, SecretText

URL = "http://127.0.0.1:4318"


def examined(tmp_path: Path, text: str) -> Examined:
    file = tmp_path / "narthex.yaml"
    file.write_text(f'version: 1\nservers: {{git: {{url: "http://localhost:2/"}}}}\ntelemetry: {text}\n')
    return examine(file, env={})


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        pytest.param("null", None, id="nothing"),
        pytest.param("{}", None, id="an empty section"),
        pytest.param("{otlp: null}", None, id="said: nowhere"),
        pytest.param(f'{{otlp: {{url: "{URL}/"}}}}', {}, id="a collector"),
        pytest.param(
            f'{{otlp: {{url: "{URL}", headers: {{X-Key: "${{secret:otlp}}"}}, traces: false, every: 250ms,'
            " metrics_every: 10s, service: edge}, traces: {ratio: 12.5%, parent: ignore}}",
            {
                "headers": (("X-Key", SecretText((SecretName("otlp"),))),), "traces": False, "every_s": 0.25,
                "metrics_every_s": 10.0, "service": "edge", "ratio": 0.125, "parent": "ignore",
            },
            id="all of it",
        ),
    ],
)  # fmt: skip
def test_what_it_becomes(tmp_path: Path, text: str, spec: dict[str, Any] | None) -> None:
    found = examined(tmp_path, text)
    assert found.snapshot is not None, found.problems
    expected = None if spec is None else msgspec.structs.replace(OtlpSpec(URL), **spec)
    assert found.snapshot.telemetry == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{otlp: {}}", "'url' is missing", id="nowhere"),
        pytest.param('{otlp: {url: "http://otel.example.com"}}', "https, except on loopback", id="in the clear"),
        pytest.param(f'{{otlp: {{url: "{URL}"}}, traces: {{ratio: 0.1}}}}', "0.1%", id="a share without its sign"),
        pytest.param("{traces: {parent: maybe}}", "follow", id="another word"),
        pytest.param("{oltp: {}}", "did you mean 'otlp'", id="misspelt"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    found = examined(tmp_path, text)
    assert any(said in str(problem) for problem in found.problems), found.problems


def test_what_sends_nothing_is_worth_a_word(tmp_path: Path) -> None:
    found = examined(tmp_path, f'{{otlp: {{url: "{URL}", traces: false, metrics: false}}}}')
    assert any("nothing is sent" in str(one) for one in found.warnings)


@pytest.mark.parametrize(("text", "share"), [("0%", 0.0), ("1%", 0.01), ("0.1%", 0.001), ("100%", 1.0)])
def test_shares(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)
    assert show_share(share) == text


@pytest.mark.parametrize("text", ["", "1", "101%", "-1%", "1.%", "1e2%", "%"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match="share"):
        parse_share(text)
