"""`policy.rego`: bundles that are fetched, and bundles that must be signed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from narthex.config.compile import Examined, examine
from narthex.types import RegoSpec, SecretName, SecretText, SigningKey, SigningSpec
from tests.flow.policy.bundles.test_signatures import EC, RSA, pem, signed

HEAD = """version: 1
servers: {git: {url: "http://localhost:2/"}}
policy:
  rego: """


def examined(folder: Path, text: str) -> Examined:
    (folder / "ec.pem").write_text(pem(EC))
    (folder / "rsa.pem").write_text(pem(RSA))
    (folder / "narthex.yaml").write_text(f"{HEAD}{text}\n")
    return examine(folder / "narthex.yaml", env={})


def test_one_that_is_fetched(tmp_path: Path) -> None:
    found = examined(
        tmp_path,
        '{bundle: "https://bundles.example.com/a.tar.gz", token: "${secret:b}", every: 30s, long_poll: 1m,'
        " signing: {keys: {corp: {algorithm: ES256, file: ec.pem}, old: {algorithm: HS256, key: '${secret:k}'}},"
        " key_id: corp, scope: production}}",
    )
    assert found.snapshot is not None, found.problems
    keys = {
        "corp": SigningKey("ES256", file=str(tmp_path / "ec.pem")),
        "old": SigningKey("HS256", SecretText((SecretName("k"),))),
    }
    assert found.snapshot.policy == RegoSpec(
        "https://bundles.example.com/a.tar.gz", "narthex/decision", signing=SigningSpec(keys, "corp", "production"),
        token=SecretText((SecretName("b"),)), every_s=30.0, long_poll_s=60.0,
        kept_in=str(tmp_path / ".narthex" / "bundles"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param('{bundle: "http://b.example.com/a.tar.gz"}', "https, except on loopback", id="in the clear"),
        pytest.param('{bundle: "https://b.example.com/a", signing: {}}', "'keys' is missing", id="signed by nobody"),
        pytest.param('{bundle: "https://b.example.com/a", signing: {keys: {a: {algorithm: RS256}}}}', "a public key",
                     id="a key without a key"),
        pytest.param('{bundle: "https://b.example.com/a", signing: {keys: {a: {algorithm: RS256, key: x}}}}',
                     "a public key", id="a secret that is to be a public key"),
        pytest.param('{bundle: "https://b.example.com/a", signing: {keys: {a: {algorithm: HS256, file: ec.pem}}}}',
                     "a shared secret", id="a public key that is to be a secret"),
        pytest.param('{bundle: "https://b.example.com/a", signing: {keys: {a: {algorithm: RS256, file: ec.pem}}}}',
                     "not a PEM key for RS256", id="a key of another kind"),
        pytest.param('{bundle: "https://b.example.com/a", signing: {keys: {a: {algorithm: RS256, file: none.pem}}}}',
                     "No such file", id="a file that is not there"),
        pytest.param('{bundle: "https://b.example.com/a", signing: {keys: {a: {file: rsa.pem}}, key_id: b}}',
                     "no key 'b'", id="a key that nobody named"),
        pytest.param('{bundle: "https://b.example.com/a", signing: {keys: {a: {algorithm: none, file: rsa.pem}}}}',
                     "algorithm", id="no algorithm"),
        pytest.param("{bundle: bundle, long_poll: 1m}", "goes with a bundle that is fetched", id="a poll of a folder"),
    ],
)  # fmt: skip
def test_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    found = examined(tmp_path, text)
    assert found.snapshot is None
    assert said in "\n".join(map(str, found.problems))


def test_a_folder_that_must_be_signed_is_looked_at(tmp_path: Path) -> None:
    key = EC
    files = signed(key=key, alg="ES256")
    for name, data in files.items():
        (tmp_path / "bundle").mkdir(exist_ok=True)
        (tmp_path / "bundle" / name).write_bytes(data)
    text = "{bundle: bundle, signing: {keys: {one: {algorithm: ES256, file: ec.pem}}}}"
    assert "entry point" in json.dumps([str(one) for one in examined(tmp_path, text).problems])
    (tmp_path / "bundle" / "policy.rego").write_text("package narthex\n\ndefault decision := true\n")
    assert "changed since it was signed" in json.dumps([str(one) for one in examined(tmp_path, text).problems])
