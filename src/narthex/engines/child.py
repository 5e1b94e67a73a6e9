"""The helper process: compiles one bundle, then answers one input document after the other, until its socket closes.

`python -m narthex.engines.child`, its socket as stdin. In: frames of four bytes of length and so many bytes: first a
`Source`, then input documents. Out: a `Loaded`, then a frame for each document in order: `=` and the rule's value,
or `!` and what went wrong. It ends by the kernel's alarm where one document takes it longer than `ALARM` deadlines, so
it outlives nobody. Cases: `tests/engines/test_helper.py`.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import sys
from typing import BinaryIO

import msgspec

from narthex.engines.evaluator import EvaluationFailed, Evaluator
from narthex.engines.frames import LOAD_S, Flawed, Loaded, Source

MEMORY = 2 * 1024 * 1024 * 1024
"""Bytes of address space, of which the engine's allocator reserves half unused. Who wants more ends."""
ALARM = 10.0
"""Deadlines: whoever asked has given up long before."""


def main(line: socket.socket, deadline_s: float) -> None:
    with contextlib.suppress(ValueError, OSError):  # a system without it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the gateway drains, and wants its answers
    signal.setitimer(signal.ITIMER_REAL, LOAD_S)
    incoming = line.makefile("rb")
    source = msgspec.json.decode(_frame(incoming), type=Source)
    try:
        evaluator = Evaluator(source)
    except Flawed as error:
        send(line, msgspec.json.encode(Loaded(flaws=tuple(error.flaws))))
        return
    send(line, msgspec.json.encode(Loaded(evaluator.uses)))
    signal.setitimer(signal.ITIMER_REAL, 0)
    while document := _frame(incoming):
        signal.setitimer(signal.ITIMER_REAL, deadline_s * ALARM)
        try:
            answer = "=" + evaluator.evaluate(document.decode())
        except EvaluationFailed as error:
            answer = f"!{error}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(line, answer.encode(errors="replace"))


def _frame(incoming: BinaryIO) -> bytes:
    """The next frame; empty at the end."""
    size = incoming.read(4)
    return incoming.read(int.from_bytes(size)) if len(size) == 4 else b""


def send(line: socket.socket, body: bytes) -> None:
    line.sendall(len(body).to_bytes(4) + body)


if __name__ == "__main__":
    main(socket.socket(fileno=0), float(sys.argv[1]))
