"""How many tokens a text is about: what it takes of a model's context, by a count of its bytes of three kinds.

In: bytes of UTF-8. Out: an estimate of what a current tokenizer (o200k) makes of them. The weights were fitted to the
results of tools: of those at hand the sum is off by less than one in a hundred, a single one by seven in a hundred in
the median (`python bench/tokens.py FILE` measures it beside the tokenizer). Large texts are looked at in pieces, so
that none takes longer than some tenths of a millisecond. Cases: `tests/flow/limit/test_tokens.py`.
"""

from __future__ import annotations

_MARKS = bytes(byte for byte in range(33, 127) if not chr(byte).isalnum())
_CODED = bytes(byte for byte in range(128) if chr(byte).isupper() or chr(byte).isdigit())
_PLAIN = bytes(byte for byte in range(256) if byte not in _MARKS and byte not in _CODED)
_JOINED = b"\"'`{}[]():,"
"""Marks that often share a token."""
_A_TEXT, _A_BYTE, _A_MARK, _A_JOINED_MARK, _A_CODED = 2000, 131, 986, -294, 510
"""Thousandths of a token."""
PIECES, PIECE = 64, 1024
WHOLE = PIECES * PIECE


def estimate(text: bytes) -> int:
    """Tokens, about."""
    size = len(text)
    if size <= WHOLE:
        return _count(text)
    step = (size - PIECE) // (PIECES - 1)
    seen = b"".join([text[at : at + PIECE] for at in range(0, size - PIECE + 1, step)])
    return _count(seen) * size // len(seen)


def estimate_size(size: int) -> int:
    """The same of a text of which only the size is known, in bytes."""
    return -(-size * 285 // 1000)


def _count(text: bytes) -> int:
    if not text:
        return 0
    rest = text.translate(None, _PLAIN)
    marks = rest.translate(None, _CODED)
    joined = len(marks) - len(marks.translate(None, _JOINED))
    thousandths = _A_TEXT + _A_BYTE * len(text) + _A_MARK * len(marks) + _A_JOINED_MARK * joined
    return max(1, (thousandths + _A_CODED * (len(rest) - len(marks))) // 1000)
