"""`policy`: what is refused, and where."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from narthex.config.compile import Examined, examine
from narthex.types import RegoSpec


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        pytest.param("{}", "F:2:1: policy: needs `rego` or `opa`", id="neither"),
        pytest.param("{rego: {bundle: p}, opa: {url: http://127.0.0.1:8181}}", "F:2:29: policy: has both", id="both"),
        pytest.param("{opa: {url: http://127.0.0.1:1}, admin: true, mode: shadow}", "does not guard the admin side",
                     id="a shadow as a guard"),
        pytest.param("{rego: {}}", "F:2:10: policy.rego: 'bundle' is missing", id="no bundle"),
        pytest.param("{rego: {bundle: gone}}", "F:2:17: bundle: ", id="no such folder"),
        pytest.param("{rego: {bundle: empty}}", "no Rego in it", id="nothing in it"),
        pytest.param("{rego: {bundle: bad}}", "bad/sub/x.rego:4:1: expecting expression", id="it does not compile"),
        pytest.param("{rego: {bundle: lacks}}", "lacks/x.rego:3:26: io.jwt.decode is not among", id="a function"),
        pytest.param("{rego: {bundle: good, entrypoint: a/b}}", "F:2:31: data.a.b: the entry point is not there",
                     id="no entry point"),
        pytest.param("{rego: {bundle: good, entrypoint: decision}}", "an entry point is a rule with its package",
                     id="no package"),
        pytest.param("{rego: {bundle: calls}}", "says nothing where input.action is", id="nothing said of lists"),
        pytest.param("{rego: {bundle: good, deadline: 1ms}}", "too small", id="no time"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, policy: str, said: str) -> None:
    found = looked_at(tmp_path, policy)
    assert any(said in str(problem).replace(str(tmp_path / "narthex.yaml"), "F") for problem in found.problems), (
        found.problems
    )


def looked_at(tmp_path: Path, policy: str) -> Examined:
    for folder, text in {
        "good": "decision := true",
        "bad/sub": "x := {",
        "lacks": "decision if io.jwt.decode(input.x)",
        "calls": 'decision if input.action == "tools/call"',
    }.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.rego").write_text(f"package narthex\nimport rego.v1\n{text}\n")
    (tmp_path / "empty").mkdir()
    file = tmp_path / "narthex.yaml"
    file.write_text(f"version: 1\npolicy: {policy}\n")
    return examine(file, env={})


def test_a_bundle(tmp_path: Path) -> None:
    found = looked_at(tmp_path, "{rego: {bundle: ./good, engine: inline, deadline: 50ms}}").snapshot
    assert found is not None
    assert found.policy == RegoSpec(str(tmp_path / "good"), "narthex/decision", "inline", 0.05)


def test_a_tarball(tmp_path: Path) -> None:
    data = b"package narthex\nimport rego.v1\ndecision := true\n"
    with tarfile.open(tmp_path / "bundle.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo("/policy.rego")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    found = looked_at(tmp_path, "{rego: {bundle: bundle.tar.gz}}")
    assert found.snapshot is not None, found.problems


def test_null_is_none(tmp_path: Path) -> None:
    file = tmp_path / "narthex.yaml"
    file.write_text("version: 1\npolicy: null\n")
    found = examine(file, env={}).snapshot
    assert found is not None and found.policy is None
