"""How long sessions lasted, of clients and with servers: by what ended them, and bounded."""

from __future__ import annotations

from random import Random

import pytest

from narthex.errors import SessionNotFound
from narthex.flow.accept.sessions import Sessions
from narthex.flow.codec.seal import KeyRing
from narthex.telemetry.accounts import Labels, Times
from narthex.telemetry.session_times import SessionTimes
from narthex.testing import FakeClock
from narthex.types import LOCAL

TTL_S = 3600.0


def seconds(times: SessionTimes) -> dict[Labels, tuple[int, float]]:
    return {labels: (sum(one.counts()), one.seconds) for labels, one in times.read()}


def sessions(clock: FakeClock) -> Sessions:
    return Sessions(KeyRing((b"k" * 32,)), now=clock.wall, random=Random(1).randbytes, ttl_s=TTL_S)


def test_a_session_that_its_client_ends() -> None:
    clock = FakeClock(epoch=1_800_000_000.0)
    one = sessions(clock)
    handle = one.create(LOCAL, "default", "2025-06-18").encode()
    clock.advance(90.0)
    one.end(handle, LOCAL, "default")
    assert seconds(one.times) == {(("version", "2025-06-18"), ("ended", "client")): (1, 90.0)}
    with pytest.raises(SessionNotFound):
        one.end(handle, LOCAL, "default")
    assert sum(count for count, _ in seconds(one.times).values()) == 1, "it ends once"


def test_a_session_that_is_found_expired_is_counted_once() -> None:
    clock = FakeClock(epoch=1_800_000_000.0)
    one = sessions(clock)
    handle = one.create(LOCAL, "default", "2025-06-18").encode()
    one.find(handle, LOCAL, "default")
    clock.advance(TTL_S + 1)
    for _ in range(3):
        with pytest.raises(SessionNotFound):
            one.find(handle, LOCAL, "default")
    assert seconds(one.times) == {(("version", "2025-06-18"), ("ended", "expired")): (1, TTL_S)}


def test_they_are_bounded_and_none_is_lost() -> None:
    times = SessionTimes("server", most=4)
    for number in range(100):
        times.add(1.0, f"server-{number}")
    found = seconds(times)
    assert len(found) == 5
    assert found[(("server", "other"),)] == (96, 96.0)


@pytest.mark.parametrize("lasted", [-1.0, 0.0, 0.01, 1e5, 1e9])
def test_any_time_has_a_bucket(lasted: float) -> None:
    times = SessionTimes("server")
    times.add(lasted, "s")
    ((_, one),) = times.read()
    assert isinstance(one, Times)
    assert sum(one.counts()) == 1
    assert one.seconds == max(lasted, 0.0)
