"""Secrets in memory: a value at once or the way out, and no trace of it anywhere else."""

from __future__ import annotations

import traceback

import pytest

from narthex.authority.secrets import SecretBook
from narthex.errors import SecretMissing
from narthex.flow.upstream.secrets import Redactor

VALUE = "ghp_s3cr3t-0123456789"


def test_a_value_until_it_goes() -> None:
    book = SecretBook(Redactor())
    with pytest.raises(SecretMissing) as refused:
        book.get("pat")
    assert "does not refer to it" in refused.value.detail and "pat" not in refused.value.public
    book.put("pat", VALUE)
    assert book.get("pat") == VALUE and not book.problems
    book.lack("pat", "narthex secrets set pat")
    with pytest.raises(SecretMissing) as refused:
        book.get("pat")
    assert "narthex secrets set pat" in refused.value.detail
    assert book.problems == {"pat": "narthex secrets set pat"}


def test_the_version_goes_up_when_a_value_changes_comes_or_goes_only() -> None:
    book = SecretBook(Redactor())
    versions = [book.version]
    for step in (
        lambda: book.put("pat", VALUE),
        lambda: book.put("pat", VALUE + "2"),
        lambda: book.lack("pat", "gone"),
        lambda: book.put("pat", VALUE),
        lambda: book.keep_only([]),
    ):
        step()
        versions.append(book.version)
    assert versions == [0, 1, 2, 3, 4, 5]
    for same in (lambda: book.lack("pat", "gone"), lambda: book.keep_only(["pat"]), lambda: book.keep_only(["other"])):
        same()
    assert book.version == 5 and not book.problems
    book.put("pat", VALUE)
    book.put("pat", VALUE)
    assert book.version == 6


def test_what_comes_in_is_shown_nowhere() -> None:
    redactor = Redactor()
    book = SecretBook(redactor)
    book.put("pat", VALUE)
    assert VALUE not in redactor.hide(f"the server said: bad token {VALUE}")
    assert VALUE not in repr(vars(book)) + repr(book)
    try:
        book.get("other")
    except SecretMissing as error:
        assert VALUE not in "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
