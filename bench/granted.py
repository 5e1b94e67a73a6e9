"""What grants cost a call and a list: fifty rules, a thousand tools, with and without a condition. For `steps.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kept import Least
from rooms import Rooms

from narthex.flow.policy import conditions
from narthex.flow.policy.admissions import Admissions
from narthex.flow.policy.conditions import compile_condition
from narthex.flow.policy.grants import Grants
from narthex.flow.policy.slices import finished
from narthex.types import Grant, Principal, Who

RULES, TOOLS = 50, 10_000
CONDITION = "args.amount <= 100 && args.region in ['eu', 'us']"
FACTS: dict[str, Any] = {
    "args": {"amount": 7, "region": "eu"},
    "principal": {},
    "resource": {},
    "context": {"arguments_size": 30},
}


def rules(when: str = "") -> tuple[Grant, ...]:
    """Rules of a support team: what it may on fifty servers, and what nobody may."""
    who = Who(role=("support",))
    allowed = [
        Grant(f"server {number}", "allow", who, tools=(f"s{number}__*", f"*__get_{number}"))
        for number in range(RULES - 5)
    ]
    denied = [Grant(f"never {number}", "deny", tools=(f"*__delete_{number}*",)) for number in range(4)]
    return (*allowed, *denied, Grant("the call", "allow", tools=("server__*",), when=when))


def under(r: Rooms, admissions: Admissions | None) -> Callable[[], None]:
    """A call that these admit."""
    front = r.gateway.front

    def call() -> None:
        front.admissions = front._admissions = admissions
        r.connection.data_received(r.request)

    return call


def granted(r: Rooms, least: Least, repeats: int) -> list[dict[str, Any]]:
    """What a call costs more with fifty rules, without and with a condition; what of it is a condition, and a list."""
    front = r.gateway.front
    plain = Admissions(Grants(rules()), {}, front.now)
    looking = Admissions(Grants(rules("has(args.text) || args.amount <= 100")), {}, front.now)

    try:
        none, without, with_it = least([under(r, one) for one in (None, plain, looking)], max(repeats, 100))
    finally:
        front.admissions = front._admissions = None
    closure, engine = compile_condition(CONDITION).met, conditions._engine_condition(CONDITION).met
    by_closure, by_engine = least([lambda: closure(FACTS), lambda: engine(FACTS)], repeats)
    principal = Principal("default", "https://sso.example.com", "ada", roles=("support",), method="jwt")
    rights = Grants(rules()).rights(principal, "default", 0.0)
    names = [(f"s{number // 200}", f"tool_{number}") for number in range(TOOLS)]
    (listed,) = least([lambda: finished(rights.bits("tools", names))], 1)
    (sliced,) = least([lambda: next(rights.bits("tools", names))], 1)
    return [
        {"room": "policy", "step": f"a call under {RULES} grants, no condition", "us": max(0.0, without - none)},
        {"room": "policy", "step": f"a call under {RULES} grants, one condition", "us": max(0.0, with_it - none)},
        {"room": "policy", "step": "a condition, by closures", "us": by_closure},
        {"room": "policy", "step": "the same by the engine", "us": by_engine},
        {"room": "policy", "step": f"which of {TOOLS:,} tools are visible, once a set of rights", "us": listed},
        {"room": "policy", "step": "the longest that this holds the loop: one slice of it", "us": sliced},
    ]
