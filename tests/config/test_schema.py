"""The one schema: complete, and the same in the file reader and in the JSON Schema."""

from __future__ import annotations

import msgspec
import pytest
import yaml

from narthex.config.document import Reading
from narthex.config.kinds import Group, settings_of
from narthex.config.render import _groups, json_schema
from narthex.config.schema.listeners import BoundSettings
from narthex.config.schema.root import ROOT, Settings
from narthex.config.yamlfile import parse_yaml
from narthex.types import Limits

KEYS = [(prefix, key, struct) for prefix, struct in _groups(Settings, "") for key in settings_of(struct)]


@pytest.mark.parametrize(("prefix", "key", "struct"), KEYS)
def test_every_key_has_a_default_and_a_sentence(prefix: str, key: str, struct: type[msgspec.Struct]) -> None:
    setting, default = settings_of(struct)[key]
    assert setting.help.endswith((".", "`"))
    assert default is not msgspec.NODEFAULT
    assert setting.kind.label


def test_every_bound_of_the_process_can_be_configured() -> None:
    assert {f"{name}" for name in settings_of(BoundSettings)} == {
        name.removesuffix("_s") for name in Limits.__struct_fields__
    }


@pytest.mark.parametrize(("prefix", "key", "struct"), KEYS)
def test_a_default_as_shown_is_read_as_the_default(prefix: str, key: str, struct: type[msgspec.Struct]) -> None:
    setting, default = settings_of(struct)[key]
    if default is None or setting.later or isinstance(setting.kind, Group) or key in ("resources", "version"):
        return
    if prefix.endswith((".<row>", ".hours")) and setting.default:  # in words: a row has no key that could be left out
        return
    reading = Reading("x", env={})
    node = parse_yaml(f"key: {setting.kind.show(default)}").get("key")
    assert node is not None
    assert setting.kind.read(node, ("key",), reading) == default
    assert reading.problems == []


GOOD = """version: 1
servers: {a: {url: 'http://x/', call_timeout: 5s}}
endpoints: {default: {resources: prefix}}
bounds: {max_body: 1MiB}
"""


@pytest.mark.parametrize(
    ("text", "good"),
    [
        pytest.param(GOOD, True, id="good"),
        pytest.param(GOOD + "tls: null\n", True, id="null where it may be"),
        pytest.param(GOOD.replace("5s", "5"), False, id="unit missing"),
        pytest.param(GOOD.replace("1MiB", "1MB"), False, id="unit wrong"),
        pytest.param(GOOD + "lisen: x\n", False, id="unknown key"),
        pytest.param(GOOD + "screens: {}\n", False, id="not in this version"),
        pytest.param(GOOD.replace("{a:", "{A:"), False, id="name"),
        pytest.param(GOOD.replace("prefix", "both"), False, id="choice"),
    ],
)
def test_editor_and_gateway_agree(text: str, good: bool) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    reading = Reading("x", env={})
    ROOT.read(parse_yaml(text), (), reading)
    assert (not reading.problems) is good
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(yaml.safe_load(text)) is good
