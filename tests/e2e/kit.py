"""A whole world on loopback: real backends, the real daemon, stand-ins of outside services."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time  # noqa: TID251 - deadlines for real processes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import httpx
from dnslib import DNSRecord

from tests.e2e.toxics import Proxy
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "admin-token-for-e2e-0123456789abcdefghijklmnop"
NAME = "ai.example.org"
BARE = re.compile(r"[A-Za-z0-9_-]+")
PATIENCE_S = 90.0  # a bound on waiting, which measures nothing: a machine may be very busy
HEALTH = {
    "interval": "500ms",
    "fast_interval": "150ms",
    "down_interval": "400ms",
    "timeout": "2s",  # a live one on a busy machine answers within it
    "canary": "off",
}


def until(true, what, within_s=PATIENCE_S, every_s=0.02):
    """Wait until `true()` gives something true, and return it; errors of a server count as no."""
    end = time.monotonic() + within_s
    last: object = None
    while time.monotonic() < end:
        try:
            last = true()
        except (httpx.TransportError, httpx.TimeoutException, ConnectionError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(every_s)
    raise AssertionError(f"not within {within_s} s: {what}; last seen: {last!r}")


def months_away() -> str:
    """A schedule whose next time is in half a year.

    At its time a job would run beside what a test starts by hand; and what was interrupted less
    than two hours before is left to it.
    """
    return f"0 3 1 {(time.gmtime().tm_mon + 5) % 12 + 1} *"


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid:
                    found.append(int(entry.name))
    return found


def _environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AION_")}
    for name in ("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC"):
        kept.pop(name, None)
    return {**kept, "NO_COLOR": "1", "PYTHONPATH": str(ROOT), **more}


def quote(value) -> str:
    if isinstance(value, dict):
        pairs = (
            (key if BARE.fullmatch(key) else json.dumps(key), one) for key, one in value.items()
        )
        return "{ " + ", ".join(f"{key} = {quote(one)}" for key, one in pairs) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(quote, value)) + "]"
    return json.dumps(value)


def ids_in(message: str) -> list[str]:
    """Ids of the notices in a message, which stand at the end of each one's text."""
    return re.findall(r" · (\S+)$", message, re.MULTILINE)


