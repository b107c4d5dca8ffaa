"""Keeps the way in open: a tunnel's program, its public address, and whether that really works."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from .access import proof
from .children import Child
from .clock import Backoff, spoken, steady
from .errors import Refused
from .installing import Installer
from .keys import NGROK, Keys, environment
from .printing import Printer
from .proxy import Proxy
from .settings import Settings, loopback
from .state import State

LOOK_S = 0.5
ANSWER_S = 10.0
ADDRESS_S = 60.0  # for a program to say its address
NAME_S = 120.0  # for a fresh name to be known in the world; afterwards it is used all the same
CALM_S = 300.0
METERED_S = 300.0  # free ngrok counts requests: 20,000 a month
METERED = (".ngrok-free.app", ".ngrok-free.dev", ".ngrok.io", ".ngrok.app")
BOXED = re.compile(r"\|\s+(https?://[^\s|]+)\s+\|")  # cloudflared frames the address of its tunnel
CONNECTED = "Registered tunnel connection"


def cloudflared_says(text: str) -> str:
    """Find the address in what cloudflared wrote; empty if it is not there yet."""
    match = BOXED.search(text)
    return match[1] if match else ""


def ngrok_says(text: str) -> str:
    """Find the address in ngrok's log of JSON lines; empty if it is not there yet."""
    for line in text.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and said.get("msg") == "started tunnel" and said.get("url"):
            return str(said["url"])
    return ""


