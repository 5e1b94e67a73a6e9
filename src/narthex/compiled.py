"""Which form of the package runs: machine code where it was made of exactly these sources, else the sources themselves.

In: `_compiled/` beside this file, with extension modules and `manifest.json`, which names every source that they were
made of and its SHA-256. Out: the `Form` that runs, and a finder ahead of Python's own that loads them. A source that
differs, another Python, anything that cannot be read: the sources run, and the form says why. So machine code never
stands for other text than is there to be read. `tools/compile.py` makes the folder;
`docs/decisions/compiled-from-the-same-source.md`.
Cases: `tests/test_compiled.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from types import ModuleType
from typing import NamedTuple

VARIABLE = "NARTHEX_COMPILE"
"""`0`: run the sources. `1`: run machine code or not at all. Also read where it is made: `tools/compile.py`."""
PACKAGE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(PACKAGE, "_compiled")
MANIFEST = "manifest.json"


class Form(NamedTuple):
    """`name` is `compiled` or `interpreted`; `why` says why it is not the former, empty where it is."""

    name: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.why}" if self.why else self.name


class Finder(MetaPathFinder):
    """Finds the modules that are compiled, by their files."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        file = self._files.get(fullname)
        return None if file is None else spec_from_file_location(fullname, file, loader=_loader(fullname, file))


def _loader(name: str, file: str) -> ExtensionFileLoader:
    return ExtensionFileLoader(name, file)


def wish() -> str | None:
    """What `NARTHEX_COMPILE` says."""
    return os.environ.get(VARIABLE)


def use(wish: str | None, folder: str = FOLDER, package: str = PACKAGE) -> Form:
    """Have the compiled modules found from now on, if they are of these very sources.

    Args:
        wish: What `NARTHEX_COMPILE` says.
    Raises:
        ImportError: It says that nothing else may run, and there is nothing else.
    """
    form, files = look(folder, package) if wish != "0" else (Form("interpreted", f"{VARIABLE}=0"), {})
    if wish == "1" and form.name != "compiled":
        raise ImportError(f"{VARIABLE}=1, and {form.why}")
    if files:
        sys.meta_path.insert(0, Finder(files))
    return form


def look(folder: str, package: str) -> tuple[Form, dict[str, str]]:
    """Can what is in `folder` stand for the sources in `package`? And the file of each module."""
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as file:
            manifest = json.load(file)
        suffix, modules, sources = manifest["suffix"], manifest["modules"], manifest["sources"]
        if suffix != EXTENSION_SUFFIXES[0]:
            return Form("interpreted", "what is compiled is for another Python"), {}
        for source, digest in sources.items():
            if digest_of(os.path.join(package, source)) != digest:
                return Form("interpreted", f"{source} has changed since it was compiled"), {}
        return Form("compiled"), {name: os.path.join(folder, file) for name, file in modules.items()}
    except FileNotFoundError:
        return Form("interpreted", "nothing is compiled"), {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Form("interpreted", "what is compiled cannot be read"), {}


def digest_of(path: str) -> str:
    """SHA-256 of a file, as hex."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
