"""Make machine code of the modules on the path of a call, of the same typed Python source, with mypyc.

`python tools/compile.py [--check | --wanted] [--out FOLDER]`: writes `src/narthex/_compiled/` with a manifest of the
sources that it was made of (`narthex/compiled.py` reads it), and nothing where that is there already. `--check`: only
whether mypyc takes them. Needs a C compiler, Python's headers and mypy. `NARTHEX_COMPILE`: `0` does nothing, `1` fails
where something is missing, else that is said in one line and the sources run.
In: `MODULES`. Out: exit code 0; 3, nothing to make or nothing to make it with; 1. Proof: `tests/test_compiled.py`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.util
import io
import json
import os
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from setuptools import Extension

    from narthex import compiled
else:  # by its file: the package itself may ask for what is not made yet

    def _by_its_file(path):
        spec = importlib.util.spec_from_file_location("narthex_form", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    compiled = _by_its_file(Path(__file__).resolve().parent.parent / "src" / "narthex" / "compiled.py")

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "narthex"
WISH = os.environ.get(compiled.VARIABLE)
GROUP = "narthex_compiled"
MODULES = (
    "call",
    "flow.accept.batches",
    "flow.accept.caching",
    "flow.accept.exchange",
    "flow.accept.forms",
    "flow.accept.front",
    "flow.accept.hearing",
    "flow.accept.hosts",
    "flow.accept.likeness",
    "flow.accept.listener",
    "flow.accept.metering",
    "flow.accept.needs",
    "flow.accept.posting",
    "flow.accept.recording",
    "flow.accept.records",
    "flow.accept.refusals",
    "flow.accept.relayed",
    "flow.accept.replying",
    "flow.accept.response",
    "flow.accept.sessions",
    "flow.accept.tasking",
    "flow.cache.flights",
    "flow.cache.lots",
    "flow.cache.requests",
    "flow.cache.shelves",
    "flow.codec.bridge",
    "flow.codec.crowds",
    "flow.codec.headers",
    "flow.codec.inbound",
    "flow.codec.jsonrpc",
    "flow.codec.revisions",
    "flow.codec.sse",
    "flow.identity.verified",
    "flow.limit.algorithms",
    "flow.limit.limiter",
    "flow.limit.reserve",
    "flow.limit.shared.wire",
    "flow.limit.tab",
    "flow.outbox",
    "flow.policy.admission",
    "flow.policy.admissions",
    "flow.policy.arguments",
    "flow.policy.check",
    "flow.policy.conditions",
    "flow.policy.cover",
    "flow.policy.engines.remembered",
    "flow.policy.grants",
    "flow.policy.site",
    "flow.route.names",
    "flow.route.patterns",
    "flow.route.target",
    "flow.upstream.breaker",
    "flow.upstream.connection",
    "flow.upstream.fleet",
    "flow.upstream.http",
    "flow.upstream.outgoing",
    "flow.upstream.resuming",
    "flow.upstream.server",
    "flow.upstream.session",
    "flow.upstream.viewers",
    "flow.walk",
    "flow.whole",
    "store.shared.counters",
    "store.shared.entries",
    "telemetry.accounts",
    "telemetry.audit.chain",
    "telemetry.behaviour",
    "telemetry.frames",
    "telemetry.stamps",
)
"""What a call passes. No `msgspec.Struct` stands in one of them: as a part of compiled code it is slower than a class,
and it no longer knows the types of its members."""
OPTIMIZE = "2"
HARMLESS = "warning: Treating generator comprehension as list"
RAW = "class Raw:\n    def __len__(self) -> int: ...\n    def __buffer__(self, flags: int, /) -> memoryview: ..."


class Missing(Exception):
    """What it takes is not here; the text says what, and what helps."""


def source_of(module: str) -> Path:
    return PACKAGE / (module.replace(".", "/") + ".py")


def need_compiler() -> None:
    """Raises Missing where no extension module can be made."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise Missing(f"no C compiler ({compiler}; Debian: apt-get install gcc libc6-dev)")
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        raise Missing("no headers of Python (Debian: apt-get install python3-dev)")


