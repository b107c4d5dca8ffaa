"""A strict stand-in for the part of Google Cloud Storage that is used: it refuses what Google refuses.

Generations are enforced, chunks are of 256 KiB, offsets must fit, hashes sent along are compared.
`faults` are consumed one a chunk:
    cut     the connection breaks before anything is kept
    lost    everything is kept, then the connection breaks without an answer
    half    only the first 256 KiB are kept, and the answer says so
    503     try again later
    later   try again in 77 seconds
    forgot  all that was kept is lost, and the answer says so
    gone    the session is forgotten
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

UNIT = 256 * 1024


def crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()


@dataclass
class Object:
    data: bytes
    generation: int
    lie: bool = False

    def meta(self, name: str) -> dict:
        data = self.data[:-1] + b"?" if self.lie else self.data
        return {
            "kind": "storage#object",
            "name": name,
            "size": str(len(self.data)),
            "generation": str(self.generation),
            "updated": "2026-11-21T03:00:05.123Z",
            "crc32c": crc32c(data),
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
        }


@dataclass
class Session:
    name: str
    condition: int | None
    crc32c: str | None
    data: bytearray = field(default_factory=bytearray)


@dataclass
class Bucket:
    """What the server holds, and what is wrong with it today."""

    name: str = "my-bucket"
    objects: dict[str, Object] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    lie: bool = False  # about the hash of what is uploaded
    deaf: bool = False  # to the hash that is sent along
    refuse: tuple[int, str] | None = None  # every request
    headers: dict[str, str] = field(default_factory=dict)  # of what is refused
    reason: str = "x"  # for it, in Google's word
    portal: bytes = b""  # something in between answers 200 with this
    no_delete: bool = False
    grant: str = ""  # what the token endpoint answers, "" for a token
    token: str = "canary-access-token-93aa"
    started: int = 0
    chunks: list[int] = field(default_factory=list)
    generation: int = 1000
    asked: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args) -> None:
        pass

    def answer(self, status: int, value: object = None, **headers: str) -> None:
        body = (
            b""
            if value is None
            else value
            if isinstance(value, bytes)
            else json.dumps(value).encode()
        )
        self.send_response(status)
        for key, text in headers.items():
            self.send_header(key.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status: int, said: str, **headers: str) -> None:
        self.answer(
            status,
            {
                "error": {
                    "code": status,
                    "message": said,
                    "errors": [{"reason": self.server.bucket.reason}],
                }
            },
            **headers,
        )

    def whatever(self) -> None:
        bucket, url = self.server.bucket, urlsplit(self.path)
        query = {
            key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        bucket.asked.append(f"{self.command} {url.path}")
        with bucket_lock:
            if url.path == "/token":
                return self.grant(bucket)
            if bucket.portal:
                return self.answer(200, bucket.portal)
            if bucket.refuse:
                return self.fail(*bucket.refuse, **bucket.headers)
            if url.path.startswith("/session/"):
                return self.session(bucket, url.path.removeprefix("/session/"), body)
            found = re.fullmatch(r"(/upload|/download)?/storage/v1/b/([^/]+)/o(?:/(.+))?", url.path)
            if not found or found[2] != bucket.name:
                return self.fail(404, "The specified bucket does not exist.")
            name = unquote(found[3] or "")
            if found[1] == "/upload":
                return self.begin(bucket, query, body)
            if not name:
                return self.list(bucket, query)
            return self.one(bucket, name, query)

    do_GET = do_PUT = do_POST = do_DELETE = whatever

    def grant(self, bucket: Bucket) -> None:
        if bucket.grant.startswith("<"):
            return self.answer(502, bucket.grant.encode())
        if bucket.grant:
            return self.answer(
                400,
                {"error": bucket.grant, "error_description": "Token has been expired or revoked."},
            )
        return self.answer(
            200, {"access_token": bucket.token, "expires_in": 3600, "token_type": "Bearer"}
        )

    def list(self, bucket: Bucket, query: dict[str, str]) -> None:
        names = sorted(name for name in bucket.objects if name.startswith(query.get("prefix", "")))
        start = int(query.get("pageToken") or 0)
        page: dict = {"items": [bucket.objects[n].meta(n) for n in names[start : start + 2]]}
        if start + 2 < len(names):
            page["nextPageToken"] = str(start + 2)
        self.answer(200, page)

    def one(self, bucket: Bucket, name: str, query: dict[str, str]) -> None:
        found = bucket.objects.get(name)
        if found is None:
            return self.fail(404, f"No such object: {name}")
        if self.command == "DELETE":
            if bucket.no_delete:
                return self.fail(403, "storage.objects.delete denied")
            if int(query.get("ifGenerationMatch", found.generation)) != found.generation:
                return self.fail(412, "conditionNotMet")
            del bucket.objects[name]
            return self.answer(204)
        if query.get("alt") == "media":
            return self.answer(200, found.data)
        return self.answer(200, found.meta(name))

    def begin(self, bucket: Bucket, query: dict[str, str], body: bytes) -> None:
        assert query["uploadType"] == "resumable"
        meta = json.loads(body)
        condition = int(query["ifGenerationMatch"]) if "ifGenerationMatch" in query else None
        session = Session(meta["name"], condition, meta.get("crc32c"))
        if not self.met(bucket, session):
            return self.fail(412, "conditionNotMet")
        bucket.started += 1
        key = f"canary-session-{bucket.started}"
        bucket.sessions[key] = session
        return self.answer(200, Location=f"{self.server.url}/session/{key}")

    def met(self, bucket: Bucket, session: Session) -> bool:
        found = bucket.objects.get(session.name)
        return session.condition is None or session.condition == (found.generation if found else 0)

    def session(self, bucket: Bucket, key: str, body: bytes) -> None:
        session = bucket.sessions.get(key)
        if session is None:
            return self.fail(410, "this session is over")
        if self.command == "DELETE":
            del bucket.sessions[key]
            return self.answer(499)
        found = re.fullmatch(
            r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", self.headers.get("Content-Range", "")
        )
        assert found, self.headers.get("Content-Range")
        total = int(found[3])
        assert found[1] is None or int(found[2]) - int(found[1]) + 1 == len(body)
        if found[1] is not None and self.chunk(bucket, key, int(found[1]), body, total):
            return None
        if len(session.data) == total:
            return self.finish(bucket, key, session)
        headers = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
        return self.answer(308, **headers)

    def chunk(self, bucket: Bucket, key: str, first: int, body: bytes, total: int) -> bool:
        """Keep a chunk; says whether that was all there is to answer."""
        session = bucket.sessions[key]
        if (first + len(body) != total and len(body) % UNIT) or first > len(session.data):
            self.fail(400, "a chunk that does not fit")
            return True
        bucket.chunks.append(first)
        fault = bucket.faults.pop(0) if bucket.faults else ""
        if fault == "503":
            self.fail(503, "backendError")
        if fault == "later":
            self.fail(429, "slow down", Retry_After="77")
        if fault == "forgot":
            session.data.clear()
            self.answer(308)
        if fault == "gone":
            del bucket.sessions[key]
            self.fail(410, "this session is over")
        if fault in {"", "half", "lost"}:
            session.data[first:] = body[:UNIT] if fault == "half" else body
        if fault == "lost" and len(session.data) == total:
            self.finish(bucket, key, session, mute=True)
        if fault in {"cut", "lost"}:
            self.hang_up()
        return fault in {"503", "later", "forgot", "gone", "cut", "lost"}

    def finish(self, bucket: Bucket, key: str, session: Session, *, mute: bool = False) -> None:
        data = bytes(session.data)
        problem = None
        if not self.met(bucket, session):
            problem = (412, "conditionNotMet")
        elif session.crc32c and session.crc32c != crc32c(data) and not bucket.deaf:
            problem = (400, "the crc32c does not match")
        del bucket.sessions[key]
        if problem is None:
            bucket.generation += 1
            made = Object(data, bucket.generation, bucket.lie)
            bucket.objects[session.name] = made
            return None if mute else self.answer(200, made.meta(session.name))
        return None if mute else self.fail(*problem)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)


bucket_lock = threading.RLock()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bucket = bucket
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        pass  # the other side went away: tests do that


@contextmanager
def standing_in(bucket: Bucket) -> Iterator[str]:
    """Serve `bucket` for as long as the block; gives the address."""
    with Server(bucket) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()
