"""What is in memory follows what is outside: keys and secrets of a command, swapped files, faults that pass."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from narthex.authority import upkeep as module
from narthex.authority.approvals import Approvals
from narthex.authority.envelope import Envelopes
from narthex.authority.fetch import Fetcher
from narthex.authority.upkeep import Upkeep
from narthex.config.compile import load_snapshot
from narthex.errors import ConfigError, SecretMissing, StoreError
from narthex.flow.codec.seal import MasterKey
from narthex.flow.identity.api_keys import make_key
from narthex.keys import load_keys, rotate_key
from narthex.store.port import ApiKey, SealedSecret
from narthex.store.sqlite import SqliteStore
from narthex.testing import FakeClock
from narthex.types import Egress, SecretSource, Snapshot
from tests.counterparts.serving import served
from tests.counterparts.vault import Vault

NEW = make_key(os.urandom)
TEXT = NEW.text.encode()
KEY = ApiKey(NEW.id, "ci", NEW.digest, 100)


class Outside:
    """A configuration's places, and what commands do there beside the gateway."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "narthex.yaml").write_text("version: 1\nservers: {one: {url: 'http://127.0.0.1:1/mcp'}}\n")
        self.base = load_snapshot(folder / "narthex.yaml", env={})
        self.clock = FakeClock(1000.0)
        self.env: dict[str, str] = {}
        self.fetcher = Fetcher(Egress())
        approvals = Approvals(
            master_keys=self.master_keys, now=self.clock, random=os.urandom, new_id=lambda: "a1", say=print
        )
        self.inside = Upkeep(
            env=self.env, master_keys=self.master_keys, fetch=self.fetcher.fetch, approvals=approvals, now=self.clock,
            random=os.urandom,
        )  # fmt: skip

    def master_keys(self) -> list[MasterKey]:
        return load_keys(Path(self.base.state_dir), {})

    def snapshot(self, *names: str, **sources: SecretSource) -> Snapshot:
        return replace(self.base, secret_names=tuple(sorted({*names, *sources})), secrets=sources)

    async def command(self, work: Callable[[SqliteStore], Awaitable[Any]]) -> None:
        store = await SqliteStore.open(Path(self.base.store))
        await work(store)
        await store.close()

    async def set(self, name: str, value: str) -> None:
        sealed = Envelopes(self.master_keys(), os.urandom).seal(value, "default", name)
        await self.command(lambda store: store.put_secret(SealedSecret(name, sealed, 1)))

    def missing(self, name: str) -> str:
        with pytest.raises(SecretMissing) as refused:
            self.inside.secrets.get(name)
        return refused.value.detail

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not true():
                await asyncio.sleep(0.01)


Case = Callable[[Outside], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], None]:
    monkeypatch.setattr(module, "LOOK_S", 0.02)

    async def main(case: Case) -> None:
        outside = Outside(tmp_path)
        try:
            await case(outside)
        finally:
            await outside.inside.close()
            outside.fetcher.close()

    return lambda case: asyncio.run(main(case))


Run = Callable[[Case], None]


def test_a_configuration_that_needs_no_store_makes_none(run: Run) -> None:
    async def case(outside: Outside) -> None:
        outside.env["PAT"] = "ghp_0123456789"
        await outside.inside.apply(outside.snapshot(pat=SecretSource("env", "PAT")), api_keys=False)
        assert outside.inside.secrets.get("pat") == "ghp_0123456789"
        assert not Path(outside.base.state_dir).exists()

    run(case)


