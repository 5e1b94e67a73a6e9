"""The names that OpenTelemetry's semantic conventions give things, in one place: they are in development, and change.

Source: semantic-conventions-genai 0.1.0, "MCP" (spans, attributes, metrics); semantic-conventions 1.43 (general).
What those have no name for begins with `narthex.`.
"""

from __future__ import annotations

from typing import Final

# Resource
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE: Final = "service.instance.id"
DEPLOYMENT: Final = "deployment.environment.name"

# Attributes of spans
METHOD: Final = "mcp.method.name"
SESSION: Final = "mcp.session.id"
PROTOCOL: Final = "mcp.protocol.version"
RESOURCE_URI: Final = "mcp.resource.uri"
REQUEST: Final = "jsonrpc.request.id"
STATUS_CODE: Final = "rpc.response.status_code"
ERROR_TYPE: Final = "error.type"
OPERATION: Final = "gen_ai.operation.name"
EXECUTE_TOOL: Final = "execute_tool"
TOOL: Final = "gen_ai.tool.name"
PROMPT: Final = "gen_ai.prompt.name"
TRANSPORT: Final = "network.transport"
NETWORK: Final = "network.protocol.name"
NETWORK_VERSION: Final = "network.protocol.version"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
CLIENT_ADDRESS: Final = "client.address"

ENDPOINT: Final = "narthex.endpoint"
SERVER: Final = "narthex.server"
TENANT: Final = "narthex.tenant"
CLIENT: Final = "narthex.client"
OUTCOME: Final = "narthex.outcome"
REASON: Final = "narthex.reason"
DECISION: Final = "narthex.decision.id"
CONFIG: Final = "narthex.config.revision"
BYTES_IN: Final = "narthex.request.bytes"
BYTES_OUT: Final = "narthex.response.bytes"

# Metrics, in seconds
SERVER_DURATION: Final = "mcp.server.operation.duration"
"""From a client's request to our answer."""
CLIENT_DURATION: Final = "mcp.client.operation.duration"
"""From our request to the server's answer."""

SERVER_SESSION: Final = "mcp.server.session.duration"
"""A client's session with us."""
CLIENT_SESSION: Final = "mcp.client.session.duration"
"""Our session with a server."""

TOOL_ERROR: Final = "tool_error"
"""`error.type` of a result with `isError`."""
FAULTS: Final = range(-32099, -32000 + 1)
"""Codes of JSON-RPC that are an error of the server of a SERVER span, beside `INTERNAL`; others are its caller's."""
INTERNAL: Final = -32603


def span_name(method: str, tool: str) -> str:
    """`{mcp.method.name} {gen_ai.tool.name | gen_ai.prompt.name}`, without the second where nothing is named."""
    return f"{method} {tool}" if tool else method
