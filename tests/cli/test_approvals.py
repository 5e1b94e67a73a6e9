"""`narthex approvals`: what it shows, what it changes, and that nothing of a call can steer a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from narthex.authority.envelope import Envelopes
from narthex.cli.main import cli
from narthex.flow.policy.approvals.approval import Approval, approve, ask
from narthex.keys import load_keys
from narthex.store.sqlite import SqliteStore
from tests.flow.policy.approvals.test_approval import WAITS

CONFIG = "version: 1\nservers: {billing: {url: 'http://127.0.0.1:1/mcp'}}\n"
EVIL = "\x1b[2J\u202eevil\nrow"
PARAMS = {"name": "billing__refund", "arguments": {"amount": 500, "note": EVIL}}
NOW, DAY = int(time.time()), 86_400


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NARTHEX_KEY", raising=False)
    (tmp_path / "narthex.yaml").write_text(CONFIG)
    return tmp_path


def hold(id_: str, params: Any = PARAMS, **more: Any) -> Approval:
    """A call that waits, as a gateway keeps it."""
    state = Path(".narthex")
    state.mkdir(mode=0o700, exist_ok=True)
    sealed = Envelopes(load_keys(state, {}), os.urandom).seal(json.dumps(params), "default", f"approval {id_}")
    made = replace(
        WAITS, id=id_, digest=os.urandom(32), params=sealed, asked_at=NOW, ends_at=NOW + DAY, use_within=300, **more
    )

    async def main() -> None:
        store = await SqliteStore.open(state / "narthex.db")
        await store.ask_approval(made, most=100, most_each=100)
        await store.close()

    asyncio.run(main())
    return made


def kept(id_: str) -> Approval:
    async def main() -> Approval | None:
        store = await SqliteStore.open(Path(".narthex/narthex.db"))
        try:
            return await store.approval(id_)
        finally:
            await store.close()

    found = asyncio.run(main())
    assert found is not None
    return found


def approvals(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["approvals", *arguments])


def test_a_list_says_who_what_and_until_when(here: Path) -> None:
    hold("11111111-aaaa", actors=("svc",))
    shown = approvals("list")
    assert shown.exit_code == 0
    for word in ("11111111", "pending", "billing__refund", "ann of https://idp by bot", "acting: svc", "500",
                 "'large refunds'", "UTC"):  # fmt: skip
        assert word in shown.stdout, shown.stdout
    assert approvals("list").stdout.count("\n") == 4


def test_nothing_in_it_steers_a_terminal(here: Path) -> None:
    hold("11111111-aaaa", name=f"refund{EVIL}", subject=EVIL, client=EVIL, rule=EVIL, tenant=EVIL, actors=(EVIL,),
         issuer=EVIL)  # fmt: skip
    for shown in (approvals("list"), approvals("list", "1"), approvals("approve", "1"), approvals("deny", EVIL)):
        text = shown.stdout + shown.stderr
        assert text and all(c == "\n" or c.isprintable() for c in text), repr(text)
    assert approvals("list", "1").stdout.count("\n") == 4, "nor make a line of its own"


def test_json_is_one_document(here: Path) -> None:
    hold("11111111-aaaa")
    (one,) = json.loads(approvals("list", "--json").stdout)["approvals"]
    assert (one["id"], one["state"], one["name"], one["by"]) == (
        "11111111-aaaa",
        "pending",
        "billing__refund",
        "approver",
    )
    assert one["params"] == PARAMS and one["ends"].endswith("Z") and one["used"] is None
    assert one["principal"] == {"tenant": "default", "issuer": "https://idp", "subject": "ann", "client": "bot",
                                "actors": []}  # fmt: skip
    assert json.loads(approvals("list", "1111", "--json").stdout)["approvals"] == [one]


def test_a_long_call_is_cut_in_a_list_and_whole_alone(here: Path) -> None:
    hold("11111111-aaaa", {"arguments": {"x": "y" * 5000}})
    assert "characters more" in approvals("list").stdout
    assert "y" * 5000 in approvals("list", "11111111-aaaa").stdout


@pytest.mark.parametrize(("word", "state"), [("approve", "approved"), ("deny", "denied")])
def test_who_decided_is_kept(here: Path, word: str, state: str) -> None:
    hold("11111111-aaaa")
    hold("22222222-bbbb")
    done = approvals(word, "1111", "2222")
    assert done.exit_code == 0 and done.stdout.count(state) == 2
    one = kept("11111111-aaaa")
    name = f"{pwd.getpwuid(os.geteuid()).pw_name} at the terminal"
    assert one.state(NOW + 1) == state and name in (one.approved_by, one.denied_by)
    assert json.loads(approvals(word, "1111", "--json").stdout) == {state: ["11111111-aaaa"]}, "saying it again is fine"


def test_an_approved_call_may_be_denied_as_long_as_it_has_not_passed(here: Path) -> None:
    hold("11111111-aaaa")
    approvals("approve", "1")
    assert approvals("deny", "1").exit_code == 0
    done = approvals("approve", "1")
    assert done.exit_code == 1 and "it is denied" in done.stderr


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        pytest.param(["3"], "is no call that was held", id="unknown"),
        pytest.param(["1"], "beginning of several", id="ambiguous"),
        pytest.param([""], "is no call that was held", id="empty"),
        pytest.param(["11", "3"], "is no call that was held", id="one of two unknown"),
        pytest.param(["11", "9"], "it is expired", id="one of two over"),
    ],
)
@pytest.mark.parametrize("word", ["approve", "deny"])
def test_what_cannot_be_decided_changes_nothing(here: Path, ids: list[str], says: str, word: str) -> None:
    hold("11111111-aaaa")
    hold("12222222-bbbb")
    over = hold("99999999-cccc")

    async def end() -> None:
        store = await SqliteStore.open(Path(".narthex/narthex.db"))
        await store.change_approval(over.id, lambda found: replace(found, ends_at=NOW - 1))
        await store.close()

    asyncio.run(end())
    done = approvals(word, *ids)
    assert done.exit_code == 1 and says in done.stderr, done.output
    assert kept("11111111-aaaa").state(NOW) == "pending", "all or none"


def test_an_exact_id_is_no_beginning(here: Path) -> None:
    hold("1")
    hold("11")
    assert approvals("approve", "1").exit_code == 0
    assert kept("11").state(NOW) == "pending"


def test_all_shows_what_is_over(here: Path) -> None:
    made = hold("11111111-aaaa")
    approvals("deny", "1")
    assert "no calls wait" in approvals("list").stdout
    shown = approvals("list", "--all")
    assert "denied by" in shown.stdout and shown.exit_code == 0
    _, used = ask(approve(made, "bob", NOW), made, NOW)
    assert used.state(NOW) == "used"


def test_parameters_under_a_lost_key_are_said_to_be_shut(here: Path) -> None:
    hold("11111111-aaaa")
    (here / ".narthex" / "narthex.key").unlink()
    shown = approvals("list")
    assert shown.exit_code == 0 and "do not open" in shown.stdout


def test_misuse_is_exit_2(here: Path) -> None:
    assert approvals("approve").exit_code == 2
    assert approvals("allow", "1").exit_code == 2
    assert approvals("list", "--config", "nowhere.yaml").exit_code == 2


def test_without_calls_and_without_a_configuration(here: Path) -> None:
    assert approvals("list").stdout == "no calls wait for approval\n"
    assert json.loads(approvals("list", "--json").stdout) == {"approvals": []}
    (here / "narthex.yaml").unlink()
    assert approvals("list").exit_code == 2
