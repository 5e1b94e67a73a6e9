"""What is measured and what stands behind it: the canned server, nginx, the gateway, FastMCP's proxy.

In: a `Rig`. Out: a `Subject` that answers on a port, pinned to the measured core. nginx is set up as its manual says
for proxying with kept-alive upstream connections: one worker, buffering as by default, off where an answer is a stream,
no access log (the gateway counts and accounts each call, as shipped).
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canned import SPECIAL, tool_names
from governed import PARTS, settings, token
from load import wait_for
from rig import BENCH, MEASURED, OTHERS, ROOT, BenchError, Rig, Started, free_port, need

FASTMCP = "fastmcp==4.1.0"
PEERS = ROOT / ".cache" / "bench-peers"
SOURCE = {"PYTHONPATH": str(ROOT / "src")}
NGINX = """
worker_processes 1; worker_cpu_affinity {mask}; daemon off; pid {folder}/nginx.pid; error_log stderr warn; {user}
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  upstream canned {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    proxy_http_version 1.1; proxy_set_header Connection "";
    location / {{ proxy_pass http://canned; }}
    location /stream/ {{ proxy_pass http://canned; proxy_buffering off; }}
  }}
}}
"""


@dataclass(frozen=True)
class Subject:
    """Something that answers on 127.0.0.1:`port`, to who shows `token` where one is asked for. `process` is None where
    nothing is measured."""

    port: int
    process: Started | None
    token: str = ""


def upstream(rig: Rig) -> int:
    """Start the canned server; its port."""
    port = free_port()
    started = rig.start("upstream", [sys.executable, str(BENCH / "upstream.py"), str(port)], OTHERS)
    wait_for(port, "/dual/10/mcp", "echo", started)
    return port


def nginx(rig: Rig, upstream_port: int, shown: str = "") -> Subject:
    """nginx before the canned server. `shown`: a token that clients show; it is handed on, as all of a request is."""
    need("nginx")
    port, folder = free_port(), rig.folder / ("nginx-token" if shown else "nginx")
    folder.mkdir(parents=True, exist_ok=True)
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(
        NGINX.format(folder=folder, port=port, upstream=upstream_port, user=user, mask=f"{1 << MEASURED:b}")
    )
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    started = rig.start(folder.name, [binary, "-p", str(folder), "-c", str(config)], MEASURED)
    wait_for(port, "/modern/10/mcp", "echo", started, token=shown)
    return Subject(port, started, shown)


def http_servers(upstream_port: int, paths: dict[str, str]) -> dict[str, Any]:
    return {name: {"url": f"http://127.0.0.1:{upstream_port}{path}/mcp"} for name, path in paths.items()}


def merged(upstream_port: int) -> dict[str, Any]:
    """The everyday configuration: servers on one endpoint, one of each kind."""
    pipe = {"command": sys.executable, "args": [str(BENCH / "stdio_server.py"), "10", str(OTHERS)]}
    over_http = http_servers(upstream_port, {"modern": "/modern/10/a", "legacy": "/legacy/10/a"})
    return {**over_http, "pipe": pipe, "oldpipe": {**pipe, "era": "legacy"}}


def many(upstream_port: int, servers: int, tools: int) -> dict[str, Any]:
    return http_servers(upstream_port, {f"s{i}": f"/modern/{tools}/s{i}" for i in range(servers)})


def echo_names(servers: int, tools: int) -> tuple[str, ...]:
    """Every tool that echoes, over all servers in turn, as an endpoint that prefixes shows it; 10,000 at most."""
    plain = [name for name in tool_names(tools) if name == "echo" or name not in SPECIAL]
    return tuple(f"s{i}__{name}" for name in plain for i in range(servers))[:10_000]


def gateway_config(folder: Path, servers: dict[str, Any], **more: Any) -> tuple[Path, int, int]:
    """Write a configuration (JSON is YAML); the file, the port and the admin port."""
    port, admin = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "version": 1,
        "listen": f"127.0.0.1:{port}",
        "admin": {"listen": f"127.0.0.1:{admin}"},
        "servers": servers,
        **more,
    }
    path = folder / "narthex.yaml"
    path.write_text(json.dumps(config, indent=1))
    return path, port, admin


def gateway_command(config: Path) -> list[str]:
    """`narthex serve` as its console script runs it, from this checkout."""
    return [sys.executable, "-c", "from narthex.cli.main import main; main()", "serve", str(config)]


def gateway(
    rig: Rig,
    name: str,
    servers: dict[str, Any],
    ready: str,
    tls_trust: ssl.SSLContext | None = None,
    token: str = "",
    **more: Any,
) -> Subject:
    """Start `narthex serve` in front of `servers` and wait until the tool `ready` answers."""
    config, port, _ = gateway_config(rig.folder / name, servers, **more)
    started = rig.start(name, gateway_command(config), MEASURED, env=SOURCE, cwd=config.parent)
    wait_for(port, "/mcp", ready, started, tls_trust, token)
    return Subject(port, started, token)


def governed(rig: Rig, upstream_port: int, part: str) -> Subject:
    """The everyday configuration with what governs a call, as far as `part` (`governed.PARTS`)."""
    name, servers = f"gateway-{part}", http_servers(upstream_port, {"modern": "/modern/10/a"})
    shown = token(rig.folder / name)
    return gateway(rig, name, servers, "modern__echo", token=shown, **settings(part))


def peers_python() -> Path:
    """The interpreter of the environment with FastMCP; made at the first use."""
    python = PEERS / "bin" / "python"
    if (
        python.exists()
        and subprocess.run([python, "-c", "import fastmcp"], capture_output=True, check=False).returncode == 0
    ):
        return python
    print(f"installing {FASTMCP} into {PEERS.relative_to(ROOT)} …", file=sys.stderr)
    for command in ([sys.executable, "-m", "venv", str(PEERS)], [str(python), "-m", "pip", "install", "-q", FASTMCP]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(
                f"{' '.join(command)} failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}\n"
                "Leave it out with --without fastmcp."
            )
    return python


def fastmcp(rig: Rig, upstream_port: int) -> Subject:
    port = free_port()
    command = [
        str(peers_python()),
        str(BENCH / "fastmcp_proxy.py"),
        str(port),
        f"http://127.0.0.1:{upstream_port}/dual/10/mcp",
    ]
    started = rig.start("fastmcp", command, MEASURED)
    wait_for(port, "/mcp", "echo", started)
    return Subject(port, started)


def makers(rig: Rig, upstream_port: int) -> dict[str, Callable[[], Subject]]:
    """How each subject of the tables is started, by name."""

    def scaled() -> Iterator[tuple[str, Callable[[], Subject]]]:
        for servers, tools in ((1, 10), (1, 1000), (1, 10_000), (10, 10), (200, 10)):
            name = f"gateway-{servers}x{tools}"
            yield name, lambda name=name, s=servers, t=tools: gateway(rig, name, many(upstream_port, s, t), "s0__echo")  # type: ignore[misc]

    return {
        "direct": lambda: Subject(upstream_port, None),
        "nginx": lambda: nginx(rig, upstream_port),
        "nginx_token": lambda: nginx(rig, upstream_port, token(rig.folder / "token")),
        "gateway": lambda: gateway(rig, "gateway", merged(upstream_port), "modern__echo"),
        "fastmcp": lambda: fastmcp(rig, upstream_port),
        **{f"gateway-{part}": lambda part=part: governed(rig, upstream_port, part) for part in PARTS},  # type: ignore[misc]
        **dict(scaled()),
    }
