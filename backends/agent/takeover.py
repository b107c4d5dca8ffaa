"""Taking over from an earlier run on this machine: in the same kernel, in another, or stuck."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import aiohttp

from .children import ticks
from .clock import steady
from .printing import Printer
from .state import State

ANSWER_S = 5.0
LEAVES_S = 20.0


async def take(state: State, http: aiohttp.ClientSession, printer: Printer) -> int:
    """Have the earlier run leave; returns the port that it had, or 0 if there was none.

    It leaves the engine, the tunnel and the session as they are; `state` is then what it wrote
    last, for it goes on with all of them until it leaves. One that does not answer is ended, unless
    it lives in this very process.
    """
    run = state.get("agent")
    port, pid, began = (run.get(key, 0) for key in ("port", "pid", "began"))
    host = str(run.get("host", "127.0.0.1"))
    if not port:
        return 0
    if ticks(pid) != began or not began:
        return int(port)
    try:
        async with http.post(
            f"http://{host}:{port}/.aion/takeover",
            headers={"Authorization": f"Bearer {run.get('takeover', '')}"},
            timeout=aiohttp.ClientTimeout(total=ANSWER_S),
        ) as reply:
            asked = reply.status == 202
    except (aiohttp.ClientError, OSError, TimeoutError):
        asked = False
    other = pid != os.getpid()
    if asked:
        printer.say("agent", "an earlier run is here; taking over from it")
        await _free(host, int(port), LEAVES_S)
    elif other and _listens(pid, int(port)):
        printer.say("agent", f"an earlier run (process {pid}) does not answer; ending it")
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        await _free(host, int(port), LEAVES_S)
    state.read()
    return int(port)


def _listens(pid: int, port: int) -> bool:
    """Say whether this process is the one that holds the port, as far as can be seen."""
    wanted = f":{port:04X}"
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table) as file:  # noqa: PTH123 - a kernel's table
            for line in file:
                fields = line.split()
                if fields[1].endswith(wanted) and fields[3] == "0A":
                    inodes.add(f"socket:[{fields[9]}]")
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if str(Path(entry.path).readlink()) in inodes:
                    return True
    return False


async def _free(host: str, port: int, most_s: float) -> None:
    """Wait until nobody listens at the port."""
    until = steady() + most_s
    while steady() < until:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            return
        writer.close()
        await asyncio.sleep(0.1)
