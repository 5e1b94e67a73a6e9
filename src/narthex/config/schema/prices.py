"""`prices`: what a call costs."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from narthex.config import values
from narthex.config.document import quote
from narthex.config.kinds import GLOB, GLOBS, Choice, Group, Listed, Mapped, Scalar, Setting, duration
from narthex.flow.limit.models import name_of
from narthex.flow.limit.money import parse_money, show_money
from narthex.flow.limit.tokenizers import ENCODINGS, ESTIMATE
from narthex.types import CostsKept


class Money(msgspec.Struct, frozen=True):
    """Millionths of a currency."""

    amount: int
    currency: str


def _parse(text: str) -> Money:
    return Money(*parse_money(text))


MONEY = Scalar(
    "an amount such as `5.00 USD`",
    _parse,
    lambda money: show_money(money.amount, money.currency),
    {"pattern": "^[0-9]{1,9}([.][0-9]{1,6})? [A-Z]{3}$", "examples": ["5.00 USD"]},
)


def _parse_pointer(text: str) -> str:
    if not re.fullmatch(r"(/([^~]|~[01])*)+", text) or len(text) > 256:
        raise ValueError(f"{quote(text)} is no JSON pointer, such as /structuredContent/usage/pages")
    return text


POINTER = Scalar("a JSON pointer", _parse_pointer)


def _parse_model(text: str) -> str:
    where, colon, pointer = text.partition(":")
    if colon and where in ("arg", "result"):
        return f"{where}:{_parse_pointer(pointer)}"
    if not (name := name_of(text)):
        raise ValueError(f"{quote(text)} is no name of a model, such as gpt-4o, nor arg:/POINTER")
    return name


def _parse_currency(text: str) -> str:
    if not re.fullmatch("[A-Z]{3}", text):
        raise ValueError(f"{quote(text)} is no currency, such as USD")
    return text


CURRENCY = Scalar("three letters", _parse_currency)
PATTERNS_HELP = " With patterns of any kind, only what they cover has this price."


class PriceSettings(msgspec.Struct, frozen=True):
    """One price. The first that fits a call counts; what fits none costs nothing. Amounts are added up."""

    tools: Annotated[tuple[str, ...], Setting(GLOBS, "Tools." + PATTERNS_HELP, default="all")] = ()
    prompts: Annotated[tuple[str, ...], Setting(GLOBS, "Prompts." + PATTERNS_HELP, default="all")] = ()
    resources: Annotated[tuple[str, ...], Setting(GLOBS, "Resources." + PATTERNS_HELP, default="all")] = ()
    when: Annotated[
        str,
        Setting(
            Scalar("a condition in CEL", values.parse_text),
            "It fits where this is true of the arguments, such as `args.model == 'large'`; `args`, `principal` and "
            "`resource` can be spoken of. Where it has no value it fits.",
            default="always",
        ),
    ] = ""
    per_call: Annotated[Money | None, Setting(MONEY, "A call.", default="nothing")] = None
    per_mib: Annotated[Money | None, Setting(MONEY, "A MiB of request and answer.", default="nothing")] = None
    per_million_tokens_in: Annotated[
        Money | None, Setting(MONEY, "A million tokens of arguments, estimated.", default="nothing")
    ] = None
    per_million_tokens_out: Annotated[
        Money | None, Setting(MONEY, "A million tokens of answers, estimated.", default="nothing")
    ] = None
    per_unit: Annotated[Money | None, Setting(MONEY, "One of what `units` counts.", default="nothing")] = None
    units: Annotated[
        str, Setting(POINTER, "Where the result says how many: `per_unit` times this number.", default="nowhere")
    ] = ""
    amount: Annotated[
        str, Setting(POINTER, "Where the result says what the call has cost, in `currency`.", default="nowhere")
    ] = ""
    currency: Annotated[str | None, Setting(CURRENCY, "Of `amount`.")] = None
    expected: Annotated[
        Money | None,
        Setting(MONEY, "What is reserved for a call whose result says the cost, as long as none was seen.",
                default="`per_call`"),
    ] = None  # fmt: skip
    cancelled: Annotated[
        str, Setting(Choice(("full", "nothing")), "What a call costs that was sent and then cancelled.")
    ] = "full"
    formula: Annotated[
        str,
        Setting(
            Scalar("a formula in CEL", values.parse_text),
            "What a call costs, in whole `currency`, added to the rest: `0.01 + 0.002 * double(size(args.pages))`. Of "
            "`args`, `principal`, `resource`, `used` (`bytes_in`, `bytes_out`, `tokens_in`, `tokens_out`) and "
            "`result`. Where it has no value the call costs `expected`.",
            default="none",
        ),
    ] = ""
    model: Annotated[
        str,
        Setting(
            Scalar("a name, or `arg:/POINTER` or `result:/POINTER`", _parse_model),
            "Tokens cost what this model's do, by `models` and the list that comes with Narthex; costs are put down to "
            "it. A pointer says where the arguments or the result name it.",
            default="none",
        ),
    ] = ""
    tokens_in: Annotated[
        str,
        Setting(POINTER, "Where the result says how many tokens went in; otherwise those of the arguments, estimated.",
                default="nowhere"),
    ] = ""  # fmt: skip
    tokens_out: Annotated[
        str,
        Setting(POINTER, "Where it says how many came out; otherwise those of the answer, estimated.",
                default="nowhere"),
    ] = ""  # fmt: skip


PRICES = Setting(
    Listed(Group(PriceSettings, "a map with the settings of a price"), "prices"),
    "What calls cost. `limits` of money count by them.",
)


class ModelSettings(msgspec.Struct, frozen=True):
    """What the tokens of one model cost."""

    per_million_tokens_in: Annotated[Money | None, Setting(MONEY, "A million tokens in.", default="nothing")] = None
    per_million_tokens_out: Annotated[Money | None, Setting(MONEY, "A million tokens out.", default="nothing")] = None


MODELS = Setting(
    Mapped(
        Scalar("a name", _parse_model),
        Group(ModelSettings, "a map `{per_million_tokens_in, per_million_tokens_out}`"),
        "models",
    ),
    "What tokens of models cost, in the place of what the list says that comes with Narthex, and of those it lacks.",
)
KEPT = CostsKept()


class CostSettings(msgspec.Struct, frozen=True):
    """How long it is kept who spent what on what."""

    hours: Annotated[
        float,
        Setting(duration("1d", "400d"), "So long by the hour and the run; then by the day, all runs of it together."),
    ] = KEPT.hours * 3600.0
    days: Annotated[float, Setting(duration("1d", "3660d"), "So long by the day.")] = KEPT.days * 86_400.0


COSTS = Setting(Group(CostSettings, "a map `{hours, days}`"), "How long it is kept what calls have cost.")

TOKENIZER = Choice((ESTIMATE, *ENCODINGS))


class TokenSettings(msgspec.Struct, frozen=True):
    """What counts tokens once a call is over."""

    tokenizer: Annotated[
        str,
        Setting(
            TOKENIZER,
            "Counts exactly, off the path of calls, and settles the difference to what was estimated; it wants "
            "`narthex[tokens]`. `estimate`: the estimate stands.",
        ),
    ] = ESTIMATE
    models: Annotated[
        dict[str, str],
        Setting(Mapped(GLOB, TOKENIZER, "models"), "Pattern on the name of a price's `model` to its tokenizer."),
    ] = {}


TOKENS = Setting(Group(TokenSettings, "a map `{tokenizer, models}`"), "How tokens are counted.")
