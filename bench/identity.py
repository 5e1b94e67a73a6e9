"""Who calls: what a token costs, seen before and new, and what many known ones weigh.

Used by `steps.py` and `memory.py`. `python bench/identity.py --tokens N` prints the bytes that N distinct known tokens
hold in a process of their own, for `memory.py`. Tokens are as Keycloak makes them: RS256, 2048 bits, some 1.2 kB.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from joserfc import jwk, jws

from narthex.authority.identify import Identity, Presented
from narthex.flow.identity.claims import principal_of
from narthex.flow.identity.keys import read_keys
from narthex.flow.identity.verified import Known, Verified, Vouch
from narthex.types import ClaimRules, EndpointSpec, IdentitySpec, IssuerSpec, Principal

NOW = 1_800_000_000.0
ISSUER, AUDIENCE = "https://sso.example.com/realms/corp", "https://gateway.example.com/mcp"
RULES = ClaimRules(
    roles=(("realm_access", "roles"),), groups=(("groups",),), group_map={"/support": ("support",)}, preset="keycloak"
)
ENDPOINT = EndpointSpec("default", ())


def claims(number: int = 0) -> dict[str, Any]:
    return {
        "iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 300, "iat": NOW, "typ": "Bearer", "azp": "agent", "acr": "1",
        "sub": f"{number:08x}-7dec-11d0-a765-00a0c91e6bf6", "jti": "x" * 36, "sid": "y" * 36,
        "scope": "openid mcp profile email", "groups": ["/support", "/eng"], "preferred_username": "alice",
        "realm_access": {"roles": ["offline_access", "uma_authorization", "support"]},
        "email": "alice@example.com", "name": "Alice Example",
    }  # fmt: skip


async def _nobody(*_: Any, **__: Any) -> Any:
    raise RuntimeError("nobody is asked")


def steps() -> list[tuple[str, Callable[[], Any]]]:
    """What is timed: a token that was seen before, and new ones whose key is known."""
    issuer = IssuerSpec("corp", "keycloak", ISSUER, RULES, audiences=(AUDIENCE,))
    identity = Identity(
        IdentitySpec(issuers={"corp": issuer}), {"default": ENDPOINT}, keys=None, fetch=_nobody, secrets=None,
        now=lambda: NOW, clock=lambda: 0.0, chance=lambda: 0.5,
    )  # fmt: skip
    private = {"RS256": jwk.generate_key("RSA", 2048, {"kid": "RS256"}),
               "ES256": jwk.generate_key("EC", "P-256", {"kid": "ES256"})}  # fmt: skip
    public = [key.as_dict(private=False) for key in private.values()]
    identity.issuers["corp"].keys = read_keys(json.dumps({"keys": public}).encode())
    found: list[tuple[str, Callable[[], Any]]] = []
    for alg, key in private.items():
        token = jws.serialize_compact({"alg": alg, "kid": alg, "typ": "JWT"}, json.dumps(claims()), key, [alg])
        header = b"Bearer " + token.encode()
        presented = Presented(header)

        def new(presented: Presented = presented, header: bytes = header) -> Any:
            identity.verified.forget(lambda known: True)
            return identity.identify(presented, ENDPOINT)

        assert isinstance(new(), Principal)
        if alg == "RS256":
            found.append(("a token that was seen before", partial(identity.known, header, "default")))
        found.append((f"a new token, {alg}", new))
    return found


def weight(count: int) -> int:
    """Bytes that `count` distinct known tokens hold, each of another subject."""

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    known, vouch, before = Verified(count), Vouch(), resident()
    for number in range(count):
        read = json.loads(json.dumps(claims(number)))  # as from a token: no text of one is another's
        principal = principal_of(read, RULES, issuer=ISSUER, method="jwt")
        header = b"Bearer " + urlsafe_b64encode(os.urandom(900))
        known.put(header, Known(principal, NOW + 300 + number, vouch))
    assert len(known) == count
    return resident() - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=50_000)
    print(weight(parser.parse_args().tokens))
    return 0


if __name__ == "__main__":
    sys.exit(main())
