"""The governed gateway: a token is checked, fifty grants with a condition on arguments, three limits, a journal.

In: a folder, and how much of it. Out: the settings beside `servers`, and a token that they let in (RS256, some 1.2 kB,
as Keycloak makes them; its key is in a file, as no issuer runs). For `subjects.py`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from identity import claims
from joserfc import jwk, jws

ISSUER, AUDIENCE = "https://sso.example.com/realms/corp", "https://gateway.example.com/mcp"
RULES = 50
PARTS = ("granted", "limited", "recorded")
"""Each with all before it."""


def token(folder: Path) -> str:
    """A token for an hour, with its public key in `keys.json`."""
    key = jwk.generate_key("RSA", 2048, {"kid": "bench"})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "keys.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    now = int(time.time())
    said = claims() | {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 3600}
    return jws.serialize_compact({"alg": "RS256", "kid": "bench", "typ": "JWT"}, json.dumps(said), key, ["RS256"])


def settings(part: str) -> dict[str, Any]:
    """What stands in the configuration beside the servers."""
    issuer = {
        "preset": "keycloak", "issuer": ISSUER, "audiences": [AUDIENCE], "jwks_file": "keys.json",
        "group_map": {"/support": ["support"]},
    }  # fmt: skip
    others = [
        {"name": f"server {number}", "who": {"role": "support"}, "allow": [f"s{number}__*"]}
        for number in range(RULES - 5)
    ]
    denied = [{"name": f"never {number}", "deny": [f"*__delete_{number}*"]} for number in range(4)]
    call = {"name": "the call", "who": {"role": "support"}, "allow": ["modern__*"],
            "when": "args.text.startsWith('call ') || args.text == 'ready'"}  # fmt: skip
    found: dict[str, Any] = {"identity": {"issuers": {"corp": issuer}}, "grants": [*others, *denied, call]}
    if part != "granted":
        found["limits"] = [
            {"name": "calls", "per": ["principal"], "calls": 10**9, "window": "1m"},
            {"name": "a day", "per": ["tenant", "agent"], "calls": 10**12, "window": "calendar day"},
            {"name": "at once", "per": ["server"], "concurrent": 256},
        ]
    if part == "recorded":
        found["audit"] = {"dir": "audit", "durable": "none", "on_failure": "degrade"}
    return found
