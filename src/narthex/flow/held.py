"""One budget per process for bytes held in large bodies, requests and answers alike (design §3). Pure."""

from __future__ import annotations

from narthex.errors import Overloaded

LARGE = 64 * 1024
"""Bodies above this count."""


class Held:
    """Bytes held now, and how many may be."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> None:
        """Raises Overloaded when the budget would be overdrawn; then nothing is taken."""
        if self.used + size > self.limit:
            raise Overloaded("the gateway holds too many bytes; try again")
        self.used += size

    def give(self, size: int) -> None:
        """Give `size` back."""
        self.used -= size
