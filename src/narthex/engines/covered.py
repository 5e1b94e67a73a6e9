"""One question evaluated once more, in a process of its own, to see which lines of the policy are looked at.

`python -m narthex.engines.covered`: a `Question` as JSON on stdin, a `Covered` on stdout. In: a bundle's source and a
document. Out: a `Trace`. Never for a call: the engine is slower so, and the process is made anew each time.
Cases: `tests/engines/test_covered.py`.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from collections.abc import Callable

import msgspec

from narthex.engines.frames import LOAD_S, Flawed, Source
from narthex.engines.helper import inherited
from narthex.flow.policy.engines.trace import Trace, Unreadable, read_coverage

COMMAND = (sys.executable, "-m", "narthex.engines.covered")


class Question(msgspec.Struct, frozen=True):
    """`document`: the input, as JSON."""

    source: Source
    document: str


class Covered(msgspec.Struct, frozen=True):
    """The engine's report, as JSON; `failed`: its error at this input."""

    report: str
    failed: str = ""


def covered(source: Source, document: bytes, where: Callable[[str], str], deadline_s: float = LOAD_S) -> Trace:
    """For threads: it takes some hundred milliseconds, and at the most `deadline_s` (seconds).

    Args:
        where: What to say of an error of the engine.
    """
    question = msgspec.json.encode(Question(source, document.decode()))
    try:
        done = subprocess.run(
            COMMAND, input=question, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=inherited(),
            timeout=deadline_s, check=True, start_new_session=True,
        )  # fmt: skip
        found = msgspec.json.decode(done.stdout, type=Covered)
        return read_coverage(found.report.encode(), where(found.failed) if found.failed else "")
    except subprocess.TimeoutExpired:
        return Trace(problem=f"the policy is not done within {deadline_s:g} s")
    except Unreadable as error:
        return Trace(problem=str(error))
    except (OSError, subprocess.CalledProcessError, msgspec.DecodeError) as error:
        return Trace(problem=f"the process that evaluates ended ({type(error).__name__})")


def main() -> None:
    from narthex.engines.child import MEMORY
    from narthex.engines.evaluator import Evaluator

    with contextlib.suppress(ValueError, OSError):  # a system without it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    try:
        report, failed = Evaluator(question.source).cover(question.document)
    except Flawed as error:
        report, failed = '{"files": []}', str(error)
    sys.stdout.buffer.write(msgspec.json.encode(Covered(report, failed)))


if __name__ == "__main__":
    main()
