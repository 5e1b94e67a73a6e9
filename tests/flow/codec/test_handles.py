"""Typed handles: each opens for whom and for what it was made, and every other attempt has one and the same answer."""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import ContentBlocked
from narthex.flow.codec.handles import (
    MAX_STATE,
    MAX_STATE_HANDLE,
    MAX_TASK_ID,
    Handles,
    HeldCall,
    Origin,
    Owner,
    Relayed,
    SessionHandle,
    Task,
    owner_of,
)
from narthex.flow.codec.seal import MAX_HANDLE, KeyRing, MasterKey, SealError
from narthex.keys import load_keys, rotate_key
from narthex.testing import FakeClock
from narthex.types import Principal

NOW = 1_800_000_000.0
TTL_S = 600.0
ALICE = Principal("acme", "https://sso.example.com", "alice", "agent")
OWNER = owner_of(ALICE, "default")
VIEW = "5a" * 32
ORIGIN = Origin("tools/call", "time__now", b'{"zone":"UTC"}')
RELAYED = Relayed("billing", b'"eyJ\\u00e9"')
HELD = HeldCall("billing", 3, "0" * 32)
TASK = Task("billing", "786512e2-9e0d-44bd-8f29-789f320fe840", "modern")
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

Open = Callable[[Handles, str, Owner], Any]
KINDS: dict[str, tuple[Callable[[Handles], str], Open, Any]] = {
    "cursor": (
        lambda handles: handles.cursor(OWNER, "tools", VIEW, b"time__now", ttl_s=TTL_S),
        lambda handles, handle, owner: handles.open_cursor(handle, owner, "tools", VIEW),
        b"time__now",
    ),
    "relayed": (
        lambda handles: handles.state(OWNER, ORIGIN, RELAYED, ttl_s=TTL_S),
        lambda handles, handle, owner: handles.open_state(handle, owner, ORIGIN),
        RELAYED,
    ),
    "held": (
        lambda handles: handles.state(OWNER, ORIGIN, HELD, ttl_s=TTL_S),
        lambda handles, handle, owner: handles.open_state(handle, owner, ORIGIN),
        HELD,
    ),
    "task": (
        lambda handles: handles.task(OWNER, TASK, ttl_s=TTL_S),
        lambda handles, handle, owner: handles.open_task(handle, owner),
        TASK,
    ),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def gateway(*keys: bytes | MasterKey, clock: FakeClock | None = None, seed: int = 1) -> Handles:
    """One process."""
    ring = KeyRing(keys or (KEY,))
    return Handles(ring, now=(clock or FakeClock(epoch=NOW)).wall, random=Random(seed).randbytes)


def refused(opening: Callable[[], Any]) -> None:
    """One answer, whatever the reason."""
    with pytest.raises(SealError) as caught:
        opening()
    error = caught.value
    assert (error.code, error.reason, error.public, error.data) == (
        -32602,
        "invalid_handle",
        "the handle is not valid",
        None,
    )


@each_kind
def test_a_handle_opens_for_its_owner_in_any_process_with_the_keys(kind: str) -> None:
    make, open_, expected = KINDS[kind]
    handle = make(gateway())
    assert set(handle) <= set(ALPHABET)
    assert len(handle) <= MAX_HANDLE
    assert open_(gateway(seed=2), handle, OWNER) == expected
    assert make(gateway(seed=2)) != handle


@each_kind
@pytest.mark.parametrize(
    "owner",
    [
        pytest.param(owner_of(Principal("evil", *ALICE.key[1:]), "default"), id="another tenant"),
        pytest.param(owner_of(Principal("acme", "https://other", "alice", "agent"), "default"), id="another issuer"),
        pytest.param(owner_of(Principal("acme", ALICE.issuer, "bob", "agent"), "default"), id="another subject"),
        pytest.param(owner_of(Principal("acme", ALICE.issuer, "alice", "other"), "default"), id="another client"),
        pytest.param(owner_of(ALICE, "support"), id="another endpoint"),
        pytest.param(owner_of(Principal("acme", ALICE.issuer, "aliceagent", ""), "default"), id="parts cut elsewhere"),
        pytest.param((), id="nobody"),
    ],
)
def test_a_handle_of_others(kind: str, owner: Owner) -> None:
    make, open_, _ = KINDS[kind]
    refused(lambda: open_(gateway(), make(gateway()), owner))


@each_kind
@given(bit=st.integers(0, 10_000))
def test_one_flipped_bit(kind: str, bit: int) -> None:
    make, open_, _ = KINDS[kind]
    text = make(gateway())
    sealed = bytearray(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    sealed[bit // 8 % len(sealed)] ^= 1 << bit % 8
    refused(lambda: open_(gateway(), urlsafe_b64encode(sealed).rstrip(b"=").decode(), OWNER))
    written = bytearray(text, "ascii")
    written[bit // 8 % len(written)] ^= 1 << bit % 8
    refused(lambda: open_(gateway(), written.decode("latin-1"), OWNER))


@each_kind
@given(text=st.text(max_size=40) | st.text(ALPHABET, max_size=700))
def test_what_was_never_made(kind: str, text: str) -> None:
    refused(lambda: KINDS[kind][1](gateway(), text, OWNER))


@each_kind
@pytest.mark.parametrize(("late", "opens"), [(0.0, True), (TTL_S + 60, True), (TTL_S + 61, False), (1e9, False)])
def test_a_handle_ends_with_its_time(kind: str, late: float, opens: bool) -> None:
    make, open_, expected = KINDS[kind]
    clock = FakeClock(epoch=NOW)
    handles = gateway(clock=clock)
    handle = make(handles)
    clock.set_wall(NOW + late)
    if opens:
        assert open_(handles, handle, OWNER) == expected
    else:
        refused(lambda: open_(handles, handle, OWNER))


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("opened", KINDS)
def test_a_kind_is_no_other(made: str, opened: str) -> None:
    handle = KINDS[made][0](gateway())
    if {made, opened} in ({"relayed", "held"}, {made}):
        assert KINDS[opened][1](gateway(), handle, OWNER) == KINDS[made][2]
    else:
        refused(lambda: KINDS[opened][1](gateway(), handle, OWNER))


@pytest.mark.parametrize(
    ("kind", "view"),
    [
        pytest.param("prompts", VIEW, id="another list"),
        pytest.param("tools", "5b" * 32, id="another view, or other rights"),
        pytest.param("tools", "", id="no view"),
    ],
)
def test_a_cursor_of_another_list(kind: Any, view: str) -> None:
    handle = KINDS["cursor"][0](gateway())
    refused(lambda: gateway().open_cursor(handle, OWNER, kind, view))


@pytest.mark.parametrize("state", [RELAYED, HELD], ids=["relayed", "held"])
@pytest.mark.parametrize(
    "origin",
    [
        pytest.param(Origin("prompts/get", "time__now", ORIGIN.arguments), id="another method"),
        pytest.param(Origin("tools/call", "time__set", ORIGIN.arguments), id="another tool"),
        pytest.param(Origin("tools/call", "time__now", b'{"zone":"CET"}'), id="other arguments"),
        pytest.param(Origin("tools/call", "time__now"), id="no arguments"),
        pytest.param(Origin("tools/calltime__now", "", ORIGIN.arguments), id="parts cut elsewhere"),
    ],
)
def test_a_state_on_another_request(state: Any, origin: Origin) -> None:
    handle = gateway().state(OWNER, ORIGIN, state, ttl_s=TTL_S)
    refused(lambda: gateway().open_state(handle, OWNER, origin))


@given(
    parts=st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=300)] * 4),
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=5000),
    place=st.binary(max_size=256),
    call=st.text("0123456789abcdef", max_size=64),
    slot=st.integers(0, 2**32),
)
def test_handles_are_short_whoever_it_is_and_whatever_is_called(
    parts: tuple[str, str, str, str], name: str, place: bytes, call: str, slot: int
) -> None:
    owner, handles = owner_of(Principal(*parts), "e" * 40), gateway()
    cursor = handles.cursor(owner, "templates", VIEW, place, ttl_s=TTL_S)
    held = handles.state(owner, Origin("resources/read", name), HeldCall("s" * 24, slot, call), ttl_s=TTL_S)
    assert max(len(cursor), len(held)) <= MAX_HANDLE
    assert handles.open_cursor(cursor, owner, "templates", VIEW) == place
    opened = handles.open_state(held, owner, Origin("resources/read", name))
    assert opened == HeldCall("s" * 24, slot, call)


