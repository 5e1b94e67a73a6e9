"""Session handles open for whom they were made, until they end; every other attempt has one and the same answer."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule

from narthex.errors import SessionNotFound
from narthex.flow.accept.sessions import OPENED_S, Sessions
from narthex.flow.codec.seal import KeyRing
from narthex.testing import FakeClock
from narthex.types import LOCAL, Principal

TTL_S = 3600.0
NOW = 1_800_000_000.0
ALICE = Principal("acme", "https://sso.example.com", "alice", "agent")


def gateway(clock: FakeClock | None = None, keys: tuple[bytes, ...] = (b"k" * 32,), seed: int = 1) -> Sessions:
    return Sessions(KeyRing(keys), now=(clock or FakeClock(epoch=NOW)).wall, random=Random(seed).randbytes, ttl_s=TTL_S)


def refused(sessions: Sessions, handle: bytes, principal: Principal = ALICE, endpoint: str = "default") -> str:
    """What a caller learns who may not have it."""
    with pytest.raises(SessionNotFound) as found:
        sessions.find(handle, principal, endpoint)
    error = found.value
    assert (error.status, error.data, error.detail) == (404, None, "")
    return error.public


def test_a_handle_opens_again_and_again_with_what_was_negotiated() -> None:
    sessions = gateway()
    handle = sessions.create(ALICE, "default", "2025-06-18").encode()
    first, second = (sessions.find(handle, ALICE, "default") for _ in range(2))
    assert first == second
    assert (first.version, first.expires_at) == ("2025-06-18", int(NOW + TTL_S))


def test_what_was_opened_is_forgotten_after_a_time_and_opens_again() -> None:
    clock = FakeClock(epoch=NOW)
    sessions = gateway(clock)
    handle = sessions.create(ALICE, "default", "2025-06-18").encode()
    first = sessions.find(handle, ALICE, "default")
    sessions.sweep()
    assert sessions.find(handle, ALICE, "default") is first
    clock.advance(OPENED_S)
    sessions.sweep()
    assert not sessions._opened
    assert sessions.find(handle, ALICE, "default") == first


def test_sessions_are_counted_and_differ() -> None:
    sessions = gateway()
    handles = {sessions.create(ALICE, "default", "2025-11-25") for _ in range(50)}
    assert len(handles) == sessions.opened == 50
    assert len({sessions.find(handle.encode(), ALICE, "default").id for handle in handles}) == 50


@given(
    parts=st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=300)] * 4),
    endpoint=st.text("ab-", max_size=40),
)
def test_a_handle_is_visible_ascii_and_says_nothing_of_the_client(
    parts: tuple[str, str, str, str], endpoint: str
) -> None:
    sessions, principal = gateway(), Principal(*parts)
    handle = sessions.create(principal, endpoint, "2025-11-25")
    assert len(handle) <= 512 and all(0x21 <= ord(char) <= 0x7E for char in handle)
    assert len(handle) == len(sessions.create(LOCAL, "default", "2025-11-25")), "whoever it is, however long the name"
    assert sessions.find(handle.encode(), principal, endpoint).version == "2025-11-25"


@pytest.mark.parametrize("warm", [False, True], ids=["never opened here", "opened here before"])
@pytest.mark.parametrize(
    ("principal", "endpoint"),
    [
        pytest.param(Principal("evil", ALICE.issuer, "alice", "agent"), "default", id="another tenant"),
        pytest.param(Principal("acme", "https://other.example.com", "alice", "agent"), "default", id="another issuer"),
        pytest.param(Principal("acme", ALICE.issuer, "bob", "agent"), "default", id="another subject"),
        pytest.param(Principal("acme", ALICE.issuer, "alice", "other"), "default", id="another client"),
        pytest.param(Principal("acme", ALICE.issuer, "aliceagent", ""), "default", id="parts cut elsewhere"),
        pytest.param(LOCAL, "default", id="nobody"),
        pytest.param(ALICE, "support", id="another endpoint"),
        pytest.param(ALICE, "", id="no endpoint"),
    ],
)
def test_a_handle_of_others_is_not_found(principal: Principal, endpoint: str, warm: bool) -> None:
    sessions = gateway()
    handle = sessions.create(ALICE, "default", "2025-11-25").encode()
    if warm:
        sessions.find(handle, ALICE, "default")
    assert refused(sessions, handle, principal, endpoint) == refused(sessions, b"never-made")
    assert sessions.find(handle, ALICE, "default"), "and it still opens for its own"


@pytest.mark.parametrize(
    "handle",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x", id="one character"),
        pytest.param(b"\xff\xfe", id="bytes"),
        pytest.param(b"A" * 512, id="long"),
        pytest.param(b"A" * 100_000, id="much too long"),
        pytest.param(b"123e4567-e89b-12d3-a456-426614174000", id="another gateway's"),
        pytest.param(b"../../etc/passwd\x00", id="not base64"),
    ],
)
def test_what_was_never_made_is_not_found(handle: bytes) -> None:
    refused(gateway(), handle)


@given(bit=st.integers(0, 10_000), warm=st.booleans())
def test_a_handle_with_one_flipped_bit_never_opens(bit: int, warm: bool) -> None:
    sessions = gateway()
    text = sessions.create(ALICE, "default", "2025-11-25")
    if warm:
        sessions.find(text.encode(), ALICE, "default")
    sealed = bytearray(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    sealed[bit // 8 % len(sealed)] ^= 1 << bit % 8
    refused(sessions, urlsafe_b64encode(sealed).rstrip(b"="))
    written = bytearray(text, "ascii")
    written[bit // 8 % len(written)] ^= 1 << bit % 8
    refused(sessions, bytes(written))


@pytest.mark.parametrize("warm", [False, True], ids=["never opened here", "opened here before"])
@pytest.mark.parametrize(
    ("after_s", "opens"),
    [
        pytest.param(0.0, True, id="at once"),
        pytest.param(TTL_S - 1, True, id="a second before its end"),
        pytest.param(TTL_S + 1, False, id="a second after its end"),
        pytest.param(10 * TTL_S, False, id="long after"),
        pytest.param(-TTL_S, True, id="a clock gone back ends nothing"),
    ],
)
def test_a_session_ends_with_its_time(after_s: float, opens: bool, warm: bool) -> None:
    clock = FakeClock(epoch=NOW)
    sessions = gateway(clock)
    handle = sessions.create(ALICE, "default", "2025-11-25").encode()
    if warm:
        sessions.find(handle, ALICE, "default")
    clock.set_wall(NOW + after_s)
    if opens:
        sessions.find(handle, ALICE, "default")
    else:
        refused(sessions, handle)


@pytest.mark.parametrize("warm", [False, True], ids=["never opened here", "opened here before"])
def test_an_ended_session_is_not_found_and_no_other_ends_with_it(warm: bool) -> None:
    sessions = gateway()
    handle, other = (sessions.create(ALICE, "default", "2025-11-25").encode() for _ in range(2))
    before = sessions.find(handle, ALICE, "default") if warm else None
    ended = sessions.end(handle, ALICE, "default")
    assert before in (None, ended)
    refused(sessions, handle)
    with pytest.raises(SessionNotFound):
        sessions.end(handle, ALICE, "default")
    sessions.find(other, ALICE, "default")


def test_nobody_ends_the_session_of_another() -> None:
    sessions = gateway()
    handle = sessions.create(ALICE, "default", "2025-11-25").encode()
    for principal, endpoint in [(LOCAL, "default"), (ALICE, "support")]:
        with pytest.raises(SessionNotFound):
            sessions.end(handle, principal, endpoint)
    sessions.find(handle, ALICE, "default")


@pytest.mark.parametrize(
    ("keys", "opens"),
    [
        pytest.param((b"k" * 32,), True, id="the same key: any process opens it"),
        pytest.param((b"n" * 32, b"k" * 32), True, id="a newer key before it"),
        pytest.param((b"n" * 32,), False, id="another key"),
    ],
)
def test_another_process_opens_it_by_its_keys(keys: tuple[bytes, ...], opens: bool) -> None:
    handle = gateway().create(ALICE, "default", "2025-06-18").encode()
    other = gateway(keys=keys, seed=2)
    if opens:
        assert other.find(handle, ALICE, "default").version == "2025-06-18"
    else:
        refused(other, handle)


def test_handles_of_another_purpose_are_no_sessions() -> None:
    ring = KeyRing([b"k" * 32])
    bound = (ALICE.tenant, ALICE.issuer, ALICE.subject, ALICE.client, "default")
    payload = ["0" * 32, "2025-11-25", int(NOW) + 100, 0]
    cursor = ring.sealer("cursor").seal(payload, bound=bound, expires_at=int(NOW) + 100, nonce=b"n" * 12)
    refused(gateway(), cursor.encode())


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small bounds: far more sessions than are kept still all open, and an ended one stays ended while it is kept."""
    monkeypatch.setattr("narthex.flow.accept.sessions.MOST_OPENED", 8)
    monkeypatch.setattr("narthex.flow.accept.sessions.MOST_ENDED", 4)
    clock = FakeClock(epoch=NOW)
    sessions = gateway(clock)
    handles = [sessions.create(ALICE, "default", "2025-11-25").encode() for _ in range(40)]
    for _ in range(2):
        for handle in handles:
            sessions.find(handle, ALICE, "default")
    for handle in handles[:20]:
        sessions.end(handle, ALICE, "default")
    for handle in handles[16:20]:
        refused(sessions, handle)
    for handle in handles[20:]:
        sessions.find(handle, ALICE, "default")
    clock.advance(TTL_S + 1)
    for handle in handles:
        refused(sessions, handle)


