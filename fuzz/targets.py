"""What is fuzzed: a function for each parser of outside bytes, and the promises that it keeps for every input.

In: any bytes. Out: nothing, or an exception where a promise is broken. `tests/test_fuzz.py` runs the corpus through
them without a fuzzer.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fuzz.agents import fuzz_opa_answer, fuzz_opa_trace
from fuzz.approvals import fuzz_approval
from fuzz.bundles import fuzz_bundle
from fuzz.caches import fuzz_cache
from fuzz.codecs import fuzz_batch, fuzz_capabilities, fuzz_handles, fuzz_param_headers
from fuzz.connections import fuzz_listener, fuzz_upstream, fuzz_whole
from fuzz.credentials import fuzz_challenge, fuzz_members, fuzz_token_answer
from fuzz.identities import fuzz_bearer, fuzz_jwks, fuzz_jwt, fuzz_metadata, fuzz_xfcc
from fuzz.journals import fuzz_cursor, fuzz_export, fuzz_heads, fuzz_index, fuzz_journal
from fuzz.kept import fuzz_api_key, fuzz_envelope, fuzz_vault
from fuzz.limits import fuzz_limits
from fuzz.payloads import fuzz_payload, fuzz_redaction
from fuzz.playbacks import fuzz_playback
from fuzz.policies import fuzz_policy
from fuzz.records import fuzz_recorded
from fuzz.runs import fuzz_run_id
from fuzz.shared import fuzz_shared
from fuzz.telemetry import fuzz_trace
from narthex.config.load import load
from narthex.errors import CodecError, GatewayError, ParseError, UpstreamUnavailable
from narthex.flow.codec import bridge, handshake, headers, revisions
from narthex.flow.codec.jsonrpc import (
    BAD_JSON,
    Answered,
    Incoming,
    Raw,
    decode_answer,
    decode_incoming,
    decode_map,
    decode_request,
    read_string,
)
from narthex.flow.codec.seal import KeyRing, SealError
from narthex.flow.codec.sse import EventParser
from narthex.flow.route.names import shown_name, split_prefix
from narthex.flow.route.patterns import Selector, compile_globs
from narthex.flow.route.uri_templates import Template, prefix_uri, scheme_authority, unprefix_uri
from narthex.flow.upstream.proxy import read_connect_answer
from narthex.types import LOCAL, Call, Era

Target = Callable[[bytes], None]


def text_of(data: bytes) -> str:
    return data.decode(errors="replace")


def split(data: bytes) -> tuple[str, str]:
    first, _, second = data.partition(b"\0")
    return text_of(first), text_of(second)


class Pairs(list[tuple[str, Any]]):
    """A JSON object as it stands, each key as often as it comes."""


def members(data: bytes) -> dict[str, Any]:
    """A JSON object by another reader; a broken promise when a key stands twice in it."""
    pairs = json.loads(data, object_pairs_hook=Pairs, parse_int=str)
    assert isinstance(pairs, Pairs)
    assert len(dict(pairs)) == len(pairs), "a key that stands twice was accepted"
    return dict(pairs)


def fuzz_jsonrpc(data: bytes) -> None:
    """Refused with a codec error, or read as another reader reads it, with no key twice in envelope and parameters."""
    try:
        request = decode_request(data)
        params = request.params
    except CodecError:
        return
    try:
        assert members(data).get("method", "") == request.method
        if params:
            assert set(json.loads(data)["params"]) == set(params)
    except RecursionError:
        return
    for key, value in params.items():
        json.loads(bytes(value), parse_int=str)
        with suppress(CodecError):
            read_string(params, key)
    with suppress(CodecError):
        revisions.era_of(None, request, data)
        revisions.check_modern_meta(revisions.read_meta(params), revisions.MODERN[0])


def fuzz_answers(data: bytes) -> None:
    """The answer to a request of ours is read in the plain form as in any other, or refused in both."""
    answer: Incoming | None = None
    with suppress(ParseError):
        answer = decode_answer(data, 7)
    try:
        message = decode_incoming(data)
    except ParseError:
        assert answer is None
        return
    assert answer is not None
    assert (answer.id, answer.method, answer.error) == (message.id, message.method, message.error)
    assert bytes(answer.result).strip() == bytes(message.result).strip()
    if isinstance(answer, Answered):
        assert answer.members == decode_map(message.result)


def call_of(era: Era) -> Call:
    meta = {"progressToken": Raw(b'"t"'), revisions.META_LOG_LEVEL: Raw(b'"debug"')}
    return Call("resources/read", {}, meta, b"7", era, "x", LOCAL, "default")


CALLS = (call_of("legacy"), call_of("modern"))


def fuzz_incoming(data: bytes) -> None:
    """An upstream's message, its push and its error: read or refused, never anything else."""
    try:
        message = decode_incoming(data)
    except ParseError:
        return
    reply = handshake.answer_push(message)
    assert reply is None or json.loads(reply)["jsonrpc"] == "2.0"
    bridge.error_code(message.error)
    eras: tuple[Era, ...] = ("legacy", "modern")
    for era in eras:
        with suppress(GatewayError):
            bridge.translate_error(era, "modern", message.error)
        for call in CALLS:
            with suppress(GatewayError, *BAD_JSON):
                answer = b"".join(bridge.response_parts(call, era, message)[0])
                assert json.loads(answer.decode(errors="replace"), parse_int=str)["id"] == "7"
            with suppress(GatewayError, *BAD_JSON):
                told = bridge.progress_for(call, message, era)
                assert told is None or json.loads(told.decode(errors="replace"), parse_int=str)["jsonrpc"] == "2.0"


