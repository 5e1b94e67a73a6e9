"""What a client may send to the public listener, and what it gets: each row whole and byte by byte, over real sockets.

After every row an ordinary call still works, and nothing that a row tried to smuggle has reached the server behind.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.e2e.harness import (
    CAPABILITIES,
    LEGACY,
    MODERN,
    PROTOCOL,
    UUID,
    Client,
    Gateway,
    Response,
    Wire,
    message,
    render,
    routing_headers,
    text,
    wait_for,
)
from tests.faulty.server import FaultyServer

pytestmark = pytest.mark.e2e
Row = Any
CALL = message("tools/call", {"name": "up__echo", "arguments": {"text": "hello"}})
BODY = json.dumps(CALL).encode()
HEADERS = {name.title(): value for name, value in routing_headers(CALL)}
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def gateway(module_gateway: StartGateway, faulty: FaultyServer) -> Gateway:
    server = {"url": faulty.url(era="modern")}
    return module_gateway(
        {
            "version": 1,
            "servers": {"up": server},
            "endpoints": {"default": {"servers": ["up"]}, "other": {"servers": ["up"]}},
        }
    )


@pytest.fixture
def healthy(gateway: Gateway, faulty: FaultyServer) -> Iterator[None]:
    """An ordinary call works after the test, and nothing was smuggled in."""
    yield
    assert text(gateway.client().call("up__echo", {"text": "still here"})) == "still here"
    assert not [seen for seen in faulty.seen if "smuggled" in json.dumps(seen.body)]


def request(
    *lines: str | bytes,
    body: bytes = BODY,
    first: str = "POST /mcp HTTP/1.1",
    length: bool = True,
    end: bytes = b"\r\n",
    **changed: str | None,
) -> bytes:
    """A right call, with `lines` added and headers changed (None: left out). `@` stands for the listener's address."""
    headers = {"Host": "@", **HEADERS, **({"Content-Length": str(len(body))} if length else {})}
    for name, value in changed.items():
        headers.pop(name.replace("_", "-"), None)
        if value is not None:
            headers[name.replace("_", "-")] = value
    rows = [first.encode(), *(f"{name}: {value}".encode("latin-1") for name, value in headers.items())]
    rows += [line if isinstance(line, bytes) else line.encode("latin-1") for line in lines]
    return end.join(rows) + end * 2 + body


