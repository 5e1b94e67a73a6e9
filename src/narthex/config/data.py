"""`data`, `classification`, `privacy` and `environment` to what the gateway works with.

In: the settings. Out: a `DataSpec`; faults and remarks at the places they stand at.
Cases: `tests/config/test_data.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading
from narthex.config.grants import check_patterns
from narthex.config.schema.data import DataSettings
from narthex.config.schema.servers import ServerSettings
from narthex.types import CLASSIFICATIONS, PRIVACY, DataRow, DataSpec, Grant, LabelRow

KINDS = ("tools", "prompts", "resources")


def compile_data(servers: Mapping[str, ServerSettings], rows: Sequence[DataSettings], reading: Reading) -> DataSpec:
    """How data is classed. Faults and warnings go into `reading`."""
    for number, row in enumerate(rows):
        at: KeyPath = ("data", str(number))
        if not (row.tools or row.prompts or row.resources):
            reading.fault(at, "a row of `data` needs `tools`, `prompts` or `resources`")
        if row.classification is None and row.privacy is None:
            reading.fault(at, "a row of `data` needs `classification` or `privacy`")
        for key in KINDS:
            check_patterns(getattr(row, key), (*at, key), tuple(servers), reading)
    return DataSpec(
        {name: (one.classification or "", one.privacy or "") for name, one in servers.items()},
        tuple(
            DataRow(one.tools, one.prompts, one.resources, one.classification or "", one.privacy or "") for one in rows
        ),
    )


def check_asked(rules: Sequence[Grant | LabelRow], data: DataSpec, reading: Reading) -> None:
    """Remarks on servers whose classes rules ask for, and nobody has said."""
    for at, (key, strictest) in enumerate((("classification", CLASSIFICATIONS[-1]), ("privacy", PRIVACY[-1]))):
        if any(getattr(one, key) for one in rules):
            for name, said in data.servers.items():
                if not said[at]:
                    reading.warn(("servers", name), f"server '{name}' has no `{key}`: it counts as {strictest}")


def check_environment(grants: Sequence[Grant], environment: str, reading: Reading) -> None:
    """A rule for another environment than none would never count, and nobody would see why."""
    for number, grant in enumerate(grants):
        if grant.environments and not environment:
            reading.fault(("grants", str(number), "environment"), "environment: the file does not say which this is")
