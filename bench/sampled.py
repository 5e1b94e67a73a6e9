"""Run `narthex` with a sampler in it: `python bench/sampled.py FILE serve CONFIG`. Used by `hotpath.py`.

Every 2 ms of CPU time a signal looks at the Python stack. When the process ends, FILE gets JSON: how often each stack
(outermost first, `file:line:function`) was seen. Work in C counts for the Python line that called it.
"""

from __future__ import annotations

import atexit
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

PERIOD_S = 0.002


class Sampler:
    def __init__(self) -> None:
        self.stacks: Counter[tuple[tuple[str, int, str], ...]] = Counter()

    def look(self, number: int, frame: FrameType | None) -> None:
        stack: list[tuple[str, int, str]] = []
        while frame is not None and len(stack) < 60:
            code = frame.f_code
            stack.append((code.co_filename, frame.f_lineno, code.co_qualname))
            frame = frame.f_back
        self.stacks[tuple(reversed(stack))] += 1

    def write(self, path: Path) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        path.write_text(json.dumps([[list(stack), count] for stack, count in self.stacks.items()]))


if __name__ == "__main__":
    from narthex.cli.main import main

    sampler = Sampler()
    atexit.register(sampler.write, Path(sys.argv[1]))
    signal.signal(signal.SIGPROF, sampler.look)
    signal.setitimer(signal.ITIMER_PROF, PERIOD_S, PERIOD_S)
    sys.argv[:2] = ["narthex"]
    main()
