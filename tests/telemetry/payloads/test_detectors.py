"""What a detector takes out of a text, and what it leaves."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.kept import DETECTORS
from narthex.telemetry.payloads.detectors import FINDERS, is_iban, luhn, masked, names_a_secret

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIB\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param("password: hunter22 and more", "password: [redacted: secrets] and more", id="behind a name"),
        pytest.param("DB_PASSWORD=x1y2z3", "DB_PASSWORD=[redacted: secrets]", id="a variable"),
        pytest.param('token = "two words"', 'token = "[redacted: secrets]"', id="in quotes"),
        pytest.param('say {"apiKey": "two words"}', 'say {"apiKey": "[redacted: secrets]"}', id="JSON in a text"),
        pytest.param("the password is swordfish.", "the password is [redacted: secrets]", id="as one says it"),
        pytest.param("x-api-key: abc123", "x-api-key: [redacted: secrets]", id="a header"),
        pytest.param("Authorization: Bearer abcdefgh1", "Authorization: Bearer [redacted: secrets]", id="its header"),
        pytest.param("use Basic dXNlcjpwYXNz now", "use Basic [redacted: secrets] now", id="a scheme alone"),
        pytest.param("Cookie: a=b; c=d\nnext", "Cookie: [redacted: secrets]\nnext", id="a cookie is the whole line"),
        pytest.param("postgres://ada:pw@db/x", "postgres://ada:[redacted: secrets]@db/x", id="in a URL"),
        pytest.param("AKIAIOSFODNN7EXAMPLE", "[redacted: keys]", id="AWS"),
        pytest.param("a ghp_" + "a1" * 18 + " b", "a [redacted: keys] b", id="GitHub"),
        pytest.param("sk-ant-api03-" + "x" * 30, "[redacted: keys]", id="Anthropic"),
        pytest.param("xoxb-123456789012-abcdef", "[redacted: keys]", id="Slack"),
        pytest.param("sk_live_" + "a" * 24, "[redacted: keys]", id="Stripe"),
        pytest.param("AIza" + "b" * 35, "[redacted: keys]", id="Google"),
        pytest.param("nx_" + "c" * 40, "[redacted: keys]", id="our own"),
        pytest.param(f"key:\n{PEM}\nend", "key:\n[redacted: keys]\nend", id="a private key"),
        pytest.param(PEM[:40], "[redacted: keys]", id="a private key that was cut off"),
        pytest.param(f"jwt {JWT}.", "jwt [redacted: jwts]", id="a JWT"),
        pytest.param("4111 1111 1111 1111 123 ok", "[redacted: cards] 123 ok", id="a card, and digits behind it"),
        pytest.param("0000 4111-1111-1111-1111", "0000 [redacted: cards]", id="digits in front of a card"),
        pytest.param("no. 378282246310005", "no. [redacted: cards]", id="a card of 15 digits"),
        pytest.param("GB82 WEST 1234 5698 7654 32 THANKS", "[redacted: ibans] THANKS", id="an IBAN in groups"),
        pytest.param("to DE89370400440532013000.", "to [redacted: ibans].", id="an IBAN at the end of a sentence"),
        pytest.param("to DE89370400440532013000", "to [redacted: ibans]", id="an IBAN in one piece"),
        pytest.param("ada@example.com, bob@mail.example.org", "[redacted: emails], [redacted: emails]", id="e-mail"),
        pytest.param("ssn 123-45-6789", "ssn [redacted: ssns]", id="social security"),
    ],
)  # fmt: skip
def test_is_taken_out(text: str, kept: str) -> None:
    found, kinds = masked(text, DETECTORS)
    assert found == kept
    assert kinds


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("550e8400-e29b-41d4-a716-446655440000", id="a UUID"),
        pytest.param("2026-11-27T09:38:36.120345Z", id="a time"),
        pytest.param("at 1700000000000 ms", id="milliseconds since 1970"),
        pytest.param("4111 1111 1111 1112", id="a card whose check digit is wrong"),
        pytest.param("1111111111111111", id="one digit, again and again"),
        pytest.param("GB82 WEST 1234 5698 7654 33", id="an IBAN whose check digits are wrong"),
        pytest.param("max_tokens=1000, next_page: 3", id="a word with token in it"),
        pytest.param("keyboard: qwerty; monkey: 123", id="a word with key in it"),
        pytest.param("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", id="a hash"),
        pytest.param("666-12-3456 and 123-00-4567", id="no numbers of social security"),
        pytest.param("password", id="a name without a value"),
        pytest.param("see @ada at https://example.com/a:b", id="no address"),
    ],
)
def test_is_left(text: str) -> None:
    assert masked(text, DETECTORS) == (text, ())


@pytest.mark.parametrize("name", ["password", "apiKey", "api_key", "X-Api-Key", "userToken", "DB_PASSWORD", "pin"])
def test_a_member_of_this_name_holds_a_secret(name: str) -> None:
    assert names_a_secret(name)


@pytest.mark.parametrize("name", ["max_tokens", "keyboard", "spin", "sort_key", "author", "passenger", "", "x" * 500])
def test_a_member_of_this_name_holds_none(name: str) -> None:
    assert not names_a_secret(name)


def test_only_what_is_asked_for_is_looked_for() -> None:
    text = f"ada@example.com {JWT}"
    assert masked(text, ("emails",)) == (f"[redacted: emails] {JWT}", ("emails",))
    assert masked(text, ()) == (text, ())


@given(st.integers(10**11, 10**18))
def test_the_check_digit_of_a_card_finds_every_wrong_digit(number: int) -> None:
    (whole,) = [text for last in range(10) if luhn(text := f"{number}{last}")]
    assert all(not luhn(f"{whole[:at]}{(int(whole[at]) + 1) % 10}{whole[at + 1 :]}") for at in range(len(whole)))


@given(st.text("0123456789", min_size=14, max_size=14), st.integers(0, 96))
def test_one_in_97_numbers_is_that_of_an_account(account: str, check: int) -> None:
    assert sum(is_iban(f"DE{98 - one:02d}{account}") for one in range(97)) == 1


@given(st.text(st.sampled_from("aA1 -_.:=@'\"/eyJ4\n"), max_size=200))
def test_what_is_masked_is_masked_once(text: str) -> None:
    once, _ = masked(text, DETECTORS)
    again, _ = masked(once, DETECTORS)
    assert masked(again, DETECTORS)[0] == again, "what was masked settles"


EVIL = (
    "a", "a-", "1 ", "4 ", "4111-", "4111 1111 1111 1112 ", "eyJ", "a.", "password", "secret_", "a_", "://", "a:",
    "a.:", '"a', '"password":', "bearer ", "secret is ", "cookie:", "cookie: ", "-----BEGIN PRIVATE KEY-----", "DE11",
    "DE11 ", "A@", "a@b.", "123-", "https://a:",
)  # fmt: skip


@pytest.mark.parametrize("part", EVIL)
def test_no_text_makes_a_rule_backtrack(part: str) -> None:
    """A tenth of a second of CPU; with a pattern that backtracks half a minute."""
    began = time.thread_time()
    masked(part * (200_000 // len(part)), DETECTORS)
    assert time.thread_time() - began < 10


def test_every_kind_has_its_finder() -> None:
    assert set(FINDERS) == set(DETECTORS)
