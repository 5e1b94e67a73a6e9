"""What is said to an Open Policy Agent, and what it answers: its Data API, and the batch API of its enterprise form.

In: documents; the bytes of an answer, which may be anything. Out: the body of a request; decisions, or `Nonsense`.
Nothing is sent here: `engines/opa.py` does that. Cases: `tests/flow/policy/engines/test_opa.py`; with the real one:
`tests/counterparts/test_opa.py`. Source: Open Policy Agent, REST API, "Data API"; Enterprise OPA, "Batch Query API".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap
from narthex.flow.policy.decision import Decision
from narthex.flow.policy.document import VERSION, Document
from narthex.flow.policy.engines.results import UNDEFINED, read_result

ENGINE = "opa"
CHANGING = (("context", "time"), ("subject", "auth", "age_s"), ("subject", "auth", "at"))
"""Members of a document that pass with time: two that differ only there ask the same."""
MOST_TEXT = 256
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}").fullmatch


class Nonsense(Exception):
    """An answer that is none. Its text is for the operator."""


class _Bundle(msgspec.Struct):
    revision: str = ""


class _Provenance(msgspec.Struct):
    bundles: dict[str, _Bundle] = {}
    revision: str = ""
    """Where a single bundle came by the old configuration."""


class _Answer(msgspec.Struct):
    result: Any = msgspec.UNSET
    decision_id: str = ""
    provenance: _Provenance | None = None


class _Response(_Answer):
    """One of a batch: Enterprise OPA says the status of each as a text where they differ."""

    http_status_code: str = "200"


class _Batch(msgspec.Struct):
    responses: dict[str, _Response] = {}
    provenance: _Provenance | None = None


class _Fault(msgspec.Struct):
    code: str = ""
    message: str = ""


_read_answer = msgspec.json.Decoder(_Answer).decode
_read_batch = msgspec.json.Decoder(_Batch).decode
_read_fault = msgspec.json.Decoder(_Fault).decode


def body_of(document: Document) -> bytes:
    """The question about one document."""
    return msgspec.json.encode({"input": document.input()})


def body_of_all(documents: Iterable[Document]) -> bytes:
    """The same for a rule of the operator's that answers for many at once: a list of results, in the same order."""
    inputs = [document.input() for document in documents]
    return msgspec.json.encode({"input": {"v": VERSION, "action": "list", "documents": inputs}})


def body_of_batch(documents: Iterable[Document]) -> bytes:
    """The same for the batch API."""
    return msgspec.json.encode({"inputs": {str(place): one.input() for place, one in enumerate(documents)}})


def read_one(body: bytes) -> Decision:
    """The decision in an answer. Raises Nonsense."""
    answer = _decoded(_read_answer, body)
    return _decision(answer.result, revision_of(answer.provenance), answer.decision_id)


def read_all(body: bytes, count: int) -> list[Decision]:
    """The decisions in the answer to `body_of_all`. Raises Nonsense: not as many as were asked for."""
    answer = _decoded(_read_answer, body)
    results = answer.result
    if not isinstance(results, list) or len(results) != count:
        raise Nonsense(f"the rule for lists did not give {count} results")
    revision, id_ = revision_of(answer.provenance), answer.decision_id
    return [_decision(one, revision, id_) for one in results]


def read_batch(body: bytes, count: int) -> list[Decision | None]:
    """The decisions in the answer to `body_of_batch`; None for one that it failed at. Raises Nonsense."""
    batch = _decoded(_read_batch, body)
    revision = revision_of(batch.provenance)
    found: list[Decision | None] = []
    for place in range(count):
        one = batch.responses.get(str(place))
        if one is None and batch.responses:
            raise Nonsense("the batch has not as many answers as questions")
        if one is None:  # all are undefined: then it answers none
            found.append(_decision(msgspec.UNSET, revision, ""))
        elif one.http_status_code != "200":
            found.append(None)
        else:
            found.append(_decision(one.result, revision_of(one.provenance) or revision, one.decision_id))
    return found


def read_fault(status: int, body: bytes) -> str:
    """What an answer that is no 200 says went wrong."""
    try:
        fault = _read_fault(body)
    except BAD_JSON:
        return f"HTTP {status}"
    said = f"{fault.code}: {fault.message}" if fault.code else fault.message
    return f"HTTP {status} {said[:MOST_TEXT]}".rstrip()


def _decoded(read: Any, body: bytes) -> Any:
    try:
        return read(body)
    except BAD_JSON as error:
        raise Nonsense(f"its answer cannot be read: {str(error)[:MOST_TEXT]}") from None


def _decision(result: Any, revision: str, id_: str) -> Decision:
    return read_result(UNDEFINED if result is msgspec.UNSET else result, ENGINE, revision, id_[:MOST_TEXT])


def revision_of(provenance: _Provenance | None) -> str:
    """The revisions of the bundles that decided, by name where there are several."""
    if provenance is None:
        return ""
    bundles = {name: one.revision for name, one in provenance.bundles.items() if one.revision}
    if len(bundles) == 1:
        return next(iter(bundles.values()))[:MOST_TEXT]
    return (
        ",".join(f"{name}={bundles[name]}" for name in sorted(bundles))[:MOST_TEXT] or provenance.revision[:MOST_TEXT]
    )


def trace_of(meta: RawMap, parent: bytes = b"", state: bytes = b"") -> tuple[tuple[str, str], ...]:
    """The headers that go on with the trace that a call belongs to (W3C Trace Context): the one in `_meta`, where MCP
    carries it, else the one of its HTTP request.

    Args:
        parent, state: Headers of that, if it has them.
    """
    return _trace(_text(meta.get("traceparent")), _text(meta.get("tracestate"))) or _trace(
        parent.decode("latin-1"), state.decode("latin-1")
    )


def _trace(parent: str, state: str) -> tuple[tuple[str, str], ...]:
    if not _TRACEPARENT(parent):
        return ()
    return (("traceparent", parent), ("tracestate", state)) if _TRACESTATE(state) else (("traceparent", parent),)


def _text(raw: Raw | None) -> str:
    try:
        return msgspec.json.decode(raw, type=str) if raw is not None else ""
    except BAD_JSON:
        return ""


def lasting(document: Document) -> bytes:
    """What is asked but for what passes with time: the key of a decision that may be used again."""
    said = document.input()
    for *path, last in CHANGING:
        where: Any = said
        for step in path:
            where = where[step]
        where.pop(last, None)
    return msgspec.json.encode(said)


def picked(document: Document, paths: Sequence[tuple[str, ...]]) -> tuple[bytes, ...]:
    """What stands at some places of a document; nothing where there is none."""
    said = document.input()
    found = []
    for path in paths:
        where: Any = said
        for step in path:
            where = where.get(step, msgspec.UNSET) if isinstance(where, Mapping) else msgspec.UNSET
        found.append(b"" if where is msgspec.UNSET else msgspec.json.encode(where, order="sorted"))
    return tuple(found)