def fuzz_handshake(data: bytes) -> None:
    """A server's introduction: a dialect in a version of ours, or a reason why not."""
    for made in (handshake.dialect_from_discover, lambda raw: handshake.dialect_from_initialize(raw, "s")):
        try:
            dialect = made(Raw(data))
        except UpstreamUnavailable:
            continue
        assert dialect.version in (*revisions.MODERN, *revisions.LEGACY)


def fuzz_headers(data: bytes) -> None:
    """A header's value, decoded or not; what we encode is read back."""
    headers.decode_value(data)
    text = text_of(data)
    if len(text) < 1500:
        assert headers.decode_value(headers.encode_value(text)) == text


def events_of(data: bytes, step: int) -> list[tuple[str, bytes, str | None, int | None]] | None:
    parser = EventParser(200)
    events = []
    try:
        for at in range(0, len(data), step):
            events += [(one.event, one.data, one.id, one.retry) for one in parser.feed(data[at : at + step])]
    except ParseError:
        return None
    return events


def fuzz_sse(data: bytes) -> None:
    """Cuts change nothing, and no event is larger than its bound."""
    whole = events_of(data, len(data) or 1)
    for step in (1, 5):
        assert events_of(data, step) == whole
    assert all(len(one[1]) <= 200 for one in whole or ())


SEALER = KeyRing([b"k" * 32, b"o" * 32]).sealer("fuzz")
BOUND = ("tenant", "issuer", "subject", "client", "endpoint")
HANDLE = SEALER.seal([1, "two"], bound=BOUND, expires_at=1000, nonce=b"n" * 12)


def fuzz_seal(data: bytes) -> None:
    """Nothing opens but the handle itself, and every other text is refused in one way."""
    changed = bytearray(HANDLE, "ascii")
    for place, byte in zip(data[::2], data[1::2], strict=False):
        changed[place % len(changed)] = byte
    for handle in (text_of(data), changed.decode("latin-1"), HANDLE[: len(data)] + text_of(data)):
        try:
            SEALER.open(handle, list[Any], bound=BOUND, now=0)
        except SealError:
            continue
        assert handle == HANDLE


def fuzz_uri_templates(data: bytes) -> None:
    """A template and a URI: yes or no, soon; a prefix comes off again."""
    text, uri = split(data)
    template = Template(text)
    assert template.matches(uri) in (True, False)
    if not set(text) & set("{}") and template.problem is None:
        assert template.matches(text)
        assert template.matches(uri) == (text == uri)
    found = scheme_authority(uri)
    assert len(found) <= len(uri.lower())
    if uri:
        assert unprefix_uri(prefix_uri("server-1", uri)) == ("server-1", uri)
    unprefix_uri(uri)


