"""What in a text is nobody's business: tokens, keys, passwords, card and account numbers, addresses.

In: a text, the kinds that are looked for. Out: the text with each find masked, and the kinds that were found. A rule
looks only where a mark of it stands in the text, and no pattern can be made to backtrack: each takes time in proportion
to the text. What has a check digit is checked, so that a number that only looks like a card stays.
Cases: `tests/telemetry/payloads/test_detectors.py`; fuzz target `redaction`. Source: ISO/IEC 7812 (card numbers), ISO
13616 (IBAN), RFC 7519 and 7516 (JWT, JWE), RFC 7468 (PEM), the providers' own pages on the form of their tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

Span = tuple[int, int]
Finder = Callable[[str], Iterable[Span]]
"""Finds in the order in which they begin."""
SHORTEST: Final = {"secrets": 8, "keys": 20, "jwts": 17, "cards": 13, "ibans": 15, "emails": 5, "ssns": 11}
"""Characters of a text in which such a thing can be found."""

# --- tokens of providers: a mark that must stand in the text, and the whole form
_TOKENS: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("AKIA", "ASIA", "ABIA", "ACCA"), r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),  # AWS
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"\bgh[pousr]_[A-Za-z0-9]{30,}"),  # GitHub
    (("github_pat_",), r"\bgithub_pat_[A-Za-z0-9_]{22,}"),
    (("glpat-", "gldt-", "glrt-", "glptt-"), r"\bgl(?:pat|dt|rt|ptt)-[A-Za-z0-9_.-]{20,}"),  # GitLab
    (("xox", "xapp-"), r"\b(?:xox[abceoprs]|xapp)-[A-Za-z0-9-]{10,}"),  # Slack
    (("hooks.slack.com/",), r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{20,}"),
    (("_live_", "_test_"), r"\b(?:sk|rk|pk|whsec)_(?:live|test)_[A-Za-z0-9]{10,}"),  # Stripe
    (("whsec_",), r"\bwhsec_[A-Za-z0-9+/=]{24,}"),
    (("sk-",), r"\bsk-[A-Za-z0-9_-]{20,}"),  # OpenAI, Anthropic, and whoever writes theirs so
    (("AIza",), r"\bAIza[A-Za-z0-9_-]{35}"),  # Google
    (("ya29.",), r"\bya29\.[A-Za-z0-9_-]{20,}"),
    (("GOCSPX-",), r"\bGOCSPX-[A-Za-z0-9_-]{20,}"),
    (("npm_",), r"\bnpm_[A-Za-z0-9]{36}"),
    (("pypi-",), r"\bpypi-[A-Za-z0-9_-]{50,}"),
    (("hf_",), r"\bhf_[A-Za-z0-9]{30,}"),  # Hugging Face
    (("SG.",), r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),  # SendGrid
    (("SK",), r"\bSK[0-9a-f]{32}\b"),  # Twilio
    (("dop_v1_", "doo_v1_", "dor_v1_"), r"\bdo[opr]_v1_[a-f0-9]{64}"),  # DigitalOcean
    (("hvs.", "hvb.", "hvr."), r"\bhv[sbr]\.[A-Za-z0-9_-]{20,}"),  # Vault
    (("dapi",), r"\bdapi[0-9a-f]{32}"),  # Databricks
    (("shpat_", "shpca_", "shppa_", "shpss_"), r"\bshp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}"),  # Shopify
    (("lin_api_",), r"\blin_api_[A-Za-z0-9]{32,}"),  # Linear
    (("ntn_",), r"\bntn_[A-Za-z0-9]{40,}"),  # Notion
    (("ATATT3", "ATCTT3"), r"\bAT[AC]TT3[A-Za-z0-9_=-]{60,}"),  # Atlassian
    (("AccountKey=", "SharedAccessKey="), r"\b(?:Account|SharedAccess)Key=[A-Za-z0-9+/=]{40,}"),  # Azure
    (("AGE-SECRET-KEY-",), r"\bAGE-SECRET-KEY-1[A-Z0-9]{58}"),
    (("nx_",), r"\bnx_[A-Za-z0-9_-]{20,}"),  # ours
    (
        ("PRIVATE KEY",),
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?s:.*?)-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|(?s:.*))",
    ),
)
_TOKEN_RULES: Final = tuple((marks, re.compile(pattern)) for marks, pattern in _TOKENS)
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){2,4}")

# --- secrets: told by what stands before them
_NAMES: Final = (
    r"pass(?:word|wd|phrase|code)|pwd|secrets?|(?:access|auth|bearer|refresh|session|id|api|csrf|xsrf)[ _-]?token|token"
    r"|(?:api|access|private|secret|signing|encryption|master|account|shared)[ _-]?(?:access[ _-]?)?key|apikey"
    r"|client[ _-]?secret|authorization|credentials?|cookie|otp|pin(?:[ _-]?code)?|cvv|cvc"
)
_NAME: Final = re.compile(rf"(?:^|[^a-z])(?:{_NAMES})$")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NAME_MARKS: Final = (
    "pass", "pwd", "secret", "token", "key", "auth", "credential", "cookie", "otp", "pin", "cvv", "cvc",
)  # fmt: skip
_QUOTED: Final = re.compile(r"[\"']([^\"'\r\n]{1,128})[\"']\s?[:=]\s?[\"']([^\"'\r\n]+)")
_BARE: Final = re.compile(r"(?<![\w.-])([\w.-]+)\s?[:=]\s?(?=[^\s:=])")
_VALUE: Final = re.compile(
    r"(?i)(?:(?:bearer|basic|digest|negotiate)\s+)?(?:\"([^\"\r\n]+)|'([^'\r\n]+)|([^\s\"',;&<>{}\[\]]{3,}))"
)
_LINE: Final = re.compile(r"[^\r\n]+")
_SPOKEN: Final = re.compile(r"\s(?:is|was)\s([^\s\"',;]{3,})")
_BEFORE: Final = 40
"""Characters in front of a value in which its name is looked for."""
_SCHEME: Final = re.compile(r"(?i)\b(?:bearer|basic|digest|negotiate)\s([A-Za-z0-9._~+/=-]{8,})")
_URL: Final = re.compile(r"://[^\s/:@\"']*:([^\s/@\"']+)@")

# --- numbers
_CARD: Final = re.compile(
    r"(?<![\w.])(?=(\d{13,19}|\d{4}([ -])\d{4}\2\d{4}\2\d{4}(?:\2\d{3})?|\d{4}[ -]\d{6}[ -]\d{4,5})(?!\w))"
)
_IBAN: Final = re.compile(r"(?i)(?<![a-z0-9])[a-z]{2}\d\d(?: ?[a-z0-9]){11,40}")
_SSN: Final = re.compile(r"(?<![\w.-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])")
_EMAIL: Final = re.compile(r"(?<![\w.%+'-])[\w.%+'-]+@[\w-]+(?:\.[\w-]+)+")
_CARDS: Final = (
    (r"4", {13, 16, 19}),
    (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", {16}),
    (r"3[47]", {15}),
    (r"30[0-5]|3095|3[689]", {14, 16, 17, 18, 19}),
    (r"35(?:2[89]|[3-8])", {16, 17, 18, 19}),
    (r"6(?:011|22|4[4-9]|5)|81", {16, 17, 18, 19}),
    (r"50|5[6-9]|6", {13, 14, 15, 16, 17, 18, 19}),
)
_BRANDS: Final = tuple((re.compile(start), lengths) for start, lengths in _CARDS)
_IBAN_LENGTHS: Final[Mapping[str, int]] = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    "YE": 30,
}  # fmt: skip


def masked(text: str, kinds: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """A text with each find as `[redacted: KIND]`, and the kinds that were found.

    Args:
        kinds: Of `kept.DETECTORS`, in the order in which they look: what one has masked, the next does not see.
    """
    found = []
    for kind in kinds:
        if len(text) < SHORTEST[kind]:
            continue
        text, more = _without(text, kind, FINDERS[kind])
        if more:
            found.append(kind)
    return text, tuple(found)


def likely(text: str, kinds: Iterable[str]) -> tuple[str, ...]:
    """Those of the kinds that may be found in a part of this text; of the others there is surely none."""
    return tuple(kind for kind in kinds if _HINTS[kind](text))


def names_a_secret(name: str) -> bool:
    """Does a member of this name hold a secret, whatever its value looks like?"""
    lower = name.lower()
    if not any(mark in lower for mark in _NAME_MARKS):
        return False
    return _NAME.search(_HUMP.sub("_", name[-128:]).lower()) is not None


def _without(text: str, kind: str, finder: Finder) -> tuple[str, bool]:
    parts: list[str] = []
    end = 0
    for start, stop in finder(text):
        if start >= end:
            parts += text[end:start], f"[redacted: {kind}]"
        end = max(end, stop)  # finds may overlap
    if not parts:
        return text, False
    return "".join((*parts, text[end:])), True


def _keys(text: str) -> Iterable[Span]:
    found = [
        match.span()
        for marks, pattern in _TOKEN_RULES
        if any(mark in text for mark in marks)
        for match in pattern.finditer(text)
    ]
    return sorted(found)


def _jwts(text: str) -> Iterable[Span]:
    return (match.span() for match in _JWT.finditer(text)) if "eyJ" in text else ()


def _secrets(text: str) -> Iterable[Span]:
    found: list[Span] = []
    lower = text.lower()
    if any(mark in lower for mark in _NAME_MARKS):
        found += (match.span(2) for match in _QUOTED.finditer(text) if names_a_secret(match[1]))
        found += _assigned(text)
        for match in _SPOKEN.finditer(text):
            if names_a_secret(text[max(0, match.start() - _BEFORE) : match.start()]):
                found.append(match.span(1))
    if any(mark in lower for mark in ("bearer ", "basic ", "digest ", "negotiate ")):
        found += (match.span(1) for match in _SCHEME.finditer(text))
    if "://" in text and "@" in text:
        found += (match.span(1) for match in _URL.finditer(text))
    return sorted(found)


def _assigned(text: str) -> Iterator[Span]:
    """`NAME=value`, `Name: value`; of a cookie the whole line."""
    end = 0
    for match in _BARE.finditer(text):
        if match.start() >= end and names_a_secret(match[1]):
            form = _LINE if match[1].lower().endswith("cookie") else _VALUE
            value = form.match(text, match.end())
            if value is not None:
                end = value.end()
                yield value.span(value.lastindex or 0)


def _cards(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        start, end = match.span(1)
        if is_card(match[1]):
            yield start, end
        elif match[2] and end - start > 19 and is_card(match[1][:19]):  # three digits that stand behind one
            yield start, start + 19


def is_card(text: str) -> bool:
    """Does it begin as cards of its length do, and does its check digit fit?"""
    digits = text.replace(" ", "").replace("-", "")
    fits = any(len(digits) in lengths and start.match(digits) for start, lengths in _BRANDS)
    return fits and luhn(digits) and len(set(digits)) > 1


def luhn(digits: str) -> bool:
    """Is the last digit the check digit of the others (ISO/IEC 7812-1, annex B)?"""
    odd = sum(int(one) for one in digits[-1::-2])
    even = sum(sum(divmod(2 * int(one), 10)) for one in digits[-2::-2])
    return (odd + even) % 10 == 0


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        end = _end_of_iban(match[0])
        if end:
            yield match.start(), match.start() + end


def _end_of_iban(text: str) -> int:
    """Where the account number ends that a text begins with; 0 where it is none."""
    wanted = _IBAN_LENGTHS.get(text[:2].upper(), 0)
    digits = ""
    for at, one in enumerate(text):
        digits += one.strip()
        if len(digits) == wanted:
            return at + 1 if not text[at + 1 : at + 2].isalnum() and is_iban(digits) else 0
    return 0


def is_iban(text: str) -> bool:
    """Do its check digits fit (ISO 7064, MOD 97-10)?"""
    turned = text[4:] + text[:4]
    return text.isascii() and text.isalnum() and int("".join(str(int(one, 36)) for one in turned)) % 97 == 1


def _spans(pattern: re.Pattern[str], mark: str) -> Finder:
    return lambda text: (match.span() for match in pattern.finditer(text)) if mark in text else ()


def _hints_at_secrets(text: str) -> bool:
    lower = text.lower()
    return any(mark in lower for mark in (*_NAME_MARKS, "bearer", "basic", "digest", "negotiate")) or "@" in text


_HINTS: Final[Mapping[str, Callable[[str], object]]] = {
    "secrets": _hints_at_secrets,
    "keys": lambda text: any(mark in text for marks, _ in _TOKEN_RULES for mark in marks),
    "jwts": lambda text: "eyJ" in text,
    "cards": re.compile(r"\d{4}[ -]?\d{4}").search,
    "ibans": re.compile(r"[A-Za-z]{2}\d\d ?[A-Za-z0-9]{4}").search,
    "emails": lambda text: "@" in text,
    "ssns": re.compile(r"\d{3}-\d\d-\d{4}").search,
}
FINDERS: Final[Mapping[str, Finder]] = {
    "secrets": _secrets,
    "keys": _keys,
    "jwts": _jwts,
    "cards": _cards,
    "ibans": _ibans,
    "emails": _spans(_EMAIL, "@"),
    "ssns": _spans(_SSN, "-"),
}
