"""How far the estimate of tokens is from a tokenizer, and how long it takes.

`python bench/tokens.py FILE.jsonl [--surface WORD]`: each line is an object with a `text`; with `--surface` only those
of that `surface`. Needs `bpe-openai` (its vocabulary comes with it). Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median, quantiles

from narthex.flow.limit.tokens import estimate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--surface")
    given = parser.parse_args()
    try:
        import bpe_openai
    except ImportError:
        print("bench: bpe-openai is not here: uv pip install bpe-openai", file=sys.stderr)
        return 1
    encoding = bpe_openai.get_encoding("o200k_base")
    rows = map(json.loads, given.file.read_text(encoding="utf-8").splitlines())
    texts = [row["text"] for row in rows if given.surface in (None, row.get("surface"))]
    exact = [len(encoding.encode(text, disallowed_special=())) for text in texts]
    data = [text.encode() for text in texts]
    found = [estimate(one) for one in data]
    errors = [abs(one / true - 1) for one, true in zip(found, exact, strict=True) if true]
    longest, best = max(data, key=len), float("inf")
    for _ in range(1000):
        began = time.thread_time_ns()
        estimate(longest)
        best = min(best, time.thread_time_ns() - began)
    document = {
        "texts": len(texts),
        "bytes": sum(map(len, data)),
        "tokens": sum(exact),
        "sum off by, %": round((sum(found) / sum(exact) - 1) * 100, 2),
        "a text off by, median, %": round(median(errors) * 100, 2),
        "a text off by, of ten the worst, %": round(quantiles(errors, n=10)[-1] * 100, 2),
        "ns a byte": round(best / len(longest), 2),
        "of so many bytes": len(longest),
    }
    print(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
