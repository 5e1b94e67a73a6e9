"""Master keys: from the environment, or from a private file of our own; every fault says the way out."""

from __future__ import annotations

import base64
import os
import resource
import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from narthex.errors import ConfigError
from narthex.flow.codec.seal import KeyRing, MasterKey, SealError
from narthex.keys import MOST_KEYS, load_keys, rotate_key

ONE, TWO = bytes(range(32)), bytes(range(200, 232))
B64_ONE, B64_TWO = (base64.b64encode(key).decode() for key in (ONE, TWO))
NOW = 1_798_106_400
"""2026-12-24, 10:00:00 UTC."""
WRITTEN = "2026-12-24T10:00:00Z"


def write(folder: Path, text: str) -> Path:
    path = folder / "narthex.key"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        pytest.param(B64_ONE, [MasterKey(ONE)], id="base64"),
        pytest.param(
            base64.urlsafe_b64encode(TWO).decode().rstrip("="), [MasterKey(TWO)], id="base64url without padding"
        ),
        pytest.param(ONE.hex(), [MasterKey(ONE)], id="hexadecimal"),
        pytest.param(
            f"{B64_TWO}, {ONE.hex().upper()}\n", [MasterKey(TWO), MasterKey(ONE)], id="several, the first is current"
        ),
        pytest.param(
            f"{B64_TWO},{B64_ONE} until {WRITTEN}", [MasterKey(TWO), MasterKey(ONE, NOW)], id="an old one that ends"
        ),
    ],
)
def test_from_the_environment(tmp_path: Path, text: str, keys: list[MasterKey]) -> None:
    assert load_keys(tmp_path / "state", {"NARTHEX_KEY": text}) == keys
    assert not (tmp_path / "state").exists(), "nothing is written"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(" , ", id="only a comma"),
        pytest.param("hunter2-is-not-a-key", id="a password"),
        pytest.param(base64.b64encode(b"x" * 16).decode(), id="too short"),
        pytest.param("g" * 64, id="64 letters that are no hexadecimal"),
        pytest.param(f"{B64_ONE},nonsense", id="the second is none"),
        pytest.param("é" * 44, id="not ASCII"),
        pytest.param(B64_ONE[:-2] + "9=", id="stray bits at the end"),
        pytest.param(f"{B64_ONE} until {WRITTEN}", id="the current one ends"),
    ],
)
def test_a_bad_variable_is_refused_and_never_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_keys(tmp_path, {"NARTHEX_KEY": text})
    message = caught.value.detail
    assert "NARTHEX_KEY" in message
    assert "openssl rand" in message
    assert not any(word in message for word in text.replace(" ", ",").split(",") if len(word) > 20)
    assert list(tmp_path.iterdir()) == [], "a wrong variable never falls back to a new key"


def test_a_file_is_made_once_and_private(tmp_path: Path) -> None:
    state = tmp_path / ".narthex"
    umask = os.umask(0)
    try:
        first = load_keys(state, {})
    finally:
        os.umask(umask)
    assert len(first[0].secret) == 32
    assert load_keys(state, {}) == first
    assert [path.name for path in state.iterdir()] == ["narthex.key"]
    assert stat.S_IMODE((state / "narthex.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_two_installations_have_two_keys(tmp_path: Path) -> None:
    assert load_keys(tmp_path / "a", {}) != load_keys(tmp_path / "b", {})


def test_many_starting_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: load_keys(tmp_path / "state", {})[0].secret, range(24)))
    assert len(set(found)) == 1
    assert len(list((tmp_path / "state").iterdir())) == 1


def test_a_rotated_file_has_the_current_key_in_its_first_line(tmp_path: Path) -> None:
    write(tmp_path, f"{B64_TWO}\n{B64_ONE}\n")
    assert load_keys(tmp_path, {}) == [MasterKey(TWO), MasterKey(ONE)]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666], ids=oct)
def test_a_file_that_others_reach_is_refused_with_the_way_out(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "narthex.key"
    path.write_text(B64_ONE)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="refused") as caught:
        load_keys(tmp_path, {})
    assert f"chmod 600 {path}" in caught.value.detail
    assert B64_ONE not in caught.value.detail


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"nonsense\n"], ids=["empty", "binary", "nonsense"])
def test_a_broken_file_is_an_error_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "narthex.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        load_keys(tmp_path, {})
    assert path.read_bytes() == content


