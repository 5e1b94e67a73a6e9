"""Fuzz targets for what strangers tell us when we look for a token: challenges, metadata, answers of an endpoint."""

from __future__ import annotations

import re
from contextlib import suppress

from narthex.authority.directory import read_members
from narthex.authority.discovery import Untrusted, is_above, read_challenge, read_resource, read_scopes, read_server
from narthex.authority.grants import LONGEST_S, MOST_CLAIMS, MOST_TOKEN, Refusal, read_answer
from narthex.errors import AuthorityUnavailable

SERVER = "https://mcp.example.com/a/mcp"
ISSUER = "https://as.example.com"


def fuzz_challenge(data: bytes) -> None:
    """Any header gives a challenge with scopes that are some; metadata is refused, or speaks of the right one."""
    found = read_challenge(data.decode("latin-1"))
    assert read_scopes(" ".join(found.scopes)) == found.scopes
    with suppress(Untrusted):
        resource = read_resource(data, SERVER)
        assert is_above(resource.resource, SERVER) and resource.servers
    with suppress(Untrusted):
        assert read_server(data, ISSUER).issuer == ISSUER


def fuzz_members(data: bytes) -> None:
    """A directory's answer is a list of texts, or nobody's groups are known."""
    with suppress(AuthorityUnavailable):
        assert all(isinstance(one, str) for one in read_members(data))


def fuzz_token_answer(data: bytes) -> None:
    """Refused in words without line breaks, or a token that a header can hold, with an end; a challenge that goes on
    to a caller stands in a header, too."""
    first, _, body = data.partition(b"\0")
    status = int(first) if first.isdigit() and len(first) == 3 else 200
    for wanted in ("", "id-jag"):
        try:
            grant = read_answer(status, "application/json", body or data, issuer=ISSUER, wanted_type=wanted)
        except Refusal as refusal:
            assert refusal.text.isprintable() and len(refusal.text) < 1000
            assert re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", refusal.claims) and len(refusal.claims) < 4 * MOST_CLAIMS
        else:
            assert grant.token.isascii() and " " not in grant.token and grant.token.isprintable()
            assert len(grant.token) <= MOST_TOKEN and 0 < grant.lasts_s <= LONGEST_S
