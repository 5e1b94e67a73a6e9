"""`narthex policy`: test rules with cases, find what they allow too much, review who used what.

Cases: `tests/cli/test_policy.py`. Each command is in a file of its own: `policy_test.py`, `policy_usage.py`.
"""

from __future__ import annotations

import click

from narthex.cli.groups import Group
from narthex.cli.policy_test import test
from narthex.cli.policy_usage import review, suggest


@click.group(cls=Group)
def policy() -> None:
    """Test rules with cases, and compare them with what was used.

    Needs no running gateway and starts no server.
    """


policy.add_command(test)
policy.add_command(suggest)
policy.add_command(review)
