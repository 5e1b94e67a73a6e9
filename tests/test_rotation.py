"""A key that is replaced while the gateway runs: taken up by a reload, with every handle that it still opens."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from narthex.app import Gateway
from narthex.config.compile import load_snapshot
from narthex.errors import SessionNotFound
from narthex.flow.codec.handles import Task, owner_of
from narthex.flow.codec.seal import SealError
from narthex.keys import FILE_NAME, load_keys, rotate_key
from narthex.types import LOCAL

CONFIG = (
    "version: 1\nlisten: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nservers: {one: {url: 'http://127.0.0.1:1/mcp'}}\n"
)
OWNER = owner_of(LOCAL, "default")
TASK = Task("one", "t", "modern")


def test_a_key_that_was_rotated_is_taken_up_without_being_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NARTHEX_KEY", raising=False)
    (tmp_path / "narthex.yaml").write_text(CONFIG, encoding="utf-8")

    async def main() -> None:
        gateway = Gateway(load_snapshot(tmp_path / "narthex.yaml"))
        await gateway.start()
        try:
            first = gateway.sessions.create(LOCAL, "default", "2025-11-25").encode()
            rotate_key(tmp_path / ".narthex", {}, now=time.time(), keep_s=0)
            async with asyncio.timeout(60):
                while gateway.sessions.create(LOCAL, "default", "2025-11-25").encode()[:4] == first[:4]:
                    await asyncio.sleep(0.02)
            with pytest.raises(SessionNotFound):
                gateway.sessions.find(first, LOCAL, "default")  # the old key was not kept at all
        finally:
            await gateway.stop()

    asyncio.run(main())


def test_a_reload_takes_up_the_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NARTHEX_KEY", raising=False)
    (tmp_path / "narthex.yaml").write_text(CONFIG, encoding="utf-8")
    state = tmp_path / ".narthex"

    async def main() -> None:
        gateway = Gateway(load_snapshot(tmp_path / "narthex.yaml"))
        await gateway.start()
        try:
            sessions, handles = gateway.sessions, gateway.front.handles
            first = sessions.create(LOCAL, "default", "2025-11-25").encode()
            task = handles.task(OWNER, TASK, ttl_s=3600)
            sessions.find(first, LOCAL, "default")

            rotate_key(state, {}, now=time.time(), keep_s=3600)
            assert (await gateway.reload("SIGHUP")).status == "unchanged", "the configuration is what it was"
            second = sessions.create(LOCAL, "default", "2025-11-25").encode()
            assert second[:4] != first[:4], "another key seals"
            assert sessions.find(first, LOCAL, "default").version == "2025-11-25"
            assert handles.open_task(task, OWNER) == TASK

            key = (state / FILE_NAME).read_bytes()
            (state / FILE_NAME).write_text("no key\n", encoding="ascii")
            outcome = await gateway.reload("SIGHUP")
            assert outcome.status == "refused" and FILE_NAME in outcome.problems[0]
            sessions.find(second, LOCAL, "default")
            (state / FILE_NAME).write_bytes(key)

            rotate_key(state, {}, now=time.time(), keep_s=0)
            await gateway.reload("SIGHUP")
            assert len(load_keys(state, {})) == 1
            for lost in (first, second):
                with pytest.raises(SessionNotFound):
                    sessions.find(lost, LOCAL, "default")
            with pytest.raises(SealError):
                handles.open_task(task, OWNER)
        finally:
            await gateway.stop()

    asyncio.run(main())
