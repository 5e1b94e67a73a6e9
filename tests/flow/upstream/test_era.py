"""What is known of a server's era: how long it holds, what casts doubt on it, what changes it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from narthex.flow.upstream.era import AGAIN_S, DOUBT_S, EraBook, Spoken, Verdict, is_strange
from narthex.types import Era, ServerSpec

NOW = 1_700_000_000.0
SPEC = {field.name: field.default for field in msgspec.structs.fields(ServerSpec)}
MODERN_S: float = SPEC["era_modern_ttl_s"]
LEGACY_S: float = SPEC["era_legacy_ttl_s"]


def empty(kept: Verdict | None = None) -> EraBook:
    return EraBook(kept, modern_s=MODERN_S, legacy_s=LEGACY_S)


def book(spoken: Spoken = "legacy", at: float = NOW) -> EraBook:
    one = empty()
    one.found(spoken, "server/discover", at, probed=True)
    return one


def test_who_was_never_asked_is_asked() -> None:
    one = empty()
    assert one.due(NOW)
    assert one.known(NOW) is None


@pytest.mark.parametrize(
    ("spoken", "age_s", "due"),
    [
        ("modern", MODERN_S - 1, False),
        ("modern", MODERN_S, True),
        ("legacy", LEGACY_S - 1, False),
        ("legacy", LEGACY_S, True),
        ("sse", LEGACY_S - 1, False),
        ("sse", LEGACY_S, True),
        pytest.param("modern", -1, True, id="the clock was set back"),
    ],
)
def test_a_verdict_holds_for_a_time(spoken: Spoken, age_s: float, due: bool) -> None:
    one = book(spoken)
    assert one.due(NOW + age_s) is due
    assert one.known(NOW + age_s) == (None if due else spoken)


def test_a_legacy_server_that_goes_on_answering_confirms_nothing() -> None:
    one = book("legacy")
    for minute in range(60):
        assert not one.found("legacy", "initialize", NOW + 60 * minute, probed=False)
    assert one.due(NOW + LEGACY_S)


def test_a_confirmed_verdict_keeps_its_date() -> None:
    one = book("legacy")
    assert not one.found("legacy", "server/discover", NOW + 3000, probed=True)
    assert one.verdict == Verdict("legacy", "server/discover", NOW, NOW + 3000)
    assert not one.due(NOW + LEGACY_S + 1)


def test_a_changed_verdict_is_dated_anew_and_told() -> None:
    one = book("legacy")
    assert one.found("modern", "server/discover", NOW + 5000, probed=True)
    assert one.verdict == Verdict("modern", "server/discover", NOW + 5000, NOW + 5000)
    assert not empty().found("modern", "server/discover", NOW, probed=True), "the first one is no change"


def test_doubt_asks_again_and_the_verdict_holds() -> None:
    one = book("modern")
    assert not one.doubt(NOW + DOUBT_S - 1), "it was asked just now"
    assert one.due(NOW + DOUBT_S), "but it is not forgotten"
    assert one.doubt(NOW + DOUBT_S)
    assert one.verdict is not None
    assert one.verdict.spoken == "modern"
    one.found("modern", "server/discover", NOW + DOUBT_S, probed=True)
    assert not one.due(NOW + DOUBT_S + 1)


def test_a_vain_probe_changes_nothing_and_is_not_repeated_at_once() -> None:
    one = book("legacy")
    late = NOW + LEGACY_S
    one.vain(late)
    assert not one.due(late + AGAIN_S - 1)
    assert one.known(late) == "legacy"
    assert not one.doubt(late + 1)
    assert one.due(late + AGAIN_S)


def test_a_verdict_can_be_kept() -> None:
    verdict = book("sse").verdict
    assert verdict is not None
    kept = msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict)
    assert empty(kept).known(NOW + 1) == "sse"
    assert verdict.era == "legacy"


@pytest.mark.parametrize(
    ("era", "code", "strange"),
    [
        pytest.param("modern", -32000, True, id="no session, says a legacy server"),
        pytest.param("modern", -32001, True, id="session not found, says a legacy server"),
        pytest.param("modern", -32600, True, id="missing session, says a legacy server"),
        pytest.param("modern", -32022, False, id="a modern server refuses the version: it is modern"),
        pytest.param("modern", -32601, False, id="method not found"),
        pytest.param("modern", -32602, False, id="bad parameters"),
        pytest.param("modern", -32603, False, id="an error in the server"),
        pytest.param("legacy", -32022, True, id="only a modern server knows this"),
        pytest.param("legacy", -32020, True, id="nor this"),
        pytest.param("legacy", -32001, True, id="the session may be gone"),
        pytest.param("legacy", -32602, False, id="bad parameters of a legacy call"),
        pytest.param("legacy", -31001, False, id="a code of somebody's own"),
    ],
)
def test_codes_that_no_server_of_the_era_gives(era: Era, code: int, strange: bool) -> None:
    assert is_strange(era, code) is strange


class Books(RuleBasedStateMachine):
    """Whatever happens, whenever: a verdict is lost to nothing, and none is relied on for longer than it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.book = empty()
        self.asked_at: float | None = None
        self.vain_at = float("-inf")

    @rule(seconds=st.floats(0, 100_000))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(spoken=st.sampled_from(["modern", "legacy", "sse"]), probed=st.booleans())
    def find(self, spoken: Spoken, probed: bool) -> None:
        before = self.book.verdict
        changed = self.book.found(spoken, "x", self.now, probed=probed)
        assert changed is (before is not None and before.spoken != spoken)
        assert self.book.verdict is not None
        assert self.book.verdict.spoken == spoken
        if probed or before is None or changed:
            self.asked_at, self.vain_at = self.now, float("-inf")
            assert not self.book.due(self.now)

    @rule()
    def doubt(self) -> None:
        self.book.doubt(self.now)

    @rule()
    def ask_in_vain(self) -> None:
        if self.book.verdict is not None:
            self.book.vain(self.now)
            self.vain_at = self.now

    @invariant()
    def relied_on_no_longer_than_it_holds(self) -> None:
        verdict = self.book.verdict
        assert (verdict is None) is (self.asked_at is None)
        if verdict is None or self.asked_at is None:
            return
        assert verdict.since <= verdict.checked_at == self.asked_at
        lasts_s = MODERN_S if verdict.spoken == "modern" else LEGACY_S
        if self.now - self.asked_at >= lasts_s and self.now - self.vain_at >= AGAIN_S:
            assert self.book.due(self.now)


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBooks = Books.TestCase
