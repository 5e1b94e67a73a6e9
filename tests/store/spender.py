"""A process that spends: calls as a gateway counts them, one after the other, until it is killed or told to stop.

`python -m tests.store.spender CONFIG SEED`: prints what its limits count when it starts, once they have read the books;
on SIGTERM what they count at the end, after it has closed them. No sockets: a million calls are to take a minute.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from narthex.config.compile import load_snapshot
from narthex.errors import BudgetExhausted, RateLimited, UpstreamTimeout, UpstreamUnavailable
from narthex.flow.accept.metering import Metered, Metering
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.route.target import Target
from narthex.store.books import Books
from narthex.types import Call, Principal

NOON = 1_800_014_400.0
"""In the middle of a day and a month, so that no period ends meanwhile."""
PEOPLE = [Principal("acme", "https://idp", f"user-{number}", "bot") for number in range(20)]
TOOLS = [Target("one", name, json.dumps(name).encode()) for name in ("plain", "pages", "model", "dear")]
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"structuredContent":{"pages":%d,"in":%d,"out":%d}}}'
AT_ONCE = 200


def counted(metering: Metering) -> dict[str, int]:
    """What each limit counts, all its buckets together."""
    found: dict[str, int] = {}
    now = metering.time()
    for limit in metering.limiter.limits:
        for shard in limit.buckets.shards:
            for key in list(shard):
                found[limit.rule.name] = found.get(limit.rule.name, 0) + limit.algorithm.used(shard, key, now)[0]
    return found


def spend(metering: Metering, chance: random.Random) -> None:
    """One call, and how it ends."""
    target = chance.choice(TOOLS)
    arguments = Raw(b'{"n":%d,"model":"%b"}' % (chance.randrange(100), chance.choice((b"gpt-4o", b"nobody's"))))
    who = chance.choice(PEOPLE)
    call = Call("tools/call", {}, {}, b"1", "modern", "2026-07-28", who, "default", f"one__{target.name}")
    one = Metered(metering, 200)
    try:
        one.reserve(call, target, {"name": Raw(target.name_json), "arguments": arguments})
    except (RateLimited, BudgetExhausted):
        return
    ending = chance.randrange(10)
    if ending == 0:
        one.ended(sent=False, error=UpstreamUnavailable("away"))
    elif ending == 1:
        one.ended(sent=True, error=UpstreamTimeout("late"))
    elif ending == 2:
        one.ended(sent=True)  # its client has given it up
    else:
        body = ANSWER % (chance.randrange(9), chance.randrange(4000), chance.randrange(800))
        one.answered(len(body), (body,))


async def main(config: Path, seed: int) -> None:
    chance = random.Random(seed)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    snapshot = load_snapshot(config, env=os.environ)
    began = time.monotonic()
    metering = Metering(time.monotonic, lambda: NOON + time.monotonic() - began)
    metering.apply(snapshot)
    books = Books()
    await books.prepare(snapshot, metering)
    books.restore(metering)
    print(json.dumps(counted(metering)), flush=True)
    while not stopping.is_set():
        for _ in range(AT_ONCE):
            spend(metering, chance)
        await asyncio.sleep(0)
    await books.close()
    print(json.dumps(counted(metering)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
