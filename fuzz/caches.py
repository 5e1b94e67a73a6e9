"""Fuzz target for what the cache reads of others: arguments of a key, answers that may be kept, annotations."""

from __future__ import annotations

import json

from narthex.errors import GatewayError
from narthex.flow.cache.marks import marks_in
from narthex.flow.cache.plans import says_harmless
from narthex.flow.cache.requests import canonical_arguments
from narthex.flow.cache.results import result_of, terms_of
from narthex.flow.codec.jsonrpc import Raw, decode_incoming
from narthex.types import Era

METHODS = ("tools/call", "prompts/get", "resources/read")
ERAS: tuple[Era, ...] = ("legacy", "modern")


def fuzz_cache(data: bytes) -> None:
    """Arguments have one text at most, which says what they said; an answer that is kept is a response again for
    whoever asks next, and neither an error nor a task; a tool is harmless only in so many words."""
    text = canonical_arguments(Raw(data))
    if text is not None:
        assert canonical_arguments(Raw(text)) == text
        said = json.loads(text)
        assert said == json.loads(data) or said != said
        marks_in(said, ("/a", "/a/0"))
    if says_harmless(Raw(data)):
        assert b"readOnlyHint" in data or b"\\u" in data
    try:
        message = decode_incoming(data)
    except GatewayError:
        return
    for method in METHODS:
        for server in ERAS:
            result = result_of(method, server, message)
            if result is None:
                continue
            for asker in ERAS:
                told = json.loads(b"".join(result.parts(b'"mine"', asker, 0.5)))
                assert told["id"] == "mine" and isinstance(told["result"], dict)
                assert told["result"].get("isError", False) is False
                assert told["result"].get("resultType", "complete") == "complete"
                assert told["result"].get("ttlMs", 0) >= 0
            terms = terms_of(result, 10.0, 20.0, 0.0)
            assert terms is None or 0 < terms.fresh_until <= terms.ends_at <= 30.0
