"""FastMCP's proxy in front of one server, as its documentation starts it: `fastmcp_proxy.py PORT URL`.

Runs in an environment of its own (`subjects.peers_python`); access log off, as everywhere in the table.
"""

from __future__ import annotations

import sys

from fastmcp.server import create_proxy  # type: ignore[import-not-found]

if __name__ == "__main__":
    create_proxy(sys.argv[2], name="peer").run(
        transport="http",
        host="127.0.0.1",
        port=int(sys.argv[1]),
        path="/mcp",
        show_banner=False,
        log_level="error",
        uvicorn_config={"access_log": False},
    )
