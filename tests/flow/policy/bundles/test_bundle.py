"""What counts as a bundle, and what each one that is not is refused for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narthex.flow.policy.bundles.bundle import BundleRefused, package_of, read_bundle

REGO = b"package narthex\n\nallow := true\n"


def files(**more: bytes | None) -> dict[str, bytes]:
    """A small bundle with these files beside, or without those that are None."""
    found: dict[str, bytes | None] = {"policy.rego": REGO, **more}
    return {name: data for name, data in found.items() if data is not None}


def manifest(**members: Any) -> bytes:
    return json.dumps(members).encode()


def test_modules_data_revision_and_roots() -> None:
    bundle = read_bundle(
        {
            "policy.rego": REGO,
            "lib/more.rego": b"# a comment\n\npackage narthex.lib\n",
            "roles/data.json": b'{"admin": ["ann"]}',
            "data.json": b'{"limits": {"rows": 10}}',
            ".manifest": manifest(revision="r1", roots=["narthex", "roles", "limits"]),
            "README.md": b"not ours",
        },
        None,
        now=0,
    )
    assert bundle.revision == "r1"
    assert set(bundle.modules) == {"policy.rego", "lib/more.rego"}
    assert bundle.data == {"roles": {"admin": ["ann"]}, "limits": {"rows": 10}}
    assert bundle.roots == ("narthex", "roles", "limits")


def test_without_a_revision_the_digest_names_it() -> None:
    one, same, other = (read_bundle(files(**more), None, now=0) for more in ({}, {}, {"x.rego": b"package x"}))
    assert one.revision == same.revision == f"sha256:{one.digest[:12]}"
    assert one.revision != other.revision


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param({"policy.rego": None}, "no Rego", id="empty"),
        pytest.param({"policy.rego": None, "policy.wasm": b"\0asm"}, "another engine", id="only Wasm"),
        pytest.param({"policy.rego": b"\xff"}, "UTF-8", id="a module that is no text"),
        pytest.param({"policy.rego": b"allow := true"}, "package", id="a module without a package"),
        pytest.param({"data.json": b"{"}, "not JSON", id="data that is cut short"),
        pytest.param({"data.json": b"[1]"}, "not an object", id="data that is no object"),
        pytest.param({"data.json": b'{"a": NaN}'}, "not JSON", id="a number that JSON has not"),
        pytest.param({"data.json": b'{"a":' * 100_000}, "not JSON", id="data without a bottom"),
        pytest.param({"data.json": b'{"a": 1}', "a/data.json": b'{"b": 1}'}, "other data", id="data where data is"),
        pytest.param({"data.json": b'{"a": {"b": 1}}', "a/data.json": b'{"b": 1}'}, "other data", id="the same twice"),
        pytest.param({"data.yaml": b"a: 1"}, "YAML", id="data in YAML"),
        pytest.param({"patch.json": b"{}"}, "delta", id="a delta"),
        pytest.param({".manifest": b"{"}, "manifest", id="a manifest that is cut short"),
        pytest.param({".manifest": manifest(revision=7)}, "manifest", id="a revision that is no text"),
        pytest.param({".manifest": manifest(revision="a\nb")}, "revision", id="a revision of two lines"),
        pytest.param({".manifest": manifest(rego_version=0)}, "v0", id="Rego v0"),
        pytest.param({".manifest": manifest(file_rego_versions={"/x.rego": 0})}, "v0", id="a file in Rego v0"),
        pytest.param({".manifest": manifest(roots=["a", "a/b"])}, "overlap", id="roots that overlap"),
        pytest.param({".manifest": manifest(roots=["other"])}, "outside", id="a module outside the roots"),
        pytest.param({".manifest": manifest(roots=[])}, "outside", id="no roots"),
        pytest.param({".manifest": manifest(roots=["narthexx"])}, "outside", id="a root is no beginning of a text"),
        pytest.param({".manifest": manifest(roots=["narthex", "a"]), "data.json": b'{"b": 1}'}, "outside",
                     id="data outside the roots"),
        pytest.param({".manifest": manifest(roots=["narthex", "a/b"]), "data.json": b'{"a": {"c": 1}}'}, "outside",
                     id="data beside a deep root"),
        pytest.param({"a/.manifest": b"{}"}, "manifest", id="a second manifest"),
        pytest.param({".signatures.json": b"{}"}, "no key", id="signed, and nobody to check it"),
    ],
)  # fmt: skip
def test_what_is_refused(content: dict[str, bytes | None], said: str) -> None:
    with pytest.raises(BundleRefused, match=said):
        read_bundle(files(**content), None, now=0)


@pytest.mark.parametrize(
    ("text", "package"),
    [
        pytest.param("package a", "a", id="alone"),
        pytest.param("# one\n\n  # two\npackage a.b # three\nx := 1", "a/b", id="comments"),
        pytest.param('package a["b c"].d\n', "a/b c/d", id="a quoted part"),
        pytest.param("import rego.v1\npackage a", None, id="it comes first"),
        pytest.param("packages a", None, id="another word"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_the_package_of_a_module(text: str, package: str | None) -> None:
    assert package_of(text) == package
