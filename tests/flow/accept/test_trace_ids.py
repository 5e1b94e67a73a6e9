"""A call's trace is the same in the log, in the record and for its run, also where nothing is traced here."""

from __future__ import annotations

from narthex.telemetry.record import Entry
from narthex.testing import FakeServer
from tests.flow.gateway import Running, run, spec

TRACES = ["0af7651916cd43dd8448eb211c80319c", "1" * 32]
TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]


def test_a_trace_that_the_client_names_ties_its_calls() -> None:
    async def main() -> None:
        server = FakeServer(tools=TOOLS)
        async with server, Running({"one": spec("one", server.url)}, settings={"log_calls": True}) as gateway:
            entries: list[Entry] = []
            lines: list[dict[str, object]] = []
            gateway.front.record = entries.append
            gateway.front.logs = Keeping(lines)  # type: ignore[assignment]
            client = await gateway.client()
            for trace in (*TRACES, TRACES[0]):
                meta = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
                await client.modern("tools/call", {"name": "one__echo", "arguments": {}}, meta=meta)
            await client.modern("tools/call", {"name": "one__echo", "arguments": {"without": "one"}})
            said = [*TRACES, TRACES[0], ""]
            assert [one["trace_id"] for one in lines] == said
            assert [one.trace[0] for one in entries] == said
            (row,) = gateway.front.behaviour.rows.values()
            assert (row.calls, row.runs, row.repeats) == (4, 3, 1), "each trace is a run, and what has none is another"

    run(main)


class Keeping:
    """Instead of `Logs`: keeps the lines of calls."""

    def __init__(self, lines: list[dict[str, object]]) -> None:
        self._lines = lines

    def call_line(self, **said: object) -> None:
        self._lines.append(said)
