"""A stand-in for the daemon, strict about the protocol: what is not allowed is in `wrong`."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
import time  # noqa: TID251 - its own clock
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "backend-token-canary-0123456789abcdef"
STATES = {"starting", "loading", "ready", "draining", "saving", "stopping", "failed"}
REGISTER = {"backend", "url", "engine", "models", "started_at", "now", "gpu", "agent"}
BEAT = {"seq", "state", "engine_ready", "tunnel_ready", "busy", "gpu", "done", "detail"}


def rfc3339(unix):
    return datetime.fromtimestamp(unix, UTC).isoformat().replace("+00:00", "Z")


def proof(token, nonce, session, host):
    key = hashlib.sha256(token.encode()).digest()
    return hmac.new(
        key, f"aion-identity-1\n{nonce}\n{session}\n{host}".encode(), "sha256"
    ).hexdigest()


def gateway_key(token, session):
    key = hashlib.sha256(token.encode()).digest()
    return hmac.new(key, f"aion-gateway-1\n{session}".encode(), "sha256").hexdigest()


class Aion:
    """Listens on loopback; `away()` and `back()` partition it."""

    def __init__(self, access="gateway", clients=(), heartbeat_s=0.2):
        self.access = access
        self.clients = [hashlib.sha256(key.encode()).hexdigest() for key in clients]
        self.heartbeat_s = heartbeat_s
        self.ends_in_s = 3600.0
        self.wrong = []
        self.registrations = []
        self.sessions = {}
        self.beats = []
        self.left = []
        self.commands = {}
        self.acknowledged = {}
        self.over = set()
        self.refusal = None
        self.once = False  # its token is that of one launch: it opens but one session
        self.tokens = []
        self.trouble = []  # statuses (or (status, Retry-After)) to answer registrations with first
        self.lock = threading.RLock()
        self.port = 0
        self._server = None
        self.back()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def back(self):
        self._server = Server(("127.0.0.1", self.port), type("Bound", (Handler,), {"aion": self}))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def away(self):
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def order(self, do):
        ident = f"c{len(self.commands) + 1}"
        with self.lock:
            self.commands[ident] = do
        return ident

    @property
    def session(self):
        """The newest one: (id, token)."""
        with self.lock:
            return next(reversed(self.sessions.items()))

    def now(self):
        """The last heartbeat of the newest session; empty before there is one."""
        with self.lock:
            ident = next(reversed(self.sessions), None)
            return next((b for s, b in reversed(self.beats) if s == ident), {})

    # ── the protocol ────────────────────────────────────────────────────────────────────────────

    def strict(self, true, what):
        if not true:
            self.wrong.append(what)

    def register(self, token, body):
        if self.trouble:
            return self.trouble.pop(0), {"title": "not now", "status": 503}
        self.tokens.append(token)
        held = [one for ident, one in self.sessions.items() if ident not in self.over]
        if token not in (TOKEN, *held) or (token == TOKEN and self.once and self.registrations):
            return 401, {"title": "token", "detail": "the token is wrong", "status": 401}
        if self.refusal:
            status, detail = self.refusal
            return status, {"title": "refused", "detail": detail, "status": status}
        self.strict(set(body) == REGISTER, f"register: {sorted(body)}")
        self.strict(re.fullmatch(r"https?://[^/]+", body["url"]), body["url"])
        for key in ("started_at", "now"):
            self.strict(datetime.fromisoformat(body[key]).tzinfo is not None, body[key])
        gpu = body["gpu"]
        self.strict(gpu is None or set(gpu) == {"name", "memory_mb"}, f"gpu: {gpu}")
        self.strict(isinstance(body["models"], list), "models")
        self.registrations.append(body)
        ident = f"s{len(self.registrations)}"
        self.sessions[ident] = f"session-token-canary-{secrets.token_hex(8)}"
        ends = None if self.ends_in_s is None else rfc3339(time.time() + self.ends_in_s)
        self.ends_at = ends
        return 201, {
            "session": ident,
            "token": self.sessions[ident],
            "lease_s": 60,
            "heartbeat_s": self.heartbeat_s,
            "ends_at": ends,
            "access": self.access,
            "client_keys": self.clients,
        }

    def beat(self, ident, token, body):
        if ident in self.over:
            return 410, {"title": "gone", "detail": "superseded", "status": 410}
        if ident not in self.sessions:
            return 404, {"title": "unknown", "detail": "no such session", "status": 404}
        if token != self.sessions[ident]:
            return 401, {"title": "token", "detail": "wrong session token", "status": 401}
        self.strict(set(body) == BEAT, f"beat: {sorted(body)}")
        self.strict(body["state"] in STATES, body["state"])
        self.strict(len(body["detail"]) <= 200, "detail too long")
        self.strict(
            type(body["engine_ready"]) is bool and type(body["tunnel_ready"]) is bool, "flags"
        )
        self.strict(isinstance(body["busy"], int) and body["busy"] >= 0, "busy")
        last = max((b["seq"] for s, b in self.beats if s == ident), default=0)
        self.strict(body["seq"] > last, f"seq {body['seq']} after {last}")
        for one in body["done"]:
            self.strict(set(one) == {"id", "ok"} and one["id"] in self.commands, f"done {one}")
            self.acknowledged[one["id"]] = one["ok"]
        self.beats.append((ident, {**body, "at": time.monotonic()}))
        open_ = [
            {"id": i, "do": do} for i, do in self.commands.items() if i not in self.acknowledged
        ]
        admitted = {"access": self.access, "client_keys": self.clients}
        return 200, {"ends_at": self.ends_at, **admitted, "commands": open_}

    def leave(self, ident, token):
        self.strict(self.sessions.get(ident) == token, "leaves with a wrong token")
        self.left.append(ident)
        return 204, None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class Handler(BaseHTTPRequestHandler):
    """Reads requests for `aion`, which a subclass is given."""

    protocol_version = "HTTP/1.1"
    aion: Aion

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        status, after = status if isinstance(status, tuple) else (status, None)
        raw = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        kind = "application/json" if status < 400 else "application/problem+json"
        self.send_header("Content-Type", kind)
        if after is not None:
            self.send_header("Retry-After", str(after))
        self.send_header("Connection", "close")
        if status != 204:
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
        self.close_connection = True

    def token(self):
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        self.aion.strict(scheme == "Bearer", f"Authorization: {scheme}")
        return token

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        with self.aion.lock:
            self.aion.strict("json" in self.headers.get("Content-Type", ""), "not JSON")
            match = re.fullmatch(r"/sessions/([^/]+)/heartbeat", self.path)
            if self.path == "/register":
                found = self.aion.register(self.token(), json.loads(raw))
            elif match:
                found = self.aion.beat(match[1], self.token(), json.loads(raw))
            else:
                self.aion.strict(False, f"POST {self.path}")
                found = 404, {}
        self.answer(*found)

    def do_DELETE(self):
        with self.aion.lock:
            found = self.aion.leave(self.path.removeprefix("/sessions/"), self.token())
        self.answer(*found)

    def do_GET(self):
        self.aion.strict(False, f"GET {self.path}")
        self.answer(404, {})

    def do_HEAD(self):
        self.answer(404, None)
