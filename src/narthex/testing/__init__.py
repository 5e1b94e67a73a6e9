"""For tests of Narthex and of what is built on it: a server to stand behind it, a clock to stand still.

`FakeServer` is a real MCP server over HTTP whose tools are data; `FakeClock` is time that passes when told to.
"""

from narthex.testing.clock import FakeClock
from narthex.testing.server import Asked, FakeServer, JsonRpcError

__all__ = ["Asked", "FakeClock", "FakeServer", "JsonRpcError"]
