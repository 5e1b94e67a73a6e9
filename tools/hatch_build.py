"""A wheel has the compiled form in it where there is a C compiler; the sources are in every wheel.

In: `NARTHEX_COMPILE` (`tools/compile.py`). Out: `narthex/_compiled/` in the wheel, and the wheel's tags. An editable
install has none: `make compile` makes it. Proof: `tests/test_compiled.py`.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]
    """hatchling's hook for wheels."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """mypyc, and what the sources import: it reads their types."""
        tool, scratch = self._tool(), Path(self.root) / "src" / "narthex" / "_compiled"
        try:
            wanted = tool.wanted(scratch)
        except tool.Missing:
            return []
        return [*self.metadata.core.dependencies, "mypy", "setuptools>=77"] if wanted else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        tool = self._tool()
        self._scratch = tempfile.TemporaryDirectory(prefix="narthex-wheel-")
        out = Path(self._scratch.name, "_compiled")
        try:
            if not tool.wanted(out):
                return
        except tool.Missing as error:
            if tool.WISH == "1":
                raise
            self.app.display_warning(f"the wheel has no compiled form: {error}")
            return
        tool.build(out)
        build_data["force_include"][str(out)] = "narthex/_compiled"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._scratch.cleanup()

    def _tool(self) -> ModuleType:
        path = Path(self.root, "tools", "compile.py")
        spec = importlib.util.spec_from_file_location("narthex_compile", path)
        assert spec is not None and spec.loader is not None
        module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
        if not hasattr(module, "wanted"):
            spec.loader.exec_module(module)
        return module