def covers(pattern: str, name: str) -> bool:
    """The definition of a glob, as a table of which beginnings fit."""
    fits = [True] + [False] * len(name)
    for char in pattern:
        if char == "*":
            first = fits.index(True) if True in fits else len(fits)
            fits = [at >= first for at in range(len(fits))]
        else:
            fits = [False] + [fits[at] and char in ("?", name[at]) for at in range(len(name))]
    return fits[-1]


def fuzz_names(data: bytes) -> None:
    """Shown names are legal and keep their server; globs say what their definition says."""
    pattern, name = split(data)
    for max_name in (34, 48, 128):
        shown = shown_name("server-1", name, naming="prefix", max_name=max_name)
        assert len(shown) <= max_name
        assert set(shown) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        assert split_prefix(shown) == "server-1"
        assert shown_name("server-1", name, naming="none", max_name=max_name)
    if len(pattern) * len(name) < 100_000:
        expected = covers(pattern, name)
        assert compile_globs([pattern])(name) is expected
        assert Selector([pattern], []).allows(name) is expected
        assert Selector([], [pattern]).allows(name) is not expected


FOLDER = Path(tempfile.mkdtemp(prefix="narthex-fuzz-"))


def fuzz_config(data: bytes) -> None:
    """A configuration file: never an exception; either it can be used or there is a problem with its place."""
    suffixes = (".yaml", ".json")
    for suffix in (suffixes[data[0] % 2],) if data[:1] in (b"0", b"1") else suffixes:
        path = FOLDER / f"narthex{suffix}"
        path.write_bytes(data)
        loaded = load(path, env={"HOME": "/", "TOKEN": "x"})
        for problem in loaded.reading.problems:
            assert str(problem).startswith(str(path))


def fuzz_connect(data: bytes) -> None:
    """A proxy's answer to CONNECT: a status, not yet, or refused."""
    try:
        status = read_connect_answer(data)
    except ValueError:
        return
    assert status is None or 200 <= status < 600


TARGETS: dict[str, Target] = {
    "answers": fuzz_answers,
    "api_key": fuzz_api_key,
    "approval": fuzz_approval,
    "batch": fuzz_batch,
    "bearer": fuzz_bearer,
    "bundle": fuzz_bundle,
    "cache": fuzz_cache,
    "capabilities": fuzz_capabilities,
    "challenge": fuzz_challenge,
    "config": fuzz_config,
    "connect": fuzz_connect,
    "envelope": fuzz_envelope,
    "handles": fuzz_handles,
    "handshake": fuzz_handshake,
    "headers": fuzz_headers,
    "incoming": fuzz_incoming,
    "jsonrpc": fuzz_jsonrpc,
    "jwks": fuzz_jwks,
    "jwt": fuzz_jwt,
    "limits": fuzz_limits,
    "listener": fuzz_listener,
    "members": fuzz_members,
    "metadata": fuzz_metadata,
    "names": fuzz_names,
    "opa_answer": fuzz_opa_answer,
    "opa_trace": fuzz_opa_trace,
    "param_headers": fuzz_param_headers,
    "cursor": fuzz_cursor,
    "export": fuzz_export,
    "heads": fuzz_heads,
    "index": fuzz_index,
    "journal": fuzz_journal,
    "payload": fuzz_payload,
    "playback": fuzz_playback,
    "policy": fuzz_policy,
    "redaction": fuzz_redaction,
    "recorded": fuzz_recorded,
    "run_id": fuzz_run_id,
    "seal": fuzz_seal,
    "shared": fuzz_shared,
    "sse": fuzz_sse,
    "token_answer": fuzz_token_answer,
    "trace": fuzz_trace,
    "upstream": fuzz_upstream,
    "uri_templates": fuzz_uri_templates,
    "vault": fuzz_vault,
    "whole": fuzz_whole,
    "xfcc": fuzz_xfcc,
}
