"""A bundle is taken when it is good; whatever else comes, the good one goes on ruling."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from narthex.authority.bundles import BundleKeeper, BundleSpec
from narthex.authority.fetch import Fetcher
from narthex.errors import SecretMissing
from narthex.flow.policy.bundles.bundle import Bundle, BundleRefused
from narthex.flow.policy.bundles.signatures import SIGNATURES, BundleKey, Trust
from narthex.types import Egress
from tests.counterparts.bundle_server import BundleServer, packed
from tests.counterparts.serving import served
from tests.flow.policy.bundles.test_signatures import SECRET, signed

NOW = 1_000_000.0


def policy(revision: str) -> dict[str, bytes]:
    return {"policy.rego": b"package narthex\n", ".manifest": b'{"revision": "%b"}' % revision.encode()}


class Ruler:
    """Takes bundles, or not, as an engine does."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.refuses = ""

    async def take(self, bundle: Bundle) -> None:
        if self.refuses:
            raise BundleRefused(self.refuses)
        self.taken.append(bundle.revision)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


Case = Callable[[BundleKeeper, Ruler, Clock], Awaitable[None]]


def run(spec: BundleSpec, case: Case, **options: Any) -> None:
    async def main() -> None:
        fetcher, ruler, clock = Fetcher(Egress()), Ruler(), Clock()
        keeper = BundleKeeper(
            spec, ruler.take, fetch=fetcher.fetch, now=lambda: NOW, clock=clock, chance=lambda: 0.0, **options
        )
        try:
            await asyncio.wait_for(case(keeper, ruler, clock), 60)
        finally:
            keeper.close()
            fetcher.close()

    asyncio.run(main())


def over_http(server: BundleServer, case: Case, spec: BundleSpec = BundleSpec(), **options: Any) -> None:  # noqa: B008
    with served(server.app) as url:
        run(msgspec.structs.replace(spec, url=f"{url}/bundle.tar.gz"), case, **options)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


# --- folders and files


def test_a_folder_is_read_again_when_it_changes(tmp_path: Path) -> None:
    write(tmp_path, policy("one"))

    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.look()
        await keeper.look()
        assert ruler.taken == ["one"]
        write(tmp_path, policy("three"))  # of another size: a clock of files may stand still for 4 ms
        await keeper.look()
        assert ruler.taken == ["one", "three"] and keeper.problem == ""
        (tmp_path / "policy.rego").unlink()
        await keeper.look()
        assert keeper.bundle is not None and keeper.bundle.revision == "three"
        assert "no Rego" in keeper.problem and keeper.refused == 1
        await keeper.look()
        assert keeper.refused == 1, "what stays the same is not read again at once"

    run(BundleSpec(path=str(tmp_path)), case)


