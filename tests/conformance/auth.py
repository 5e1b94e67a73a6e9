"""The suite's client scenarios about OAuth: how the gateway is configured for each, and what is done through it.

In: a scenario's name and context. Out: the parts of a configuration that name its credential, and its steps.
`drive.py` runs them. Source: `list --client` of the suite; its scenarios that need a browser are in `known.yml`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from tests.e2e.harness import MODERN, Gateway

Config = dict[str, Any]
SECRETS = ("client_secret", "private_key_pem", "idp_id_token", "valid_jwt")


def service(context: Mapping[str, Any]) -> Config:
    client = {"kind": "client_credentials", "client_id": context.get("client_id", "gateway")}
    return {**client, "client_secret": "${secret:client_secret}"} if "client_secret" in context else client


def with_a_key(context: Mapping[str, Any]) -> Config:
    algorithm = context["signing_algorithm"]
    return {**service(context), "private_key": "${secret:private_key_pem}", "algorithm": algorithm}


def vouched_for(context: Mapping[str, Any]) -> Config:
    return {
        **service(context),
        "kind": "id_jag",
        "subject_token": "${secret:idp_id_token}",
        "subject_token_type": "id_token",
        "idp": {"issuer": context["idp_issuer"], "client_id": context["idp_client_id"]},
    }


def a_workload(context: Mapping[str, Any]) -> Config:
    return {**service(context), "kind": "jwt_bearer", "assertion": "${secret:valid_jwt}"}


CREDENTIALS: dict[str, Callable[[Mapping[str, Any]], Config]] = {
    "auth/client-credentials-basic": service,
    "auth/client-credentials-jwt": with_a_key,
    "auth/enterprise-managed-authorization": vouched_for,
    "auth/wif-jwt-bearer": a_workload,
    "auth/pre-registration": service,
    "auth/resource-mismatch": service,
    "auth/metadata-issuer-mismatch": service,
}


def credential_of(scenario: str, context: Mapping[str, Any]) -> tuple[Config, Config]:
    """What stands beside `servers`, and in the server's entry. The secrets come from variables, which it sets."""
    if scenario not in CREDENTIALS:
        return {}, {}
    sources = {}
    for name in SECRETS:
        if name in context:
            os.environ[f"SCENARIO_{name.upper()}"] = context[name]
            sources[name] = f"env:SCENARIO_{name.upper()}"
    beside: Config = {
        "credentials": {"account": CREDENTIALS[scenario](context)},
        "secrets": sources,
        "egress": {"allow_private": ["localhost"], "allow_http": ["localhost"]},
    }
    return beside, {"credential": "account"}


def a_token_is_fetched_and_shown(gate: Gateway, context: Any) -> None:
    client = gate.client(era="modern" if os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"] >= MODERN else "legacy")
    assert client.tools() == ["test-tool"]
    assert client.call("test-tool", {})["content"]


def nothing_is_fetched(gate: Gateway, context: Any) -> None:
    """The server's metadata is not to be believed: the gateway asks nobody for a token."""
    client = gate.client()
    assert client.call_error("test-tool", {})["code"] in (-31005, -32602)


STEPS = dict.fromkeys(CREDENTIALS, a_token_is_fetched_and_shown)
STEPS |= dict.fromkeys(("auth/resource-mismatch", "auth/metadata-issuer-mismatch"), nothing_is_fetched)
