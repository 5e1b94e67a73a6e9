"""URI templates: which URIs fit, that no pair of them is slow, and URIs that carry their server."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.route.uri_templates import MAX_URI, Template, prefix_uri, scheme_authority, unprefix_uri


@pytest.mark.parametrize(
    ("template", "fits", "does_not"),
    [
        pytest.param("note://all", ["note://all"], ["note://al", "note://alls", "Note://all", ""], id="no expression"),
        pytest.param("note://{id}", ["note://7", "note://a%20b", "note://é"], ["note://", "note://a/b"], id="simple"),
        pytest.param("note://{id}", [], ["note://a?b", "note://a#b"], id="simple ends at query and fragment"),
        pytest.param(
            "note://{a}-{b}", ["note://1-2", "note://1-2-3"], ["note://12", "note://-"], id="two, a text between"
        ),
        pytest.param("file:///{+path}", ["file:///a/b?c#d"], ["file:///"], id="reserved takes all"),
        pytest.param("f:{+x}b{y}/c", ["f:1b/2b3/c", "f:abb/c"], ["f:1b/2/c"], id="a later place may be the right one"),
        pytest.param("x:a{#f}", ["x:a", "x:a#", "x:a#b/c"], ["x:ab"], id="fragment"),
        pytest.param("x:a{.ext}", ["x:a", "x:a.txt"], ["x:atxt", "x:a.t/x"], id="label"),
        pytest.param("x:a{/id}", ["x:a", "x:a/1"], ["x:a/1/2", "x:a1"], id="path segment"),
        pytest.param("x:a{/a,b}", ["x:a/1", "x:a/1/2"], ["x:a1", "x:a/1?q"], id="path segments"),
        pytest.param("x:a{/a*}", ["x:a", "x:a/1/2/3"], ["x:a?"], id="exploded path"),
        pytest.param("x:a{;p}", ["x:a", "x:a;p=1"], ["x:ap"], id="path parameter"),
        pytest.param("x:a{?q,r}", ["x:a", "x:a?q=1", "x:a?r=2&q=1/2"], ["x:aq=1", "x:a?q#f"], id="query in any order"),
        pytest.param("x:a?f=1{&q}", ["x:a?f=1", "x:a?f=1&q=2"], ["x:a?f=12"], id="query continued"),
        pytest.param("x:{id:3}", ["x:abc"], ["x:"], id="a prefix modifier"),
        pytest.param("{scheme}://{host}{/p*}", ["a://b", "a://b/c/d"], ["://b", "a:/b"], id="expressions first"),
        pytest.param("ü:{é_}", [], ["ü:x"], id="a name beyond ASCII is no name"),
        pytest.param("ü:{x}ü", ["ü:1ü", "ü:€ü"], ["u:1u"], id="text beyond ASCII"),
    ],
)
def test_matches(template: str, fits: list[str], does_not: list[str]) -> None:
    made = Template(template)
    assert [uri for uri in fits if not made.matches(uri)] == []
    assert [uri for uri in does_not if made.matches(uri)] == []


@pytest.mark.parametrize(
    "text",
    [
        *(
            "{",
            "}",
            "a}b{c",
            "{}",
            "{a",
            "{a,}",
            "{,a}",
            "{a b}",
            "{{a}}",
            "{=a}",
            "{|a}",
            "{a:0}",
            "{a:12345}",
            "{a**}",
        ),
        pytest.param("x" * 1025, id="too long"),
        pytest.param("{a}" * 17, id="too many expressions"),
        pytest.param("{" + ",".join("a" * 65) + "}", id="too many variables"),
    ],
)
def test_what_is_no_template_matches_nothing(text: str) -> None:
    template = Template(text)
    assert template.problem
    assert not template.matches(text)
    assert not template.matches("a")


EXPRESSIONS = {
    "{a}": "[^/?#]+",
    "{+a}": ".+",
    "{#a}": "(?:#.*)?",
    "{.a}": r"(?:\.[^/?#]*)?",
    "{/a}": "(?:/[^/?#]*)?",
    "{/a*}": "(?:/[^?#]*)?",
    "{;a}": "(?:;[^/?#]*)?",
    "{?a}": r"(?:\?[^#]*)?",
    "{&a}": "(?:&[^#]*)?",
}


@given(
    parts=st.lists(st.sampled_from([*EXPRESSIONS, "x", "/", ".", "xy", "é", "?"]), max_size=6),
    uri=st.text("xy/.?#;&é", max_size=12),
)
def test_agrees_with_a_backtracking_match(parts: list[str], uri: str) -> None:
    pattern = "".join(EXPRESSIONS.get(part) or re.escape(part) for part in parts)
    # By bytes, as a percent-encoded character would be: `é` is two.
    assert Template("".join(parts)).matches(uri) == bool(re.fullmatch(pattern.encode(), uri.encode(), re.DOTALL))


@given(template=st.text(max_size=40), uri=st.text(max_size=40))
def test_no_text_does_harm(template: str, uri: str) -> None:
    made = Template(template)
    assert made.matches(uri) in (True, False)
    if not set(template) & set("{}"):
        assert made.matches(template)


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        pytest.param("{+a}/{b}" * 8, "a/" * 2048, id="every slash may be the one"),
        pytest.param("{+a}x?{b}" * 8, "x?" * 2048, id="every pair may be the one"),
        pytest.param("{+a}" + "a" * 500 + "{.b}" + "a" * 500, "a" * 4096, id="a long text at every place"),
        pytest.param("{a}a{.b}" * 8, ".a" * 2048, id="optional parts everywhere"),
    ],
)
def test_no_template_makes_it_slow(template: str, uri: str) -> None:
    made = Template(template)
    assert made.problem is None
    start = time.thread_time()
    made.matches(uri)
    assert time.thread_time() - start < 5, "about a millisecond; backtracking takes hours"


def test_an_absurdly_long_uri_matches_nothing() -> None:
    assert Template("{+a}").matches("a" * MAX_URI)
    assert not Template("{+a}").matches("a" * (MAX_URI + 1))


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        pytest.param("File:///a/b", "file://", id="an empty authority"),
        pytest.param("https://Ex.com:8/a//b", "https://ex.com:8", id="authority with port, lower case"),
        pytest.param("note://x?q", "note://x", id="ends at the query"),
        pytest.param("note://x#f", "note://x", id="ends at the fragment"),
        pytest.param("urn:isbn:1", "urn:", id="no authority"),
        pytest.param("note://{id}/x", "note:", id="a variable authority is none"),
        pytest.param("note://a{id}/x", "note:", id="a partly variable authority is none"),
        pytest.param("note://a/{id}", "note://a", id="a variable path"),
        pytest.param("{+uri}", "", id="a variable scheme"),
        pytest.param("/a/b", "", id="no scheme"),
        pytest.param("", "", id="empty"),
        pytest.param("1a:b", "", id="a scheme begins with a letter"),
    ],
)
def test_scheme_authority(uri: str, found: str) -> None:
    assert scheme_authority(uri) == found


@given(server=st.text("az09-", min_size=1, max_size=24), uri=st.text(min_size=1))
def test_a_prefix_comes_off_again(server: str, uri: str) -> None:
    assert unprefix_uri(prefix_uri(server, uri)) == (server, uri)


@pytest.mark.parametrize(
    "uri", ["", "file:///a", "narthex+time+", "narthex+a_b+x:y", "narthex+\u212a+x:y", "narthex++x:y"]
)
def test_a_uri_without_prefix(uri: str) -> None:
    assert unprefix_uri(uri) is None


def test_a_client_may_change_the_case_of_the_scheme() -> None:
    assert unprefix_uri("NARTHEX+Time+File:///A") == ("time", "File:///A")


def test_a_prefixed_template_matches_prefixed_uris() -> None:
    template = Template(prefix_uri("time", "note://{id}{?q}"))
    assert template.matches(prefix_uri("time", "note://7?q=1"))
    assert not template.matches("note://7?q=1")
    assert scheme_authority(prefix_uri("time", "note://7")) == "narthex+time+note://7"
