"""An engine as a process: answers as several of them do, streams at the pace that is asked for.

engine.py --port N [--flavour openai|llamacpp|textgen] [--control FOLDER], or `ollama serve`.
Files in the control folder change what it does: `loading`, `broken`, `mute`.
What it is asked for is at `/seen`; a POST of {"tokens", "every_s"} streams so many events.
"""

import argparse
import asyncio
import json
import os
import sys
import time  # noqa: TID251 - its own pace
from pathlib import Path

from aiohttp import web

SEEN = []
PULLED = set()


def control(name):
    folder = os.environ.get("ENGINE_CONTROL", "")
    return bool(folder) and (Path(folder) / name).exists()


async def note(request):
    body = await request.read()
    SEEN.append(
        {
            "method": request.method,
            "path": request.raw_path,
            "headers": [[name, value] for name, value in request.headers.items()],
            "length": len(body),
        }
    )
    return body


async def health(request):
    if control("mute"):
        await asyncio.sleep(60)
    if control("broken"):
        return web.json_response({"error": "broken"}, status=500)
    if control("loading"):
        said = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
        return web.json_response({"error": said}, status=503)
    if request.path == "/api/version":
        return web.json_response({"version": "0.9.0"})
    if request.path == "/v1/models":
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})
    if request.path == "/v1/internal/model/info":
        return web.json_response(
            {"model_name": "None" if control("empty") else "m", "lora_names": []}
        )
    return web.json_response({"status": "ok"})


async def stream(request):
    body = await note(request)
    try:
        asked = json.loads(body)
    except ValueError:
        asked = {}
    if "tokens" not in asked:
        said = {"length": len(body), "choices": [{"message": {"content": "Hi"}}]}
        return web.json_response(said, headers={"Set-Cookie": "engine=1"})
    reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await reply.prepare(request)
    began = time.perf_counter()
    for at in range(asked["tokens"]):
        due = began + at * asked["every_s"]
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await reply.write(b'data: {"n": %d, "at": %.6f}\n\n' % (at, time.time()))
        if asked.get("dies_at") == at:
            os._exit(9)
    await reply.write(b"data: [DONE]\n\n")
    return reply


async def echo(request):
    reply = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await reply.prepare(request)
    async for piece in request.content.iter_any():
        await reply.write(piece)
    return reply


async def tags(_):
    return web.json_response({"models": [{"name": name} for name in sorted(PULLED)]})


async def pull(request):
    model = json.loads(await note(request))["model"]
    reply = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await reply.prepare(request)
    if control("unknown"):
        await reply.write(b'{"error":"pull model manifest: file does not exist"}\n')
        return reply
    lines = [{"status": "pulling manifest"}]
    lines += [
        {"status": "pulling abc", "total": 4_000_000_000, "completed": n * 1_000_000_000}
        for n in range(5)
    ]
    lines += [{"status": "verifying sha256 digest"}, {"status": "success"}]
    for line in lines:
        await reply.write(json.dumps(line).encode() + b"\n")
        await asyncio.sleep(0.01)
    PULLED.add(model)
    return reply


async def generate(request):
    await note(request)
    return web.json_response({"done": True, "done_reason": "load"})


async def seen(_):
    return web.json_response(SEEN)


def app():
    made = web.Application(client_max_size=1 << 30)
    for path in ("/health", "/api/version", "/v1/models", "/v1/internal/model/info"):
        made.router.add_get(path, health)
    made.router.add_get("/api/tags", tags)
    made.router.add_post("/api/pull", pull)
    made.router.add_post("/api/generate", generate)
    made.router.add_get("/seen", seen)
    made.router.add_post("/v1/audio/echo", echo)
    made.router.add_route("*", "/{rest:.*}", stream)
    return made


def main():
    print(f"a secret of mine: {os.environ.get('HF_TOKEN', '')}", flush=True)
    if sys.argv[1:2] == ["serve"] and "OLLAMA_HOST" in os.environ:
        host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
        web.run_app(app(), host=host, port=int(port), print=None, access_log=None)
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("words", nargs="*")
    given = parser.parse_args()
    web.run_app(app(), host="127.0.0.1", port=given.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
