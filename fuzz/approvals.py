"""Fuzz target for what a person is asked to approve: parameters of a held call; and for what they answer."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec

from narthex.errors import Denied, InvalidParams, ParseError
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, decode_map
from narthex.flow.policy.approvals.approval import MOST_BYTES, digest_of, exactly
from narthex.flow.policy.approvals.holding import printable, said


def fuzz_approval(data: bytes) -> None:
    """Parameters are refused, or what is sent on is what was looked at and has the same digest; only `true` is a yes,
    and nothing of either steers a screen."""
    arguments, _, answer = data.partition(b"\0")
    with suppress(InvalidParams, Denied, ParseError):
        sent = exactly({"arguments": Raw(arguments)})
        assert exactly(sent) == sent and len(arguments) <= MOST_BYTES
        digest = digest_of(("a",), sent)
        assert digest == digest_of(("a",), {"arguments": Raw(arguments)}) != digest_of(("b",), sent)
        assert printable(bytes(sent["arguments"]).decode(), 2000).isprintable()
        spaced = json.dumps(msgspec.json.decode(sent["arguments"]), indent=1).encode()
        if len(spaced) <= MOST_BYTES:
            assert digest_of(("a",), exactly({"arguments": Raw(spaced)})) == digest
    with suppress(*BAD_JSON):
        members = decode_map(answer)
        if said({"approval": Raw(answer)}) is True:
            assert msgspec.json.decode(members["content"])["approve"] is True
            assert msgspec.json.decode(members["action"]) == "accept"
