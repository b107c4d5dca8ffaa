"""Runs a module as a child process: JSON in by stdin, JSON out, a deadline, no zombies.

The child starts its own session, so that whatever it starts goes with it. Its environment is an
allow-list; secrets travel in the payload only. It never outlives the daemon: its stdin closes when
the daemon dies, and `childside` then kills the group.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog

from orchestrator.childside import MAX_LINE, NEWS, pieces, redact
from orchestrator.errors import ChildFailed

MAX_ANSWER = 1_000_000
MAX_STDERR = 8_000
GRACE_S = 2.0
_CHUNK = 65_536
_LOCALE = ("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ")
_PASSED = frozenset(("PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", *_LOCALE))

log = structlog.get_logger("child")


def clean_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the allow-listed part of `environ` (ours, unless given): nothing that could be secret.

    Proxy variables are left out too: they may hold a password.
    """
    source = os.environ if environ is None else environ
    return {name: value for name, value in source.items() if name in _PASSED}


async def run_child(
    module: str,
    payload: Mapping[str, Any],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    news: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Run `python -m module`, which ends in `childside.serve`, and return what it answers.

    `env` replaces the allow-listed environment. `news` is called with what the child tells before
    its answer (`childside.tell`). After `timeout_s` the child's process group gets
    SIGTERM and `GRACE_S` later SIGKILL; when the caller is cancelled, SIGKILL at once. Raises
    `ChildFailed`; its text holds nothing of the payload.
    """
    line = json.dumps(payload).encode() + b"\n"
    if len(line) > MAX_LINE:
        raise ChildFailed(f"{module}: its input of {len(line)} bytes is too long")
    environment = clean_environment() if env is None else dict(env)
    # -P: a module lying about in the working folder must not be taken for a library.
    argv = [sys.executable, "-P", "-W", "ignore", "-m", module]
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, start_new_session=True
        )
    except OSError as error:
        raise ChildFailed(f"{module} could not be started: {error.strerror}") from error
    outcome = _Outcome(news)
    await _supervise(process, module, line, timeout_s, outcome)
    secrets = frozenset().union(*map(pieces, _strings(payload)))
    stderr = redact(outcome.stderr.decode(errors="replace").strip(), secrets)
    if stderr:
        log.warning("child_said", module=module, text=stderr[-2000:])
    return _read(module, process.returncode, outcome, secrets)


class _Outcome:
    """What came out of one child, as it comes."""

    def __init__(self, news: Callable[[dict[str, Any]], None] | None) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.problem = ""
        self._news = news
        self._read = 0

    def take(self, chunk: bytes) -> None:
        """Keep what is the answer's, and hand on what is only told."""
        self.stdout += chunk
        while (end := self.stdout.find(b"\n", self._read)) >= 0:
            if not self.stdout.startswith(NEWS, self._read):
                self._read = end + 1
                continue
            line = bytes(self.stdout[self._read : end])
            del self.stdout[self._read : end + 1]
            if self._news is not None:
                with contextlib.suppress(ValueError):
                    self._news(json.loads(line.removeprefix(NEWS)))


async def _supervise(
    process: Process, module: str, line: bytes, timeout_s: float, outcome: _Outcome
) -> None:
    """Feed the child and wait for its end; it is gone and reaped when this returns or raises."""
    try:
        try:
            async with asyncio.timeout(timeout_s):
                await _talk(process, line, outcome)
        except TimeoutError:
            outcome.problem = f"took longer than {timeout_s:g} s"
            _signal(process, signal.SIGTERM)
            try:
                async with asyncio.timeout(GRACE_S):
                    await process.wait()
            except TimeoutError:
                log.warning("child_killed", module=module)
    finally:
        _signal(process, signal.SIGKILL)
        if process.stdin is not None:
            process.stdin.close()
        # Something that left the group may hold the pipes open, and `wait` may wait for those too.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await process.communicate()  # the dead one's pipes are emptied, so that they close


async def _talk(process: Process, line: bytes, outcome: _Outcome) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.ensure_future(_keep_tail(process.stderr, outcome))
    try:
        try:
            process.stdin.write(line)
            await process.stdin.drain()  # stdin stays open: its end is the child's end
        except (BrokenPipeError, ConnectionResetError):
            pass  # it died before reading; its exit status says more
        while chunk := await process.stdout.read(_CHUNK):
            outcome.take(chunk)
            if len(outcome.stdout) > MAX_ANSWER:
                outcome.problem = f"answered more than {MAX_ANSWER} bytes"
                return
        await process.wait()
        # What it left behind may hold stderr open for ever; it is killed after this.
        await asyncio.wait((errors,), timeout=GRACE_S)
    finally:
        errors.cancel()
        await asyncio.wait((errors,))


async def _keep_tail(stream: asyncio.StreamReader, outcome: _Outcome) -> None:
    while chunk := await stream.read(_CHUNK):
        outcome.stderr += chunk
        del outcome.stderr[:-MAX_STDERR]


def _signal(process: Process, number: signal.Signals) -> None:
    """Signal the child's whole group, which may outlive the child itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _read(
    module: str, status: int | None, outcome: _Outcome, secrets: frozenset[str]
) -> dict[str, Any]:
    if outcome.problem:
        raise ChildFailed(f"{module} {outcome.problem}")
    if status:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        raise ChildFailed(f"{module} {how}")
    try:
        answer = json.loads(bytes(outcome.stdout).strip().rpartition(b"\n")[2])
    except ValueError:
        raise ChildFailed(f"{module} did not answer in JSON") from None
    if not isinstance(answer, dict):
        raise ChildFailed(f"{module} did not answer with an object")
    if "error" in answer:
        raise ChildFailed(f"{module} failed: {redact(str(answer['error']), secrets)[:500]}")
    return answer


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
