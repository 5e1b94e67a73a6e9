"""The keys that may sign policy bundles, as the configuration names them: read anew each time, as they may rotate.

In: a `SigningSpec`, the values of secrets. Out: a `Trust`. Reads files, so it is not called on the loop.
Cases: `tests/authority/test_bundle_keys.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from narthex.authority.files import FileProblem, read_secret
from narthex.flow.policy.bundles.signatures import BundleKey, Trust
from narthex.types import SigningKey, SigningSpec


def read_trust(spec: SigningSpec, secrets: Callable[[str], str]) -> Trust:
    """Raises SecretMissing; ValueError: a key cannot be read, or is none for its algorithm."""
    keys = {}
    for name, key in spec.keys.items():
        try:
            keys[name] = read_key(key, secrets)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return Trust(keys, spec.key_id, spec.scope)


def read_key(key: SigningKey, secrets: Callable[[str], str]) -> BundleKey:
    """Raises as `read_trust`."""
    if key.text is not None:
        return BundleKey.read(key.algorithm, key.text.fill(secrets))
    try:
        return BundleKey.read(key.algorithm, read_secret(key.file))
    except FileProblem as problem:
        raise ValueError(str(problem)) from None
