"""Programs that are missing: fetched into the agent's own folder, nothing of the system changed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import aiohttp

from .errors import Refused
from .place import architecture
from .printing import Printer
from .settings import Settings

CHUNK = 1 << 20
FETCH_S = 1800.0
UNPACK_S = 900
FETCHED = ("ollama", "cloudflared", "ngrok")


def find(name: str, folder: Path) -> str:
    """Find a program: on the path, or among those fetched earlier; empty if it is nowhere."""
    own = folder / "programs" / "bin" / name
    return shutil.which(name) or (str(own) if os.access(own, os.X_OK) else "")


class Installer:
    """Finds programs and fetches the few that can be fetched."""

    def __init__(
        self, settings: Settings, folder: Path, http: aiohttp.ClientSession, printer: Printer
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._http = http
        self._printer = printer

    async def get(self, name: str, hint: str = "") -> str:
        """Give the program's path, after fetching it if need be. Raises Refused."""
        if path := find(name, self._folder):
            return path
        if os.sep in name:
            raise Refused(f"{name} is not there, or is no program")
        if not (self._settings.install and name in FETCHED):
            raise Refused(f"{name} is not installed" + (f": {hint}" if hint else ""))
        address = getattr(self._settings, f"{name}_download").format(arch=architecture())
        self._printer.say("install", f"{name} is missing; fetching {address}")
        fetched = self._folder / f"{name}.part"
        try:
            hashed = await self._fetch(address, fetched)
            wanted = getattr(self._settings, f"{name}_sha256").lower()
            if wanted and wanted != hashed:
                raise Refused(f"{name}: what {address} sent hashes to {hashed}, not to {wanted}")
            await asyncio.to_thread(self._unpack, name, address, fetched)
        finally:
            fetched.unlink(missing_ok=True)
        if path := find(name, self._folder):
            self._printer.say("install", f"{name} is at {path}")
            return path
        raise Refused(f"{name} was not in what {address} sent")

    async def _fetch(self, address: str, path: Path) -> str:
        """Fetch a file; returns its SHA-256."""
        digest = hashlib.sha256()
        try:
            limits = aiohttp.ClientTimeout(total=FETCH_S, sock_read=60)
            async with self._http.get(address, timeout=limits) as reply:
                if reply.status != 200:
                    raise Refused(f"{address} answers {reply.status}")
                with path.open("wb") as file:
                    async for chunk in reply.content.iter_chunked(CHUNK):
                        digest.update(chunk)
                        file.write(chunk)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Refused(f"{address} could not be fetched: {type(error).__name__}") from None
        return digest.hexdigest()

    def _unpack(self, name: str, address: str, fetched: Path) -> None:
        programs = self._folder / "programs"
        (programs / "bin").mkdir(parents=True, exist_ok=True)
        if address.endswith((".tgz", ".tar.gz", ".tar.zst")):
            if address.endswith(".zst"):
                self._need_zstd()
            kind = "--zstd" if address.endswith(".zst") else "--gzip"
            self._run(["tar", "--extract", kind, "--no-same-owner", f"--file={fetched}"], programs)
            loose = programs / name
            if loose.is_file():
                loose.replace(programs / "bin" / name)
        else:
            shutil.move(fetched, programs / "bin" / name)
        with contextlib.suppress(OSError):
            (programs / "bin" / name).chmod(0o755)

    def _need_zstd(self) -> None:
        if shutil.which("zstd"):
            return
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise Refused("zstd is needed to unpack this: apt install zstd")
        self._printer.say("install", "zstd is missing; apt-get install zstd")
        self._run(["apt-get", "install", "-y", "-q", "zstd"], self._folder)

    @staticmethod
    def _run(argv: list[str], folder: Path) -> None:
        try:
            subprocess.run(argv, cwd=folder, capture_output=True, timeout=UNPACK_S, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise Refused(f"{argv[0]} failed: {type(error).__name__}") from None
