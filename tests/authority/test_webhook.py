"""The webhook: what it sends, how that is signed, and that whoever does not answer holds nothing up."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.authority.fetch import Fetcher
from narthex.authority.webhook import LATEST_S, LONGEST_PAUSE_S, MOST_WAITING, TRIES, Hook, key_of, signature
from narthex.errors import SecretMissing
from narthex.types import Egress, SecretName, SecretText, Webhook
from tests.flow.policy.approvals.test_approval import USED, WAITS

ASKED, APPROVED, _ = USED.steps(300)


class Receiver:
    """An HTTP server that keeps what it gets; the statuses it answers with come from a list, then 204."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def __aenter__(self) -> Receiver:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook?token=1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
                self.got.append((headers, await reader.readexactly(int(headers["content-length"]))))
                status = self.statuses.pop(0) if self.statuses else 204
                if status == 0:
                    break
                writer.write(
                    b"HTTP/1.1 %d X\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n" % status
                )
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.got) < count:
                await asyncio.sleep(0.001)


def fill(text: SecretText) -> str:
    return text.fill(lambda name: f"value of {name}")


async def parameters(approval: Any) -> Any:
    return {"arguments": {"amount": 500}}


class Told(Hook):
    pauses: list[float]
    done: list[tuple[str, int]]


def hook(spec: Webhook, fetcher: Fetcher, **more: Any) -> Told:
    pauses: list[float] = []
    done: list[tuple[str, int]] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    made = Told(
        spec, fetch=fetcher.fetch, fill=more.pop("fill", fill), parameters=parameters,
        done=lambda approval, number: done.append((approval.id, number)),
        now=lambda: 1000.9 + sum(pauses), chance=lambda: 0.5, sleep=sleep,
    )  # fmt: skip
    made.pauses, made.done = pauses, done
    return made


def run(case: Callable[[Fetcher], Awaitable[None]]) -> None:
    async def main() -> None:
        fetcher = Fetcher(Egress(proxy=None))
        try:
            async with asyncio.timeout(60):
                await case(fetcher)
        finally:
            fetcher.close()

    asyncio.run(main())


SECRET = SecretText((SecretName("hook"),))


def test_each_step_is_told_signed_and_in_order() -> None:
    async def case(fetcher: Fetcher) -> None:
        async with Receiver() as receiver:
            one = hook(Webhook(receiver.url, SECRET), fetcher)
            one.tell(WAITS, ASKED, 1)
            one.tell(USED, APPROVED, 2)
            await receiver.until(2)
            (headers, body), (_, second) = receiver.got
            assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("a-1.asked", "1000")
            signed = hmac.new(b"value of hook", b"a-1.asked.1000." + body, hashlib.sha256).digest()
            assert headers["webhook-signature"] == "v1," + base64.b64encode(signed).decode()
            told = json.loads(body)
            assert (told["type"], told["timestamp"]) == ("approval.asked", "1970-01-01T00:01:40.000000Z")
            assert (told["data"]["id"], told["data"]["name"], told["data"]["state"]) == (
                "a-1", "billing__refund", "pending",
            )  # fmt: skip
            assert "arguments" not in told["data"] and "params" not in told["data"]
            assert json.loads(second)["data"]["decided_by"] == "bob"

    run(case)


def test_arguments_are_told_where_the_operator_says_so() -> None:
    async def case(fetcher: Fetcher) -> None:
        async with Receiver() as receiver:
            hook(Webhook(receiver.url, arguments=True), fetcher).tell(WAITS, ASKED, 1)
            await receiver.until(1)
            headers, body = receiver.got[0]
            assert json.loads(body)["data"]["arguments"] == {"amount": 500}
            assert "webhook-signature" not in headers

    run(case)


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(500, id="a fault of its own"),
        pytest.param(302, id="a redirect: nobody is sent elsewhere"),
        pytest.param(0, id="it breaks off"),
    ],
)
def test_what_was_not_taken_is_told_again_with_the_same_id(status: int) -> None:
    async def case(fetcher: Fetcher) -> None:
        async with Receiver(status, status) as receiver:
            one = hook(Webhook(receiver.url, SECRET), fetcher)
            one.tell(WAITS, ASKED, 1)
            await receiver.until(3)
            assert {headers["webhook-id"] for headers, _ in receiver.got} == {"a-1.asked"}
            assert one.pauses == [1.0, 2.0]
            assert one.lost == 0

    run(case)


