"""What a server is given in its `env` or headers stands in no log, even where the server itself says it."""

from __future__ import annotations

import logging
import sys

import pytest

from narthex.types import ServerSpec, StdioTarget
from tests.flow.gateway import Running, run

SECRET = "s3cr3t-value-123456"
CRASHES = "import os, sys; sys.exit('boot with token ' + os.environ['TOKEN'])"


def test_a_secret_on_the_stderr_of_a_server_that_crashes_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        target = StdioTarget(sys.executable, ("-c", CRASHES), (("TOKEN", SECRET),))
        one = ServerSpec("one", target, "stdio", sharing="tenant")
        async with Running({"one": one}) as gateway:
            client = await gateway.client(session=True)
            assert SECRET.encode() not in (await client.legacy("tools/list")).body

    with caplog.at_level(logging.DEBUG):
        run(main)
    assert "boot with token [hidden]" in caplog.text
    assert SECRET not in caplog.text