def test_a_tarball_is_read_again_when_another_stands_there(tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    file.write_bytes(packed(policy("one")))

    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.look()
        file.write_bytes(packed(policy("two"))[:-20])
        await keeper.look()
        assert ruler.taken == ["one"] and "short" in keeper.problem
        file.unlink()
        await keeper.look()
        assert "No such file" in keeper.problem
        file.write_bytes(packed(policy("three")))
        await keeper.look()
        assert ruler.taken == ["one", "three"] and keeper.problem == ""

    run(BundleSpec(path=str(file)), case)


def test_a_folder_as_kubernetes_mounts_it(tmp_path: Path) -> None:
    """Each file is a link into a hidden folder that is swapped as a whole."""
    write(tmp_path / "..one", policy("one"))
    write(tmp_path / "..two", policy("two"))
    (tmp_path / "..data").symlink_to("..one")
    for name in policy(""):
        (tmp_path / name).symlink_to(f"..data/{name}")

    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.look()
        (tmp_path / "..new").symlink_to("..two")
        (tmp_path / "..new").rename(tmp_path / "..data")
        await keeper.look()
        assert ruler.taken == ["one", "two"]

    run(BundleSpec(path=str(tmp_path)), case)


@pytest.mark.parametrize("spoil", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_what_is_no_file_is_refused_and_hangs_nobody(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    write(tmp_path, policy("one"))
    spoil(tmp_path / "more.rego")

    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.look()
        assert ruler.taken == [] and "not a file" in keeper.problem

    run(BundleSpec(path=str(tmp_path)), case)


def test_a_folder_that_is_too_large_is_refused(tmp_path: Path) -> None:
    write(tmp_path, policy("one") | {"data.json": b'{"a": "' + b"x" * 5000 + b'"}'})

    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.look()
        assert ruler.taken == [] and "larger than" in keeper.problem

    run(BundleSpec(path=str(tmp_path), max_bytes=4096), case)


def test_a_signed_folder(tmp_path: Path) -> None:
    write(tmp_path, signed())

    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.look()
        assert keeper.bundle is not None and keeper.bundle.signed_by == "one"
        (tmp_path / "policy.rego").write_bytes(b"package a\nallow := true")
        await keeper.look()
        assert "changed since it was signed" in keeper.problem and len(ruler.taken) == 1

    run(BundleSpec(path=str(tmp_path)), case, trust=lambda: Trust({"one": BundleKey.read("HS256", SECRET)}))


def test_a_key_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    write(tmp_path, signed())
    keys: dict[str, BundleKey] = {}

    def trust() -> Trust:
        if not keys:
            raise SecretMissing("policy-key", "narthex secrets set policy-key")
        return Trust(keys)

    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.look()
        assert "key is missing" in keeper.problem and keeper.bundle is None
        keys["one"] = BundleKey.read("HS256", SECRET)
        clock.now += 1000
        await keeper.look()
        assert keeper.problem == "" and len(ruler.taken) == 1

    run(BundleSpec(path=str(tmp_path)), case, trust=trust)


# --- a bundle server


def test_a_bundle_is_fetched_once(tmp_path: Path) -> None:
    server = BundleServer(packed(policy("one")), token="t0ken")

    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        assert await keeper.ask() == 60.0
        await keeper.ask()
        assert server.answered == [200, 304] and ruler.taken == ["one"]
        assert server.asked[0]["prefer"] == "modes=snapshot" and "if-none-match" not in server.asked[0]
        server.body = packed(policy("two"))
        await keeper.ask()
        assert server.answered == [200, 304, 200] and ruler.taken == ["one", "two"] and keeper.problem == ""

    over_http(server, case, headers=lambda: (("Authorization", "Bearer t0ken"),))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda server: setattr(server, "status", 500), "HTTP 500", id="a server that fails"),
        pytest.param(lambda server: setattr(server, "status", 404), "HTTP 404", id="a bundle that has gone"),
        pytest.param(lambda server: setattr(server, "token", "other"), "HTTP 401", id="a server that refuses us"),
        pytest.param(lambda server: setattr(server, "body", b""), "short", id="nothing"),
        pytest.param(lambda server: setattr(server, "body", packed(policy("two"))[:-9]), "short", id="truncated"),
        pytest.param(lambda server: setattr(server, "body", b"<html>"), "not gzip", id="a page in its place"),
        pytest.param(lambda server: setattr(server, "body", packed({"a": bytes(9 * 2**20)})), "larger", id="a bomb"),
        pytest.param(lambda server: setattr(server, "body", packed({".manifest": b"{}"})), "no Rego", id="empty"),
    ],
)
def test_a_bad_one_changes_nothing(spoil: Callable[[BundleServer], None], said: str) -> None:
    server = BundleServer(packed(policy("one")))

    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.ask()
        good = server.body
        spoil(server)
        waits = [await keeper.ask() for _ in range(10)]
        assert said in keeper.problem and waits[0] < waits[3] < waits[-1] <= 120.0
        assert keeper.bundle is not None and keeper.bundle.revision == "one"
        server.status, server.token, server.body = 0, "", good
        await keeper.ask()
        assert keeper.problem == "" and ruler.taken == ["one"]

    over_http(server, case, BundleSpec(max_bytes=2**20))