@pytest.mark.parametrize("status", [400, 410, 422])
def test_what_is_refused_is_given_up_in_the_end_and_the_next_one_told(status: int) -> None:
    async def case(fetcher: Fetcher) -> None:
        async with Receiver(503, *[status] * TRIES) as receiver:
            one = hook(Webhook(receiver.url), fetcher)
            one.tell(WAITS, ASKED, 1)
            one.tell(USED, APPROVED, 2)
            await receiver.until(TRIES + 2)
            assert one.lost == 1 and len(one.pauses) == TRIES
            assert receiver.got[-1][0]["webhook-id"] == "a-1.approved"
            await until(lambda: one.done == [("a-1", 1), ("a-1", 2)])

    run(case)


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_a_receiver_that_is_away_for_hours_gets_everything_in_order(status: int) -> None:
    async def case(fetcher: Fetcher) -> None:
        async with Receiver(*[status] * 40) as receiver:
            one = hook(Webhook(receiver.url), fetcher)
            one.tell(WAITS, ASKED, 1)
            one.tell(USED, APPROVED, 2)
            await until(lambda: len(one.done) == 2)
            assert [headers["webhook-id"] for headers, _ in receiver.got] == ["a-1.asked"] * 41 + ["a-1.approved"]
            assert one.lost == 0 and max(one.pauses) == LONGEST_PAUSE_S and sum(one.pauses) > 2 * 3600
            assert one.problem == ""

    run(case)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0)


def test_nothing_is_sent_without_the_secret_it_is_signed_with() -> None:
    known: dict[str, str] = {}

    def missing(text: SecretText) -> str:
        if known:
            return "value"
        raise SecretMissing("hook", "it is not in the store")

    async def case(fetcher: Fetcher) -> None:
        async with Receiver() as receiver:
            one = hook(Webhook(receiver.url, SECRET), fetcher, fill=missing)
            one.tell(WAITS, ASKED, 1)
            await until(lambda: len(one.pauses) > 5)
            assert receiver.got == [] and "secret" in one.problem
            known["hook"] = "there"
            await until(lambda: one.done)
            assert len(receiver.got) == 1

    run(case)


def test_without_tls_only_on_loopback() -> None:
    async def case(fetcher: Fetcher) -> None:
        one = hook(Webhook("http://hooks.example.com/x"), fetcher)
        one.tell(WAITS, ASKED, 1)
        await until(lambda: one.problem)
        assert "https" in one.problem
        one.close()

    run(case)


def test_what_is_a_day_old_is_given_up() -> None:
    async def case(fetcher: Fetcher) -> None:
        one = hook(Webhook("http://127.0.0.1:1/"), fetcher)
        one.tell(WAITS, ASKED, 1)
        await until(lambda: one.done)
        assert one.lost == 1 and sum(one.pauses) >= LATEST_S - 1000

    run(case)


def test_so_many_wait_in_memory() -> None:
    async def case(fetcher: Fetcher) -> None:
        one = hook(Webhook("http://127.0.0.1:1/"), fetcher)
        for number in range(MOST_WAITING):
            assert one.room == MOST_WAITING - number
            one.tell(replace(WAITS, id=f"a{number}"), ASKED, 1)
        assert one.room == 0
        one.close()

    run(case)


def test_the_signature_is_the_one_of_the_specification() -> None:
    """The example of standard-webhooks' own test vectors."""
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == expected
    assert key_of("plain text") == b"plain text"
    assert key_of("whsec_*not base64*") == b"whsec_*not base64*"
