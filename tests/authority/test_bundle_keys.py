"""Keys of bundle authors, read anew each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.authority.bundle_keys import read_trust
from narthex.errors import SecretMissing
from narthex.types import SecretName, SecretText, SigningKey, SigningSpec
from tests.flow.policy.bundles.test_signatures import EC, SECRET, pem

SHARED = SigningKey("HS256", SecretText((SecretName("key"),)))


def test_secrets_and_files(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(pem(EC))
    spec = SigningSpec({"one": SHARED, "two": SigningKey("ES256", file=str(file))}, "two", "production")
    trust = read_trust(spec, {"key": SECRET}.__getitem__)
    assert {name: key.algorithm for name, key in trust.keys.items()} == {"one": "HS256", "two": "ES256"}
    assert (trust.key_id, trust.scope) == ("two", "production")
    file.write_text("no key any more")
    with pytest.raises(ValueError, match="two: not a PEM key"):
        read_trust(spec, {"key": SECRET}.__getitem__)
    file.unlink()
    with pytest.raises(ValueError, match="two: .*No such file"):
        read_trust(spec, {"key": SECRET}.__getitem__)


def test_a_secret_that_is_not_there() -> None:
    def none(name: str) -> str:
        raise SecretMissing(name, "set it")

    with pytest.raises(SecretMissing):
        read_trust(SigningSpec({"one": SHARED}), none)
    with pytest.raises(ValueError, match="one: .*32 bytes"):
        read_trust(SigningSpec({"one": SHARED}), {"key": "short"}.__getitem__)
