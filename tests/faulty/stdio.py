"""An MCP server over stdio that misbehaves on request: `python stdio.py FAULT [FILE]`. Legacy era.

Imports little, so that starting it costs little. With FILE, every message that arrives is appended to it, and each
start leaves a line `{"start": pid}`; `slow` answers as soon as `FILE.release` exists.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

FAULT = sys.argv[1]
FILE = sys.argv[2] if len(sys.argv) > 2 else None
TOOLS = [{"name": name, "description": "", "inputSchema": {"type": "object"}} for name in ("echo", "slow", "env")]
lock = threading.Lock()


def note(value: Any) -> None:
    if FILE:
        with open(FILE, "a", encoding="utf-8") as out:
            out.write(json.dumps(value) + "\n")


def write(data: bytes) -> None:
    with lock:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def send(message: dict[str, Any]) -> None:
    write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def answer(id_: Any, result: Any) -> None:
    send({"id": id_, "result": result})


def content(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}


def slow(id_: Any) -> None:
    while not os.path.exists(f"{FILE}.release"):
        time.sleep(0.01)
    answer(id_, content("released"))


def call(id_: Any, params: dict[str, Any]) -> None:
    arguments = params.get("arguments") or {}
    match FAULT:
        case "dies-in-call":
            print("out of cheese: redo from start", file=sys.stderr, flush=True)
            os._exit(3)
        case "dies-once-in-call" if FILE and not os.path.exists(FILE + ".died"):
            open(FILE + ".died", "w").close()
            os._exit(3)
        case "garbage-in-call":
            write(b"this is not JSON\n\xff\xfe\n[]\n12\n\n")
        case "half-a-line":
            write(b'{"jsonrpc": "2.0", "id": ' + json.dumps(id_).encode() + b', "result": {')
            os._exit(0)
        case "huge-line":
            write(
                b'{"jsonrpc": "2.0", "id": '
                + json.dumps(id_).encode()
                + b', "result": {"content": [{"type": "text", "text": "'
            )
            for _ in range(800):
                write(b"x" * 262_144)
            write(b'"}]}}\n')
            return
        case "silent-call":
            return
        case "wrong-id":
            send({"id": 987654321, "result": content("planted")})
            return
        case "asks-back":
            for number, method in enumerate(("elicitation/create", "sampling/createMessage", "roots/list", "ping")):
                send({"id": f"ask-{number}", "method": method, "params": {}})
        case "noisy-stderr":
            for _ in range(2000):
                print("noise " * 100, file=sys.stderr)
    if params.get("name") == "slow":
        threading.Thread(target=slow, args=(id_,), daemon=True).start()
    elif params.get("name") == "env":
        answer(id_, content(json.dumps({"env": dict(os.environ), "cwd": os.getcwd()})))
    else:
        answer(id_, content(str(arguments.get("text", "")) * arguments.get("times", 1)))


def main() -> None:
    note({"start": os.getpid()})
    match FAULT:
        case "dies-at-start":
            print("cannot read the flux capacitor", file=sys.stderr, flush=True)
            sys.exit(7)
        case "silent":
            signal.pause()
        case "garbage-at-start":
            write(b"Welcome to my server!\nversion 1\n")
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            threading.Thread(target=time.sleep, args=(600,)).start()
        case "grandchild":
            subprocess.Popen(["sleep", "600"])
            subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 600"])
    for line in sys.stdin:
        message = json.loads(line)
        note(message)
        id_, method = message.get("id"), message.get("method")
        if id_ is None or method is None:
            continue
        if method == "initialize":
            info = {"name": FAULT, "version": "1"}
            answer(id_, {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info})
        elif method == "tools/list":
            answer(id_, {"tools": TOOLS})
        elif method == "tools/call":
            call(id_, message["params"])
        elif method == "ping":
            answer(id_, {})
        else:
            send({"id": id_, "error": {"code": -32601, "message": "Method not found"}})


if __name__ == "__main__":
    main()
