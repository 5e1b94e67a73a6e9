"""Bundles that Open Policy Agent itself builds and signs are read as it reads them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from narthex.authority.bundles import read_folder
from narthex.flow.policy.bundles.bundle import BundleRefused, read_bundle, read_tarball
from narthex.flow.policy.bundles.signatures import BundleKey, Trust
from tests.conftest import StartGateway
from tests.counterparts.bundle_server import BundleServer
from tests.counterparts.serving import served
from tests.e2e.harness import wait_for
from tests.flow.policy.bundles.test_signatures import EC, RSA, SECRET, pem

DATA = {
    "numbers": [0, -0.0, 1.5, 1e3, 12345678901234567890, 1.10, -1e-7],
    "texts": ["", "é", "\u2028\u2029", "<&>", "\x01\x1f\x7f\b\f\n\r\t", '"\\/', "𝒘"],
    "objects": {"b": None, "a": {"z": [], "é": {}, "𝒘": 1, "\uffff": 2}, "": True},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An unpacked bundle, laid out in ways that its digest must not depend on."""
    folder = tmp_path / "policy"
    (folder / "more").mkdir(parents=True)
    (folder / "policy.rego").write_text("package narthex\n\nallow := true\n")
    (folder / "data.json").write_text(json.dumps(DATA, indent=3, ensure_ascii=False))
    (folder / "more" / "data.json").write_text('{"spaced" : 1.50 , "twice": 1, "twice": "\\ud800 \\u2028"}')
    (folder / ".manifest").write_text(
        '{ "roots": ["narthex", "numbers", "texts", "objects", "more"],\n"revision": "r1" }'
    )
    return folder


def run(opa: str, *arguments: object, cwd: Path) -> None:
    done = subprocess.run([opa, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def build(opa: str, folder: Path, *options: object) -> bytes:
    run(opa, "build", "--bundle", folder, "-o", "bundle.tar.gz", *options, cwd=folder.parent)
    return (folder.parent / "bundle.tar.gz").read_bytes()


def test_what_opa_builds(opa: str, folder: Path) -> None:
    bundle = read_tarball(build(opa, folder), None, now=0)
    assert bundle.revision == "r1" and len(bundle.modules) == 1
    assert bundle.data["texts"] == DATA["texts"] and bundle.data["more"]["spaced"] == 1.5


@pytest.mark.parametrize(
    ("algorithm", "private", "public"),
    [
        pytest.param("HS256", SECRET, SECRET, id="HS256"),
        pytest.param("RS256", RSA.as_pem(private=True).decode(), pem(RSA), id="RS256"),
        pytest.param("PS384", RSA.as_pem(private=True).decode(), pem(RSA), id="PS384"),
        pytest.param("ES256", EC.as_pem(private=True).decode(), pem(EC), id="ES256"),
    ],
)
def test_what_opa_signs(opa: str, folder: Path, algorithm: str, private: str, public: str) -> None:
    (folder.parent / "key").write_text(private)
    signed = build(opa, folder, "--signing-alg", algorithm, "--signing-key", "key")
    trust = Trust({"corp": BundleKey.read(algorithm, public)}, key_id="corp")
    assert read_tarball(signed, trust, now=0).signed_by == "corp"
    other = Trust({"corp": BundleKey.read("HS256", "another secret of thirty-two bytes")}, key_id="corp")
    with pytest.raises(BundleRefused, match="signature"):
        read_tarball(signed, other, now=0)


def test_a_folder_that_opa_signs(opa: str, folder: Path) -> None:
    """`opa sign` writes `.signatures.json` beside the files, digests of JSON as it stands there included."""
    (folder.parent / "key").write_text(SECRET)
    (folder.parent / "claims.json").write_text('{"keyid": "corp", "scope": "production"}')
    options = ("--signing-alg", "HS256", "--signing-key", "../key", "--claims-file", "../claims.json")
    run(opa, "sign", *options, "--bundle", ".", cwd=folder)
    trust = Trust({"corp": BundleKey.read("HS256", SECRET)}, scope="production")
    assert read_bundle(read_folder(folder, 10**6), trust, now=0).revision == "r1"
    (folder / "more" / "data.json").write_text('{"spaced" : 1.5 , "twice": "\\ufffd \\u2028"}')
    with pytest.raises(BundleRefused, match="more/data.json has changed"):
        read_bundle(read_folder(folder, 10**6), trust, now=0)


def test_a_gateway_that_fetches_what_opa_has_signed(
    opa: str, tmp_path: Path, start_gateway: StartGateway, python_servers: Callable[[str], str]
) -> None:
    """From nothing to a policy, to another; a forged one changes nothing, and after a restart the good one rules."""
    (tmp_path / "key").write_text(EC.as_pem(private=True).decode())
    (tmp_path / "release.pem").write_text(pem(EC))
    folder = tmp_path / "policy"
    folder.mkdir()
    signing = ("--signing-alg", "ES256", "--signing-key", "key", "--claims-file", "claims.json")
    (tmp_path / "claims.json").write_text('{"keyid": "release"}')

    def made(tool: str, *options: object) -> bytes:
        (folder / "policy.rego").write_text(f'package narthex\n\ndecision := endswith(input.resource.name, "{tool}")\n')
        return build(opa, folder, "--revision", tool, *options)

    server = BundleServer(status=404, long_polls=True)
    with served(server.app) as url:
        rego = {
            "bundle": f"{url}/bundle.tar.gz", "long_poll": "30s", "every": "1s",
            "signing": {"keys": {"release": {"algorithm": "ES256", "file": str(tmp_path / "release.pem")}}},
        }  # fmt: skip
        time = {"command": python_servers("mcp-server-time"), "args": ["--local-timezone", "UTC"]}
        config = {"version": 1, "servers": {"time": time}, "policy": {"rego": rego}}
        gateway = start_gateway(config)
        client = gateway.client()
        assert client.tools() == [] and "404" in gateway.ready().json["policy_problem"]
        server.body, server.status = made("get_current_time", *signing), 0
        wait_for(lambda: client.tools() == ["time__get_current_time"])
        server.body = made("convert_time", *signing)
        wait_for(lambda: client.tools() == ["time__convert_time"])
        server.body = made("get_current_time")
        wait_for(lambda: "not signed" in gateway.ready().json["policy_problem"])
        assert client.tools() == ["time__convert_time"]
        server.status = 503
        gateway.stop()
        gateway.lines.clear()
        gateway.start()
        assert gateway.client().tools() == ["time__convert_time"]
