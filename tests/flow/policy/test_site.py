"""How data is classed: a row a rule."""

from __future__ import annotations

import pytest

from narthex.flow.policy.site import UNCLASSED, Data, Site, fits_class
from narthex.types import DataRow, DataSpec, Kind

SITE = Site(
    "production",
    DataSpec(
        {"crm": ("confidential", "personal"), "wiki": ("internal", "none"), "new": ("", ""), "half": ("public", "")},
        (
            DataRow(tools=("crm__list_public_*",), classification="public"),
            DataRow(tools=("*__export_*",), classification="restricted", privacy="sensitive"),
            DataRow(tools=("crm__*_export_*",), classification="public", privacy="none"),
            DataRow(resources=("wiki__file:*",), privacy="personal"),
        ),
    ),
)


@pytest.mark.parametrize(
    ("kind", "name", "data"),
    [
        pytest.param("tools", "crm__find", ("confidential", "personal"), id="as its server"),
        pytest.param("tools", "crm__list_public_x", ("public", "personal"), id="a row says less than its server"),
        pytest.param("tools", "wiki__export_all", ("restricted", "sensitive"), id="a row says more"),
        pytest.param("tools", "crm__an__export_x", ("restricted", "sensitive"), id="of several rows the strictest"),
        pytest.param("prompts", "wiki__export_all", ("internal", "none"), id="a row of another kind"),
        pytest.param("resources", "wiki__file:a", ("internal", "personal"), id="resource"),
        pytest.param("templates", "wiki__file:{x}", ("internal", "personal"), id="template"),
        pytest.param("tools", "new__x", UNCLASSED, id="nobody has said"),
        pytest.param("tools", "half__x", ("public", "sensitive"), id="nobody has said one of them"),
        pytest.param("tools", "gone__x", UNCLASSED, id="no such server"),
    ],
)
def test_data(kind: Kind, name: str, data: tuple[str, str]) -> None:
    found = SITE.data(kind, name)
    assert found == data
    assert found in SITE.possible(kind, name.split("__")[0])


@pytest.mark.parametrize(
    ("classification", "privacy", "fits"),
    [
        pytest.param((), (), True, id="nothing said"),
        pytest.param(("internal",), (), True, id="among them"),
        pytest.param(("public",), (), False, id="not among them"),
        pytest.param(("internal",), ("personal",), False, id="both must fit"),
    ],
)
def test_fits(classification: tuple[str, ...], privacy: tuple[str, ...], fits: bool) -> None:
    assert fits_class(Data("internal", "none"), frozenset(classification), frozenset(privacy)) is fits