class Process:
    """One child process that is gone when the test is."""

    def __init__(self, *words: str, log: Path | None = None, **env: str) -> None:
        out = log.open("ab") if log else subprocess.PIPE
        self.child = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out if log else subprocess.DEVNULL,
            env=_environment(**env),
            cwd=ROOT,
        )
        if log:
            out.close()

    @property
    def pid(self) -> int:
        return self.child.pid

    def first_line(self) -> dict:
        return json.loads(self.child.stdout.readline())

    def signal(self, number: int) -> None:
        self.child.send_signal(number)

    def kill(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.close()

    def close(self) -> int:
        code = self.child.wait(PATIENCE_S)
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return code


class Listener:
    """A client of server-sent events: `events` so far, `ended` once the server closed."""

    def __init__(self, port: int, path: str = "/discovery/chat/events") -> None:
        self.events: list[dict] = []
        self.ended = False
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                if line.startswith(b"data: "):
                    self.events.append(json.loads(line[6:]))
        self.ended = True

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


class Hook:
    """What apprise's `json://` posts to, and an OpenAI-like backend that counts its probes."""

    def __init__(self) -> None:
        self.bodies: list[dict] = []
        self.failing = False
        self.asked = 0
        self.hangs = threading.Event()
        self.probed_at: list[float] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.asked += 1
                if hook.hangs.is_set():
                    time.sleep(20)
                if not hook.failing:
                    hook.bodies.append(json.loads(body))
                self.send_response(500 if hook.failing else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                hook.probed_at.append(time.monotonic())
                body = b'{"object": "list", "data": [{"id": "demo-model", "object": "model"}]}'
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.port = self._server.server_address[1]

    @property
    def texts(self) -> str:
        return "\n".join(f"{body['title']}\n{body['message']}" for body in list(self.bodies))

    def told(self) -> list[str]:
        """Ids of the notices that arrived, repeats and all."""
        return ids_in(self.texts)

    def kill(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Cloudflare:
    """The stand-in of Cloudflare as a child, controlled by HTTP and asked by DNS."""

    def __init__(self, port: int = 0, dns_port: int = 0) -> None:
        words = ("--port", str(port), "--dns-port", str(dns_port))
        self.process = Process(str(ROOT / "tests/standins/cloudflare.py"), *words)
        said = self.process.first_line()
        self.api, self.token, self.dns_port = said["api"], said["token"], said["dns_port"]
        self.control = f"http://127.0.0.1:{said['port']}/_control"

    def tell(self, **wish) -> dict:
        return httpx.post(self.control, json=wish).json()

    def seen(self) -> dict:
        return httpx.get(self.control).json()

    def records(self) -> list[dict]:
        return [record for record in self.seen()["records"] if record["name"] == NAME]

    def resolve(self) -> list[str]:
        """Ask for the name by a real DNS query."""
        answer = DNSRecord.question(NAME, "A").send("127.0.0.1", self.dns_port, timeout=20)
        return [str(row.rdata) for row in DNSRecord.parse(answer).rr]

    def kill(self) -> None:
        self.process.kill()


class World:
    """Backends, stand-ins and a daemon around one folder. Leave it and all of them are gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "aion.toml"
        self.log_path = folder / "daemon.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE_S)
        self.backends: dict[str, tuple[Process, int]] = {}
        self.credentials = {"admin_token": TOKEN}
        self.tables: dict[str, dict] = {}
        self.server = {"listen": f"127.0.0.1:{self.port}"}
        self.health: dict = {**HEALTH, "controls": []}
        self.daemon: Process | None = None
        self._others: list = []
        self.fresh: Path | None = None  # an empty database, so that not every start makes one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.http.close()
        running = [process for process, _ in self.backends.values()]
        for one in [self.daemon, *running, *self._others]:
            if one is not None:
                with contextlib.suppress(ProcessLookupError):
                    one.kill()

    # ── making it ───────────────────────────────────────────────────────────────────────────────

    def serve_from(self, *names: str) -> None:
        """Start fake backends, in order of preference, and configure them."""
        for number, name in enumerate(names):
            port = self.start(name)
            self.tables[f"backends.{name}"] = {
                "kind": "static",
                "engine": "openai",
                "url": f"http://127.0.0.1:{port}",
                "priority": 10 * (number + 1),
                "models": ["demo-model"],
            }
        self.tables.setdefault("services.chat", {"failback_after": "1s"})

    def start(self, name: str, *more: str) -> int:
        """Start a backend; a second time on the port it had."""
        port = self.backends[name][1] if name in self.backends else free_port()
        words = ("--port", str(port), "--name", name, "--with-parent", *more)
        process = Process("-m", "backends.fake_server", *words)
        self.backends[name] = (process, process.first_line()["port"])
        return self.backends[name][1]

    def pid(self, name: str) -> int:
        return self.backends[name][0].pid

    def stop_backend(self, name: str) -> None:
        self.backends[name][0].kill()

    def proxy(self, port: int) -> Proxy:
        made = Proxy(port)
        self._others.append(made)
        return made

    def behind(self, name: str) -> Proxy:
        """Put a proxy before a backend, which the daemon then knows by the proxy's address."""
        made = self.proxy(self.backends[name][1])
        self.tables[f"backends.{name}"]["url"] = f"http://127.0.0.1:{made.port}"
        return made

    def listen(self, path: str = "/discovery/chat/events") -> Listener:
        made = Listener(self.port, path)
        self._others.append(made)
        return made

    def counted(self, name: str, priority: int = 50) -> Hook:
        """A backend in this process, which notes when it was probed."""
        made = Hook()
        self._others.append(made)
        url = f"http://127.0.0.1:{made.port}"
        given = {"kind": "static", "engine": "openai", "url": url, "models": ["demo-model"]}
        self.tables[f"backends.{name}"] = {**given, "priority": priority}
        return made

    def hook(self) -> Hook:
        made = Hook()
        self._others.append(made)
        self.credentials["hook"] = f"json://127.0.0.1:{made.port}/hook?rto=20&cto=20"
        self.tables["alerts"] = {"urls": [{"credential": "hook"}]}
        return made

    def cloudflare(self, **more) -> Cloudflare:
        """Keep the name in Cloudflare's stand-in; the n-th backend's address ends in n."""
        made = Cloudflare()
        self._others.append(made)
        self.credentials["cloudflare"] = made.token
        names = [key for key in self.tables if key.startswith("backends.")]
        for number, key in enumerate(names, start=1):
            self.tables[key]["dns"] = {"a": f"93.184.216.{number}"}
        self.tables["services.chat.dns"] = {
            "provider": "cloudflare",
            "zone": "example.org",
            "name": NAME,
            "token": {"credential": "cloudflare"},
            "proxied": False,
            "ttl": 60,
            "api": made.api,
            **more,
        }
        return made

    def write(self) -> None:
        """Write configuration and credentials."""
        folder = self.folder / "credentials"
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, value in self.credentials.items():
            path = folder / name
            path.touch(mode=0o600)
            path.write_text(value)
        server = {**self.server, "admin_token": {"credential": "admin_token"}}
        tables = {"server": server, "health": self.health, **self.tables}
        lines = []
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {quote(one)}" for key, one in table.items()), ""]
        self.config.write_text("\n".join(lines))

    # ── the daemon ──────────────────────────────────────────────────────────────────────────────

    def boot(self, *more: str, wait: bool = True, **env: str) -> Process:
        self.write()
        if wait and self.fresh is not None and not self.state.exists():
            self.state.mkdir(mode=0o700)
            shutil.copy(self.fresh, self.state / "aion.db")
        self.launch(*more, **env)
        if wait:
            self.ready()
        return self.daemon

    def launch(self, *more: str, **env: str) -> None:
        """Start the daemon on the file as it is."""
        words = ("-m", "orchestrator.cli", "--config", str(self.config), "serve", *more)
        self.daemon = Process(
            *words, log=self.log_path, **{"STATE_DIRECTORY": str(self.state), **env}
        )

    def ready(self) -> None:
        def answers() -> bool:
            assert self.daemon.child.poll() is None, self.log()
            serves = self.discovery().get("state") == "serving"  # a second before it is ready
            return serves or self.http.get("/readyz").status_code == 200

        until(answers, "it is ready")

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def crash(self) -> None:
        self.daemon.kill()

    def stop(self) -> tuple[int, float]:
        """SIGTERM; gives the exit status and the seconds it took."""
        began = time.monotonic()
        self.daemon.signal(signal.SIGTERM)
        return self.daemon.close(), time.monotonic() - began

    def discovery(self) -> dict:
        return self.http.get("/discovery/chat").json()

    def active(self) -> str | None:
        found = self.discovery()["active"]
        return found["backend"] if found else None

    def serves(self, name: str | None, within_s: float = PATIENCE_S) -> dict:
        """Wait until this one serves."""
        until(lambda: (self.active(),) == (name,), f"{name} serves: {self.log()[-3000:]}", within_s)
        return self.discovery()

    def api(self, path: str, **query):
        answer = self.http.get(f"/api/{path}", params=query, headers=self._bearer)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: dict | None = None, **headers: str) -> httpx.Response:
        return self.http.post(f"/api/{path}", json=body, headers={**self._bearer, **headers})

    @property
    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKEN}"}

    def health_of(self, name: str) -> str:
        return self.api(f"backends/{name}")["health"]

    def all_up(self) -> None:
        self.all_up_but()

    def all_up_but(self, *others: str) -> None:
        names = [key.partition(".")[2] for key in self.tables if key.startswith("backends.")]
        names = [name for name in names if name not in others]
        until(lambda: all(self.health_of(name) == "up" for name in names), "all are up")

    def assigned(self) -> list[dict]:
        return [event for event in self.api("events", limit=1000) if event["action"] == "assigned"]

    def kinds(self) -> set[str]:
        return {incident["kind"] for incident in self.api("incidents")}

    def aion(self, *words: str) -> subprocess.CompletedProcess:
        """Run a verb against this daemon."""
        return subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "--config", str(self.config), *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            env=_environment(STATE_DIRECTORY=str(self.state)),
            cwd=ROOT,
        )