@pytest.mark.parametrize("size", [0, 1, 1000, MAX_STATE])
def test_an_upstreams_state_comes_back_byte_for_byte(size: int) -> None:
    state = Relayed("s" * 24, Random(size).randbytes(size))
    handle = gateway().state(OWNER, ORIGIN, state, ttl_s=TTL_S)
    assert len(handle) <= MAX_STATE_HANDLE
    assert gateway().open_state(handle, OWNER, ORIGIN) == state


def test_what_an_upstream_makes_too_large_is_refused() -> None:
    with pytest.raises(ContentBlocked, match="server billing"):
        gateway().state(OWNER, ORIGIN, Relayed("billing", b"x" * (MAX_STATE + 1)), ttl_s=TTL_S)
    with pytest.raises(ContentBlocked, match="server billing"):
        gateway().task(OWNER, Task("billing", "é" * (MAX_TASK_ID // 2) + "x", "legacy"), ttl_s=TTL_S)
    longest = Task("s" * 24, "é" * (MAX_TASK_ID // 2), "legacy")
    handle = gateway().task(OWNER, longest, ttl_s=TTL_S)
    assert len(handle) <= MAX_HANDLE
    assert gateway().open_task(handle, OWNER) == longest


@given(st.integers(MAX_HANDLE, MAX_STATE_HANDLE + 5))
def test_a_long_text_is_no_state(length: int) -> None:
    refused(lambda: gateway().open_state("A" * length, OWNER, ORIGIN))


# --- sessions ------------------------------------------------------------------------------------------------------


class Before(msgspec.Struct, array_like=True):
    """What a session's handle said before it carried capabilities."""

    id: str
    version: str
    expires_at: int
    slot: int


def test_session_handles_of_before_and_after_open_in_either() -> None:
    sealer = KeyRing([KEY]).sealer("session")
    about: dict[str, Any] = {"bound": OWNER, "expires_at": int(NOW)}
    old = sealer.seal(Before("0" * 32, "2025-11-25", int(NOW), 1), nonce=b"1" * 12, **about)
    new = sealer.seal(SessionHandle("0" * 32, "2025-11-25", int(NOW), 1, 97), nonce=b"2" * 12, **about)
    opened = sealer.open(old, SessionHandle, bound=OWNER, now=int(NOW))
    assert opened == SessionHandle("0" * 32, "2025-11-25", int(NOW), 1, 0)
    assert sealer.open(new, SessionHandle, bound=OWNER, now=int(NOW)).capabilities == 97
    assert sealer.open(new, Before, bound=OWNER, now=int(NOW)).slot == 1
    assert max(len(old), len(new)) <= MAX_HANDLE


# --- keys ----------------------------------------------------------------------------------------------------------


@each_kind
def test_rotation_as_processes_see_it(kind: str, tmp_path: Path) -> None:
    """Two gateways share a file. What was made before a rotation opens after it, until the old key's end."""
    make, open_, expected = KINDS[kind]
    clock = FakeClock(epoch=NOW)

    def process(seed: int) -> Handles:
        return gateway(*load_keys(tmp_path, {}), clock=clock, seed=seed)

    running, second = process(1), process(2)
    before = make(running)
    assert open_(second, before, OWNER) == expected

    rotate_key(tmp_path, {}, now=NOW, keep_s=300)
    restarted = process(3)
    after = make(restarted)
    assert open_(restarted, before, OWNER) == open_(process(4), after, OWNER) == expected
    assert open_(restarted, make(running), OWNER) == expected, "what a process seals that has not been restarted yet"

    clock.set_wall(NOW + 300 + 61)
    refused(lambda: open_(restarted, before, OWNER))
    refused(lambda: open_(process(5), before, OWNER))
    assert open_(process(6), after, OWNER) == expected


@each_kind
def test_a_key_that_was_dropped_opens_nothing(kind: str) -> None:
    make, open_, expected = KINDS[kind]
    handle = make(gateway(KEY))
    assert open_(gateway(OTHER_KEY, KEY), handle, OWNER) == expected
    refused(lambda: open_(gateway(OTHER_KEY), handle, OWNER))


def test_chance_is_asked_for_each_handle() -> None:
    handles = Handles(KeyRing([KEY]), now=lambda: NOW, random=os.urandom)
    assert len({KINDS["task"][0](handles) for _ in range(100)}) == 100


@each_kind
def test_new_keys_count_from_the_moment_they_are_taken(kind: str) -> None:
    make, open_, expected = KINDS[kind]
    handles = gateway()
    before = make(handles)
    handles.take_keys(KeyRing((OTHER_KEY, KEY)))
    assert open_(handles, before, OWNER) == expected
    after = make(handles)
    handles.take_keys(KeyRing((OTHER_KEY,)))
    assert open_(handles, after, OWNER) == expected
    refused(lambda: open_(handles, before, OWNER))
