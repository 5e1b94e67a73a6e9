"""Rights, room, the store and the journal: what is wrong is found, with what to do, and nothing is changed."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from narthex.doctor.files import LITTLE, TOO_LITTLE, look_at_journal, look_at_rights, look_at_room, look_at_store
from narthex.store.file import APPLICATION_ID, open_file
from narthex.store.migrations import MIGRATIONS
from narthex.telemetry.audit.verify import SEGMENT


def rights(tmp_path: Path, **modes: int) -> list[tuple[str, str, str]]:
    """The findings on a configuration and its state, with these modes."""
    state = tmp_path / ".narthex"
    state.mkdir(mode=0o700)
    paths = {"source": tmp_path / "narthex.yaml", "key": state / "narthex.key",
             "signing": state / "audit.key", "token": state / "admin.token",
             "store": state / "narthex.db"}  # fmt: skip
    for name, path in paths.items():
        path.touch(0o600)
        path.chmod(modes.get(name, 0o600))
    state.chmod(modes.get("state", 0o700))
    found = look_at_rights(paths["source"], state, paths["store"], state / "audit")
    return [(Path(one.name).name, one.verdict, one.do) for one in found]


def test_all_is_well(tmp_path: Path) -> None:
    found = rights(tmp_path)
    assert {name for name, _, _ in found} == {".narthex", "narthex.key", "audit.key", "admin.token", "narthex.db"}
    assert {verdict for _, verdict, _ in found} == {"ok"}


@pytest.mark.parametrize(
    ("which", "mode", "name", "verdict", "do"),
    [
        ("source", 0o622, "narthex.yaml", "warn", "chmod go-w"),
        ("key", 0o640, "narthex.key", "fail", "chmod 600"),
        ("signing", 0o644, "audit.key", "fail", "chmod 600"),
        ("token", 0o604, "admin.token", "fail", "chmod 600"),
        ("store", 0o660, "narthex.db", "fail", "chmod 600"),
        ("state", 0o755, ".narthex", "fail", "chmod 700"),
    ],
)
def test_what_others_may_use(tmp_path: Path, which: str, mode: int, name: str, verdict: str, do: str) -> None:
    wrong = [one for one in rights(tmp_path, **{which: mode}) if one[1] != "ok"]
    assert [(one[0], one[1]) for one in wrong] == [(name, verdict)]
    assert wrong[0][2].startswith(do)


def test_what_belongs_to_another_user(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away: run as root")
    state = tmp_path / ".narthex"
    state.mkdir(mode=0o700)
    (state / "narthex.key").touch(0o600)
    os.chown(state / "narthex.key", 4711, 4711)
    found = list(look_at_rights(tmp_path / "none.yaml", state, state / "none", state / "audit"))
    assert [(one.verdict, one.said) for one in found if one.verdict != "ok"] == [
        ("fail", "belongs to user 4711, not to this one")
    ]


def test_a_folder_that_is_two_things_is_looked_at_once_and_as_a_folder(tmp_path: Path) -> None:
    """Where a database is the store, or nothing is recorded, the state folder stands for those, too."""
    state = tmp_path / ".narthex"
    state.mkdir()
    state.chmod(0o755)
    (found,) = look_at_rights(tmp_path / "none.yaml", state, state, state)
    assert (found.verdict, found.do) == ("fail", f"chmod 700 {state}")


def test_before_the_first_start_nothing_is_wrong(tmp_path: Path) -> None:
    (found,) = look_at_rights(tmp_path / "narthex.yaml", tmp_path / "no", tmp_path / "no" / "db", tmp_path / "no")
    assert found.verdict == "ok"
    assert look_at_store(tmp_path / "no" / "db").verdict == "ok"
    assert [one.verdict for one in look_at_journal(tmp_path / "no")] == ["ok"]
    assert list(tmp_path.iterdir()) == [], "nothing was made"


@pytest.mark.parametrize(
    ("free", "verdict"), [(LITTLE, "ok"), (LITTLE - 1, "warn"), (TOO_LITTLE, "warn"), (TOO_LITTLE - 1, "fail")]
)
def test_room(free: int, verdict: str) -> None:
    assert look_at_room(Path("/"), free).verdict == verdict


def test_a_store_that_is_whole(tmp_path: Path) -> None:
    open_file(tmp_path / "db").close()
    before = (tmp_path / "db").read_bytes()
    found = look_at_store(tmp_path / "db")
    assert (found.verdict, found.said) == ("ok", f"whole, form {len(MIGRATIONS)}")
    assert (tmp_path / "db").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        pytest.param("PRAGMA application_id = 1", "fail", "another program", id="foreign"),
        pytest.param("PRAGMA user_version = 9999", "fail", "newer", id="newer"),
        pytest.param("PRAGMA user_version = 1", "warn", "form 1", id="older"),
    ],
)
def test_a_store_of_another_form(tmp_path: Path, change: str, verdict: str, said: str) -> None:
    open_file(tmp_path / "db").close()
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute(change)
    connection.close()
    found = look_at_store(tmp_path / "db")
    assert (found.verdict, said in found.said) == (verdict, True)


def test_a_store_that_is_damaged(tmp_path: Path) -> None:
    open_file(tmp_path / "db").close()
    data = bytearray((tmp_path / "db").read_bytes())
    assert APPLICATION_ID.to_bytes(4) in data
    data[4096 : 4096 + 2000] = b"\xff" * 2000
    (tmp_path / "db").write_bytes(data)
    assert look_at_store(tmp_path / "db").verdict == "fail"
    (tmp_path / "text").write_text("no database at all, but long enough to be taken for one" * 50)
    assert look_at_store(tmp_path / "text").verdict == "fail"


def test_a_journal_that_was_changed_and_a_second_place_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / f"{SEGMENT}x.jsonl").write_text('{"forged": true}\n')
    found = list(look_at_journal(tmp_path / "audit", str(tmp_path / "none")))
    assert [one.verdict for one in found] == ["warn", "fail"]
    assert "evidence" in found[1].do
    assert [one.said for one in look_at_journal(tmp_path / "audit", chain=False)] == ["not read (--quick)"]
