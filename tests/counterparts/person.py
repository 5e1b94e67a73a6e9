"""Somebody at a browser, as far as a sign-in needs one: follows redirects, keeps cookies, fills in forms.

Cookies go back to where they came from whatever they say: identity providers on http loopback mark theirs `Secure`,
which a browser accepts there and the cookie jars of HTTP libraries do not.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

MOST_STEPS = 12


class _Form(HTMLParser):
    """The first form of a page: where it goes, and its fields as they stand."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "form" and self.action is None:
            self.action = said.get("action") or ""
        elif tag == "input" and self.action is not None and (name := said.get("name")):
            self.fields.setdefault(name, said.get("value") or "")


@dataclass
class Person:
    """Types `answers`, by the names of the fields, into every form that asks for them."""

    answers: dict[str, str]
    cookies: dict[str, str] = field(default_factory=dict)

    def visit(self, url: str) -> str:
        """Open `url` and go on until the provider sends elsewhere; that address, which is not opened."""
        provider, body = urlsplit(url).netloc, None
        for _ in range(MOST_STEPS):
            status, location, page = self._open(url, body)
            if location:
                url, body = urljoin(url, location), None
                if urlsplit(url).netloc != provider:
                    return url
                continue
            form = _Form(page)
            assert status == 200 and form.action is not None, f"{status} at {url}: {page[:2000]}"
            url = urljoin(url, form.action)
            body = urlencode({**form.fields, **{k: v for k, v in self.answers.items() if k in form.fields}})
        raise AssertionError(f"no way out of {url}")

    def _open(self, url: str, body: str | None) -> tuple[int, str | None, str]:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        headers = {"cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if body is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("GET" if body is None else "POST", target, body, headers)
            answer = connection.getresponse()
            for line in answer.headers.get_all("set-cookie", []):
                name, _, value = line.partition(";")[0].partition("=")
                self.cookies[name.strip()] = value
            return answer.status, answer.headers["location"], answer.read().decode(errors="replace")
        finally:
            connection.close()
