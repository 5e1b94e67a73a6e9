"""Between a server and a call whose policy demands something of the result: what the server says is worked on whole.

In: a server's answer. Out: the result as it may be seen, to the call; nothing else of what the server says meanwhile.
Made only for calls with such a demand. Cases: `tests/flow/accept/test_keeping.py`; what is done:
`flow/policy/engines/obligations.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from narthex.errors import GatewayError
from narthex.flow.codec.jsonrpc import Incoming
from narthex.flow.policy.engines.obligations import Duties

if TYPE_CHECKING:
    from narthex.flow.accept.exchange import Exchange


class Keeping:
    """The `Sink` in front of an exchange."""

    def __init__(self, exchange: Exchange, duties: Duties) -> None:
        self._exchange = exchange
        self._duties = duties

    def started(self, streaming: bool) -> None:
        """Nothing of a stream is passed on before its end."""

    def message(self, message: Incoming) -> None:
        try:
            kept = self._duties.kept(message)
        except GatewayError as error:
            self._exchange.give_up(error)
            return
        if kept is not None:
            self._exchange.message(kept)

    def splice(self, head: bytes, total: int) -> bool:
        return False

    def chunk(self, data: bytes) -> None: ...

    def finished(self) -> None:
        self._exchange.finished()

    def failed(self, error: GatewayError) -> None:
        self._exchange.failed(error)
