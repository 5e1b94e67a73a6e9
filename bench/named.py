"""Run `narthex` with threads that the kernel knows by name: `python bench/named.py serve CONFIG`. Used by `threads.py`.

Python gives its threads names that stay its own before 3.14.
"""

from __future__ import annotations

import threading
from pathlib import Path

LONGEST = 15
"""Characters of a name that the kernel keeps."""


def name_threads() -> None:
    """Tell the kernel the name of each thread that is started from now on."""
    start = threading.Thread.start

    def started(thread: threading.Thread) -> None:
        start(thread)
        Path(f"/proc/self/task/{thread.native_id}/comm").write_text(thread.name[:LONGEST])

    threading.Thread.start = started  # type: ignore[method-assign]
    Path("/proc/self/comm").write_text("loop")


if __name__ == "__main__":
    from narthex.cli.main import main

    name_threads()
    main()
