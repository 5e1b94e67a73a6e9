"""What stands in the place of arguments that rules cannot speak of. Cases: `tests/flow/policy/test_arguments.py`."""

from __future__ import annotations

from typing import Any


class Unreadable(list[Any]):
    """Whatever is said of it has no value. It holds the one that it stands for, so that this can be sent on."""
