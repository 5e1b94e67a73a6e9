"""What `store` may say, what it means, and that no message, revision or warning has a password in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.config.compile import load_snapshot
from narthex.config.places import find_places
from narthex.config.schema.store import parse_store
from narthex.errors import ConfigError
from narthex.stores import PostgresSpec
from narthex.types import SecretSource, Snapshot

SERVER = "servers: {one: {url: 'http://127.0.0.1:1/mcp'}}\n"
SECRET = "s3cret/@:"


def compiled(folder: Path, text: str, **env: str) -> Snapshot:
    (folder / "narthex.yaml").write_text(f"version: 1\n{text}\n{SERVER}")
    return load_snapshot(folder / "narthex.yaml", env=env)


def spec(**more: Any) -> PostgresSpec:
    return PostgresSpec(**{"host": "db.internal", "user": "nx", "database": "gate", **more})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("postgresql://nx@db.internal/gate", spec(), id="from elsewhere: by TLS that is proved"),
        pytest.param("postgres://nx@db.internal:6432/gate", spec(port=6432), id="the other scheme, a port"),
        pytest.param("postgresql://nx@localhost/gate", spec(host="localhost", sslmode="disable"), id="here"),
        pytest.param(
            "postgresql://nx@localhost/gate?sslrootcert=system", spec(host="localhost"), id="here, by TLS"
        ),
        pytest.param("postgresql://nx@[::1]:1/gate", spec(host="::1", port=1, sslmode="disable"), id="IPv6"),
        pytest.param(
            "postgresql:///gate?host=/run/pg", spec(host="/run/pg", user="narthex", sslmode="disable"), id="a socket"
        ),
        pytest.param(
            "postgresql://nx@%2Frun%2Fpg/gate", spec(host="/run/pg", sslmode="disable"), id="a socket as host"
        ),
        pytest.param(
            "postgresql://", spec(host="/var/run/postgresql", user="narthex", database="narthex", sslmode="disable"),
            id="nothing said: Debian's socket",
        ),
        pytest.param("postgresql://nx@db.internal", spec(database="nx"), id="the database of the user's name"),
        pytest.param("postgresql://nx:a%40b@db.internal/gate", spec(password="a@b"), id="a password in the URL"),
        pytest.param(
            "postgresql://nx@db.internal/gate?sslmode=verify-ca&schema=nx_2", spec(sslmode="verify-ca", schema="nx_2"),
            id="parameters",
        ),
    ],
)  # fmt: skip
def test_a_url(url: str, expected: PostgresSpec) -> None:
    found = parse_store(url)
    assert found == expected and isinstance(found, PostgresSpec) and found.password == expected.password


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://nx:s3cret@db/x?sslmode=prefer", "goes on in the clear"),
        ("postgresql://nx:s3cret@db/x?sslmode=allow", "write verify-full, verify-ca, require or disable"),
        ("postgresql://nx:s3cret@db/x?sslmode=s3cret", "sslmode is not known"),
        ("postgresql://nx:s3cret@db/x?target_session_attrs=any", "'target_session_attrs' is not known here"),
        ("postgresql://nx:s3cret@db1,db2/x", "one host"),
        ("postgresql://nx:s3cret@db:99999/x", "no URL of PostgreSQL"),
        ("postgresql://nx:s3cret@db:port/x", "no URL of PostgreSQL"),
        ("postgresql://nx:s3cret@[db/x", "no URL of PostgreSQL"),
        ("postgresql://nx:s3cret@db/x?schema=a;drop", "a schema is"),
        ("postgresql://nx:s3cret@db/x?schema=public.x", "a schema is"),
        (f"postgresql://nx:s3cret@db/{'x' * 64}", "1 to 63"),
        ("postgresql://nx:s3cret@db/x%00", "1 to 63"),
        ("postgresql://nx:s3cret@db/x?port", "no URL of PostgreSQL"),
        ("postgresql://nx:s3c/ret@db/x", "written beside it"),
        ("postgresql://nx:s3c#ret@db/x", "written beside it"),
        ("postgresql://nx:s3c?ret@db/x", "written beside it"),
        ("postgresql://nx:s3@c/ret@db/x", "written beside it"),
        ("mysql://nx:s3cret@db/x", "a store is sqlite:///"),
        ("sqlite://x", "a store is sqlite:///"),
    ],
)
def test_a_url_that_is_refused(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compiled(tmp_path, f"store: '{url}'")
    (problem,) = refused.value.problems
    assert said in problem and not any(part in problem for part in ("nx:s3", "s3cret@", "ret@"))
    with pytest.raises(ConfigError):
        find_places(tmp_path / "narthex.yaml", env={})


@given(st.text() | st.builds("postgresql://{}".format, st.text()))
def test_nothing_else_is_raised(text: str) -> None:
    try:
        found = parse_store(text)
    except ValueError:
        return
    assert isinstance(found, str) or found.name


@pytest.mark.parametrize(
    ("text", "password"),
    [
        pytest.param("store: 'postgresql://nx:${DB}@db/x'", "s3cret%2F%40%3A", id="put into the URL"),
        pytest.param("store: {url: 'postgresql://nx@db/x', password: '${env:DB}'}", SECRET, id="beside the URL"),
        pytest.param(
            "secrets: {db: 'env:DB'}\nstore: {url: 'postgresql://nx@db/x', password: '${secret:db}'}",
            SecretSource("env", "DB"), id="of a variable, asked each time",
        ),
        pytest.param(
            "secrets: {db: 'file:pw'}\nstore: {url: 'postgresql://nx@db/x', password: '${secret:db}'}",
            SecretSource("file", "FOLDER/pw"), id="of a file, read each time",
        ),
    ],
)  # fmt: skip
def test_where_a_password_comes_from(tmp_path: Path, text: str, password: str | SecretSource) -> None:
    (tmp_path / "pw").write_text(SECRET)
    value = "s3cret%2F%40%3A" if "${DB}" in text else SECRET
    snapshot = compiled(tmp_path, text, DB=value)
    if "${DB}" in text:
        password = SECRET
    if isinstance(password, SecretSource):
        password = SecretSource(password.kind, password.where.replace("FOLDER", str(tmp_path)))
    assert isinstance(snapshot.store, PostgresSpec) and snapshot.store.password == password
    assert "s3cret" not in repr(snapshot.store) + snapshot.store.name + " ".join(snapshot.warnings)
    again = compiled(tmp_path, text, DB="other")
    assert again.revision == snapshot.revision, "what was put in is no part of it"
    assert find_places(tmp_path / "narthex.yaml", env={"DB": value}).store == snapshot.store
    assert snapshot.state_dir == str(tmp_path / ".narthex")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("store: {password: x}", "'url' is missing"),
        ("store: {url: 'sqlite:///a.db', password: x}", "a file of SQLite has none"),
        ("store: {url: 'postgresql://nx:a@db/x', password: x}", "one stands in the URL already"),
        ("store: {url: 'postgresql://nx@db/x', password: '${secret:db}'}", "what opens the store cannot lie in it"),
        (
            "secrets: {db: 'vault:kv/db#pw'}\nstore: {url: 'postgresql://nx@db/x', password: '${secret:db}'}",
            "what opens the store cannot lie in it",
        ),
        (
            "secrets: {db: 'env:DB'}\nstore: {url: 'postgresql://nx@db/x', password: 'a${secret:db}'}",
            "nothing beside it",
        ),
        ("store: 'postgresql://nx@db/x?sslrootcert=none.pem'", "sslrootcert: no file"),
        ("store: 'postgresql://nx@db/x?sslkey=narthex.yaml'", "sslcert is missing beside sslkey"),
        ("store: 'postgresql://nx:${DB}@db/x'", "the environment variable DB is not set"),
        ("store: {url: 'postgresql://nx@db/x', pasword: x}", "unknown key 'pasword'"),
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compiled(tmp_path, text)
    assert any(said in problem for problem in refused.value.problems), refused.value.problems


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param("postgresql://nx@db/x", "", id="proved: nothing to say"),
        pytest.param("postgresql://nx@localhost/x", "", id="on this machine"),
        pytest.param("postgresql://nx@db/x?sslmode=disable", "in the clear", id="in the clear"),
        pytest.param("postgresql://nx@db/x?sslmode=require", "believes any server", id="not proved"),
        pytest.param("postgresql://nx:s3cret@db/x", "the password can be read here", id="written down"),
    ],
)
def test_what_is_warned_of(tmp_path: Path, url: str, said: str) -> None:
    found = [one for one in compiled(tmp_path, f"store: '{url}'").warnings if "store:" in one]
    assert (len(found) == 1 and said in found[0] and "s3cret" not in found[0]) if said else found == []


def test_files_are_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    store = compiled(tmp_path, "store: 'postgresql://nx@db/x?sslrootcert=ca.pem'").store
    assert isinstance(store, PostgresSpec) and store.ca == str(tmp_path / "ca.pem")
