"""Fuzz target for policy bundles: the tarball, its manifest, its signatures."""

from __future__ import annotations

import gzip
import hmac
import json
from base64 import urlsafe_b64encode
from contextlib import suppress

from narthex.flow.policy.bundles.bundle import BundleRefused, read_bundle, read_tarball
from narthex.flow.policy.bundles.signatures import MANIFEST, SIGNATURES, BundleKey, Trust
from narthex.flow.policy.bundles.tarball import NoTarball, unpack

SECRET = "thirty-two bytes, or a few more of them"
TRUST = Trust({"k": BundleKey.read("HS256", SECRET)})
REGO = b"package narthex\n"
MOST = 100_000


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _signed(data: bytes) -> bytes:
    """`.signatures.json` over any payload by the right key: what is behind the proof is read too."""
    text = f"{_encoded(json.dumps({'alg': 'HS256', 'kid': 'k'}).encode())}.{_encoded(data)}"
    proof = _encoded(hmac.digest(SECRET.encode(), text.encode(), "sha256"))
    return json.dumps({"signatures": [f"{text}.{proof}"]}).encode()


def fuzz_bundle(data: bytes) -> None:
    """Refused in printable words, or within all bounds; unsigned bytes never count as signed."""
    with suppress(BundleRefused):
        read_tarball(data, None, now=0, most_bytes=MOST)
    with suppress(NoTarball):
        files = unpack(gzip.compress(data, 1), most_bytes=MOST, most_files=100)
        assert len(files) <= 100 and sum(map(len, files.values())) <= len(data)
        assert all(path and not path.startswith("/") and ".." not in path.split("/") for path in files)
    for files, trust in (
        ({"a.rego": data}, None),
        ({"a.rego": REGO, "a/data.json": data}, None),
        ({"a.rego": REGO, MANIFEST: data}, None),
        ({"a.rego": REGO, SIGNATURES: data}, TRUST),
        ({"a.rego": REGO, SIGNATURES: _signed(data)}, TRUST),
    ):
        try:
            bundle = read_bundle(files, trust, now=0)
        except BundleRefused as refused:
            assert len(str(refused)) < 1000
            continue
        assert trust is None or (bundle.signed_by == "k" and files[SIGNATURES] is not data)
        json.dumps(bundle.data)
