"""EC2 for Apache Libcloud: moto's server, behind a front that answers as EC2 does and goes wrong.

moto leaves out the last slash of EC2's namespace, without which Libcloud sees no machine, and gives
error bodies a namespace that EC2's do not have; the front sets both right (docs.aws.amazon.com,
"Making API requests": `xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"`, `<Response><Errors>…`).
moto refuses nothing of what EC2 refuses for want of machines, money or permission: those codes, with
EC2's own sentences, are the front's ("Error codes for the Amazon EC2 API").
"""

import asyncio
import atexit
import functools
import json
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs

import aiohttp
from aiohttp import web

from tests.ports import free_port
from tests.standins.rest import Fault

ACCOUNT = {"key": "AKIAIOSFODNN7EXAMPLE", "secret": "s3cret-0123456789"}
REGION = "eu-west-1"
NODE = "gpu-1"
# However this process ends, moto's does then too: its stdin is closed.
WITH_PARENT = (
    "import os, sys, threading;"
    " threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start();"
    " from moto.server import main; main(sys.argv[1:])"
)
# Libcloud signs in the query, from which moto does not learn which service it is to be.
SCOPE = {
    "Authorization": f"AWS4-HMAC-SHA256 Credential={ACCOUNT['key']}/20270101/{REGION}/ec2/aws4_request"
}
ERRORS = {
    "stockout": (
        500,
        "InsufficientInstanceCapacity",
        "We currently do not have sufficient g4dn.xlarge capacity in the Availability Zone.",
    ),
    "quota": (
        400,
        "VcpuLimitExceeded",
        "You have requested more vCPU capacity than your current vCPU limit of 0 allows.",
    ),
    "denied": (403, "UnauthorizedOperation", "You are not authorized to perform this operation."),
    "transient": (503, "RequestLimitExceeded", "Request limit exceeded."),
    "limit": (400, "InstanceLimitExceeded", "You have requested more instances than your limit."),
    "auth": (401, "AuthFailure", "AWS was not able to validate the provided access credentials"),
    "state": (
        400,
        "IncorrectInstanceState",
        "The instance 'i-0123456789abcdef0' is not in a state from which it can be started.",
    ),
    "internal": (500, "InternalError", "An internal error has occurred"),
}