class Tunnel:
    """The public address. `url` is set once it can be told to the daemon; `ready`: it works."""

    def __init__(
        self,
        settings: Settings,
        keys: Keys,
        state: State,
        installer: Installer,
        http: aiohttp.ClientSession,
        printer: Printer,
        proxy: Proxy,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._kept = state
        self._installer = installer
        self._http = http
        self._printer = printer
        self._proxy = proxy
        self._backoff = Backoff(1.0, max(1.0, settings.retry_most_s))
        self._child: Child | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.url = ""
        self.ready = False
        self.detail = ""

    async def run(self) -> None:
        """Keep it open until cancelled. Raises Refused if its program cannot be had."""
        if self._settings.tunnel == "none":
            self._found(self._settings.url)
            await self._watch(None, self.url)
        child, url = self._left()
        while True:
            began = steady()
            try:
                self._child = child = child or await self._start()
                why = await self._live(child, url)
            except Refused as error:
                if not self.url:
                    raise
                why = str(error)  # it could be opened before, so this may pass
            self._set(False, why)
            if steady() - began > CALM_S:
                self._backoff.reset()
            if child is not None:
                await child.stop()
            child, url = None, ""
            wait_s = self._backoff.next()
            self._printer.say("tunnel", f"{why}; opening it again in {spoken(wait_s)}")
            await asyncio.sleep(wait_s)

    def kill(self) -> None:
        """Close it at once."""
        if self._child is not None:
            self._child.kill()

    async def stop(self) -> None:
        """Close it."""
        if self._child is not None:
            await self._child.stop()
            self._kept.put("tunnel")

    # ── the program ─────────────────────────────────────────────────────────────────────────────

    def _log(self) -> Path:
        return self._kept.folder / f"{self._settings.backend}-tunnel.log"

    def _mark(self) -> list[object]:
        return [self._settings.tunnel, self._settings.url, self._proxy.port]

    def _left(self) -> tuple[Child | None, str]:
        kept = self._kept.get("tunnel")
        if kept.get("mark") != self._mark():
            return None, ""
        return Child.left(int(kept["pid"]), int(kept["began"]), self._log()), str(kept["url"])

    async def _start(self) -> Child:
        name = self._settings.tunnel
        program = await self._installer.get(name)
        here = f"http://{self._settings.local}:{self._proxy.port}"
        if name == "ngrok":
            argv = [program, "http", here, "--log", "stdout", "--log-format", "json"]
            argv += ["--url", self._settings.url] if self._settings.url else []
            env = environment(**({NGROK: self._keys.ngrok} if self._keys.ngrok else {}))
        elif self._settings.url:
            argv = [program, "tunnel", "--no-autoupdate", "run"]
            env = environment(TUNNEL_TOKEN=self._keys.cloudflared)
        else:
            argv = [program, "tunnel", "--no-autoupdate", "--url", here]
            env = environment()
        return Child.start(argv, self._log(), env)

    async def _live(self, child: Child, url: str) -> str:
        """Go with one process of it, from its address to its end; returns why it ended."""
        if not url:
            url = await self._address(child)
            if not url:
                return child.ended() or f"no address within {spoken(ADDRESS_S)}"
            if not self._settings.url:
                await self._known(url)
        mark = self._mark()
        self._kept.put("tunnel", pid=child.pid, began=child.began, mark=mark, url=url)
        self._found(url)
        return await self._watch(child, url)

    async def _address(self, child: Child) -> str:
        """Wait until the program says its address; empty if it does not."""
        until = steady() + ADDRESS_S
        while steady() < until:
            text = child.said()
            if self._settings.url and self._settings.tunnel == "cloudflared":
                url = self._settings.url if CONNECTED in text else ""
            else:
                says = ngrok_says if self._settings.tunnel == "ngrok" else cloudflared_says
                url = says(text)
            if url:
                return self._usable(url)
            if ended := child.ended():
                self._printer.say("tunnel", f"{ended}: {child.last_words()}")
                return ""
            await asyncio.sleep(LOOK_S)
        return ""

    def _usable(self, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (loopback(parts.hostname) or self._settings.insecure):
            raise Refused(f"tunnel: it gives {url}; https is needed")
        return url.rstrip("/")

    def _found(self, url: str) -> None:
        if url != self.url:
            self.url = url
            self._printer.say("tunnel", f"{url} ({self._settings.tunnel})")
            self.on_change()

    # ── the name ────────────────────────────────────────────────────────────────────────────────

    async def _known(self, url: str) -> None:
        """Wait until the world knows the name: who asks before learns, and keeps, that it is not.

        So it is asked of a resolver that nobody's daemon uses as its own, by HTTPS.
        """
        host = urlsplit(url).hostname or ""
        if not self._settings.doh or _literal(host):
            return
        until = steady() + NAME_S
        wait = Backoff(0.5, 5.0)
        while steady() < until:
            if await self._resolves(host):
                return
            self._set(False, f"waiting until {host} is known")
            await asyncio.sleep(wait.next())

    async def _resolves(self, host: str) -> bool:
        for kind in ("A", "AAAA"):
            try:
                async with self._http.get(
                    self._settings.doh,
                    params={"name": host, "type": kind},
                    headers={"Accept": "application/dns-json"},
                    timeout=aiohttp.ClientTimeout(total=ANSWER_S),
                ) as reply:
                    body = await reply.json(content_type=None)
            except (aiohttp.ClientError, TimeoutError, ValueError):
                return False
            if isinstance(body, dict) and body.get("Status") == 0 and body.get("Answer"):
                return True
        return False

    # ── does it work? ───────────────────────────────────────────────────────────────────────────

    async def _watch(self, child: Child | None, url: str) -> str:
        """Ask the own public address until the tunnel has to be opened again; returns why."""
        asked = 0.0
        failing = 0.0
        every_s = self._settings.tunnel_check_s
        if (urlsplit(url).hostname or "").endswith(METERED):
            every_s = max(every_s, METERED_S)
        again = Backoff(1.0, min(5.0, every_s))
        wait_s = 0.0
        while True:
            if child is not None and (ended := child.ended()):
                return f"{self._settings.tunnel} {ended}"
            if not asked or steady() - asked >= wait_s:
                why = await self._works(url)
                asked = steady()
                failing = failing or asked if why else 0.0
                if not why:
                    again.reset()
                wait_s = again.next() if why else every_s
                self._set(not why, why)
                if child is not None:
                    child.trim()
            patience_s = self._settings.tunnel_patience_s
            out_of_patience = failing and steady() - failing > patience_s
            if out_of_patience and child is None:
                self._printer.say("tunnel", f"not working: {self.detail}")
            elif out_of_patience and await self._outside():
                return f"{url} has not worked for {spoken(patience_s)} ({self.detail})"
            await asyncio.sleep(min(LOOK_S, every_s))

    async def _works(self, url: str) -> str:
        """Ask our own public address who is there; returns what is wrong, or nothing."""
        nonce = secrets.token_hex(16)
        who = self._proxy.identity
        headers = {"ngrok-skip-browser-warning": "1"}
        try:
            async with self._http.get(
                f"{url}/.aion/identity",
                params={"nonce": nonce},
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=ANSWER_S),
                allow_redirects=False,
            ) as reply:
                instance = reply.headers.get("Aion-Agent", "")
                text = await reply.content.read(4096)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return f"its address cannot be reached ({type(error).__name__})"
        if reply.status == 503 and instance == who.instance:
            return ""
        try:
            said = json.loads(text)
            right = proof(who.token, nonce, said["session"], who.url) == said["proof"]
        except (ValueError, KeyError, TypeError):
            return f"its address answers {reply.status}, not as this agent"
        return "" if right else "somebody else answers at its address"

    async def _outside(self) -> bool:
        """Say whether the world can be reached: if not, it is not the tunnel's fault."""
        for address in (self._settings.doh, self._settings.aion):
            if address:
                try:
                    async with self._http.head(
                        address, timeout=aiohttp.ClientTimeout(total=ANSWER_S)
                    ):
                        return True
                except (aiohttp.ClientError, OSError, TimeoutError):
                    continue
        return False

    def _set(self, ready: bool, detail: str) -> None:
        if self.ready and not ready:
            self._printer.say("tunnel", f"not working: {detail}")
        elif ready and not self.ready and self.detail:
            self._printer.say("tunnel", f"{self.url} works")
        changed = (ready, detail) != (self.ready, self.detail)
        self.ready, self.detail = ready, detail
        if changed:
            self.on_change()


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
