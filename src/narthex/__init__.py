"""Narthex: an MCP gateway. One governed URL between AI agents and MCP servers."""

__version__ = "0.1.0"
