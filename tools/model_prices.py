"""Write the list of what models cost, from what the package `genai-prices` knows.

`python tools/model_prices.py` (needs `genai-prices`, which nothing else here does: `uv run --with genai-prices`) writes
`src/narthex/config/model_prices.json`: for each model of its own maker, millionths of a dollar for a million
tokens in and out, as of the last day that the package speaks of. Where a price has steps by size, the first one is
taken; where it depends on the time of day, that of noon.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "src" / "narthex" / "config" / "model_prices.json"
MAKERS = (
    "openai", "anthropic", "google", "mistral", "deepseek", "x-ai", "cohere", "moonshotai", "perplexity", "meta", "zai",
    "minimax",
)  # fmt: skip
"""Of one name that two of them have, the first counts. Others sell what these make, at prices of their own."""


def millionths(price: Any) -> int:
    """A price in dollars for a million tokens; the first step of one that has several."""
    plain = getattr(price, "base", price)
    return int((Decimal(plain or 0) * 1_000_000).to_integral_value(ROUND_CEILING))


def main() -> int:
    try:
        from genai_prices import data  # type: ignore[import-not-found]
    except ImportError:
        print(
            "tools: genai-prices is not here: uv run --with genai-prices python tools/model_prices.py", file=sys.stderr
        )
        return 1
    said = re.findall(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}", Path(data.__file__).read_text(encoding="utf-8"))
    day = max(one for one in said if one <= date.today().isoformat())
    noon = datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)
    makers = {one.id: one for one in data.providers}
    models: dict[str, list[int]] = {}
    for maker in MAKERS:
        for model in makers[maker].models:
            prices = model.get_prices(noon)
            found = [millionths(prices.input_mtok), millionths(prices.output_mtok)]
            if any(found):
                models.setdefault(model.id.lower(), found)
    document = {
        "source": f"genai-prices {version('genai-prices')} (MIT, Pydantic Services Inc. and contributors)",
        "date": day,
        "currency": "USD",
        "unit": "millionths for a million tokens: in, out",
    }
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(models[name])}" for name in sorted(models))
    FILE.write_text(json.dumps(document, indent=1)[:-2] + ',\n "models": {\n' + lines + "\n }\n}\n", encoding="utf-8")
    print(f"{len(models)} models as of {day}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
