"""One target in one process, as `run.py` starts it: `python -m fuzz.child TARGET [folder or file]… [options]`."""

from __future__ import annotations

import importlib
import sys

atheris = importlib.import_module("atheris")  # has no types, and exists on Linux alone

with atheris.instrument_imports(include=["narthex"]):
    from fuzz.targets import TARGETS


def main() -> None:
    name, *rest = sys.argv[1:]
    atheris.Setup([sys.argv[0], *rest], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
