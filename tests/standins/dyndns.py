"""A stand-in for a dyndns2 provider: the update protocol, and real DNS for what it holds.

Run it: `python tests/standins/dyndns.py --port 0 --dns-port 0` prints one JSON line. Answers as
help.dyn.com/return-codes lists them: any repeat is `nochg`, and too many of those end in `abuse`.
"""

import argparse
import asyncio
import base64
import contextlib
import ipaddress
import json
import sys
from pathlib import Path

from aiohttp import web

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from tests.standins.nameserver import NameServer  # noqa: E402

USER, PASSWORD = "operator", "dyndns-password-for-tests"
ABUSE_AFTER = 3


class DynDnsStandin:
    """`answer` overrides what it says (nothing is then done); `lost` does it and says nothing.

    `lagging`: the DNS goes on showing what it showed, as a resolver's cache would.
    """

    def __init__(self, hosts=("home.example.net",)) -> None:
        self.hosts: dict[str, dict[str, str]] = {host: {} for host in hosts}
        self.shown: dict[str, dict[str, str]] = {}
        self.answer = ""
        self.status = 200
        self.lost = self.down = self.lagging = False
        self.nochg = 0
        self.updates: list[tuple[str, str, str]] = []  # hostname, address, answer
        self.nameserver = NameServer(self._rows)

    async def start(self, port: int = 0, dns_port: int = 0) -> None:
        app = web.Application()
        app.router.add_get("/nic/update", self._update)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        await self.nameserver.start(dns_port)

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self.nameserver.stop()

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await self.stop()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def dns(self) -> str:
        return self.nameserver.address

    async def _update(self, request) -> web.Response:
        host, address = request.query.get("hostname", ""), request.query.get("myip", "")
        if self.down:
            request.transport.abort()
            return web.Response()
        said = self.answer or self._judge(request, host, address)
        self.updates.append((host, address, said))
        if self.lost:
            await asyncio.sleep(3600)
        return web.Response(text=said + "\n", status=self.status)

    def _judge(self, request, host: str, address: str) -> str:
        given = request.headers.get("Authorization", "")
        right = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if given != f"Basic {right}":
            return "badauth"
        if not request.headers.get("User-Agent"):
            return "badagent"
        if "." not in host:
            return "notfqdn"
        if host not in self.hosts:
            return "nohost"
        if self.nochg >= ABUSE_AFTER:
            return "abuse"
        kind = "A" if ipaddress.ip_address(address).version == 4 else "AAAA"
        if self.hosts[host].get(kind) == address:
            self.nochg += 1
            return f"nochg {address}"
        self.hosts[host][kind] = address
        return f"good {address}"

    def _rows(self, name: str):
        if not self.lagging:
            self.shown = {host: dict(held) for host, held in self.hosts.items()}
        held = self.shown.get(name)
        return None if held is None else [(kind, value, 60) for kind, value in held.items()]


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dns-port", type=int, default=0)
    parser.add_argument("--host", action="append")
    args = parser.parse_args()
    standin = DynDnsStandin(args.host or ("home.example.net",))
    await standin.start(args.port, args.dns_port)
    ports = {"api": standin.api, "port": standin.port, "dns": standin.dns}
    who = {"username": USER, "password": PASSWORD}
    print(json.dumps({**ports, "dns_port": standin.nameserver.port, **who}), flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await standin.stop()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