def test_spaces_around_a_handle_do_not_count_and_open_no_second_door() -> None:
    sessions = gateway()
    handle = sessions.create(ALICE, "default", "2025-11-25", 5).encode()
    padded = b" " + handle + b"\t"
    assert sessions.find(padded, ALICE, "default") == sessions.find(handle, ALICE, "default")
    assert sessions.find(handle, ALICE, "default").capabilities == 5
    sessions.end(padded, ALICE, "default")
    for one in (handle, padded, handle + b" "):
        refused(sessions, one)


@pytest.mark.parametrize("kept", [True, False], ids=["the old key is kept", "the old key is gone"])
def test_new_keys_count_from_the_moment_they_are_taken(kept: bool) -> None:
    sessions, old, new = gateway(), b"k" * 32, b"n" * 32
    handle = sessions.create(ALICE, "default", "2025-11-25").encode()
    session = sessions.find(handle, ALICE, "default")
    sessions.take_keys(KeyRing((new, old) if kept else (new,)))
    if kept:
        assert sessions.find(handle, ALICE, "default") == session
    else:
        refused(sessions, handle)
    later = sessions.create(ALICE, "default", "2025-11-25").encode()
    assert gateway(keys=(new,)).find(later, ALICE, "default").version == "2025-11-25"
    refused(gateway(keys=(old,)), later)


