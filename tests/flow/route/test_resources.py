"""Which server a URI leads to, of several: listed, by an extension, by a template, by scheme and authority."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.route.index import Index, read_items
from narthex.flow.route.names import canonical
from narthex.flow.route.patterns import Selector
from narthex.flow.route.resources import find_resource, find_skill
from narthex.flow.route.uri_templates import prefix_uri
from narthex.types import EndpointSpec, Kind
from tests.flow.route.test_index import LISTS, SPECS, Lists, endpoint, listed, merged, raw, run, shown


@given(spec=SPECS, lists=LISTS)
def test_what_is_listed_is_found(spec: EndpointSpec, lists: Lists) -> None:
    index = merged(spec, "resources", lists)
    for name in shown(index):
        assert find_resource(spec, {"resources": index}, name) == index.targets[name]


@given(
    spec=SPECS,
    lists=LISTS,
    templates=LISTS,
    uri=st.text("abx.:/", min_size=1, max_size=6),
    server=st.sampled_from("ab"),
)
def test_what_is_excluded_is_found_by_no_way(
    spec: EndpointSpec, lists: Lists, templates: Lists, uri: str, server: str
) -> None:
    resources, by_template = merged(spec, "resources", lists), merged(spec, "templates", templates)
    for asked in (uri, prefix_uri(server, uri), *(name for names in lists.values() for name in names)):
        target = find_resource(spec, {"resources": resources, "templates": by_template}, asked)
        if target is not None:
            select = Selector(spec.resources.include, spec.resources.exclude)
            assert select.allows(canonical(target.server, target.name))


# --- what is listed, templates, authorities

RESOURCES = {"a": ["file:///r/1", "db://one/t", "narthex+b+file:///r/9"], "b": ["db://two/t", "file:///r/1", "mem:x"]}
TEMPLATES = {"a": ["log://{day}/x", "bad{"], "b": ["log://{day}/{name}", "db://one/v/{id}"]}


@pytest.mark.parametrize(
    ("spec", "uri", "expected"),
    [
        pytest.param(endpoint(), "file:///r/1", ("a", "file:///r/1"), id="listed: the first server's"),
        pytest.param(endpoint(), "mem:x", ("b", "mem:x"), id="listed, without authority"),
        pytest.param(endpoint(), "log://1/x", ("a", "log://1/x"), id="by template, the first that fits"),
        pytest.param(endpoint(), "log://1/y", ("b", "log://1/y"), id="by the next template"),
        pytest.param(endpoint(), "db://one/v/7", ("b", "db://one/v/7"), id="a template before the authority"),
        pytest.param(endpoint(), "db://one/other", ("a", "db://one/other"), id="by scheme and authority"),
        pytest.param(endpoint(), "DB://TWO/u", None, id="an authority in another case: patterns would not fit"),
        pytest.param(endpoint(), "db://three/u", None, id="another authority"),
        pytest.param(endpoint(), "http://one/t", None, id="another scheme"),
        pytest.param(endpoint(), "bad{", None, id="what is no template matches nothing"),
        pytest.param(endpoint(), "", None, id="nothing"),
        pytest.param(endpoint(exclude=("a__file:*",)), "file:///r/1", ("b", "file:///r/1"), id="the next server's"),
        pytest.param(
            endpoint(exclude=("a__db:*", "b__db:*")), "db://one/t", None, id="excluded, though its server has it"
        ),
        pytest.param(endpoint(exclude=("?__log://1/*",)), "log://1/x", None, id="excluded, though a template fits"),
        pytest.param(
            endpoint(exclude=("a__db://one/secret",)), "db://one/secret", None, id="excluded, though the authority fits"
        ),
        pytest.param(endpoint(uris="prefix"), "narthex+b+file:///r/1", ("b", "file:///r/1"), id="prefixed: listed"),
        pytest.param(
            endpoint(uris="prefix"), "narthex+b+log://1/x", ("b", "log://1/x"), id="prefixed: its own template"
        ),
        pytest.param(endpoint(uris="prefix"), "file:///r/1", None, id="prefixed: no URI without its server"),
        pytest.param(endpoint(uris="prefix"), "narthex+a+db://one/other", None, id="prefixed: no way by authority"),
        pytest.param(
            endpoint(uris="prefix", exclude=("b__log:*",)), "narthex+b+log://1/y", None, id="prefixed: excluded"
        ),
    ],
)
def test_find_resource(spec: EndpointSpec, uri: str, expected: tuple[str, str] | None) -> None:
    resources, templates = merged(spec, "resources", RESOURCES), merged(spec, "templates", TEMPLATES)
    target = find_resource(spec, {"resources": resources, "templates": templates}, uri)
    assert (target and (target.server, target.name)) == expected
    if target:
        assert json.loads(target.name_json) == target.name


# --- skills

SKILLS = {
    "a": ["skill://git/SKILL.md", "skill://acme/refunds/SKILL.md", "gh://o/r/pdf/SKILL.md"],
    "b": ["skill://git/SKILL.md", "skill://acme/refunds/deep/SKILL.md", "odd://x"],
}


@pytest.mark.parametrize(
    ("uri", "server"),
    [
        pytest.param("skill://git/SKILL.md", "a", id="listed: the first server's"),
        pytest.param("skill://git/references/x.md", "a", id="a file in its directory"),
        pytest.param("skill://git", "a", id="the directory itself"),
        pytest.param("skill://git/references", "a", id="a directory in it"),
        pytest.param("skill://acme/refunds/deep/x.md", "b", id="the innermost directory of several"),
        pytest.param("skill://acme/refunds/x.md", "a", id="one further out"),
        pytest.param("gh://o/r/pdf/x", "a", id="whatever its scheme"),
        pytest.param("skill://acme/other/x.md", "a", id="unlisted: by scheme and authority"),
        pytest.param("skill://github", None, id="a name that only begins so"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_skills(uri: str, server: str | None) -> None:
    skills = merged(endpoint(), "skills", SKILLS)
    found = find_skill(endpoint(), skills, uri)
    assert (found and found.server) == server
    nothing = merged(endpoint(), "resources", {})
    read = find_resource(endpoint(), {"resources": nothing, "skills": skills}, uri)
    assert (read and read.server) == server, "its files are resources"
    if found:
        assert found.name == uri, "it is asked for as the client did"
        assert json.loads(found.name_json) == uri


def test_a_skill_that_is_excluded_is_found_by_no_way() -> None:
    spec = endpoint(exclude=("a__skill://git*",))
    skills = merged(spec, "skills", {"a": SKILLS["a"]})
    assert shown(skills) == SKILLS["a"][1:]
    nothing = merged(spec, "resources", {})
    for uri in ("skill://git/SKILL.md", "skill://git", "skill://git/x"):
        assert find_skill(spec, skills, uri) is None
        assert find_resource(spec, {"resources": nothing, "skills": skills}, uri) is None


def test_a_listed_resource_goes_before_a_skills_directory() -> None:
    resources = merged(endpoint(), "resources", {"b": ["skill://git/x.md"]})
    known: dict[Kind, Index] = {"resources": resources, "skills": merged(endpoint(), "skills", SKILLS)}
    found = find_resource(endpoint(), known, "skill://git/x.md")
    assert found is not None
    assert found.server == "b"


def test_an_entry_passes_byte_for_byte() -> None:
    entry = raw(
        {"uri": "skill://git/SKILL.md", "frontmatter": {"name": "git", "x": 1.50}, "resources": "dynamic", "y": []}
    )
    index = run(endpoint(), "skills", [read_items("skills", "a", [entry], 10)[0]])
    assert index.fragments.items == (entry,)


# --- pages of apps

PAGE = "ui://panel/main"


def tools(*named: tuple[str, Any]) -> list[Any]:
    return [
        raw({"name": name, "inputSchema": {}, **({"_meta": meta} if meta is not None else {})}) for name, meta in named
    ]


def of_tools(spec: EndpointSpec, **servers: list[Any]) -> Index:
    return run(spec, "tools", [read_items("tools", name, raws, 100)[0] for name, raws in servers.items()])


@pytest.mark.parametrize("uris", ["plain", "prefix"])
@pytest.mark.parametrize("meta", [{"ui": {"resourceUri": PAGE}}, {"ui/resourceUri": PAGE}], ids=["nested", "flat"])
def test_a_page_is_the_server_s_whose_tool_names_it(uris: Any, meta: Any) -> None:
    spec = endpoint(uris=uris)
    index = of_tools(spec, a=tools(("plain", None), ("other", {"ui": {}})), b=tools(("show", meta)))
    resources = merged(spec, "resources", {"a": ["ui://panel/other"]})
    found = find_resource(spec, {"resources": resources, "tools": index}, PAGE)
    assert found is not None
    assert (found.server, found.name) == ("b", PAGE), "and not that of the same authority"


def test_of_two_that_name_one_page_the_first_has_it_and_the_other_shows_plain_results() -> None:
    shows = {"ui": {"resourceUri": PAGE, "visibility": ["model"]}, "ui/resourceUri": PAGE, "kept": 1}
    index = of_tools(endpoint(), a=tools(("show", shows)), b=tools(("show", shows), ("more", None)))
    found = find_resource(endpoint(), {"resources": merged(endpoint(), "resources", {}), "tools": index}, PAGE)
    assert found is not None
    assert found.server == "a"
    assert index.hidden == (("b", PAGE),), "it is reported"
    first, second, third = listed(index)
    assert first["_meta"] == shows
    assert second == {"name": "b__show", "inputSchema": {}, "_meta": {"kept": 1}}, (
        "no other server's page shows its results"
    )
    assert "_meta" not in third


def test_a_page_may_be_excluded_like_any_resource() -> None:
    spec = EndpointSpec("default", (), resources=endpoint(exclude=("a__ui://*",)).resources)
    index = of_tools(spec, a=tools(("show", {"ui": {"resourceUri": PAGE}})))
    assert find_resource(spec, {"resources": merged(spec, "resources", {}), "tools": index}, PAGE) is None


@pytest.mark.parametrize(
    "meta",
    [
        pytest.param({"ui": {"resourceUri": "https://x/ui:"}}, id="another scheme"),
        pytest.param({"ui": {"resourceUri": 7}, "x": "ui:"}, id="no text"),
        pytest.param({"ui": "ui://x"}, id="no object"),
        pytest.param("ui://x", id="no meta"),
        pytest.param({"ui": {"resourceUri": "ui://" + "x" * 9000}}, id="huge"),
    ],
)
def test_what_names_no_page(meta: Any) -> None:
    index = of_tools(endpoint(), a=tools(("show", meta)), b=tools(("show", meta)))
    assert index.apps == {}
    assert listed(index)[1]["_meta"] == meta, "and passes as it came"


# --- URIs that say the same as others

FILES = {"a": ["file:///public/a", "file:///public/../listed"]}


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        pytest.param("file:///public/b", True, id="as it is"),
        pytest.param("file:///public/b.c/..d/.e/f..", True, id="dots in names"),
        pytest.param("file:///public/%20%C3%A9%7E", True, id="what must be, or often is, escaped"),
        pytest.param("file:///public/../listed", True, id="listed"),
        pytest.param("file:///public/../secret", False, id="dot segments"),
        pytest.param("file:///public/./b", False, id="one dot"),
        pytest.param("file:///public/b/..", False, id="at the end"),
        pytest.param("file:///public/.%2E/secret", False, id="escaped dots"),
        pytest.param("file:///public%2f..%2Fsecret", False, id="escaped slashes"),
        pytest.param("file:///public\\..\\secret", False, id="slashes the other way"),
        pytest.param("file:///%73ecret/b", False, id="an escaped letter"),
        pytest.param("FILE:///secret/b", False, id="a scheme in upper case"),
    ],
)
def test_a_uri_that_says_what_another_says_leads_nowhere(uri: str, found: bool) -> None:
    """Rules match URIs as text: one that a server would read as another slips past them (RFC 3986 §6.2.2)."""
    known: dict[Kind, Index] = {"resources": merged(endpoint(), "resources", FILES)}
    assert (find_resource(endpoint(), known, uri) is not None) == found