def test_a_fifo_or_directory_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "narthex.key", 0o600)
    (tmp_path / "b" / "narthex.key").mkdir(parents=True)
    for state in ("a", "b"):
        with pytest.raises(ConfigError):
            load_keys(tmp_path / state, {})


def test_a_state_directory_that_cannot_be_made_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_keys(tmp_path / "file" / "state", {})
    assert "NARTHEX_KEY" in caught.value.detail


# --- rotation ------------------------------------------------------------------------------------------------------


def test_rotation_puts_a_new_key_first_and_says_until_when_the_old_one_opens(tmp_path: Path) -> None:
    path = write(tmp_path, f"{B64_ONE}\n")
    keys = rotate_key(tmp_path, {}, now=NOW - 3600.0, keep_s=3600.0)
    assert keys == load_keys(tmp_path, {})
    assert keys[0].until is None and keys[0].secret not in (ONE, TWO)
    assert keys[1:] == [MasterKey(ONE, NOW)]
    assert path.read_text().splitlines()[1:] == [f"{B64_ONE} until {WRITTEN}"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["narthex.key"]


@pytest.mark.parametrize(
    ("text", "keep_s", "kept"),
    [
        pytest.param(f"{B64_ONE}\n{B64_TWO}\n", 60, [(ONE, NOW + 60), (TWO, NOW + 60)], id="one without end gets one"),
        pytest.param(f"{B64_ONE}\n{B64_TWO} until {WRITTEN}", 60, [(ONE, NOW + 60)], id="one at its end is dropped"),
        pytest.param(
            f"{B64_ONE}\n{B64_TWO} until 2026-12-24T10:00:30Z", 60, [(ONE, NOW + 60), (TWO, NOW + 30)], id="ends stay"
        ),
        pytest.param(
            f"{B64_ONE}\n{B64_TWO} until 2026-12-25T10:00:00Z",
            60,
            [(ONE, NOW + 60), (TWO, NOW + 60)],
            id="or come sooner",
        ),
        pytest.param(f"{B64_ONE}\n{B64_TWO} until 2027-12-24T10:00:00Z", 0, [], id="a leak: none is kept"),
        pytest.param(f"{ONE.hex()},{TWO.hex()}", 60, [(ONE, NOW + 60), (TWO, NOW + 60)], id="written in another form"),
    ],
)
def test_which_keys_a_rotation_keeps(tmp_path: Path, text: str, keep_s: float, kept: list[tuple[bytes, int]]) -> None:
    write(tmp_path, text)
    keys = rotate_key(tmp_path, {}, now=NOW, keep_s=keep_s)
    assert keys[1:] == [MasterKey(*one) for one in kept]
    assert load_keys(tmp_path, {}) == keys


def test_rotation_before_the_first_start(tmp_path: Path) -> None:
    keys = rotate_key(tmp_path / "state", {}, now=NOW, keep_s=60)
    assert len(keys) == 2
    assert load_keys(tmp_path / "state", {}) == keys


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{B64_ONE}\n{B64_TWO} until\n", id="no time"),
        pytest.param(f"{B64_ONE}\n{B64_TWO} until tomorrow\n", id="no such time"),
        pytest.param(f"{B64_ONE}\n{B64_TWO} until 2026-12-24\n", id="a day alone"),
        pytest.param(f"{B64_ONE}\n{B64_TWO} until 2026-13-24T10:00:00Z\n", id="no such month"),
        pytest.param(f"{B64_ONE}\n{B64_TWO} after {WRITTEN}\n", id="another word"),
        pytest.param(f"{B64_ONE}\n{B64_TWO} {WRITTEN}\n", id="the word is missing"),
        pytest.param(f"{B64_ONE}\n{B64_TWO} until {WRITTEN} UTC\n", id="a word more"),
        pytest.param(f"{B64_ONE} {B64_TWO}\n", id="two keys on a line"),
        pytest.param(f"{B64_ONE} until {WRITTEN}\n{B64_TWO}\n", id="the first one ends"),
        pytest.param(f"{B64_ONE}\n" * (MOST_KEYS + 1), id="too many"),
    ],
)
def test_a_file_that_says_something_else_is_refused_and_stays(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    for rotate in (False, True):
        with pytest.raises(ConfigError) as caught:
            rotate_key(tmp_path, {}, now=NOW, keep_s=60) if rotate else load_keys(tmp_path, {})
        assert str(path) in caught.value.detail
        assert B64_ONE not in caught.value.detail and B64_TWO not in caught.value.detail
    assert path.read_text() == text


def test_a_rotation_that_would_hold_too_many_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, f"{B64_ONE}\n" * MOST_KEYS)
    with pytest.raises(ConfigError, match="refused") as caught:
        rotate_key(tmp_path, {}, now=NOW, keep_s=60)
    assert "remove its last lines" in caught.value.detail
    assert path.read_text() == f"{B64_ONE}\n" * MOST_KEYS
    assert len(rotate_key(tmp_path, {}, now=NOW, keep_s=0)) == 1


