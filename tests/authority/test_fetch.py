"""Fetching on real sockets: bounds, redirects, names that change their address, a real CONNECT proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from narthex.authority.fetch import Fetched, Fetcher
from narthex.errors import AuthorityUnavailable
from narthex.flow.upstream.dns import Address
from narthex.types import Egress
from tests.flow.upstream.test_dial import V4, Authority, ConnectProxy, make_authority, serving

NAME = "server.test"
LOOPBACK = (Address(V4, "127.0.0.1"),)
ALLOWED = (NAME,)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("ca"))


def run(work: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work, 60)

    asyncio.run(bounded())


class Site:
    """Answers each path with the bytes given for it; keeps the heads it read."""

    def __init__(self, pages: dict[str, bytes], authority: Authority | None = None) -> None:
        self.pages = pages
        self.requests: list[bytes] = []
        self.connections = 0
        self._authority = authority

    def serving(self) -> AbstractAsyncContextManager[int]:
        return serving(self.handle, self._authority.server if self._authority else None)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0
                )
                self.requests.append(head + await reader.readexactly(length))
                writer.write(self.pages[head.split(b" ")[1].decode()])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def page(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def moved(location: str) -> bytes:
    return page(b"", "302 Found", f"Location: {location}")


def fetcher(
    authority: Authority | None = None,
    *,
    lookup: Callable[[str], tuple[Address, ...]] = lambda host: LOOPBACK,
    private: tuple[str, ...] = ALLOWED,
    http: tuple[str, ...] = (),
    proxy: str | None = None,
) -> Fetcher:
    egress = Egress(proxy=proxy, ca=authority.ca if authority else "system", allow_private=private, allow_http=http)
    return Fetcher(egress, environ={}, lookup=lookup)


async def refusal(fetching: Awaitable[Fetched]) -> AuthorityUnavailable:
    with pytest.raises(AuthorityUnavailable) as caught:
        await fetching
    return caught.value


def test_a_document_over_tls_and_the_connection_is_used_again(authority: Authority) -> None:
    async def work() -> None:
        site = Site({"/keys?x=1": page(b'{"keys":[]}', "200 OK", "Content-Type: application/json")}, authority)
        async with site.serving() as port:
            fetch = fetcher(authority)
            for _ in range(2):
                found = await fetch.fetch(f"https://{NAME}:{port}/keys?x=1")
                assert (found.status, found.body) == (200, b'{"keys":[]}')
                assert found.headers["content-type"] == "application/json"
            assert site.connections == 1
            fetch.close()

    run(work())


def test_a_form_is_posted_with_its_headers(authority: Authority) -> None:
    async def work() -> None:
        site = Site({"/token": page(b"{}", "400 Bad Request")}, authority)
        async with site.serving() as port:
            headers = (("Authorization", "Basic eA=="), ("Content-Type", "application/x-www-form-urlencoded"))
            found = await fetcher(authority).fetch(
                f"https://{NAME}:{port}/token", method="POST", headers=headers, body=b"grant_type=x"
            )
            assert found.status == 400, "what a status means is the caller's business"
            assert site.requests[0].startswith(b"POST /token HTTP/1.1\r\n")
            assert b"\r\nAuthorization: Basic eA==\r\n" in site.requests[0]
            assert site.requests[0].endswith(b"\r\n\r\ngrant_type=x")

    run(work())


def test_a_name_that_leads_to_a_private_address_is_not_connected_to(authority: Authority) -> None:
    async def work() -> None:
        site = Site({}, authority)
        async with site.serving() as port:
            error = await refusal(fetcher(authority, private=()).fetch(f"https://sso.example.com:{port}/"))
            assert error.refused and "loopback" in error.detail
            assert site.connections == 0

    run(work())


def test_one_private_address_among_public_ones_is_enough() -> None:
    async def work() -> None:
        both = (Address(V4, "192.0.2.1"), Address(V4, "93.184.216.34"))
        assert (await refusal(fetcher(lookup=lambda host: both).fetch("https://sso.example.com/"))).refused

    run(work())


def test_rebinding_the_address_that_was_checked_is_the_one_connected_to(authority: Authority) -> None:
    """A name that says a public address first and loopback from then on: nobody asks it the second time."""
    asked: list[str] = []

    def rebinding(host: str) -> tuple[Address, ...]:
        asked.append(host)
        return (Address(V4, "203.0.113.9"),) if len(asked) == 1 else LOOPBACK

    async def work() -> None:
        site = Site({"/": page(b"secret")}, authority)
        async with site.serving() as port:
            fetch = fetcher(authority, lookup=rebinding, private=("203.0.113.0/24",))
            first = await refusal(fetch.fetch(f"https://sso.example.com:{port}/", timeout_s=2.5))
            assert asked == ["sso.example.com"] and not first.refused, "looked up once; it hangs, nothing is there"
            later = fetcher(authority, lookup=rebinding, private=())
            assert (await refusal(later.fetch(f"https://sso.example.com:{port}/"))).refused, "a new answer, a new check"
            assert site.connections == 0

    run(work())


def test_connections_of_the_operators_addresses_are_not_for_learnt_ones(authority: Authority) -> None:
    async def work() -> None:
        site = Site({"/": page(b"ok")}, authority)
        async with site.serving() as port:
            fetch = fetcher(authority, private=())
            url = f"https://{NAME}:{port}/"
            assert (await fetch.fetch(url, learnt=False)).body == b"ok"
            assert (await refusal(fetch.fetch(url))).refused

    run(work())


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("http://server.test:{port}/next", id="to http"),
        pytest.param("https://127.0.0.1:{port}/next", id="to loopback"),
        pytest.param("https://169.254.169.254/latest/", id="to metadata"),
        pytest.param("//localhost:{port}/next", id="without a scheme"),
        pytest.param("file:///etc/passwd", id="to a file"),
        pytest.param("https://u@server.test:{port}/next", id="with a user name"),
    ],
)
@pytest.mark.parametrize("learnt", [True, False], ids=["learnt", "operator's"])
def test_a_redirect_is_checked_like_any_address(authority: Authority, location: str, learnt: bool) -> None:
    async def work() -> None:
        site = Site({"/next": page(b"secret")}, authority)
        async with site.serving() as port:
            site.pages["/"] = moved(location.format(port=port))
            assert (await refusal(fetcher(authority).fetch(f"https://{NAME}:{port}/", learnt=learnt))).refused
            assert len(site.requests) == 1

    run(work())


def test_a_redirect_to_another_origin_carries_no_headers(authority: Authority) -> None:
    async def work() -> None:
        here, there = Site({}, authority), Site({"/b": page(b"there")}, authority)
        async with here.serving() as one, there.serving() as two:
            here.pages = {"/": moved("/a"), "/a": moved(f"https://{NAME}:{two}/b")}
            found = await fetcher(authority).fetch(f"https://{NAME}:{one}/", headers=(("Authorization", "s3cret"),))
            assert found.body == b"there" and found.url.endswith("/b")
            assert [b"s3cret" in head for head in here.requests] == [True, True]
            assert b"s3cret" not in there.requests[0]

    run(work())


def test_redirects_end_and_a_post_follows_none(authority: Authority) -> None:
    async def work() -> None:
        site = Site({"/": moved("/")}, authority)
        async with site.serving() as port:
            error = await refusal(fetcher(authority).fetch(f"https://{NAME}:{port}/"))
            assert "without end" in error.detail and len(site.requests) == 4
            found = await fetcher(authority).fetch(f"https://{NAME}:{port}/", method="POST", body=b"x")
            assert found.status == 302

    run(work())


ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(page(b"x" * 2000), id="with its length"),
        pytest.param(ENDLESS + b"\r\n" + 2 * (b"400\r\n" + b"x" * 1024 + b"\r\n"), id="chunked"),
        pytest.param(ENDLESS + b"X: " + b"x" * 70_000 + b"\r\n\r\n", id="its head"),
        pytest.param(
            ENDLESS + b"Content-Type: text/event-stream\r\n\r\n" + 2 * (b"3f9\r\n" + b"data: x\n\n" * 113 + b"\r\n"),
            id="a stream of small events",
        ),
        pytest.param(page(b"x", "200 OK", "Content-Encoding: gzip"), id="a coding that was not offered"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", id="framed twice"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="not HTTP"),
    ],
)  # fmt: skip
def test_an_answer_beyond_its_bounds_is_none(authority: Authority, answer: bytes) -> None:
    async def work() -> None:
        site = Site({"/": answer}, authority)
        async with site.serving() as port:
            error = await refusal(fetcher(authority).fetch(f"https://{NAME}:{port}/", max_bytes=1500))
            assert not error.refused and f"https://{NAME}:{port}" in error.detail

    run(work())


def test_a_server_that_says_nothing_is_given_up(authority: Authority) -> None:
    async def work() -> None:
        site = Site({"/": b""}, authority)
        async with site.serving() as port:
            error = await refusal(fetcher(authority).fetch(f"https://{NAME}:{port}/", timeout_s=1.5))
            assert "within 1.5 s" in error.detail

    run(work())


def test_without_tls_only_to_loopback_and_to_who_is_named() -> None:
    async def work() -> None:
        site = Site({"/": page(b"ok")})
        async with site.serving() as port:
            url = f"http://{NAME}:{port}/"
            assert (await fetcher().fetch(f"http://127.0.0.1:{port}/", learnt=False)).body == b"ok"
            assert (await refusal(fetcher().fetch(url, learnt=False))).refused
            assert (await fetcher(http=(NAME,)).fetch(url, learnt=False)).body == b"ok"
            assert (await fetcher(http=(NAME,)).fetch(url)).body == b"ok"

    run(work())


def test_a_certificate_is_verified(authority: Authority, tmp_path: Path) -> None:
    async def work() -> None:
        other = make_authority(tmp_path)
        async with Site({}, authority).serving() as port:
            assert "not trusted" in (await refusal(fetcher(other).fetch(f"https://{NAME}:{port}/"))).detail

    run(work())


def test_through_a_proxy_a_name_that_we_know_to_be_private_is_refused(authority: Authority) -> None:
    async def work() -> None:
        proxy, site = ConnectProxy(), Site({"/": page(b"ok")}, authority)
        async with serving(proxy.handle) as proxy_port, site.serving() as port:
            through = f"http://127.0.0.1:{proxy_port}"
            url = f"https://{NAME}:{port}/"
            assert (await refusal(fetcher(authority, private=(), proxy=through).fetch(url))).refused
            assert proxy.heads == []

            def unknown(host: str) -> tuple[Address, ...]:
                raise OSError("not known here")

            found = await fetcher(authority, private=(), proxy=through, lookup=unknown).fetch(url)
            assert found.body == b"ok" and proxy.heads[0].startswith(f"CONNECT {NAME}:{port} ".encode())

    run(work())


@pytest.mark.parametrize("header", [("X", "a\r\nY: b"), ("X: b\r\nY", "a"), ("X", "a\0"), ("X", "ä"), ("", "a")])
def test_a_header_is_one_header(header: tuple[str, str]) -> None:
    async def work() -> None:
        assert (await refusal(fetcher().fetch("http://127.0.0.1:9/", learnt=False, headers=(header,)))).refused

    run(work())


def test_the_detail_holds_no_path_or_query() -> None:
    async def work() -> None:
        error = await refusal(fetcher().fetch("https://127.0.0.1/cb?code=s3cret"))
        assert "s3cret" not in error.detail and "s3cret" not in error.public

    run(work())
