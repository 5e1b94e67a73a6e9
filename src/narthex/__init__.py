"""Narthex: an MCP gateway. One governed URL between AI agents and MCP servers."""

from narthex import compiled

__version__ = "0.1.0"

FORM = compiled.use(compiled.wish())
"""What runs, machine code or the sources: found out once, before any other module of the package is imported."""
