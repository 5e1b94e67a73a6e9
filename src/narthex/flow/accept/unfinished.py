"""A result that is no answer yet: a task that goes on, or a question, whose answers come with a retry of the same call.

In: a modern server's result, or the state of a retry. Out: what the client is told, with handles of ours in the place
of the server's; the call as it goes on. Cases: `tests/flow/accept/test_inputs.py`, `tests/flow/accept/test_holding.py`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from narthex.flow.accept.holding import Approved
from narthex.flow.codec.bridge import GoesOn, NeedsInput, client_bits
from narthex.flow.codec.handles import Approving, Relayed, RequestState
from narthex.flow.codec.inputs import check_asked, for_modern, origin_of
from narthex.flow.codec.jsonrpc import Raw, RawMap
from narthex.flow.codec.tasks import created
from narthex.flow.policy.runs.runs import End
from narthex.types import Call

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange


def unfinished(one: Exchange, need: NeedsInput | GoesOn) -> tuple[bytes | Raw, End] | None:
    """The result for the client, and what that says of the call. None: a legacy client is to be asked.

    Raises:
        MissingCapability, UpstreamUnavailable, ContentBlocked: This client cannot be told that.
    """
    if isinstance(need, GoesOn):
        known_as = partial(one.front.handles.task_of, one.call, one.server_name, tool=one.target_name)
        return created(one.call, need.members, known_as), "failed"  # no answer yet
    check_asked(need.required.asked, client_bits(one.call))
    return (_relayed(one, need), "asked") if one.call.era == "modern" else None


def _relayed(one: Exchange, need: NeedsInput) -> bytes:
    """A call that was held gets a state in any case: it passes no second time without."""
    state = need.required.state
    passed = one.approved.passed if one.approved is not None else {}
    if state is None and passed:
        state = Raw(b"")

    def sealed(own: bytes) -> str:
        kept = Relayed(one.server_name, own, tuple((rule, *last) for rule, last in passed.items()))
        return one.front.handles.for_retry(one.call, origin_of(one.call), kept)

    return for_modern(need.members, state, sealed)


def retried(call: Call, state: RequestState) -> Call:
    """The call of a retry as it goes on: with its server's own state, or none."""
    if isinstance(state, Relayed) and state.state:
        return call.but(params={**call.params, "requestState": Raw(state.state)})
    dropped = ("requestState",) if isinstance(state, Relayed) else ("requestState", "inputResponses")
    return call.but(params={key: value for key, value in call.params.items() if key not in dropped})


def remember(one: Exchange, state: RequestState, answers: RawMap) -> None:
    """What the state of a retry says of approvals."""
    if isinstance(state, Approving):
        one.approved = Approved()
        one.approved.words[state.slot] = (state.approval, answers)
    elif isinstance(state, Relayed) and state.approvals:
        one.approved = Approved()
        one.approved.earlier.update({rule: (id_, rounds) for rule, id_, rounds in state.approvals})
