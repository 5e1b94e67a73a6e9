"""`policy.rego` to what the gateway works with: the bundle is read and compiled here, so that a bad one is refused.

In: its settings. Out: a `RegoSpec`; or faults, each at its line of the configuration or of the Rego that it is in.
Cases: `tests/config/test_policy.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from narthex.config.document import Mark, Problem, Reading
from narthex.config.schema.rego import RegoSettings
from narthex.types import RegoSpec

HERE = ("policy", "rego")


def compile_rego(rego: RegoSettings, reading: Reading, resolve: Callable[[str], Path]) -> RegoSpec | None:
    if rego.bundle is None:
        reading.fault(HERE, "policy.rego: 'bundle' is missing: where are the rules?")
        return None
    path = resolve(rego.bundle)
    spec = RegoSpec(str(path), rego.entrypoint, rego.engine, rego.deadline)
    _check(spec, path, reading)
    return spec


def _check(spec: RegoSpec, path: Path, reading: Reading) -> None:
    """Could the gateway decide by it?"""
    from narthex.authority.bundles import read_path  # what reads bundles: only where there is one
    from narthex.engines.frames import Flawed, Source
    from narthex.engines.helper import probe
    from narthex.flow.policy.bundles import BundleRefused

    try:
        bundle = read_path(path, None, now=time.time())
        probe(Source(bundle.modules, bundle.data, spec.entrypoint))
    except OSError as error:
        reading.fault((*HERE, "bundle"), f"bundle: {error.filename or path}: {error.strerror or error}")
    except BundleRefused as refused:
        reading.fault((*HERE, "bundle"), f"bundle: {path}: {refused}")
    except Flawed as flawed:
        for flaw in flawed.flaws:
            if flaw.line:
                file = str(path / flaw.file) if path.is_dir() else f"{path}/{flaw.file}"
                reading.problems.append(Problem(file, Mark(flaw.line, flaw.column), flaw.text))
            else:
                reading.fault((*HERE, "entrypoint"), f"{flaw.file}: {flaw.text}")