@functools.cache
def moto() -> str:
    """Start moto's server, once for this process; its address."""
    port = free_port()
    argv = [sys.executable, "-c", WITH_PARENT, "-H", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
    atexit.register(server.send_signal, signal.SIGKILL)
    return f"http://127.0.0.1:{port}"


def failure(code: str, words: str) -> str:
    error = f"<Error><Code>{code}</Code><Message>{words}</Message></Error>"
    return f"<Response><Errors>{error}</Errors><RequestID>0</RequestID></Response>"


class Ec2:
    """`async with` it: one stopped machine called `NODE`. `faults` match "Action"."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.began = 0

    async def __aenter__(self):
        self._moto = aiohttp.ClientSession()
        for _ in range(600):  # it takes seconds to import itself
            with suppress(aiohttp.ClientError):
                async with self._moto.post(f"{moto()}/moto-api/reset") as reset:
                    if reset.status == 200:
                        break
            await asyncio.sleep(0.1)
        app = web.Application()
        app.router.add_route("*", "/", self._front)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        await asyncio.to_thread(self._furnish)
        self.requests.clear()
        self.began = 0
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()
        await self._moto.close()

    @functools.cached_property
    def driver(self):
        from libcloud.compute.providers import get_driver

        made = get_driver("ec2")
        return made(**ACCOUNT, region=REGION, host="127.0.0.1", port=self.port, secure=False)

    def _furnish(self) -> None:
        from libcloud.compute.base import NodeImage

        image = NodeImage("ami-12c6146b", "some", self.driver)
        size = next(size for size in self.driver.list_sizes() if size.id == "t2.micro")
        self.driver.create_node(name=NODE, image=image, size=size)
        self.id = self.node.id
        self.driver.stop_node(self.node)

    @property
    def node(self):
        (found,) = [node for node in self.driver.list_nodes() if node.name == NODE]
        return found

    async def _front(self, request):
        body = await request.text()
        asked = {name: values[0] for name, values in parse_qs(body).items()}
        asked |= {name: request.query[name] for name in request.query}
        # Libcloud counts these from 0, which EC2 takes and moto does not.
        asked = {re.sub(r"^(ResourceId|Tag)\.0\b", r"\1.1", name): v for name, v in asked.items()}
        action = asked.get("Action", "")
        self.requests.append(action)
        fault = next((one for one in self.faults if one.takes(action)), None)
        if fault is not None and not fault.done:
            return await self._broken(request, fault)
        if asked.get("AWSAccessKeyId", "") not in ("", ACCOUNT["key"]):
            return await self._broken(request, Fault("", 401, "auth"))
        async with self._moto.post(f"{moto()}/", data=asked, headers=SCOPE) as answer:
            text, status = await answer.text(), answer.status
        if action == "StartInstances" and status == 200:
            self.began += 1
        if fault is not None:
            return await self._broken(request, fault)
        slash = r"\1/" if status == 200 else ""
        pattern = r'(/doc/2016-11-15)(?=")' if status == 200 else r' xmlns="[^"]*"'
        return web.Response(
            text=re.sub(pattern, slash, text), status=status, content_type="text/xml"
        )

    async def _broken(self, request, fault):
        if fault.status == -1:
            await asyncio.sleep(3600)
        if fault.status <= 0:
            request.transport.abort()
            return web.Response()
        status, code, words = ERRORS[fault.body]
        return web.Response(text=failure(code, words), status=status, content_type="text/xml")


class Truth:
    """What the contract asks of the truth."""

    def __init__(self, there: Ec2) -> None:
        self.there = there

    async def runs(self) -> list[str]:
        node = await asyncio.to_thread(lambda: self.there.node)
        return [node.extra["tags"].get("aion", "")] if node.state == "running" else []

    async def began(self) -> int:
        return self.there.began

    async def settle(self) -> None:
        return

    async def put(self, label: str) -> None:
        node = await asyncio.to_thread(lambda: self.there.node)
        await asyncio.to_thread(self.there.driver.ex_create_tags, node, {"aion": label})
        await asyncio.to_thread(self.there.driver.start_node, node)

    async def longest_s(self) -> float | None:
        return None


async def in_process(_module, payload, *, timeout_s):
    """Run the child's `main` in a thread: what a process of its own adds is tested elsewhere."""
    from backends.libcloud_child import main

    return await asyncio.wait_for(
        asyncio.to_thread(main, json.loads(json.dumps(payload))), timeout_s
    )


def planned(there: Ec2, **keys):
    from tests.backends.worlds import plan

    given = {
        "provider": "ec2",
        "region": REGION,
        "node": NODE,
        "account": {"credential": "aws"},
        "api": there.url,
        "port": 8000,
        "url": None,
        **keys,
    }
    return plan("libcloud", secrets={"account": json.dumps(ACCOUNT)}, **given)


ACTIONS = {"start": "StartInstances", "stop": "StopInstances", "status": "DescribeInstances"}


@asynccontextmanager
async def contract(_folder, case):
    """One that is off, for `tests/contract/test_powered_kinds.py`."""
    import backends
    from tests.backends.worlds import TableHttp, ports

    async with Ec2() as there:
        if case.fate.value == "lost":
            there.faults.append(Fault(ACTIONS[case.ask.value], 0, done=True))
        elif case.fate.value:
            there.faults.append(Fault(ACTIONS[case.ask.value], 400, case.fate.value))
        made = planned(there)
        yield backends.driver(made, ports(TableHttp({}), children=in_process)), Truth(there)
