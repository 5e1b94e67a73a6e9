"""Narthex: an MCP gateway. One governed URL between AI agents and MCP servers."""

from narthex import compiled as compiled  # first of all: it says where the other modules are found

__version__ = "0.1.0"
