"""The life of the process: start, reload on SIGHUP or when the file changes, drain on SIGTERM, stop at once on the
second signal. Cases: `tests/e2e/test_lifecycle.py`.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from narthex import FORM, __version__
from narthex.app import Gateway
from narthex.config.compile import Overrides
from narthex.config.reload import ReloadOutcome
from narthex.telemetry.log import Logs, start_line
from narthex.types import Snapshot

SHOWN = 8
"""Endpoints named in the start line; `GET /` and the admin API name them all."""


async def serve(snapshot: Snapshot, overrides: Overrides, logs: Logs, path: Path | None = None) -> int:
    """Run a gateway until a signal says otherwise. Returns the exit code."""
    gateway = Gateway(snapshot, overrides, path=path, logs=logs)
    await gateway.start()
    urls = [f"mcp={url}" for url in gateway.endpoint_urls().values()]
    if len(urls) > SHOWN:
        urls[SHOWN:] = [f"({len(urls) - SHOWN} more)"]
    logs.emit(
        "INFO",
        "narthex",
        start_line(f"{__version__} ({FORM.name})", urls, f"admin={gateway.admin_url}", len(snapshot.servers)),
    )
    for warning in snapshot.warnings:
        logs.emit("WARNING", "narthex", warning)
    watching = asyncio.ensure_future(gateway.watch())
    stopping = _signals(gateway)
    await stopping.wait()
    watching.cancel()
    draining = asyncio.ensure_future(gateway.drain())
    stopping.clear()
    again = asyncio.ensure_future(stopping.wait())
    await asyncio.wait((draining, again), return_when=asyncio.FIRST_COMPLETED)
    draining.cancel()
    again.cancel()
    await gateway.stop()
    return 0


def _signals(gateway: Gateway) -> asyncio.Event:
    """SIGTERM and SIGINT set the returned event; SIGHUP reloads."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    reloads: set[asyncio.Future[ReloadOutcome]] = set()

    def reload() -> None:
        task = asyncio.ensure_future(gateway.reload("SIGHUP"))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    return stopping
