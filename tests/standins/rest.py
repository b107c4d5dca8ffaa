"""What stand-ins of providers' REST interfaces share: a door, a journal, and answers gone wrong.

`POST /_control` sets what its owner may set, `GET /_control` shows what it holds.
"""

import argparse
import asyncio
import contextlib
import json
import re
from dataclasses import dataclass

from aiohttp import web


class Refused(Exception):
    def __init__(self, status: int, body: object = None) -> None:
        super().__init__(f"{status} {body}")
        self.status, self.body = status, body


@dataclass
class Fault:
    """The next `times` requests whose "METHOD /path" `on` matches are answered so.

    `status` 0: the connection drops, -1: no answer ever comes. `done`: what was asked is done first
    all the same. `skip`: so many that match go by before.
    """

    on: str
    status: int = 0
    body: object = None
    done: bool = False
    times: int = 1
    skip: int = 0
    retry_after: str = ""

    def takes(self, asked: str) -> bool:
        if self.times <= 0 or not re.search(self.on, asked):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class RestStandin:
    """`async with` it; `url` is its root. `key`: what it takes as a bearer token."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.faults: list[Fault] = []
        self.requests: list[str] = []  # "METHOD /path", in order
        self.began: list[str] = []  # the labels of what was started here, by whomever

    def routes(self, add) -> None:
        raise NotImplementedError

    def truth(self) -> dict:
        """What it holds, for `GET /_control`."""
        raise NotImplementedError

    def control(self, given: dict) -> None:
        """Do what `POST /_control` asks."""
        if "fault" in given:
            self.faults.append(Fault(**given["fault"]))

    def unauthorized(self) -> Refused:
        return Refused(401, {"error": "unauthorized"})

    async def start(self, port: int = 0) -> None:
        app = web.Application(middlewares=[self._front])
        self.routes(app.router.add_route)
        app.router.add_route("*", "/_control", self._control)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await self.stop()

    @web.middleware
    async def _front(self, request, handler):
        if request.path == "/_control":
            return await handler(request)
        asked = f"{request.method} {request.path}"
        self.requests.append(asked)
        fault = next((one for one in self.faults if one.takes(asked)), None)
        if fault is not None and not fault.done:
            return await self._broken(request, fault)
        try:
            if request.headers.get("Authorization") != f"Bearer {self.key}":
                raise self.unauthorized()
            status, body = await handler(request)
        except Refused as refused:
            status, body = refused.status, refused.body
        except web.HTTPException as error:
            status, body = error.status, {"error": f"no such route: {asked}"}
        if fault is not None:
            return await self._broken(request, fault)
        return (
            web.json_response(body, status=status)
            if body is not None
            else web.Response(status=status)
        )

    async def _broken(self, request, fault):
        if fault.status == -1:
            await asyncio.sleep(3600)
        if fault.status <= 0:
            request.transport.abort()
            return web.Response()
        headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
        if isinstance(fault.body, str):
            return web.Response(
                text=fault.body, status=fault.status, content_type="text/html", headers=headers
            )
        return web.json_response(fault.body, status=fault.status, headers=headers)

    async def _control(self, request):
        if request.method == "POST":
            self.control(await request.json())
        return web.json_response({**self.truth(), "requests": self.requests, "began": self.began})


async def given(request, allowed: dict[str, type | tuple]) -> dict:
    """Read a JSON body of known fields only."""
    if request.content_type != "application/json":
        raise Refused(400, {"error": "not application/json"})
    body = json.loads(await request.text())
    for name, value in body.items():
        if name not in allowed or not isinstance(value, allowed[name]):
            raise Refused(400, {"error": f"invalid input: {name}"})
    return body


def run(made: RestStandin) -> None:
    """Serve until killed; prints one JSON line with its address."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    port = parser.parse_args().port

    async def forever():
        await made.start(port)
        print(json.dumps({"url": made.url}), flush=True)
        await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(forever())