@pytest.mark.parametrize("warm", [True, False])
def test_of_another_run_it_opens_but_where_servers_keep_something_for_it_alone(warm: bool) -> None:
    before, after = gateway(), gateway(seed=2)
    after.stateful = {"own"}
    for endpoint in ("default", "own"):
        handle = before.create(ALICE, endpoint, "2025-11-25").encode()
        before.stateful = {"own"}
        before.find(handle, ALICE, endpoint)
        if warm and endpoint == "default":
            after.find(handle, ALICE, endpoint)
        if endpoint == "default":
            assert after.find(handle, ALICE, endpoint).version == "2025-11-25"
        else:
            refused(after, handle, endpoint=endpoint)


PRINCIPALS = [ALICE, Principal("acme", "https://sso.example.com", "alice"), LOCAL]
ENDPOINTS = ["default", "own"]


class Made:
    """What the model knows of a session."""

    def __init__(self, handle: bytes, principal: Principal, endpoint: str, home: int, key: int, until: float) -> None:
        self.handle = handle
        self.principal = principal
        self.endpoint = endpoint
        self.home = home
        self.key = key
        self.until = until
        self.ended: set[int] = set()


class Life(RuleBasedStateMachine):
    """Two processes with one key ring, which is turned: a handle opens for its owner, there, until it ends, and nowhere
    else. `own` is an endpoint whose servers keep something for each session alone."""

    made = Bundle("made")

    @initialize()
    def begin(self) -> None:
        self.clock = FakeClock(epoch=NOW)
        self.keys = [0]
        self.latest = 0
        self.processes = [gateway(self.clock, self.ring(), seed) for seed in (1, 2)]
        for one in self.processes:
            one.stateful = {"own"}

    def ring(self) -> tuple[bytes, ...]:
        return tuple(b"%032d" % key for key in self.keys)

    @rule(
        target=made, at=st.integers(0, 1), who=st.sampled_from(PRINCIPALS), endpoint=st.sampled_from(ENDPOINTS),
        version=st.sampled_from(["2025-03-26", "2025-11-25"]), bits=st.integers(0, 2**14 - 1),
    )  # fmt: skip
    def create(self, at: int, who: Principal, endpoint: str, version: str, bits: int) -> Made:
        handle = self.processes[at].create(who, endpoint, version, bits).encode()
        made = Made(handle, who, endpoint, at, self.keys[0], int(self.clock.wall() + TTL_S))
        found = self.processes[at].find(handle, who, endpoint)
        assert (found.version, found.capabilities, found.expires_at) == (version, bits, made.until)
        return made

    @rule(made=made, at=st.integers(0, 1), who=st.sampled_from(PRINCIPALS), endpoint=st.sampled_from(ENDPOINTS))
    def find(self, made: Made, at: int, who: Principal, endpoint: str) -> None:
        try:
            self.processes[at].find(made.handle, who, endpoint)
        except SessionNotFound as error:
            assert not self.opens(made, at, who, endpoint)
            assert error.public == "session not found"
        else:
            assert self.opens(made, at, who, endpoint)

    @rule(made=made, at=st.integers(0, 1), who=st.sampled_from(PRINCIPALS))
    def end(self, made: Made, at: int, who: Principal) -> None:
        opens = self.opens(made, at, who, made.endpoint)
        try:
            self.processes[at].end(made.handle, who, made.endpoint)
        except SessionNotFound:
            assert not opens
        else:
            assert opens
            made.ended.add(at)

    @rule(made=consumes(made), bit=st.integers(0, 5000), at=st.integers(0, 1))
    def forge(self, made: Made, bit: int, at: int) -> None:
        forged = bytearray(made.handle)
        forged[bit % len(forged)] ^= 1 << bit % 7
        with pytest.raises(SessionNotFound):
            self.processes[at].find(bytes(forged), made.principal, made.endpoint)

    @rule(seconds=st.sampled_from([1.0, TTL_S / 2, TTL_S]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def turn_the_ring(self) -> None:
        """A new key seals; of the old ones the latest still opens."""
        self.latest += 1
        self.keys = [self.latest, self.keys[0]]
        for one in self.processes:
            one.take_keys(KeyRing(self.ring()))

    def opens(self, made: Made, at: int, who: Principal, endpoint: str) -> bool:
        return (
            (who, endpoint) == (made.principal, made.endpoint)
            and self.clock.wall() < made.until
            and made.key in self.keys
            and at not in made.ended
            and (endpoint != "own" or at == made.home)
        )


TestLife = Life.TestCase
