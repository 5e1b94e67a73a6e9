"""Who has proved to be whom: once, and not more than anybody can read."""

from __future__ import annotations

from narthex.errors import Unauthorized
from narthex.telemetry.acts import ActEntry
from narthex.telemetry.sign_ins import AGAIN_S, MOST_KNOWN, MOST_REFUSED, SignIns
from narthex.testing import FakeClock
from narthex.types import ANONYMOUS, Principal
from tests.telemetry.test_record import WHO

REFUSED = Unauthorized("the token is PLANTED", error="invalid_token", detail="PLANTED")


def make() -> tuple[SignIns, list[ActEntry], FakeClock]:
    clock, acts = FakeClock(1_700_000_000.0), list[ActEntry]()
    return SignIns(acts.append, clock), acts, clock


def test_a_caller_is_recorded_once_an_hour_and_proof() -> None:
    one, acts, clock = make()
    for _ in range(3):
        one.succeeded(WHO, "default", "10.0.0.1")
    one.succeeded(WHO, "default", "10.0.0.2")
    one.succeeded(Principal("acme", WHO.issuer, WHO.subject, method="mtls"), "default", "10.0.0.1")
    one.succeeded(ANONYMOUS, "default", "10.0.0.1")
    assert len(acts) == 3
    clock.advance(AGAIN_S)
    one.succeeded(WHO, "default", "10.0.0.1")
    assert len(acts) == 4
    said = acts[0].particulars
    assert (said["principal"]["subject"], said["decision"], said["tenant"]) == ("u-17", "allow", "acme")
    assert b'"event":"signin"' in acts[0].line("id")


def test_who_is_refused_on_the_admin_side_was_at_no_endpoint() -> None:
    one, acts, _ = make()
    one.refused(REFUSED, "", "10.0.0.1", side="admin")
    assert acts[0].particulars == {"side": "admin", "decision": "deny", "reason": "unauthorized", "source": "10.0.0.1"}


def test_refusals_are_counted_where_there_are_too_many() -> None:
    one, acts, clock = make()
    for _ in range(MOST_REFUSED + 5):
        one.refused(REFUSED, "default", "10.0.0.1")
    assert len(acts) == MOST_REFUSED
    clock.advance(1)
    one.refused(REFUSED, "default", "10.0.0.1")
    assert acts[-1].particulars["left_out"] == 5 and acts[-1].particulars["reason"] == "unauthorized"
    assert not any(b"PLANTED" in act.line("id") for act in acts)


def test_callers_without_end_do_not_fill_the_memory() -> None:
    one, acts, _ = make()
    for number in range(MOST_KNOWN + 10):
        one.succeeded(Principal("acme", "sso", str(number)), "default", "x")
    assert len(one._seen) <= MOST_KNOWN and len(acts) == MOST_KNOWN + 10