def test_keys_of_the_environment_are_not_ours_to_rotate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        rotate_key(tmp_path, {"NARTHEX_KEY": B64_ONE}, now=NOW - 60, keep_s=60)
    assert f"new,old until {WRITTEN}" in caught.value.detail and "openssl rand" in caught.value.detail
    assert B64_ONE not in caught.value.detail
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    target = write(tmp_path, f"{B64_ONE}\n")
    (tmp_path / "state" / "narthex.key").symlink_to(target)
    with pytest.raises(ConfigError) as caught:
        rotate_key(tmp_path / "state", {}, now=NOW, keep_s=60)
    assert "a link" in caught.value.detail
    assert target.read_text() == f"{B64_ONE}\n"
    assert load_keys(tmp_path / "state", {}) == [MasterKey(ONE)]


def test_a_rotation_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, f"{B64_ONE}\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))  # a full disk, for root too
    try:
        with pytest.raises(ConfigError) as caught:
            rotate_key(tmp_path, {}, now=NOW, keep_s=60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "NARTHEX_KEY" in caught.value.detail
    assert path.read_text() == f"{B64_ONE}\n"
    assert [one.name for one in tmp_path.iterdir()] == ["narthex.key"]


def test_rotations_at_once_lose_no_key(tmp_path: Path) -> None:
    """Whichever key a process has read in between, it is still there to open what that process has sealed."""
    write(tmp_path, f"{B64_ONE}\n")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: rotate_key(tmp_path, {}, now=NOW, keep_s=60)[0].secret, range(20)))
    kept = {key.secret for key in load_keys(tmp_path, {})}
    assert kept == {ONE, *made}


BOUND = ("tenant", "issuer", "subject", "client", "endpoint")
STEPS = st.integers(1, 200)


class Rotation(RuleBasedStateMachine):
    """Gateways that start at any time, seal, and are asked to open what any of them has sealed at any time."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self.path = Path(self._folder.name)
        self.now = NOW
        self.count = 0
        self.ends: dict[bytes, int] = {}
        """The model: until when each key that was replaced opens."""

    @initialize()
    def first_start(self) -> None:
        load_keys(self.path, {})
        self.made: list[tuple[bytes, str]] = []

    def current(self) -> bytes:
        return load_keys(self.path, {})[0].secret

    @rule(keep_s=STEPS)
    def rotate(self, keep_s: int) -> None:
        if len(load_keys(self.path, {})) == MOST_KEYS:
            return
        old = self.current()
        for key in [*self.ends, old]:
            self.ends[key] = min(self.ends.get(key, self.now + keep_s), self.now + keep_s)
        rotate_key(self.path, {}, now=self.now, keep_s=keep_s)

    @rule(steps=STEPS)
    def pass_time(self, steps: int) -> None:
        self.now += steps

    @rule()
    def seal(self) -> None:
        """A gateway that starts now seals a handle."""
        self.count += 1
        ring, nonce = KeyRing(load_keys(self.path, {})), self.count.to_bytes(12, "big")
        handle = ring.sealer("x").seal(self.count, bound=BOUND, expires_at=NOW * 2, nonce=nonce)
        self.made.append((self.current(), handle))

    @invariant()
    def a_new_process_opens_what_a_kept_key_sealed_and_nothing_else(self) -> None:
        sealer = KeyRing(load_keys(self.path, {})).sealer("x")
        for key, handle in getattr(self, "made", []):
            opens = key == self.current() or self.now < self.ends[key]
            try:
                sealer.open(handle, int, bound=BOUND, now=self.now, leeway=0)
                opened = True
            except SealError:
                opened = False
            assert opened is opens

    def teardown(self) -> None:
        self._folder.cleanup()


TestRotation = Rotation.TestCase
TestRotation.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