def sources_of(modules: Iterable[str]) -> list[Path]:
    """The modules' files and all of ours that they import, at whatever distance: code of any of them may be inlined."""
    found: set[Path] = set()
    waiting = [source_of(module) for module in modules]
    while waiting:
        path = waiting.pop()
        if path.is_file() and path not in found:
            found.add(path)
            waiting += [one for name in _imports(path) for one in (source_of(name), source_of(f"{name}.__init__"))]
    return sorted(found)


def _imports(path: Path) -> Iterator[str]:
    """Modules of ours that a file names in its imports, without the package's own name."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("narthex."):
            name = node.module.removeprefix("narthex.")
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def _true_types() -> Path:
    """A folder with msgspec's types as they are at run time: there `Raw` is no `bytes`, as its stubs say for comfort.

    Compiled code checks that what is said to be bytes is bytes: "bytes or Raw" must not be taken for "bytes".
    """
    spec = importlib.util.find_spec("msgspec")
    assert spec is not None and spec.origin is not None
    folder = ROOT / ".cache" / "types"
    shutil.rmtree(folder, ignore_errors=True)
    for stub in Path(spec.origin).parent.glob("*.pyi"):
        text = stub.read_text(encoding="utf-8").replace("class Raw(bytes):", RAW)
        (folder / "msgspec").mkdir(parents=True, exist_ok=True)
        (folder / "msgspec" / stub.name).write_text(text, encoding="utf-8")
    return folder


def translate(target: Path) -> list[Extension]:
    """Have mypyc write C into `target`; the extensions to be made of it. Ends the program where it cannot."""
    os.environ["MYPY_CACHE_DIR"] = str(ROOT / ".mypy_cache" / "compile")
    os.environ["MYPYPATH"] = str(_true_types())
    from mypyc.build import mypycify

    paths = [str(source_of(module).relative_to(ROOT)) for module in MODULES]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            return mypycify(
                ["--config-file", "pyproject.toml", *paths],
                opt_level=OPTIMIZE, debug_level="0", target_dir=str(target), group_name=GROUP,
            )  # fmt: skip
    finally:  # what it has to say of its own optimizations is nothing to whoever wants to run this
        print("".join(line for line in said.getvalue().splitlines(True) if HARMLESS not in line), end="")


def build(out: Path) -> None:
    """Write the compiled modules and their manifest to `out`, all or nothing."""
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    began = time.monotonic()
    sources = {path: compiled.digest_of(str(path)) for path in sources_of(MODULES)}
    with tempfile.TemporaryDirectory(prefix="narthex-compile-") as scratch:
        folder = Path(scratch)
        command = build_ext(Distribution({"ext_modules": translate(folder / "c")}))
        command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "o")
        command.parallel = True
        command.ensure_finalized()
        command.run()
        made = folder / "made"
        made.mkdir()
        modules = {}
        for extension in command.extensions:
            modules[extension.name] = f"{extension.name}{EXTENSION_SUFFIXES[0]}"
            shutil.copy(command.get_ext_fullpath(extension.name), made / modules[extension.name])
        manifest = {
            "suffix": EXTENSION_SUFFIXES[0],
            "modules": modules,
            "sources": {str(path.relative_to(PACKAGE)): digest for path, digest in sources.items()},
        }
        (made / compiled.MANIFEST).write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out)
    print(f"compiled {len(MODULES)} modules in {time.monotonic() - began:.0f} s")


def wanted(out: Path) -> bool:
    """Is there something to be made? Raises Missing where there is, and it cannot be."""
    if WISH == "0" or compiled.look(str(out), str(PACKAGE))[0].name == "compiled":
        return False
    need_compiler()
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only whether mypyc takes the sources; nothing is made")
    parser.add_argument("--wanted", action="store_true", help="only whether there is something to make: 0 yes, 3 no")
    parser.add_argument("--out", type=Path, default=Path(compiled.FOLDER))
    given = parser.parse_args()
    os.chdir(ROOT)
    if given.check:
        with tempfile.TemporaryDirectory(prefix="narthex-compile-") as scratch:
            translate(Path(scratch))
        return 0
    try:
        if not wanted(given.out):
            return 3 if given.wanted else 0
    except Missing as error:
        print(f"==> Narthex runs interpreted, at more CPU a call: {error}", file=sys.stderr)
        return 1 if WISH == "1" else 3
    if not given.wanted:
        build(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
