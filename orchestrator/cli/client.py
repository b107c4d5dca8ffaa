"""Talks to the daemon's HTTP interface, synchronously, one request after the other.

http.client rather than httpx: a verb makes one or two requests, and importing httpx takes 120 to
200 ms of the half second that `aion status` may take (http.client: 40 ms).
"""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from orchestrator.cli.output import clean
from orchestrator.cli.where import find, operator
from orchestrator.errors import (
    AionError,
    BadReply,
    ConfigError,
    DaemonUnreachable,
    Declined,
    NotAllowed,
)

if TYPE_CHECKING:
    from orchestrator.cli.options import Given

TIMEOUT_S = 20.0
SILENCE_S = 40.0  # the daemon sends an empty line every 15 s on a quiet stream
_MAX_BYTES = 64_000_000


def connect(given: Given) -> Client:
    """Return a client of the daemon that the command line, else the configuration, names."""
    where = find(given.config, given.url, given.token_file)
    return Client(where.url, where.token, where.token_hint)


class Client:
    """One daemon.

    Raises `DaemonUnreachable` when nobody answers, `NotAllowed` on 401 and 403, `AionError` with
    the daemon's own words when it refuses, `BadReply` when the answer is not the daemon's.
    """

    def __init__(self, url: str, token: str | None = None, token_hint: str = "") -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._token_hint = token_hint
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Declined(f"{clean(url)} is not an http:// or https:// address")
        self._parts = parts

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON that a path answers; query values of None are left out."""
        return self._ask("GET", _with_query(path, query))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Give a command and return its answer, which comes once it is committed.

        It carries a key of its own, so that asking again, once, after a lost answer does it once.
        """
        headers = {"idempotency-key": secrets.token_hex(16), "aion-user": operator()}
        kept = {name: value for name, value in (body or {}).items() if value is not None}
        try:
            return self._ask("POST", path, kept, headers)
        except _AnswerLost:
            return self._ask("POST", path, kept, headers)

    def follow(self, path: str, **query: Any) -> Iterator[Any]:
        """Yield the objects of a stream of JSON lines until it ends.

        Raises `DaemonUnreachable` when it breaks or says nothing, not even an empty line, for
        `SILENCE_S`.
        """
        path = _with_query(path, query)
        connection, response = self._send("GET", path, None, {}, SILENCE_S)
        try:
            if response.status != http.client.OK:
                self._refused(response.status, response.read(_MAX_BYTES))
            while line := response.readline(_MAX_BYTES):
                if line.strip():
                    yield json.loads(line)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        except ValueError as error:
            raise BadReply(f"{self.url}{path} sent a line that is not JSON") from error
        finally:
            connection.close()

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        connection, response = self._send(method, path, body, headers or {}, TIMEOUT_S)
        try:
            raw = response.read(_MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _AnswerLost(f"the answer of {self.url} was cut short ({_why(error)})") from error
        finally:
            connection.close()
        if response.status >= http.client.BAD_REQUEST:
            self._refused(response.status, raw)
        if not raw:
            return None
        try:
            return json.loads(raw)
        except ValueError as error:
            raise BadReply(
                f"{self.url}{path} did not answer JSON: is it aion's daemon?", response.status
            ) from error

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._connection(timeout_s)
        sent = {"accept": "application/json, text/event-stream", "user-agent": "aion", **headers}
        if self._token:
            sent["authorization"] = f"Bearer {self._token}"
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            sent["content-type"] = "application/json"
        try:
            connection.connect()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, payload, sent)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            text = f"{self.url} took the request and did not answer ({_why(error)})"
            raise _AnswerLost(f"{text}; its log says why: journalctl -u aion") from error

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
        return http.client.HTTPConnection(host, port, timeout=timeout_s)

    def _unreachable(self, error: BaseException) -> DaemonUnreachable:
        return DaemonUnreachable(
            f"no daemon answers at {self.url} ({_why(error)}); start it with `aion serve`,"
            " or say where it is with --url or --config"
        )

    def _refused(self, status: int, raw: bytes) -> None:
        """Turn an error answer (problem details, RFC 9457) into an exception of one line."""
        try:
            problem = json.loads(raw)
        except ValueError:
            problem = None
        said = ""
        if isinstance(problem, dict):
            lines = problem.get("problems") or [problem.get("detail") or problem.get("title") or ""]
            said = "\n".join(clean(line) for line in lines).rstrip().rstrip(".")
        if status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
            raise NotAllowed(
                f"the daemon at {self.url} does not accept the admin token; {self._hint()}"
            )
        if not said:
            raise BadReply(
                f"{self.url} answered {status} and no reason: is it aion's daemon?", status
            )
        if isinstance(problem, dict) and problem.get("code") == "configuration":
            raise ConfigError(said)
        raise AionError(said)

    def _hint(self) -> str:
        return self._token_hint or "give it with --token-file"


class _AnswerLost(DaemonUnreachable):
    """The daemon took the request and its answer never came."""


def _with_query(path: str, query: Mapping[str, Any]) -> str:
    asked = {name: value for name, value in query.items() if value is not None}
    return path + ("?" + urlencode(asked) if asked else "")


def _why(error: BaseException) -> str:
    """Say in a few words how a connection failed."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it hung up"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return clean(str(error) or type(error).__name__)