def post(value: Any, **changed: str | None) -> bytes:
    """A right request with this JSON value (or these bytes) as its body and headers that agree with it."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    if isinstance(value, dict) and isinstance(value.get("method"), str):
        names = {"Mcp-Method": value["method"], "Mcp-Name": None, **dict(_name(value))}
        changed = {**{key.replace("-", "_"): name for key, name in names.items()}, **changed}
    return request(body=body, **changed)


def _name(value: dict[str, Any]) -> list[tuple[str, str]]:
    try:
        return [(key.title(), name) for key, name in routing_headers(value) if key == "mcp-name"]
    except (KeyError, TypeError):
        return []


def chunked(*chunks: bytes, last: bytes = b"0\r\n\r\n", **changed: str | None) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + last
    return request("Transfer-Encoding: chunked", length=False, body=body, **changed)


INNER = request(
    body=json.dumps(message("tools/call", {"name": "up__echo", "arguments": {"text": "smuggled"}})).encode()
)

SMUGGLING = [
    pytest.param(request("Transfer-Encoding: chunked", body=b"0\r\n\r\n" + INNER), {400}, id="length and chunked"),
    pytest.param(
        request(
            "Transfer-Encoding: chunked", f"Content-Length: {len(INNER) + 5}", length=False, body=b"0\r\n\r\n" + INNER
        ),
        {400},
        id="chunked, then length",
    ),
    pytest.param(request("Content-Length: 5"), {400}, id="two different lengths"),
    pytest.param(request(f"Content-Length: {len(BODY)}"), {400}, id="two equal lengths"),
    pytest.param(request(Content_Length=f"{len(BODY)}, {len(BODY)}"), {400}, id="a list of lengths"),
    *(
        pytest.param(request(Content_Length=value), {400, 413}, id=f"length {value!r}")
        for value in ("+5", "-5", "0x5", "5 5", "", "5;5", "1e2", "18446744073709551617", "5\x0b")
    ),
    *(
        pytest.param(
            request(f"Transfer-Encoding: {value}", length=False, body=b"5\r\nhello\r\n0\r\n\r\n" + INNER),
            {400, 501},
            id=f"coding {value!r}",
        )  # fmt: skip
        for value in (
            "xchunked",
            "chunkedx",
            "identity",
            "gzip, chunked",
            "chunked, identity",
            "chunked, chunked",
            "\x0bchunked",
            "chunked;a=b",
            '"chunked"',
            "",
        )
    ),
    pytest.param(
        request("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", length=False, body=b"0\r\n\r\n"),
        {400},
        id="coding twice",
    ),
    pytest.param(
        request("Transfer-Encoding: identity", "Transfer-Encoding: chunked", length=False, body=b"0\r\n\r\n"),
        {400},
        id="identity, then chunked",
    ),
    pytest.param(
        request("Transfer-Encoding: chunked", first="POST /mcp HTTP/1.0", length=False, body=b"0\r\n\r\n"),
        {400, 505},
        id="chunked in HTTP/1.0",
    ),
    pytest.param(request("X-Folded: one", " two"), {400}, id="obs-fold"),
    pytest.param(request("X-Folded: one", "\ttwo"), {400}, id="obs-fold with a tab"),
    pytest.param(request(" X-First: folded", Host="@"), {400}, id="a header line that begins with a blank"),
    pytest.param(request(end=b"\n"), {400}, id="bare LF everywhere"),
    pytest.param(request(b"X-A: b\nX-C: d"), {400}, id="bare LF between two headers"),
    pytest.param(request(b"X-A: b\rX-C: d"), {400}, id="bare CR between two headers"),
    pytest.param(request(b"X-A: b\r\rX-C: d"), {400}, id="CR CR between two headers"),
    pytest.param(request("Transfer-Encoding : chunked"), {400}, id="blank before the colon"),
    pytest.param(request("Content Length: 5"), {400}, id="blank in a name"),
    pytest.param(request(": nothing"), {400}, id="an empty name"),
    pytest.param(request("no colon at all"), {400}, id="a line without a colon"),
    pytest.param(request(b"X-Nul: a\0b"), {400}, id="NUL in a value"),
    pytest.param(request(b"X-\0: b"), {400}, id="NUL in a name"),
    pytest.param(request(b"X-Ctl: a\x01b"), {400}, id="control character in a value"),
    pytest.param(request(b"X-\xff: b"), {400}, id="byte over 127 in a name"),
    pytest.param(chunked(last=b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n"), {400, 413}, id="chunk size overflows"),
    pytest.param(chunked(last=b"-5\r\nhello\r\n0\r\n\r\n"), {400}, id="negative chunk size"),
    pytest.param(chunked(last=b"0x5\r\nhello\r\n0\r\n\r\n"), {400}, id="chunk size 0x5"),
    pytest.param(chunked(last=b"+5\r\nhello\r\n0\r\n\r\n"), {400}, id="chunk size +5"),
    pytest.param(chunked(last=b" 5\r\nhello\r\n0\r\n\r\n"), {400}, id="blank before a chunk size"),
    pytest.param(chunked(last=b"5\nhello\r\n0\r\n\r\n"), {400}, id="bare LF after a chunk size"),
    pytest.param(chunked(last=b"5\r\nhelloXX0\r\n\r\n"), {400}, id="no CRLF after a chunk"),
    pytest.param(chunked(last=b"5;a\nb\r\nhello\r\n0\r\n\r\n"), {400}, id="bare LF in a chunk extension"),
    pytest.param(chunked(last=b"\r\n\r\n"), {400}, id="an empty chunk size"),
    pytest.param(
        chunked(last=b"5;" + b"x" * 300_000 + b"\r\nhello\r\n0\r\n\r\n"),
        {400, 413, 431},
        id="an endless chunk extension",
    ),
    pytest.param(chunked(last=b"0\r\nX: " + b"y" * 300_000 + b"\r\n\r\n"), {400, 413, 431}, id="an endless trailer"),
    pytest.param(chunked(last=b"0\r\n" + b"X: y\r\n" * 50_000 + b"\r\n"), {400, 413, 431}, id="endless trailers"),
    pytest.param(request("X-A: b", first="POST /mcp HTTP/1.1\r\nPOST /mcp HTTP/1.1"), {400}, id="two request lines"),
]

HEAD = [
    pytest.param(request(Host=None), {400}, id="no Host"),
    pytest.param(request("Host: @"), {400}, id="two Hosts"),
    pytest.param(request(Host=""), {400, 403, 421}, id="an empty Host"),
    pytest.param(request(Host="evil.example.com"), {400, 403, 421}, id="a foreign Host"),
    pytest.param(
        request(Host="127.0.0.1.evil.example.com"), {400, 403, 421}, id="a foreign Host that begins like ours"
    ),
    pytest.param(request(Host="@.evil.example.com"), {400, 403, 421}, id="a foreign Host behind our port"),
    pytest.param(request(Host="user@127.0.0.1"), {400, 403, 421}, id="a Host with a user"),
    pytest.param(request(Origin="https://evil.example.com"), {403}, id="a foreign Origin"),
    pytest.param(request(Origin="null"), {403}, id="the null Origin"),
    pytest.param(request(Origin=""), {400, 403}, id="an empty Origin"),
    pytest.param(request(Origin="http://@.evil.example.com"), {403}, id="a foreign Origin that begins like ours"),
    pytest.param(request("Origin: http://@", Origin="https://evil.example.com"), {400, 403}, id="two Origins"),
    pytest.param(
        request(first="POST http://evil.example.com/mcp HTTP/1.1"), {400, 403, 421}, id="absolute form, foreign"
    ),
    pytest.param(
        request(first="CONNECT 127.0.0.1:1 HTTP/1.1", length=False, body=b""), {400, 404, 405, 501}, id="CONNECT"
    ),
    pytest.param(request(first="POST mcp HTTP/1.1"), {400, 404}, id="a target without a slash"),
    pytest.param(request(first="POST /m cp HTTP/1.1"), {400}, id="a blank in the target"),
    pytest.param(request(first="POST /mcp\x00 HTTP/1.1"), {400, 404}, id="NUL in the target"),
    pytest.param(request(first=f"POST /{'x' * 20_000} HTTP/1.1"), {414, 431}, id="a long target"),
    pytest.param(request(first=f"POST /{'x' * 500_000} HTTP/1.1"), {414, 431}, id="an endless target"),
    pytest.param(request(f"X-Long: {'y' * 40_000}"), {431}, id="a long header"),
    pytest.param(request(f"X-Long: {'y' * 500_000}"), {431}, id="an endless header"),
    pytest.param(request(*(f"X-{count}: y" for count in range(300))), {431}, id="many headers"),
    pytest.param(request(*(f"X-{count}: y" for count in range(30_000))), {431}, id="endless headers"),
    pytest.param(request(*("X-Same: y" for _ in range(5_000))), {431}, id="one header 5,000 times"),
    pytest.param(request(first="POST /mcp HTTP/1.2"), {400, 505}, id="HTTP/1.2"),
    pytest.param(request(first="POST /mcp HTTP/2.0"), {400, 505}, id="HTTP/2.0"),
    pytest.param(request(first="POST /mcp"), {400, 505}, id="HTTP/0.9"),
    pytest.param(request(first="POST /mcp http/1.1"), {400}, id="a lower-case version"),
    pytest.param(request(first="BREW /mcp HTTP/1.1"), {400, 405, 501}, id="an unknown method"),
    pytest.param(request(first="post /mcp HTTP/1.1"), {400, 405, 501}, id="a lower-case method"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", {400, 505}, id="the preface of HTTP/2"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 507, {400}, id="TLS on the plain port"),
    pytest.param(b"\0" * 1000, {400}, id="zeros"),
    pytest.param(request(Expect="101-switch"), {417}, id="an unknown Expect"),
]

ELSEWHERE = [
    pytest.param(request(first="POST /mcp/../mcp HTTP/1.1"), {400, 404}, id="dots in the target"),
    pytest.param(request(first="POST //mcp HTTP/1.1"), {400, 404}, id="two slashes"),
    pytest.param(request(first="POST /mcp%2Fother HTTP/1.1"), {400, 404}, id="an escaped slash"),
    pytest.param(request(first="POST /mcp/nowhere HTTP/1.1"), {404}, id="an unknown endpoint"),
    pytest.param(request(first="POST /elsewhere HTTP/1.1"), {404}, id="an unknown path"),
]

BODIES = [
    pytest.param(post(b"{" * 10, Content_Length=str(4 * MIB + 1)), {413}, None, id="a length over the bound"),
    pytest.param(post(b"", Content_Type="application/json"), {400}, -32700, id="an empty body"),
    pytest.param(request(Content_Type="text/plain"), {415}, None, id="text/plain"),
    pytest.param(request(Content_Type=None), {415}, None, id="no content type"),
    pytest.param(request(Content_Type="application/x-www-form-urlencoded"), {415}, None, id="a form"),
    pytest.param(request(Content_Type="application/jsonx"), {415}, None, id="application/jsonx"),
    pytest.param(request("Content-Encoding: gzip"), {400, 415}, None, id="a compressed body"),
    pytest.param(post(b"hello"), {400}, -32700, id="not JSON"),
    pytest.param(post(BODY[:-1]), {400}, -32700, id="half of a JSON object"),
    pytest.param(post(BODY + b"}"), {400}, -32700, id="something behind the object"),
    pytest.param(post(BODY + BODY), {400}, -32700, id="two objects"),
    pytest.param(post(BODY.replace(b"hello", b"\xff\xfe")), {400}, -32700, id="invalid UTF-8"),
    pytest.param(post(BODY.replace(b"hello", b"\xed\xa0\x80")), {400}, -32700, id="a surrogate in UTF-8"),
    pytest.param(post(BODY.replace(b"hello", b"\xc0\xaf")), {400}, -32700, id="overlong UTF-8"),
    pytest.param(post(BODY.replace(b"hello", b"a\nb")), {400}, -32700, id="a raw line feed in a string"),
    pytest.param(post(BODY.replace(b'"hello"', b"NaN")), {400}, -32700, id="NaN"),
    pytest.param(
        post(BODY.replace(b'"hello"', b"[" * 100_000 + b"]" * 100_000)), {400}, -32700, id="100,000 arrays deep"
    ),
    pytest.param(
        post(BODY.replace(b'"hello"', b'{"a":' * 100_000 + b"1" + b"}" * 100_000)),
        {400},
        -32700,
        id="100,000 objects deep",
    ),
    pytest.param(post(BODY.replace(b'"id"', b'"method": "tools/list", "id"')), {400}, -32700, id="the method twice"),
    pytest.param(
        post(BODY.replace(b'"params"', b'"params": {"name": "x"}, "params"')), {400}, -32700, id="params twice"
    ),
    pytest.param(
        post(BODY.replace(b'"name": "up__echo"', b'"name": "up__slow", "name": "up__echo"')),
        {400},
        -32700,
        id="the name twice",
    ),
    pytest.param(
        post(BODY.replace(b'"name": "up__echo"', b'"name": "up__slow", "na\\u006de": "up__echo"')),
        {400},
        -32700,
        id="the name twice, once escaped",
    ),
    pytest.param(post(b"[" + BODY + b"]"), {400}, -32600, id="a batch of one"),
    pytest.param(post(b"[" + BODY + b"," + BODY + b"]"), {400}, -32600, id="a batch"),
    pytest.param(post(b"[]"), {400}, -32600, id="an empty batch"),
    pytest.param(post(b"null"), {400}, -32600, id="null"),
    pytest.param(post(b'"text"'), {400}, -32600, id="a string"),
    pytest.param(post({**CALL, "jsonrpc": "1.0"}), {400}, -32600, id="JSON-RPC 1.0"),
    pytest.param(post({key: CALL[key] for key in ("id", "method", "params")}), {400}, -32600, id="no jsonrpc"),
    pytest.param(post({**CALL, "id": None}), {400}, -32600, id="an id of null"),
    pytest.param(post({**CALL, "id": 1.5}), {400}, -32600, id="an id of 1.5"),
    pytest.param(post({**CALL, "id": True}), {400}, -32600, id="an id of true"),
    pytest.param(post({**CALL, "id": {}}), {400}, -32600, id="an id that is an object"),
    pytest.param(
        request(body=json.dumps({**CALL, "method": 5}).encode()), {400}, -32600, id="a method that is a number"
    ),
    pytest.param(post({"jsonrpc": "2.0", "id": 1, "result": {}}), {400}, -32600, id="a response"),
    pytest.param(
        request(body=json.dumps({**CALL, "params": [1]}).encode()), {400}, -32602, id="params that are an array"
    ),
    pytest.param(
        request(body=json.dumps({**CALL, "params": "x"}).encode()), {400}, -32602, id="params that are a string"
    ),
]


def without_meta(*keys: str) -> dict[str, Any]:
    meta = {key: value for key, value in CALL["params"]["_meta"].items() if key not in keys}
    return {**CALL, "params": {**CALL["params"], "_meta": meta}}


def with_version(version: Any) -> dict[str, Any]:
    return {**CALL, "params": {**CALL["params"], "_meta": {**CALL["params"]["_meta"], PROTOCOL: version}}}


def sentinel(value: str) -> str:
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


PROTOCOL_ROWS = [
    pytest.param(request(Mcp_Method="tools/list"), {400}, -32020, id="Mcp-Method differs"),
    pytest.param(request(Mcp_Method="TOOLS/CALL"), {400}, -32020, id="Mcp-Method in capitals"),
    pytest.param(request(Mcp_Method=None), {400}, -32020, id="no Mcp-Method"),
    pytest.param(request("Mcp-Method: tools/call"), {400}, -32020, id="Mcp-Method twice"),
    pytest.param(request(Mcp_Name="up__slow"), {400}, -32020, id="Mcp-Name differs"),
    pytest.param(request(Mcp_Name="UP__ECHO"), {400}, -32020, id="Mcp-Name in capitals"),
    pytest.param(request(Mcp_Name=None), {400}, -32020, id="no Mcp-Name"),
    pytest.param(request("Mcp-Name: up__echo"), {400}, -32020, id="Mcp-Name twice"),
    pytest.param(request(Mcp_Name=sentinel("up__slow")), {400}, -32020, id="Mcp-Name differs, encoded"),
    pytest.param(request(Mcp_Name="=?base64?%%%?="), {400}, -32020, id="Mcp-Name encoded badly"),
    pytest.param(request(f"Mcp-Protocol-Version: {MODERN}"), {400}, None, id="the version twice"),
    pytest.param(request(f"Mcp-Protocol-Version: {LEGACY}"), {400}, None, id="two versions"),
    pytest.param(post(with_version("2027-01-01")), {400}, -32020, id="the version header and _meta differ"),
    pytest.param(post(with_version(LEGACY)), {400}, -32020, id="_meta says an older version than the header"),
    pytest.param(
        post(with_version("2027-01-01"), Mcp_Protocol_Version="2027-01-01"), {400}, -32022, id="an unknown version"
    ),
    pytest.param(post(without_meta(PROTOCOL)), {400}, -32602, id="no version in _meta"),
    pytest.param(post(without_meta(CAPABILITIES)), {400}, -32602, id="no capabilities in _meta"),
    pytest.param(post({**CALL, "params": {"name": "up__echo"}}), {400}, -32602, id="no _meta"),
    pytest.param(post(message("no/such/method")), {404}, -32601, id="an unknown method"),
    pytest.param(post(message("ping")), {404}, -32601, id="ping, which this revision has not"),
    pytest.param(post(message("logging/setLevel", {"level": "info"})), {404}, -32601, id="logging/setLevel, the same"),
    pytest.param(post(message("tools/call", {"name": "nope"})), {200}, -32602, id="an unknown tool"),
    pytest.param(
        post(message("tools/call", {"name": "up__nope"})), {200}, -32602, id="an unknown tool of a known server"
    ),
    pytest.param(post(message("resources/read", {"uri": "x://y"})), {200}, -32602, id="an unknown resource"),
    pytest.param(post(message("prompts/get", {"name": "up__nope"})), {200}, -32602, id="an unknown prompt"),
    pytest.param(request(body=json.dumps(message("tools/call", {})).encode()), {400}, None, id="a call without a name"),
]

ACCEPTED = [
    pytest.param(request(), id="as it should be"),
    pytest.param(chunked(BODY), id="chunked"),
    pytest.param(chunked(BODY[:7], BODY[7:8], BODY[8:]), id="in three chunks"),
    pytest.param(chunked(last=b"%x;name=value\r\n%b\r\n0;last\r\n\r\n" % (len(BODY), BODY)), id="chunk extensions"),
    pytest.param(
        chunked(BODY, last=b"0\r\nX-Trailer: a\r\nHost: evil.example.com\r\nMcp-Name: x\r\n\r\n"),
        id="trailers are ignored",
    ),
    pytest.param(chunked(last=b"%X\r\n%b\r\n000\r\n\r\n" % (len(BODY), BODY)), id="capital hex and leading zeros"),
    pytest.param(b"\r\n" + request(), id="an empty line before"),
    pytest.param(request(Content_Type="application/json; charset=utf-8"), id="a charset"),
    pytest.param(request(Content_Type="APPLICATION/JSON"), id="content type in capitals"),
    pytest.param(request(Host="localhost:1234"), id="Host localhost"),
    pytest.param(request(Host="[::1]:8080"), id="Host ::1"),
    pytest.param(request(Origin="http://@"), id="our own Origin"),
    pytest.param(request(first="POST http://@/mcp HTTP/1.1"), id="absolute form"),
    pytest.param(request(first="POST /mcp?x=1&y=%00 HTTP/1.1"), id="a query"),
    pytest.param(request(first="POST /mcp/default HTTP/1.1"), id="the default endpoint by its name"),
    pytest.param(request(first="POST /mcp/other HTTP/1.1"), id="another endpoint"),
    pytest.param(
        request(Connection="Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="AAMAAABkAAQAoAAAAAIAAAAA"),
        id="an offer of h2c",
    ),
    pytest.param(
        request(Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ=="),
        id="an offer of websocket",
    ),
    pytest.param(request(Expect="100-continue"), id="Expect: 100-continue"),
    pytest.param(request(Expect="100-Continue"), id="Expect in capitals"),
    pytest.param(request(Mcp_Name=sentinel("up__echo")), id="Mcp-Name encoded"),
    pytest.param(request(Mcp_Session_Id="whatever", Last_Event_ID="7"), id="a session id, which this revision ignores"),
    pytest.param(request(f"X-Long: {'y' * 8000}"), id="a header of 8,000 bytes"),
    pytest.param(request(b"X-High: \xc3\xa4"), id="a header value over 127"),
    pytest.param(request("X-Empty:", "X-Tab:\ta\t"), id="blanks around a value"),
    pytest.param(post({**CALL, "id": "text"}), id="an id that is a string"),
    pytest.param(post({**CALL, "id": 0}), id="an id of 0"),
    pytest.param(post({**CALL, "id": -(2**53)}), id="a large negative id"),
    pytest.param(post({**CALL, "unknown": {"kept": [1]}}), id="an unknown key"),
    pytest.param(post(json.dumps(CALL, indent=2).encode()), id="white space"),
    pytest.param(post(BODY.replace(b"up__echo", b"up\\u005f_echo")), id="an escaped name"),
]
METHODS = [
    pytest.param("GET", "/mcp", {405}, id="GET"),
    pytest.param("HEAD", "/mcp", {405}, id="HEAD"),
    pytest.param("PUT", "/mcp", {405}, id="PUT"),
    pytest.param("PATCH", "/mcp", {405}, id="PATCH"),
    pytest.param("TRACE", "/mcp", {405}, id="TRACE"),
    pytest.param("OPTIONS", "/mcp", {204, 405}, id="OPTIONS"),
    pytest.param("DELETE", "/mcp", {400, 404, 405}, id="DELETE without a session"),
    pytest.param("GET", "/nowhere", {404}, id="GET of an unknown path"),
    pytest.param("HEAD", "/nowhere", {404}, id="HEAD of an unknown path"),
    pytest.param("GET", "/.well-known/nowhere", {404}, id="GET of an unknown document"),
]

each_way = pytest.mark.parametrize("bytewise", [pytest.param(False, id="whole"), pytest.param(True, id="bytewise")])


def exchange(gateway: Gateway, data: bytes, bytewise: bool) -> tuple[Response, Wire]:
    wire = Wire(gateway.mcp)
    data = data.replace(b": @", b": " + wire.host.encode()).replace(b"://@", b"://" + wire.host.encode())
    if bytewise and len(data) > 4096:  # by pieces of a size that no buffer of ours has
        for start in range(0, len(data), 997):
            wire.send(data[start : start + 997])
    else:
        wire.send(data, bytewise=bytewise)
    return wire.read(no_body=data.startswith(b"HEAD ")), wire


def check_refusal(response: Response, statuses: Collection[int], code: int | None = None) -> None:
    """The right status, and a JSON-RPC error that names its reason."""
    assert response.status in statuses, response
    assert response.header("content-type") == "application/json", response
    error = response.json["error"]
    assert code is None or error["code"] == code, response
    assert error["message"] and error["data"]["reason"], response
    assert b"narthex/" not in response.body.lower() and b"Traceback" not in response.body


@each_way
@pytest.mark.parametrize(("data", "statuses"), SMUGGLING)
def test_what_two_parsers_could_read_differently_is_refused_and_the_connection_ends(
    gateway: Gateway, healthy: None, data: bytes, statuses: set[int], bytewise: bool
) -> None:
    response, wire = exchange(gateway, data, bytewise)
    with wire:
        check_refusal(response, statuses)
        assert wire.wait_closed() == b"", "a second response"


@each_way
@pytest.mark.parametrize(("data", "statuses"), HEAD)
def test_a_wrong_head_is_refused(
    gateway: Gateway, healthy: None, data: bytes, statuses: set[int], bytewise: bool
) -> None:
    response, wire = exchange(gateway, data, bytewise)
    wire.close()
    check_refusal(response, statuses)


@each_way
@pytest.mark.parametrize(("data", "statuses"), ELSEWHERE)
def test_nothing_is_served_elsewhere(
    gateway: Gateway, healthy: None, data: bytes, statuses: set[int], bytewise: bool
) -> None:
    response, wire = exchange(gateway, data, bytewise)
    wire.close()
    assert response.status in statuses, response
    assert b"up__echo" not in response.body


@each_way
@pytest.mark.parametrize(("data", "statuses", "code"), BODIES)
def test_a_wrong_body_is_refused(
    gateway: Gateway, healthy: None, data: bytes, statuses: set[int], code: int | None, bytewise: bool
) -> None:
    response, wire = exchange(gateway, data, bytewise)
    wire.close()
    check_refusal(response, statuses, code)


@each_way
@pytest.mark.parametrize(("data", "statuses", "code"), PROTOCOL_ROWS)
def test_what_the_protocol_forbids_is_refused_with_its_code_and_the_connection_lives(
    gateway: Gateway, healthy: None, data: bytes, statuses: set[int], code: int, bytewise: bool
) -> None:
    response, wire = exchange(gateway, data, bytewise)
    with wire:
        check_refusal(response, statuses, code)
        if code == -32022:
            assert MODERN in response.json["error"]["data"]["supported"]
            assert response.json["error"]["data"]["requested"] == "2027-01-01"
        wire.send(request().replace(b": @", b": " + wire.host.encode()))
        assert wire.read().status == 200


@each_way
@pytest.mark.parametrize("data", ACCEPTED)
def test_what_is_right_is_answered_and_the_connection_lives(
    gateway: Gateway, healthy: None, data: bytes, bytewise: bool
) -> None:
    response, wire = exchange(gateway, data, bytewise)
    with wire:
        assert response.status == 200, response
        assert text(response.answer["result"]) == "hello"
        wire.send(request().replace(b": @", b": " + wire.host.encode()))
        assert wire.read().answer["id"] == 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(request("Content-Length: 5"), id="bad framing"),
        pytest.param(request(Host="evil.example.com"), id="a foreign Host"),
        pytest.param(post(b"hello"), id="not JSON"),
        pytest.param(post(message("tools/call", {"name": "nope"})), id="an unknown tool"),
    ],
)
def test_every_refusal_names_its_decision(gateway: Gateway, data: bytes) -> None:
    response, wire = exchange(gateway, data, False)
    wire.close()
    assert UUID.fullmatch(response.json["error"]["data"].get("decisionId", "")), response


@pytest.mark.parametrize(("method", "path", "statuses"), METHODS)
def test_other_methods(gateway: Gateway, healthy: None, method: str, path: str, statuses: set[int]) -> None:
    with Wire(gateway.mcp) as wire:
        response = wire.request(method, path)
        assert response.status in statuses, response
        if response.status == 405:
            assert "POST" in (response.header("allow") or "")
        assert not wire.is_closed() and not wire._buffer, "bytes behind an answer without a body"
        assert wire.request("GET", "/mcp").status == 405


def test_the_ids_of_json_rpc_come_back_as_they_were(gateway: Gateway) -> None:
    for id_ in (0, 7, -1, 2**53, "", "seven", "7", 'é " \\ \n'):
        with Wire(gateway.mcp) as wire:
            body = {**CALL, "id": id_}
            wire.send(
                render("POST", wire.path, [("host", wire.host), *routing_headers(body)], json.dumps(body).encode())
            )
            answer = wire.read().answer
            assert answer["id"] == id_ and type(answer["id"]) is type(id_)


@each_way
def test_an_expected_100_comes_before_the_body_is_sent(gateway: Gateway, bytewise: bool) -> None:
    with Wire(gateway.mcp) as wire:
        head, _, body = (
            request(Expect="100-continue").replace(b": @", b": " + wire.host.encode()).partition(b"\r\n\r\n")
        )
        wire.send(head + b"\r\n\r\n", bytewise=bytewise)
        assert wire.read_head(skip_interim=False).status == 100
        wire.send(body, bytewise=bytewise)
        assert text(wire.read().answer["result"]) == "hello"


def test_a_body_that_will_be_refused_is_not_asked_for(gateway: Gateway) -> None:
    with Wire(gateway.mcp) as wire:
        data = request(Expect="100-continue", Content_Length=str(5 * MIB)).replace(b": @", b": " + wire.host.encode())
        wire.send(data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert wire.read_head(skip_interim=False).status == 413


@pytest.mark.parametrize("chunk", [None, 60_000], ids=["by its length", "chunked"])
def test_a_body_over_the_bound_is_refused_while_it_is_still_being_sent(
    gateway: Gateway, healthy: None, chunk: int | None
) -> None:
    big = BODY.replace(b"hello", b"x" * (8 * MIB))
    data = request(body=big) if chunk is None else chunked(*(big[at : at + chunk] for at in range(0, len(big), chunk)))
    with Wire(gateway.mcp) as wire:
        wire.send(data.replace(b": @", b": " + wire.host.encode()))
        check_refusal(wire.read(), {413})


def test_a_body_just_under_the_bound_is_relayed(gateway: Gateway) -> None:
    sent = "x" * (4 * MIB - 2000)
    assert text(gateway.client().call("up__echo", {"text": sent})) == sent


@each_way
@pytest.mark.parametrize("count", [2, 50])
def test_pipelined_requests_are_answered_in_their_order(gateway: Gateway, count: int, bytewise: bool) -> None:
    with Wire(gateway.mcp) as wire:
        calls = [message("tools/call", {"name": "up__echo", "arguments": {"text": f"n{n}"}}, n) for n in range(count)]
        wire.send(
            b"".join(
                render("POST", wire.path, [("host", wire.host), *routing_headers(call)], json.dumps(call).encode())
                for call in calls
            ),
            bytewise=bytewise,
        )
        for n in range(count):
            answer = wire.read().answer
            assert (answer["id"], text(answer["result"])) == (n, f"n{n}")


def test_pipelined_requests_cut_anywhere_keep_their_bytes_in_order(gateway: Gateway) -> None:
    """Pieces arrive before, while and just after an answer is written: none may overtake another."""
    chance = random.Random(7)
    for _ in range(60):
        with Wire(gateway.mcp) as wire:
            calls = [message("tools/call", {"name": "up__echo", "arguments": {"text": f"n{n}"}}, n) for n in range(20)]
            head = [("host", wire.host)]
            data = b"".join(
                render("POST", wire.path, [*head, *routing_headers(call)], json.dumps(call).encode()) for call in calls
            )
            cuts = sorted(chance.sample(range(1, len(data)), 6))
            for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                wire.send(data[start:end])
                time.sleep(chance.choice([0, 0.0003, 0.001]))
            for n in range(20):
                answer = wire.read().answer
                assert (answer["id"], text(answer["result"])) == (n, f"n{n}")


def test_a_pipelined_request_behind_a_refused_one_is_never_run(gateway: Gateway, healthy: None) -> None:
    with Wire(gateway.mcp) as wire:
        wire.send((request("Content-Length: 5") + INNER).replace(b": @", b": " + wire.host.encode()))
        assert wire.read().status == 400
        assert wire.wait_closed() == b""


@pytest.mark.parametrize("keep", [False, True], ids=["closes", "keep-alive"])
def test_http_1_0(gateway: Gateway, keep: bool) -> None:
    with Wire(gateway.mcp) as wire:
        changed = {"Connection": "keep-alive"} if keep else {}
        wire.send(request(first="POST /mcp HTTP/1.0", **changed).replace(b": @", b": " + wire.host.encode()))
        response = wire.read()
        assert text(response.answer["result"]) == "hello"
        assert "transfer-encoding" not in dict(response.headers)
        assert wire.is_closed() is not keep or wait_for(wire.is_closed)


def test_a_connection_is_closed_when_asked(gateway: Gateway) -> None:
    with Wire(gateway.mcp) as wire:
        wire.send(request(Connection="close").replace(b": @", b": " + wire.host.encode()))
        response = wire.read()
        assert response.header("connection") == "close" and text(response.answer["result"]) == "hello"
        assert wire.wait_closed() == b""


def test_a_notification_is_accepted_without_a_body(gateway: Gateway) -> None:
    response = gateway.client().post("notifications/whatever", notification=True)
    assert (response.status, response.body) == (202, b"")


# --- legacy sessions ----------------------------------------------------------------------------------------------


def with_session(gateway: Gateway, session: str | None, endpoint: str = "default", **more: str) -> Response:
    call = message("tools/call", {"name": "up__echo", "arguments": {"text": "hello"}}, era="legacy")
    with Wire(gateway.url(endpoint)) as wire:
        headers = [("host", wire.host), *routing_headers(call, era="legacy", session=session), *more.items()]
        wire.send(render("POST", wire.path, headers, json.dumps(call).encode()))
        return wire.read()


def flipped(session: str, index: int) -> str:
    return session[:index] + ("A" if session[index] != "A" else "B") + session[index + 1 :]


def test_a_legacy_session_is_a_sealed_handle(gateway: Gateway, healthy: None) -> None:
    session = gateway.client(era="legacy").session or ""
    assert 0 < len(session) <= 512 and all(33 <= ord(letter) <= 126 for letter in session)
    assert text(with_session(gateway, session).answer["result"]) == "hello"
    refused: list[str] = [flipped(session, index) for index in range(0, len(session) - 1, 7)]
    refused += [session[:-2], session + "AA", "x", "a" * 5000, session.swapcase()]
    for wrong in refused:
        check_refusal(with_session(gateway, wrong), {404})


def test_a_session_of_one_endpoint_is_none_of_another(gateway: Gateway) -> None:
    session = gateway.client("other", "legacy").session
    assert with_session(gateway, session, "other").status == 200
    check_refusal(with_session(gateway, session), {404})


def test_a_deleted_session_is_gone(gateway: Gateway) -> None:
    client = gateway.client(era="legacy")
    with Wire(gateway.mcp) as wire:
        headers = [("mcp-session-id", client.session or ""), ("mcp-protocol-version", LEGACY)]
        assert wire.request("DELETE", headers=headers).status in (200, 204)
        assert not wire._buffer
        assert wire.request("DELETE", headers=headers).status == 404
    check_refusal(with_session(gateway, client.session), {404})


def test_a_legacy_client_need_not_keep_a_session(gateway: Gateway) -> None:
    for version in ({}, {"mcp-protocol-version": LEGACY}):
        assert text(with_session(gateway, None, **version).answer["result"]) == "hello"


def test_a_legacy_client_with_an_unknown_version_is_told_so(gateway: Gateway) -> None:
    session = gateway.client(era="legacy").session
    call = message("ping", era="legacy")
    with Wire(gateway.mcp) as wire:
        headers = [
            ("mcp-session-id", session or ""),
            ("mcp-protocol-version", "1999-01-01"),
            *routing_headers(call, era="legacy"),
        ]
        response = wire.request("POST", headers=headers, body=json.dumps(call).encode())
        check_refusal(response, {400})


def test_only_a_session_has_a_stream_of_its_own(gateway: Gateway) -> None:
    with Wire(gateway.mcp) as wire:
        assert wire.request("GET", headers=[("accept", "text/event-stream")]).status == 405


@pytest.mark.parametrize("asked", ["2024-11-05", "2025-03-26", "2025-06-18", LEGACY])
def test_initialize_answers_in_the_version_asked_for(gateway: Gateway, asked: str) -> None:
    assert _initialize(gateway, asked) == asked


@pytest.mark.parametrize("asked", ["1.0", "2099-01-01", MODERN])
def test_initialize_offers_the_newest_legacy_version_to_who_asks_for_another(gateway: Gateway, asked: str) -> None:
    assert _initialize(gateway, asked) == LEGACY


def _initialize(gateway: Gateway, version: str) -> str:
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}}
    body = message("initialize", params, era="legacy")
    with Wire(gateway.mcp) as wire:
        response = wire.request("POST", headers=routing_headers(body, era="legacy"), body=json.dumps(body).encode())
        return str(response.answer["result"]["protocolVersion"])


def test_legacy_errors_travel_at_200(gateway: Gateway) -> None:
    client = Client(gateway.mcp, "legacy")
    for method, params, code in (
        ("no/such/method", {}, -32601),
        ("tools/call", {"name": "nope"}, -32602),
        ("resources/read", {"uri": "x://y"}, -32002),
    ):
        response = client.post(method, params)
        assert (response.status, response.answer["error"]["code"]) == (200, code), response
    assert client.result("ping") == {}


# --- slow clients -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(module_gateway: StartGateway, faulty: FaultyServer) -> Gateway:
    """A gateway with small bounds of time."""
    bounds = {"header_timeout": "500ms", "body_timeout": "500ms", "keep_alive": "1s"}
    server = {"url": faulty.url(era="modern")}
    return module_gateway({"version": 1, "servers": {"up": server}, "bounds": bounds})


HALF = request()[:-20]


@pytest.mark.parametrize(
    ("data", "drip"),
    [
        pytest.param(b"", b"", id="says nothing"),
        pytest.param(b"POST /mcp HTT", b"", id="stops in the request line"),
        pytest.param(HALF[:120], b"", id="stops in the headers"),
        pytest.param(HALF, b"", id="stops in the body"),
        pytest.param(b"POST /mcp HTTP/1.1\r\n", b"X-A: b\r\n", id="drips headers"),
        pytest.param(b"", b"\r\n", id="drips empty lines"),
        pytest.param(request(Content_Length="100000")[: -len(BODY)], b"x", id="drips a body"),
        pytest.param(chunked(last=b"")[: -len(BODY)], b"1\r\nx\r\n", id="drips chunks"),
    ],
)
def test_a_slow_client_is_let_go(impatient: Gateway, data: bytes, drip: bytes) -> None:
    with Wire(impatient.mcp) as wire:
        wire.send(data.replace(b": @", b": " + wire.host.encode()))

        def gone() -> bool:
            wire.send(drip)
            time.sleep(0.03 if drip else 0)
            return wire.is_closed()

        wait_for(gone, "the end of the connection")
        if wire._buffer:
            check_refusal(wire.read(), {400, 408})
    wait_for(lambda: _served(impatient), "the next client to be served")


def _served(impatient: Gateway) -> bool:
    """Is a call answered? One whose client stands still for half a second is not."""
    response = impatient.client().post("tools/call", {"name": "up__echo", "arguments": {"text": "on"}})
    return response.status == 200 and text(response.answer["result"]) == "on"


def test_an_idle_connection_is_closed_after_its_time(impatient: Gateway) -> None:
    with Wire(impatient.mcp) as wire:
        wire.send(request().replace(b": @", b": " + wire.host.encode()))
        assert wire.read().status in (200, 408), "408: this client stood still before it asked"
        assert wire.wait_closed() == b""


def test_connections_over_the_bound_are_refused_and_later_ones_served(
    start_gateway: StartGateway, faulty: FaultyServer
) -> None:
    server = {"url": faulty.url(era="modern")}
    few = start_gateway({"version": 1, "servers": {"up": server}, "bounds": {"max_connections": 8}})
    assert _refused(few, 10) >= 2
    wait_for(lambda: _refused(few, 0) == 0, "room for new connections")


def _refused(gateway: Gateway, idle: int) -> int:
    """How many of `idle` + 1 connections opened together are refused with 503 and Retry-After."""
    wires = [Wire(gateway.mcp) for _ in range(idle + 1)]
    try:
        refused = 0
        for wire in wires:
            wire.send(request().replace(b": @", b": " + wire.host.encode()))
        for wire in wires:
            response = wire.read()
            assert response.status in (200, 503), response
            if response.status == 503:
                assert response.header("retry-after")
                refused += 1
        return refused
    finally:
        for wire in wires:
            wire.close()


Check = Callable[[Response], None]
