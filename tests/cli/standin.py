"""A real HTTP server that speaks the daemon's `/api` over a fleet that a test holds still.

Its answers are made by the daemon's own views, so they have the daemon's shapes. It is strict: a
request without the token, a command without a key, a body of another shape than the daemon's are
refused as the daemon refuses them. `given` is what it was told to do.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import ValidationError

from orchestrator.core.lives import PastSession, Session
from orchestrator.core.model import (
    BackendState,
    Fleet,
    Health,
    Incident,
    Now,
    Pin,
    ServiceState,
    Severity,
    World,
)
from orchestrator.core.specs import Backend, FleetConfig, Service, Tier
from orchestrator.web import bodies, metering, planning, receipts, session_views, views

SECRET = "a-new-token-for-colab-0123456789-abcdefgh"
TOKEN = "token-for-tests-0123456789-abcdefgh"
AT = 1_763_700_000.0
NOW = Now(AT, AT)
BODIES = {
    "failover": bodies.FailoverBody,
    "switchover": bodies.SwitchoverBody,
    "pin": bodies.PinBody,
    "pause": bodies.PauseBody,
    "mute": bodies.MuteBody,
    "tokens": bodies.TokenBody,
    "revoke": bodies.RevokeBody,
}


def fleet(*, active="colab", colab=Health.UP, hostile="lab is fine"):
    """Three backends and a service `chat` that `active` serves."""
    configured = {
        "colab": Backend(
            "colab", "static", "ollama", 10, url="https://colab.example", models=("q",)
        ),
        "lab": Backend("lab", "static", "llamacpp", 40, url="http://10.0.0.5:8080"),
        "groq": Backend("groq", "api", "openai", 90, Tier.PAID, assignable=False),
    }
    service = Service("chat", ("colab", "lab", "groq"))
    session = Session("s1", AT - 7200, beat_at=AT, ends_at=AT + 3600)
    return Fleet(
        config=FleetConfig(configured, {"chat": service}),
        world=World(started_at=AT - 90000),
        backends={
            "colab": BackendState(
                "colab", colab, AT - 7000, "answers", doubt=False, session=session
            ),
            "lab": BackendState("lab", Health.UP, AT - 60, hostile, doubt=False, ok_since=AT - 60),
            "groq": BackendState("groq", Health.DOWN, AT - 60, "connection refused"),
        },
        services={
            "chat": ServiceState(
                "chat", active, AT - 7000, 17, "colab is the first that can serve", settled=True
            )
        },
        incidents={
            "backend_down:groq": Incident(
                "i7", "backend_down:groq", "backend_down", "groq", Severity.WARNING, AT - 60
            )
        },
    )


class Standin:
    """Listens on a free port of loopback while used as a context manager."""

    def __init__(self, world: Fleet | None = None) -> None:
        self.fleet = world or fleet()
        self.given: list[tuple[str, dict, dict]] = []
        self.lines = [
            {
                "seq": seq,
                "at": "2026-11-21T01:00:00Z",
                "action": "moved",
                "subject": "chat",
                "text": f"line {seq}",
                "data": {},
                "who": "",
            }
            for seq in range(1, 4)
        ]
        self.past: list[PastSession] = []
        self.jobs = [[job()], [job(last_at="2025-11-21T04:40:00Z", said="3 rows")]]
        self.looks, self.drop_looks = 0, set()
        self.drop_answers = 0
        self.refuse: tuple[int, dict] | None = None
        standin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                standin.get(self)

            def do_POST(self):
                standin.post(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def pin(self, backend: str, hard: bool = False) -> None:
        state = self.fleet.services["chat"]
        self.fleet.services["chat"] = ServiceState(
            "chat",
            state.active,
            state.since,
            17,
            state.reason,
            True,
            pin=Pin(backend, AT + 60, hard),
        )

    # ── answering ───────────────────────────────────────────────────────────────────────────────

    def get(self, request) -> None:
        if not self._admitted(request):
            return
        parts = urlsplit(request.path)
        if parts.path == "/api/jobs":
            self.looks += 1
            if self.looks in self.drop_looks:
                request.close_connection = True
                return
        words = [unquote(word) for word in parts.path.split("/")[2:]]
        found = self._found(words, {k: v[0] for k, v in parse_qs(parts.query, True).items()})
        if found is None:
            name = words[-1]
            detail = f"there is no {words[0].removesuffix('s')} `{name}`"
            _problem(request, 404, {"detail": detail, "code": "unknown"})
        else:
            _send(request, 200, found)

    def _found(self, words, query):  # noqa: C901, PLR0912 - a table of routes
        def tell(incident):
            return f"{incident.subject} is down"

        match words:
            case ["status"]:
                return _json(views.status_view(self.fleet, NOW, tell, "9.9"))
            case ["services"]:
                return [_json(views.service_view(self.fleet, "chat", NOW))]
            case ["services", name] if name in self.fleet.config.services:
                return _json(views.service_view(self.fleet, name, NOW))
            case ["backends", name] if name in self.fleet.config.backends:
                return _json(views.backend_view(self.fleet, name, NOW))
            case ["explain", name] if name in self.fleet.config.services:
                return _json(views.explain_view(self.fleet, name, NOW))
            case ["incidents", name]:
                for one in self.fleet.incidents.values():
                    if name in {one.id, one.key}:
                        return _json(views.incident_view(one, NOW, tell))
            case ["events"]:
                after = int(query.get("after", 0))
                return [line for line in self.lines if line["seq"] > after]
            case ["meters"] if "month" in query:
                return _json(receipts.receipt(self.fleet, NOW, query["month"]))
            case ["meters"]:
                return [_json(one) for one in metering.meter_views(self.fleet, NOW)]
            case ["plan"] if query.get("service", "chat") in self.fleet.config.services:
                hours = float(query["hours"])
                return _json(planning.plan_view(self.fleet, NOW, hours, query.get("service")))
            case ["sessions"]:
                past = self.past[: int(query.get("past", 0))]
                return _json(session_views.sessions_view(self.fleet, past, NOW))
            case ["tokens"]:
                tokens = self.fleet.tokens.values()
                return [_json(session_views.token_view(one, None, NOW)) for one in tokens]
            case ["jobs"]:
                if len(self.jobs) > 1:
                    return self.jobs.pop(0)
                return self.jobs[0]
        return None

    def post(self, request) -> None:
        raw = request.rfile.read(int(request.headers.get("content-length", 0)))
        if not self._admitted(request):
            return
        body = json.loads(raw) if raw else {}
        if not request.headers.get("idempotency-key"):
            _problem(request, 400, {"detail": "no key"})
            return
        path = request.path.removeprefix("/api/")
        try:
            BODIES.get(path.rpartition("/")[2], bodies.NoBody).model_validate(body)
        except ValidationError as error:
            _problem(request, 422, {"detail": str(error)})
            return
        self.given.append((path, body, dict(request.headers)))
        if self.drop_answers:
            self.drop_answers -= 1
            request.close_connection = True
            return
        if self.refuse:
            _problem(request, *self.refuse)
            return
        done = {"changes": ["backend lab: added"]} if path == "reload" else {"text": f"did {path}"}
        if path == "tokens":
            made = {"id": "0123456789ab", "backend": body["backend"], "token": SECRET}
            _send(request, 201, made | done)
            return
        _send(request, 200, done)

    def _admitted(self, request) -> bool:
        if request.headers.get("authorization") == f"Bearer {TOKEN}":
            return True
        _problem(request, 401, {"detail": "this needs the admin token"})
        return False


def job(**rest) -> dict:
    """Return the job `prune` as `/api/jobs` has it."""
    told = {"last_at": None, "problem": "", "running": False, "quarantined": False, "said": ""}
    return {"name": "prune", "next_at": None} | told | rest


def _json(view) -> dict:
    return view.model_dump(mode="json")


def _problem(request, status: int, more: dict) -> None:
    _send(request, status, {"type": "about:blank", "title": "No", "status": status, **more})


def _send(request, status: int, body) -> None:
    raw = json.dumps(body).encode()
    request.send_response(status)
    request.send_header("content-type", "application/json")
    request.send_header("content-length", str(len(raw)))
    request.end_headers()
    request.wfile.write(raw)
