"""`secrets` and `vault`: sources are known without opening anything, and what is unknown or missing is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config import kinds
from narthex.config.compile import Examined, examine
from narthex.config.document import Mark, Node, Reading
from narthex.config.kinds import SECRET_HEADER, SECRET_TEXT
from narthex.config.schema.root import Settings
from narthex.config.secrets import Secrets, compile_secrets
from narthex.types import SecretSource, VaultSpec

HEAD = "version: 1\nservers: {one: {url: 'http://127.0.0.1:1/mcp'}}\n"
ENV = {"PAT": "ghp_0123456789", "VAULT_ADDR": "https://vault.example.com:8200", "VAULT_NAMESPACE": "team"}


def examined(folder: Path, text: str, env: dict[str, str] | None = None) -> Examined:
    path = folder / "narthex.yaml"
    path.write_text(HEAD + text)
    return examine(path, env=ENV if env is None else env)


def said(lines: tuple[object, ...]) -> str:
    return "\n".join(map(str, lines))


def test_sources_are_kept_as_references(tmp_path: Path) -> None:
    (tmp_path / "pat").write_text("ghp_0123456789")
    text = "secrets: {a: env:PAT, b: file:pat, c: 'vault:secret/team/github#token'}\n"
    snapshot = examined(tmp_path, text).snapshot
    assert snapshot is not None
    assert snapshot.secrets == {
        "a": SecretSource("env", "PAT"),
        "b": SecretSource("file", str(tmp_path / "pat")),
        "c": SecretSource("vault", "secret/team/github", "token"),
    }
    assert "ghp_0123456789" not in repr(snapshot)


@pytest.mark.parametrize(
    ("text", "vault"),
    [
        pytest.param(
            "",
            VaultSpec("https://vault.example.com:8200", "team", SecretSource("env", "VAULT_TOKEN")),
            id="by variables",
        ),
        pytest.param(
            "vault: {address: 'http://127.0.0.1:8200/', token: file:/run/token, refresh: 10s}\n",
            VaultSpec("http://127.0.0.1:8200", "team", SecretSource("file", "/run/token"), refresh_s=10.0),
            id="by a token",
        ),
        pytest.param(
            "vault: {kubernetes: {role: narthex, mount: k8s, jwt: /run/jwt}, namespace: other}\n",
            VaultSpec("https://vault.example.com:8200", "other", None, "narthex", "k8s", "/run/jwt"),
            id="by Kubernetes",
        ),
    ],
)
def test_the_vault(tmp_path: Path, text: str, vault: VaultSpec) -> None:
    snapshot = examined(tmp_path, "secrets: {c: 'vault:secret/github#token'}\n" + text).snapshot
    assert snapshot is not None and snapshot.vault == vault


def test_no_vault_is_needed_where_no_secret_comes_from_one(tmp_path: Path) -> None:
    snapshot = examined(tmp_path, "secrets: {a: env:PAT}\n").snapshot
    assert snapshot is not None and snapshot.vault is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("secrets: {a: hunter2hunter2}", "values never stand here", id="a value in the place of a source"),
        pytest.param("secrets: {a: 'env:two words'}", "comes from env:VAR", id="no variable"),
        pytest.param("secrets: {a: 'vault:secret'}", "MOUNT/PATH#FIELD", id="a Vault without a path"),
        pytest.param("secrets: {a: 'vault:secret/x'}", "MOUNT/PATH#FIELD", id="a Vault without a field"),
        pytest.param("secrets: {a: 'vault:secret/../sys#x'}", "MOUNT/PATH#FIELD", id="a way out of the mount"),
        pytest.param("secrets: {a: 'vault:secret/x?version=1#y'}", "MOUNT/PATH#FIELD", id="a query"),
        pytest.param("secrets: {'a b': env:PAT}", "not the name of a secret", id="a name with a blank"),
        pytest.param(
            "vault: {token: 'vault:a/b#c'}", "comes from env:VAR or file:PATH", id="the Vault's own token in it"
        ),
        pytest.param("vault: {kubernetes: {mount: x}}", "'role' is missing", id="no role"),
        pytest.param("vault: {token: env:PAT, kubernetes: {role: x}}", "not both", id="two ways to sign in"),
        pytest.param("vault: {kubernetes: {role: '../x'}}", "is not 1 to 128", id="a role that leads elsewhere"),
    ],
)
def test_refused(tmp_path: Path, text: str, says: str) -> None:
    found = examined(tmp_path, text + "\n")
    assert found.snapshot is None
    assert says in said(found.problems) and "hunter2" not in said(found.problems)


def test_a_vault_that_nobody_names_is_a_fault(tmp_path: Path) -> None:
    found = examined(tmp_path, "secrets: {c: 'vault:secret/x#y'}\n", env={})
    assert found.snapshot is None and "VAULT_ADDR" in said(found.problems)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param("env:NOT_SET", "variable NOT_SET is not set", id="a variable"),
        pytest.param("file:missing", "no file", id="a file"),
    ],
)
def test_what_is_missing_now_is_a_warning(tmp_path: Path, source: str, says: str) -> None:
    found = examined(tmp_path, f"secrets: {{a: {source}}}\n")
    assert found.snapshot is not None and says in said(found.warnings)


def read(text: str, settings: Settings, kind: kinds.Template = SECRET_TEXT) -> tuple[Reading, Secrets]:
    """What a credential with this text makes known."""
    reading = Reading("F", env=ENV)
    kind.read(Node("text", Mark(7, 3), text), ("credentials", "x", "value"), reading)
    return reading, compile_secrets(settings, reading, ENV, Path)


def test_a_reference_is_known_by_name_and_place() -> None:
    _, found = read("Bearer ${secret:b}${secret:a}", Settings(), SECRET_HEADER)
    assert found.names == ("a", "b")


def test_a_reference_that_no_source_gives_must_be_in_the_store() -> None:
    reading, _ = read("${secret:pat}", Settings())
    assert [str(one) for one in reading.notices] == [
        "F:7:3: secret 'pat' is not among `secrets`, so it must be in the store: narthex secrets set pat"
    ]
    assert not reading.warnings


def test_a_reference_that_looks_misspelt_is_a_warning() -> None:
    reading, _ = read("${secret:github-pta}", Settings(secrets={"github-pat": SecretSource("env", "PAT")}))
    assert "did you mean 'github-pat'?" in str(reading.warnings[0])


def test_other_sources_make_no_warning_of_a_secret_in_the_store() -> None:
    reading, _ = read("${secret:github-pat}", Settings(secrets={"crm-password": SecretSource("env", "PAT")}))
    assert not reading.warnings
    assert "narthex secrets set github-pat" in str(reading.notices)


def test_a_source_that_nobody_uses_is_a_notice(tmp_path: Path) -> None:
    assert "'a' is used nowhere" in said(examined(tmp_path, "secrets: {a: env:PAT}\n").notices)
