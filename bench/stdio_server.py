"""The canned MCP server over stdio, both eras: `python bench/stdio_server.py TOOLS [CORE]`. Answers: `canned.py`.

Reads as much as the pipe holds and answers all of it in one write, so that the pipe is not what is measured.
"""

from __future__ import annotations

import os
import sys
import time

import msgspec
from canned import answer


def main(tools: int) -> None:
    rest = b""
    while data := os.read(0, 1 << 16):
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        out: list[bytes] = []
        for line in lines:
            try:
                said = answer(line, "dual", tools)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            time.sleep(said.delay_ms / 1000)
            out += said.messages
        left = memoryview(b"".join(message + b"\n" for message in out))
        while left:
            left = left[os.write(1, left) :]


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.sched_setaffinity(0, {int(sys.argv[2])})
    main(int(sys.argv[1]))
