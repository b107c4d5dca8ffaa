"""The one HTTP client that all probes share: aiohttp, keep-alive, nothing followed or remembered.

A probe is a small request to an origin asked a few seconds ago, a thousand times over, so what is
kept is kept for cheapness: parsed URLs, time-outs, one TLS context, idle connections. What a
server may do to us is bounded: time in all, bytes of the answer after decompression, headers.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, Self

import aiohttp
from yarl import URL

from backends.base import Reply
from orchestrator.core.addresses import METADATA, why_not_public
from orchestrator.errors import Unreachable

Allow = Callable[[str, str], bool]
"""May `host` be reached at the IP address it resolved to? Asked at each new connection."""

AT_ONCE: Final = 2000  # requests under way together; more wait for a place within their time-out
IDLE_S: Final = 75.0  # longer than `down_interval`, so that even those find their connection open
DNS_S: Final = 60
KNOWN_URLS: Final = 20000
TLS_RECORD_ERRORS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")

_AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]
_asked: ContextVar[str] = ContextVar("asked")  # the host that the current task connects to


def public_only(host: str, address: str) -> bool:  # noqa: ARG001  # an `Allow`
    """Allow public addresses alone, whatever name they came from (`core.addresses`)."""
    return not why_not_public(address)


def no_metadata(host: str, address: str) -> bool:  # noqa: ARG001  # an `Allow`
    """Allow every address but those at which a cloud hands credentials to its machines."""
    return not why_not_public(address).startswith(METADATA)


class AioHttp:
    """`backends.base.Http` over one aiohttp session; use as an async context manager.

    `allow`: see `Allow`; None lets everything through. `tls`: a context of one's own, for tests
    and private authorities.
    """

    def __init__(self, *, allow: Allow | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._allow = allow
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._urls: dict[str, tuple[URL, str]] = {}
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}
        self._warm: set[str] = set()  # origins whose last answer left a connection open

    async def __aenter__(self) -> Self:
        raise_file_limit()
        tls = self._tls or ssl.create_default_context()
        self._session = _session(self._connector(tls))
        # A retry must not pick up the next stale connection, so it has a pool that keeps none.
        self._fresh = _session(self._connector(tls, keep=False))
        # aiohttp itself would send PUT and DELETE a second time.
        self._fresh._retry_connection = False  # noqa: SLF001 - there is no other way
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in (self._session, self._fresh):
            if session is not None:
                await session.close()
        self._session = self._fresh = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float,
        max_bytes: int = 65536,
        once: bool = False,
    ) -> Reply:
        """Do as `backends.base.Http` says.

        `max_bytes` bounds the body after decompression; what is over it is cut off and the
        connection given up. A connection the other side had closed meanwhile is retried once,
        but for what is to be sent only `once`, which has a new one from the beginning.
        """
        if self._session is None or self._fresh is None:
            raise Unreachable("the HTTP client is closed")
        target, origin = self._url(url)
        if self._allow is not None:
            _asked.set(target.host or "")
        loop = asyncio.get_running_loop()
        started = loop.time()
        timeout = self._timeout(timeout_s)
        try:
            try:
                session = self._fresh if once else self._session
                reply, kept = await _once(
                    session, method, target, headers, body, timeout, max_bytes
                )
            except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                if once or origin not in self._warm:
                    raise
                left = aiohttp.ClientTimeout(total=max(started + timeout_s - loop.time(), 0.001))
                reply, kept = await _once(
                    self._fresh, method, target, headers, body, left, max_bytes
                )
        except FAILURES as error:
            self._warm.discard(origin)
            raise Unreachable(_words(error, timeout_s)) from error
        if kept and not once:
            self._warm.add(origin)
        return reply

    async def connect(self, host: str, port: int, *, timeout_s: float) -> float:
        """Do as `backends.base.Http` says; every address of the name is tried in turn."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                await self._connect_any(host, found)
        except (TimeoutError, OSError, UnicodeError) as error:
            raise Unreachable(_words(error, timeout_s)) from error
        return loop.time() - started

    async def _connect_any(self, host: str, found: Sequence[_AddressInfo]) -> None:
        last: OSError | None = None
        for family, kind, proto, _, address in found:
            try:
                self._check(host, str(address[0]))
                with socket.socket(family, kind, proto) as sock:
                    sock.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(sock, address)
            except OSError as error:
                last = error
            else:
                return
        raise last or OSError(errno.EHOSTUNREACH, "the name has no address")

    def _url(self, text: str) -> tuple[URL, str]:
        known = self._urls.get(text)
        if known is None:
            try:
                url = URL(text)
            except ValueError as error:
                raise Unreachable("not a usable address") from error
            if len(self._urls) >= KNOWN_URLS:
                self._urls.clear()
            known = self._urls[text] = url, f"{url.scheme}://{url.host}:{url.port}"
        return known

    def _timeout(self, total_s: float) -> aiohttp.ClientTimeout:
        timeout = self._timeouts.get(total_s)
        if timeout is None:
            # aiohttp rounds longer time-outs up to whole seconds unless told from where on.
            timeout = self._timeouts[total_s] = aiohttp.ClientTimeout(
                total=total_s, ceil_threshold=3600.0
            )
        return timeout

    def _connector(self, tls: ssl.SSLContext, *, keep: bool = True) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            ssl=tls,
            limit=AT_ONCE,
            ttl_dns_cache=DNS_S,
            keepalive_timeout=IDLE_S if keep else None,
            force_close=not keep,
            socket_factory=self._socket if self._allow is not None else None,
        )

    def _socket(self, info: _AddressInfo) -> socket.socket:
        family, kind, proto, _, address = info
        self._check(_asked.get(), str(address[0]))
        return socket.socket(family, kind, proto)

    def _check(self, host: str, address: str) -> None:
        if self._allow is not None and not self._allow(host, address):
            raise PermissionError(errno.EACCES, f"address {address} is not allowed")


FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    """Make a session that says nothing it need not say, and keeps nothing it is told.

    Probes ask for no compression: bodies are small, and an answer compressed all the same is
    unpacked in `_read`, where it is bounded while it grows.
    """
    return aiohttp.ClientSession(
        connector=connector,
        headers={
            "User-Agent": "aion",
            "Accept": "application/json, */*;q=0.5",
            "Accept-Encoding": "identity",
        },
        skip_auto_headers=("Content-Type",),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
    )


async def _once(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    headers: Mapping[str, str] | None,
    body: bytes | None,
    within: aiohttp.ClientTimeout,
    max_bytes: int,
) -> tuple[Reply, bool]:
    """Send one request; the flag says whether its connection was left open for the next."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with session.request(
        method, url, headers=headers, data=body, timeout=within, allow_redirects=False
    ) as response:
        content, whole = await _read(response, max_bytes)
        named = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status, named, content, loop.time() - started), whole


async def _read(response: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """Read at most `most` bytes, unpacked; the flag says whether that was all of it."""
    stream = response.content
    chunks: list[bytes] = []
    got = 0
    unpack = _unpacker(response.headers.get("Content-Encoding", ""))
    try:
        while True:
            chunk = await stream.readany()
            if not chunk:
                return b"".join(chunks), True
            if unpack is not None:
                chunk = unpack(chunk, most - got + 1)  # one over, to know there was more
            chunks.append(chunk)
            got += len(chunk)
            if got > most:
                response.close()
                return b"".join(chunks)[:most], False
    except aiohttp.ClientPayloadError as error:
        raise aiohttp.ClientPayloadError(f"answer cut short after {got} bytes") from error
    except zlib.error as error:
        raise aiohttp.ClientPayloadError("the answer's compression is broken") from error
    except TimeoutError as error:
        raise TimeoutError(got) from error


def _unpacker(encoding: str) -> Callable[[bytes, int], bytes] | None:
    if encoding.lower() in {"gzip", "x-gzip", "deflate"}:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress
    return None


def _words(error: BaseException, timeout_s: float) -> str:
    """Say in one line how a request failed."""
    if isinstance(error, TimeoutError) and not _errno(error):
        got = next((a for a in error.args if isinstance(a, int)), None)
        into = "" if got is None else f", {got} bytes into the answer"
        return f"timed out after {timeout_s:g} s{into}"
    for kind, words in _KIND_WORDS.items():
        if isinstance(error, kind):
            return words
    if isinstance(error, aiohttp.ClientPayloadError):
        return str(error)
    if isinstance(error, aiohttp.ClientResponseError):
        return f"does not speak HTTP: {_line(error.message)}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"TLS: {_tls(error.certificate_error)}"
    return _os_words(getattr(error, "os_error", error))


def _os_words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {_tls(error)}"
    if isinstance(error, socket.gaierror) and error.errno not in _NO_NAME:
        return f"name lookup failed: {_line(error.strerror)}"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "name not found"
    if isinstance(error, OSError):
        return _ERRNO_WORDS.get(_errno(error)) or _line(error.strerror or error)
    return f"{type(error).__name__}: {_line(error)}"


_KIND_WORDS: Final[dict[type[BaseException], str]] = {
    aiohttp.ServerDisconnectedError: "closed the connection without answering",
    aiohttp.ClientConnectionResetError: "connection reset",  # found out by us, so it has no errno
    aiohttp.InvalidURL: "not a usable address",
    aiohttp.NonHttpUrlClientError: "not a usable address",
}
_NO_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_ERRNO_WORDS: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.ECONNABORTED: "connection reset",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.ETIMEDOUT: "timed out connecting",
    errno.EMFILE: "we are out of file descriptors",
}


def _errno(error: BaseException) -> int:
    return getattr(error, "errno", None) or 0


def _tls(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _line(error.verify_message)
    reason = getattr(error, "reason", None) or _line(error)
    if reason in TLS_RECORD_ERRORS:
        return "the server does not speak TLS there"
    return _line(str(reason).replace("_", " ").lower())


def _line(text: object, most: int = 160) -> str:
    """One harmless line: servers have a say in these."""
    shown = "".join(c if c.isprintable() else " " for c in str(text).strip(" .\r\n"))
    return " ".join(shown.split())[:most]


def raise_file_limit() -> int:
    """Raise this process's soft limit of open files to the hard one, and return it.

    Each probed origin keeps a connection open, and 1,024 is what most shells give. Children
    inherit it, which is harmless: nothing here uses `select`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
