"""Which names a set of grants covers: by their patterns, and where a grant says so by how the data is classed.

In: grants, and the site they are for. Out: `Cover`, asked for one name, or narrowed to the names of one server for a
list. Cases: `tests/flow/policy/test_grants.py` (what is listed is what can be called).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from narthex.flow.policy.site import PATTERNS_OF, Site, fits_class
from narthex.flow.route.names import SEPARATOR
from narthex.flow.route.patterns import compile_globs, everything, narrowed, nothing
from narthex.types import Grant, Kind

Test = Callable[[str], bool]
_Classes = tuple[frozenset[str], frozenset[str]]


class Cover:
    """What `grants` cover of one kind."""

    __slots__ = ("_graded", "_kind", "_plain", "_site", "_test")

    def __init__(self, kind: Kind, grants: Iterable[Grant], site: Site) -> None:
        plain: list[str] = []
        graded: dict[_Classes, list[str]] = {}
        for one in grants:
            patterns = getattr(one, PATTERNS_OF[kind])
            if one.classification or one.privacy:
                graded.setdefault((one.classification, one.privacy), []).extend(patterns)
            else:
                plain.extend(patterns)
        self._kind = kind
        self._site = site
        self._plain = tuple(plain)
        self._test = compile_globs(plain)
        self._graded = tuple((classes, tuple(found), compile_globs(found)) for classes, found in graded.items())

    def __call__(self, name: str) -> bool:
        """Is this canonical name covered?"""
        if self._test(name):
            return True
        return any(test(name) and self._has(name, classes) for classes, _, test in self._graded)

    def _has(self, name: str, classes: _Classes) -> bool:
        return fits_class(self._site.data(self._kind, name), *classes)

    def narrowed(self, prefix: str, names: Sequence[str] | None = None) -> Test:
        """The same for the names of one server, which begin with `prefix`, or for just these of them: `everything` or
        `nothing` where that is known for all (`route.patterns.narrowed`)."""
        plain = narrowed(self._plain, prefix, names)
        if plain is everything or not self._graded:
            return plain
        tests = [plain] if plain is not nothing else []
        possible = self._site.possible(self._kind, prefix.removesuffix(SEPARATOR))
        for classes, patterns, _ in self._graded:
            fitting = [one for one in possible if fits_class(one, *classes)]
            test = narrowed(patterns, prefix, names) if fitting else nothing
            if test is nothing:
                continue
            if len(fitting) < len(possible):
                test = self._graded_test(test, classes)
            elif test is everything:
                return everything
            tests.append(test)
        return _one_of(tests)

    def _graded_test(self, test: Test, classes: _Classes) -> Test:
        return lambda name: test(name) and self._has(name, classes)


def _one_of(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    return (lambda name: any(test(name) for test in tests)) if tests else nothing
