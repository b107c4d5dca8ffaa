"""Runs a program that the operator configured: an argument list, a deadline, capped output.

Its environment is an allow-list with what is configured on top; a secret goes to its stdin. What it
starts and leaves behind lives on after a good end if it has its own output; at the deadline the
whole process group goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator, Mapping, Sequence

from backends.base import Ended
from orchestrator.edge.child import GRACE_S, clean_environment
from orchestrator.errors import ChildFailed, ChildTimedOut

KEPT_STDOUT = 65_536  # bytes of its end
KEPT_STDERR = 4_096
LINGER_S = 0.5  # what it left behind may hold its output open for ever
_CHUNK = 65_536


async def run_program(
    argv: Sequence[str], *, env: Mapping[str, str], stdin: str, timeout_s: float
) -> Ended:
    """Do as `backends.base.Programs` says."""
    with _pipe() as (out, out_end), _pipe() as (err, err_end):
        process = await _spawn(argv, {**clean_environment(), **env}, out_end, err_end)
        out_end.close()
        err_end.close()
        stdout, stderr = bytearray(), bytearray()
        readers = [
            asyncio.ensure_future(_keep_tail(out, stdout, KEPT_STDOUT)),
            asyncio.ensure_future(_keep_tail(err, stderr, KEPT_STDERR)),
        ]
        try:
            await _supervise(process, argv[0], stdin, timeout_s)
            await asyncio.wait(readers, timeout=LINGER_S)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
    assert process.returncode is not None
    return Ended(process.returncode, _text(stdout), _text(stderr))


class _End:
    """One end of a pipe, closed once."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[_End, _End]]:
    """Give a pipe of ours, so that to wait for the process is not to wait for its pipes."""
    ends = tuple(map(_End, os.pipe()))
    os.set_blocking(ends[0].fd, False)
    try:
        yield ends[0], ends[1]
    finally:
        for end in ends:
            end.close()


async def _spawn(argv: Sequence[str], env: Mapping[str, str], out: _End, err: _End) -> Process:
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=PIPE,
            stdout=out.fd,
            stderr=err.fd,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        raise ChildFailed(f"{argv[0]} could not be started: {error.strerror}") from error


async def _supervise(process: Process, name: str, stdin: str, timeout_s: float) -> None:
    """Feed it and wait for its end; when this raises, its group is gone."""
    ended = False
    try:
        async with asyncio.timeout(timeout_s):
            await _feed(process, stdin)
            await process.wait()
            ended = True
    except TimeoutError:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await process.wait()
        raise ChildTimedOut(f"{name} took longer than {timeout_s:g} s") from None
    finally:
        if not ended:
            _signal(process, signal.SIGKILL)
            await process.wait()


async def _feed(process: Process, stdin: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(stdin.encode())
        await process.stdin.drain()
    process.stdin.close()


async def _keep_tail(end: _End, kept: bytearray, most: int) -> None:
    here = asyncio.get_running_loop()
    while True:
        ready: asyncio.Future[None] = here.create_future()
        here.add_reader(end.fd, _set, ready)
        try:
            await ready
        finally:
            here.remove_reader(end.fd)
        chunk = os.read(end.fd, _CHUNK)
        if not chunk:
            return
        kept += chunk
        del kept[:-most]


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _text(raw: bytearray) -> str:
    return raw.decode(errors="replace")


def _signal(process: Process, number: signal.Signals) -> None:
    """Signal its whole group, which may outlive the process itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