def test_one_that_the_engine_refuses_changes_nothing() -> None:
    server = BundleServer(packed(policy("one")))

    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.ask()
        ruler.refuses, server.body = "no built-in function x.y", packed(policy("two"))
        await keeper.ask()
        assert "x.y" in keeper.problem and keeper.bundle is not None and keeper.bundle.revision == "one"
        ruler.refuses = ""
        await keeper.ask()
        assert ruler.taken == ["one", "two"], "an engine that is mended gets it without a new one being made"

    over_http(server, case)


def test_a_forged_one_changes_nothing() -> None:
    server = BundleServer(packed(signed()))

    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.ask()
        for files in (
            {**signed(), "policy.rego": b"package a\nallow := true"},
            {name: data for name, data in signed().items() if name != SIGNATURES},
            signed({"exp": NOW - 3600}),
        ):
            server.body = packed(files)
            await keeper.ask()
            assert len(ruler.taken) == 1 and keeper.problem
        assert "expired" in keeper.problem

    over_http(server, case, trust=lambda: Trust({"one": BundleKey.read("HS256", SECRET)}))


def test_a_long_poll_brings_a_new_one_at_once() -> None:
    server = BundleServer(packed(policy("one")), long_polls=True)

    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.ask()
        asking = asyncio.create_task(keeper.ask())
        while len(server.asked) < 2:
            await asyncio.sleep(0.01)
        assert server.asked[1]["prefer"] == "modes=snapshot;wait=20" and len(server.answered) == 1
        server.body = packed(policy("two"))
        clock.now += 5
        assert await asking == 0.0, "and it asks again at once"
        assert ruler.taken == ["one", "two"]

    over_http(server, case, BundleSpec(long_poll_s=20.0))


def test_a_server_without_long_polls_is_asked_at_intervals() -> None:
    server = BundleServer(packed(policy("one")))

    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        assert [await keeper.ask() for _ in range(2)] == [60.0, 60.0]

    over_http(server, case, BundleSpec(long_poll_s=20.0))


def test_what_was_good_rules_after_a_restart(tmp_path: Path) -> None:
    server, spec = BundleServer(packed(policy("one"))), BundleSpec(kept_in=str(tmp_path / "kept"))

    async def first(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.start(20.0)
        assert ruler.taken == ["one"]

    async def again(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.start(20.0)
        assert ruler.taken == ["one"] and "HTTP 503" in keeper.problem

    async def damaged(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        (kept,) = (tmp_path / "kept").iterdir()
        assert kept.stat().st_mode & 0o777 == 0o600
        kept.write_bytes(kept.read_bytes()[:-10])
        await keeper.start(20.0)
        assert ruler.taken == [] and keeper.bundle is None

    with served(server.app) as url:
        spec = msgspec.structs.replace(spec, url=f"{url}/bundle.tar.gz")
        run(spec, first)
        server.status = 503
        run(spec, again)
        run(spec, damaged)


def test_what_is_kept_of_another_address_is_not_ours(tmp_path: Path) -> None:
    server = BundleServer(packed(policy("one")))

    async def first(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.start(20.0)

    async def other(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.start(20.0)
        assert ruler.taken == [] and "HTTP 404" in keeper.problem

    with served(server.app) as url:
        run(BundleSpec(url=f"{url}/bundle.tar.gz", kept_in=str(tmp_path)), first)
        run(BundleSpec(url=f"{url}/other.tar.gz", kept_in=str(tmp_path)), other)


def test_nobody_there_denies_and_does_not_hold_up_a_start() -> None:
    async def case(keeper: BundleKeeper, ruler: Ruler, clock: Clock) -> None:
        await keeper.start(20.0)
        assert keeper.bundle is None and keeper.problem

    run(BundleSpec(url="http://127.0.0.1:9/bundle.tar.gz"), case)
