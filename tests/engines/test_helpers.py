"""The helper processes, real ones, while a policy loops or eats, while they are killed, stopped, and talk nonsense."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from narthex.engines.frames import Flawed
from narthex.engines.helper import COMMAND, HelperGone, probe
from narthex.engines.helpers import MOST_WAITING, Broken, Helpers, TookTooLong
from tests.engines.policies import HEAD, LOOPS, asks, source
from tests.flow.gateway import run, until

DEADLINE_S = 0.3
FINE, DENIED = b"=true", b"=false"


@asynccontextmanager
async def running(
    text: str = LOOPS, deadline_s: float = DEADLINE_S, command: Sequence[str] = COMMAND
) -> AsyncIterator[Helpers]:
    helpers = Helpers(source(text), deadline_s, command)
    await helpers.start()
    pids = helpers.pids()
    try:
        yield helpers
    finally:
        pids += helpers.pids()
        helpers.close()
        await until(lambda: not any(map(alive, pids)))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def scripted(text: str) -> Sequence[str]:
    """A child that reads nothing of what it is sent, and does as `text` says."""
    return (sys.executable, "-c", "import os, sys, time\nos.read(0, 1 << 20)\n" + text)


LOADED = r"""os.write(0, len(b'{"uses":{"paths":[]}}').to_bytes(4) + b'{"uses":{"paths":[]}}')"""


def test_documents_in_a_row_are_answered_in_their_order() -> None:
    async def main() -> None:
        async with running() as helpers:
            asked = [helpers.ask(asks(amount=amount)) for amount in (1, 500, 2, 1000, 3)]
            assert await asyncio.gather(*asked) == [FINE, DENIED, FINE, DENIED, FINE]

    run(main)


def test_what_takes_too_long_is_over_at_its_deadline_and_holds_up_nobody() -> None:
    async def main() -> None:
        async with running() as helpers:
            loops = asyncio.ensure_future(helpers.ask(asks(loop=True)))
            await asyncio.sleep(0)
            others = [asyncio.ensure_future(helpers.ask(asks(amount=amount))) for amount in range(50)]
            done, _ = await asyncio.wait([loops, *others], return_when=asyncio.FIRST_COMPLETED)
            assert loops not in done
            assert await asyncio.gather(*others) == [FINE] * 50
            assert not loops.done(), "they were all there before it was given up"
            with pytest.raises(TookTooLong):
                await loops
            assert await helpers.ask(asks(amount=1)) == FINE
            await until(lambda: len(helpers.pids()) == 2)

    run(main)


def test_where_both_are_held_up_a_new_one_answers() -> None:
    async def main() -> None:
        async with running() as helpers:
            loops = [asyncio.ensure_future(helpers.ask(asks(loop=True), slot)) for slot in (0, 1)]
            await asyncio.sleep(0)
            assert await asyncio.gather(*(helpers.ask(asks(amount=n)) for n in range(5))) == [FINE] * 5
            found = await asyncio.gather(*loops, return_exceptions=True)
            assert [type(one) for one in found] == [TookTooLong] * 2

    run(main)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_helper_that_is_killed_costs_the_document_that_it_worked_on(number: signal.Signals) -> None:
    async def main() -> None:
        async with running(deadline_s=10.0) as helpers:
            loops = asyncio.ensure_future(helpers.ask(asks(loop=True)))
            await asyncio.sleep(0)
            others = [asyncio.ensure_future(helpers.ask(asks(amount=n))) for n in range(5)]
            os.kill(helpers.pids()[0], number)
            with pytest.raises(Broken):
                await loops
            assert await asyncio.gather(*others) == [FINE] * 5
            await until(lambda: len(helpers.pids()) == 2)
            assert helpers.restarts == 1

    run(main)


def test_both_killed_at_once_come_back() -> None:
    async def main() -> None:
        async with running() as helpers:
            for pid in helpers.pids():
                os.kill(pid, signal.SIGKILL)
            await until(lambda: not helpers.pids())
            assert await helpers.ask(asks(amount=1)) == FINE

    run(main)


def test_one_that_is_stopped_is_given_up_at_the_deadline() -> None:
    async def main() -> None:
        async with running() as helpers:
            os.kill(helpers.pids()[0], signal.SIGSTOP)
            with pytest.raises(TookTooLong):
                await helpers.ask(asks(amount=1))
            assert await helpers.ask(asks(amount=1)) == FINE

    run(main)


def test_one_that_eats_all_memory_ends() -> None:
    async def main() -> None:
        async with running(deadline_s=30.0) as helpers:
            with pytest.raises(Broken):
                await helpers.ask(asks(eat=True))
            assert await helpers.ask(asks(amount=1)) == FINE

    if sys.platform == "linux":
        run(main)


@pytest.mark.parametrize(
    ("text", "raised"),
    [
        pytest.param("", HelperGone, id="ends"),
        pytest.param("sys.exit(3)", HelperGone, id="fails"),
        pytest.param("os.write(0, b'\\xff' * 100)", HelperGone, id="a frame without end"),
        pytest.param("os.write(0, b'\\0\\0\\0\\2{}'); time.sleep(9)", Flawed, id="says neither yes nor no"),
        pytest.param("os.write(0, b'\\0\\0\\0\\2xx'); time.sleep(9)", HelperGone, id="nonsense"),
    ],
)
def test_what_does_not_come_up(text: str, raised: type[Exception]) -> None:
    async def main() -> None:
        with pytest.raises(raised):
            async with running(command=scripted(text)):
                pass

    run(main)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("os.read(0, 999); os.write(0, b'\\xff' * 100); time.sleep(9)", id="an answer without end"),
        pytest.param("os.read(0, 999); sys.exit()", id="ends"),
        pytest.param("time.sleep(9)", id="says nothing"),
    ],
)
def test_nonsense_is_no_answer(text: str) -> None:
    async def main() -> None:
        async with running(command=scripted(f"{LOADED}\n{text}")) as helpers:
            with pytest.raises((Broken, TookTooLong)):
                await helpers.ask(asks(amount=1))

    run(main)


def test_so_many_may_wait() -> None:
    async def main() -> None:
        async with running(command=scripted(f"{LOADED}\ntime.sleep(9)"), deadline_s=5.0) as helpers:
            asked = [asyncio.ensure_future(helpers.ask(b"{}")) for _ in range(3 * MOST_WAITING + 1)]
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            assert all(isinstance(one.exception(), Broken) for one in done)
            helpers.close()
            assert all(isinstance(one, Broken) for one in await asyncio.gather(*asked, return_exceptions=True))

    run(main)


def test_probing_says_what_is_wrong() -> None:
    probe(source(LOOPS))
    with pytest.raises(Flawed, match="says nothing"):
        probe(source(HEAD + "decision if input.x"))
