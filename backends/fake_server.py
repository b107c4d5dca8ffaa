"""A small OpenAI-compatible server that says nothing sensible: for demos, tests and benchmarks.

    python -m backends.fake_server --port 0 --name alpha --model demo-model \
        [--latency 250ms] [--loading 5s] [--with-parent]

Prints one JSON line when it listens, `{"name", "port", "url", "model"}`. It answers `/health`,
`/v1/models` and `/v1/chat/completions`, also streamed. While loading, it answers 503 as llama.cpp
does. `--latency` delays completions only. With `--with-parent` it ends when its stdin does. It
speaks only as much HTTP as that takes, so that a thousand probes of it cost nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import Final

from orchestrator.core.durations import seconds

MOST: Final = 1_000_000  # bytes of a request's body
HEAD: Final = 65536
ENDINGS: Final = (OSError, EOFError, ValueError, asyncio.LimitOverrunError, asyncio.CancelledError)
REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}


class Server:
    """Answers as `name`; ready `loading_s` after `start`."""

    def __init__(self, name: str, model: str, latency_s: float, loading_s: float) -> None:
        self.name = name
        self.model = model
        self.latency_s = latency_s
        self.loading_s = loading_s
        self.ready_at = 0.0
        self.asked = 0
        self._server: asyncio.Server | None = None
        listed = {"id": model, "object": "model", "created": 0, "owned_by": name}
        self._fixed = {
            b"/health": _answer(200, {"status": "ok"}),
            b"/v1/models": _answer(200, {"object": "list", "data": [listed]}),
        }
        error = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
        self._loading = _answer(503, {"error": error})
        self._unknown = _answer(404, {"error": {"message": "not found"}})

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port."""
        loop = asyncio.get_running_loop()
        self.ready_at = loop.time() + self.loading_s
        self._server = await asyncio.start_server(self._serve, host, port, limit=HEAD)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening; connections end with the process."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(*ENDINGS):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is to end."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, *_ = head.split(b" ", 2)
        length = _length(head)
        if length > MOST:
            writer.write(_answer(400, {"error": {"message": "too large"}}))
            return False
        body = await reader.readexactly(length) if length else b""
        self.asked += 1
        path = path.partition(b"?")[0]
        if asyncio.get_running_loop().time() < self.ready_at and path != b"/v1/models":
            writer.write(self._loading)
        elif method == b"POST" and path == b"/v1/chat/completions":
            await self._complete(writer, body)
        else:
            writer.write(self._fixed.get(path, self._unknown))
        await writer.drain()
        return b"connection: close" not in head.lower()

    async def _complete(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        try:
            asked = json.loads(body)
            text = asked["messages"][-1]["content"]
            streamed = asked.get("stream") is True
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            writer.write(_answer(400, {"error": {"message": "not a chat completion request"}}))
            return
        words = f"{self.name} heard: {text}".split()
        most = asked.get("max_tokens")
        if isinstance(most, int) and most > 0:
            words = words[:most]
        if streamed:
            await self._stream(writer, words)
            return
        await asyncio.sleep(self.latency_s)
        message = {"role": "assistant", "content": " ".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {
            "prompt_tokens": 1,
            "completion_tokens": len(words),
            "total_tokens": 1 + len(words),
        }
        writer.write(_answer(200, self._form("chat.completion", choice) | {"usage": usage}))

    async def _stream(self, writer: asyncio.StreamWriter, words: list[str]) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        pause_s = self.latency_s / max(len(words), 1)
        for word in words:
            await asyncio.sleep(pause_s)
            delta = {"index": 0, "delta": {"content": word + " "}, "finish_reason": None}
            writer.write(_event(self._form("chat.completion.chunk", delta)))
            await writer.drain()
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        writer.write(_event(self._form("chat.completion.chunk", last)))
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def _form(self, kind: str, choice: object) -> dict[str, object]:
        name = f"chatcmpl-{self.name}-{self.asked}"
        return {"id": name, "object": kind, "created": 0, "model": self.model, "choices": [choice]}


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _answer(status: int, body: object) -> bytes:
    text = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


def _event(body: object) -> bytes:
    return _chunk(b"data: " + json.dumps(body).encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def run(args: argparse.Namespace) -> None:
    """Serve until told to stop, or until the parent is gone."""
    server = Server(args.name, args.model, args.latency, args.loading)
    port = await server.start(args.host, args.port)
    told = {
        "name": args.name,
        "port": port,
        "url": f"http://{args.host}:{port}",
        "model": args.model,
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    if args.with_parent:
        loop.add_reader(sys.stdin.fileno(), _parent_spoke, loop, over)
    await over.wait()
    await server.stop()


def _parent_spoke(loop: asyncio.AbstractEventLoop, over: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        over.set()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m backends.fake_server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--name", default="fake")
    parser.add_argument("--model", default="demo-model")
    parser.add_argument("--latency", type=seconds, default=0.0)
    parser.add_argument("--loading", type=seconds, default=0.0)
    parser.add_argument("--with-parent", action="store_true")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
