"""What calls have said, at the admin side: for the auditor alone, of their tenant, and never unrecorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from narthex.telemetry.audit.frames import Answer
from narthex.telemetry.payloads.writing import Payloads
from tests.telemetry.payloads.test_lines import SEALS
from tests.telemetry.payloads.test_writing import put

from .gateway import Gateway, ask
from .test_audit import BY_ROLE, BY_TOKEN, BY_WORKER, Keeper, auditors, with_records

PLANTED = b'{"card":"PLANTED"}'


def kept(folder: Path, answer: Answer | None = None, **changes: Any) -> tuple[Gateway, Keeper, str]:
    """A gateway with one call of which the arguments were kept."""
    one = Payloads(folder)
    record = {**put(one, 1, PLANTED), "event": "call"}
    one.commit()
    gateway, keeper = with_records(
        answer or Answer([record]), audit_dir=str(folder), state_dir=str(folder / "state"), **changes
    )
    return gateway, keeper, f"/api/v1/payloads/{record['id']}"


@pytest.mark.parametrize(
    ("headers", "actions", "status"),
    [
        pytest.param(BY_TOKEN, (), 200, id="the token"),
        pytest.param(BY_ROLE, (), 200, id="the admin role"),
        pytest.param(BY_WORKER, ("payloads.read",), 200, id="an auditor"),
        pytest.param(BY_WORKER, ("audit.read",), 403, id="who sees records alone"),
        pytest.param(BY_WORKER, (), 403, id="somebody"),
        pytest.param(None, ("payloads.read",), 401, id="nobody"),
    ],
)
def test_who_sees_it(tmp_path: Path, headers: Any, actions: tuple[str, ...], status: int) -> None:
    gateway, keeper, path = kept(tmp_path, **(auditors(*actions) if actions else {}))
    found, document = ask(gateway, "GET", path, headers)
    assert found == status and ("PLANTED" in json.dumps(document)) is (status == 200)
    assert bool(keeper.asked) is (status == 200)
    if headers is not None:
        (told,) = gateway.recorded
        assert (told["method"], told["name"]) == ("payloads.read", path)
        assert told.get("did", {}).get("parts") == (["arguments"] if status == 200 else None)


def test_what_is_shown(tmp_path: Path) -> None:
    gateway, _, path = kept(tmp_path)
    (row,) = ask(gateway, "GET", path, BY_TOKEN)[1]["payloads"]
    assert (row["part"], row["state"], row["kept"], row["body"]) == ("arguments", "here", "full", {"card": "PLANTED"})


def test_of_their_tenant(tmp_path: Path) -> None:
    gateway, keeper, path = kept(tmp_path)
    ask(gateway, "GET", path, BY_ROLE)
    ask(gateway, "GET", path, BY_TOKEN)
    assert [one.wanted.tenant for one in keeper.asked] == ["default", ""]


def test_what_is_sealed_stays_so_without_its_key(tmp_path: Path) -> None:
    one = Payloads(tmp_path, seals=SEALS)
    record = put(one, 1, PLANTED)
    one.commit()
    gateway, _, path = kept(tmp_path, Answer([record]))
    status, document = ask(gateway, "GET", path, BY_TOKEN)
    assert status == 200 and document["payloads"][0]["state"] == "sealed" and "PLANTED" not in json.dumps(document)


def test_no_such_record(tmp_path: Path) -> None:
    gateway, _, path = kept(tmp_path, Answer())
    assert ask(gateway, "GET", path, BY_TOKEN)[0] == 404