def test_keys_of_a_command_are_known_and_unknown_again(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside = outside.inside
        await inside.apply(outside.snapshot(), api_keys=True)
        running = asyncio.create_task(inside.run())
        assert inside.keys.find(TEXT) is None
        await outside.command(lambda store: store.add_key(KEY))
        await outside.until(lambda: inside.keys.find(TEXT) is not None)
        await outside.command(lambda store: store.revoke_keys([KEY.id], at=1000))
        await outside.until(lambda: inside.keys.find(TEXT) is None)
        running.cancel()

    run(case)


def test_a_second_is_enough_for_a_look() -> None:
    assert module.LOOK_S <= 1.0, "each side sees the other's changes within two seconds (design §6)"


def test_the_last_use_is_written_once_in_a_while_and_at_the_end(run: Run) -> None:
    async def used(outside: Outside) -> int | None:
        found: list[int | None] = []

        async def work(store: SqliteStore) -> None:
            found.append((await store.keys())[0].used_at)

        await outside.command(work)
        return found[0]

    async def case(outside: Outside) -> None:
        inside = outside.inside
        await outside.command(lambda store: store.add_key(KEY))
        await inside.apply(outside.snapshot(), api_keys=True)
        inside.keys.find(TEXT)
        await inside._look()
        assert await used(outside) is None, "not with each call"
        outside.clock.advance(module.USED_S)
        await inside._look()
        assert await used(outside) == 1000
        inside.keys.find(TEXT)
        await inside.close()
        assert await used(outside) == 1000 + module.USED_S

    run(case)


def test_secrets_of_a_command(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside = outside.inside
        await inside.apply(outside.snapshot("pat"), api_keys=False)
        assert "narthex secrets set pat" in outside.missing("pat")
        running = asyncio.create_task(inside.run())
        await outside.set("pat", "ghp_first-value")
        await outside.until(lambda: not inside.secrets.problems)
        assert inside.secrets.get("pat") == "ghp_first-value"
        before = inside.secrets.version
        await outside.set("pat", "ghp_second-value")
        await outside.until(lambda: inside.secrets.get("pat") == "ghp_second-value")
        assert inside.secrets.version > before
        await outside.command(lambda store: store.delete_secret("default", "pat"))
        await outside.until(lambda: bool(inside.secrets.problems))
        running.cancel()

    run(case)


def test_a_rotation_of_the_master_key_does_not_interrupt(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside, state = outside.inside, Path(outside.base.state_dir)
        await outside.set("pat", "ghp_first-value")
        await inside.apply(outside.snapshot("pat"), api_keys=False)
        running = asyncio.create_task(inside.run())
        rotate_key(state, {}, now=1000.0, keep_s=3600)
        await outside.set("pat", "under-the-new-key")
        while True:
            value = inside.secrets.get("pat")  # never missing in between
            if value == "under-the-new-key":
                break
            assert value == "ghp_first-value"
            await asyncio.sleep(0.001)
        running.cancel()

    run(case)


def test_a_tampered_row_gives_no_value(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside = outside.inside
        await outside.set("a", "value-of-a")
        await outside.set("b", "value-of-b")
        await inside.apply(outside.snapshot("a", "b"), api_keys=False)
        other = sqlite3.connect(outside.base.store)
        other.execute("UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE name = 'b') WHERE name = 'a'")
        other.commit()
        other.close()
        await inside._look()
        assert "put back a backup" in outside.missing("a")
        assert inside.secrets.get("b") == "value-of-b"

    run(case)


def test_a_file_that_is_swapped(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside, path = outside.inside, outside.folder / "pat"
        await inside.apply(outside.snapshot(pat=SecretSource("file", str(path))), api_keys=False)
        assert "No such file" in outside.missing("pat")
        running = asyncio.create_task(inside.run())
        for value in ("first-value", "second-value"):
            (outside.folder / "new").write_text(value)
            os.replace(outside.folder / "new", path)
            await outside.until(lambda value=value: not inside.secrets.problems and inside.secrets.get("pat") == value)
        path.unlink()
        await outside.until(lambda: bool(inside.secrets.problems))
        running.cancel()

    run(case)


def test_a_file_system_that_stalls_holds_up_no_revoked_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stalled = threading.Event()

    def stalls(path: str) -> None:
        stalled.wait(20)

    async def case(outside: Outside) -> None:
        monkeypatch.setattr(module, "mark_of", stalls)
        monkeypatch.setattr(module, "FILES_START_S", 0.01)
        inside = outside.inside
        await outside.command(lambda store: store.add_key(KEY))
        await inside.apply(outside.snapshot(pat=SecretSource("file", "/mnt/pat")), api_keys=True)
        assert "does not answer" in outside.missing("pat")
        running = asyncio.create_task(inside.run())
        assert inside.keys.find(TEXT) is not None
        await outside.command(lambda store: store.revoke_keys([KEY.id], at=1000))
        await outside.until(lambda: inside.keys.find(TEXT) is None)
        running.cancel()
        stalled.set()

    run(case)


def test_a_variable_that_is_not_set(run: Run) -> None:
    async def case(outside: Outside) -> None:
        await outside.inside.apply(outside.snapshot(pat=SecretSource("env", "NOPE")), api_keys=False)
        assert "NOPE is not set" in outside.missing("pat")

    run(case)


def test_secrets_of_a_vault_come_with_the_start_and_follow_a_reload(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside, vault = outside.inside, Vault()
        outside.env["VAULT_TOKEN"] = "root"
        vault.write("secret/team/github", token="ghp_0123456789", other="another-value")
        with served(vault.app) as url:
            config = "secrets: {pat: 'vault:secret/team/github#token'}\n"
            (outside.folder / "narthex.yaml").write_text(f"version: 1\n{config}vault: {{address: '{url}'}}\n")
            spec = load_snapshot(outside.folder / "narthex.yaml", env={})
            await inside.apply(replace(spec, secret_names=("pat",)), api_keys=False)
            assert inside.secrets.get("pat") == "ghp_0123456789"
            reader = inside._vault
            await inside.apply(replace(spec, secret_names=("pat",)), api_keys=False)
            assert inside._vault is reader, "what has not changed goes on"
            other = {"pat": SecretSource("vault", "secret/team/github", "other")}
            await inside.apply(replace(spec, secret_names=("pat",), secrets=other), api_keys=False)
            assert inside.secrets.get("pat") == "another-value"
            await inside.apply(replace(spec, secret_names=()), api_keys=False)
            assert inside._vault is None and "does not refer to it" in outside.missing("pat")

    run(case)


def test_a_store_that_cannot_be_opened_refuses_the_reload_and_changes_nothing(run: Run) -> None:
    async def case(outside: Outside) -> None:
        inside = outside.inside
        await outside.command(lambda store: store.add_key(KEY))
        await outside.set("pat", "ghp_first-value")
        await inside.apply(outside.snapshot("pat"), api_keys=True)
        bad = outside.folder / "bad.db"
        bad.write_text("no database, and long enough to be looked at as one " * 100)
        with pytest.raises(StoreError):
            await inside.apply(replace(outside.snapshot("pat"), store=str(bad)), api_keys=True)
        key = outside.folder / ".narthex" / "narthex.key"
        was = key.read_text()
        key.write_text("no key")
        with pytest.raises(ConfigError):
            await inside.apply(outside.snapshot("pat", "other"), api_keys=True)
        key.write_text(was)
        assert inside.keys.find(TEXT) is not None and inside.secrets.get("pat") == "ghp_first-value"
        await inside.apply(outside.snapshot(), api_keys=False)
        assert inside.keys.find(TEXT) is None, "keys are not asked for any more"

    run(case)


def test_a_fault_of_the_store_is_said_once_and_what_is_known_stays(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def case(outside: Outside) -> None:
        inside, path = outside.inside, Path(outside.base.store)
        await outside.command(lambda store: store.add_key(KEY))
        await inside.apply(outside.snapshot(), api_keys=True)
        os.rename(path, path.with_suffix(".away"))
        for _ in range(3):
            await inside._look()
        assert "is not there" in inside.problem and inside.keys.find(TEXT) is not None
        os.rename(path.with_suffix(".away"), path)
        await inside._look()
        assert not inside.problem
        path.unlink()
        await inside._look()
        await inside.apply(outside.snapshot(), api_keys=False)
        await inside._look()
        assert not inside.problem, "nobody needs a store any more"

    with caplog.at_level(logging.INFO, "narthex.authority"):
        run(case)
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "cannot be used" in line]) == 2
    assert said[-1] == "the store can be used again"


def test_no_value_stands_in_a_log(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def case(outside: Outside) -> None:
        outside.env["PAT"] = "ghp_s3cr3t-0123456789"
        await outside.inside.apply(outside.snapshot("x", pat=SecretSource("env", "PAT")), api_keys=True)
        await outside.inside._look()

    with caplog.at_level(logging.DEBUG):
        run(case)
    assert "secret 'x' is missing" in caplog.text and "ghp_s3cr3t" not in caplog.text
