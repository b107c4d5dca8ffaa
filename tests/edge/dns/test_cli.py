"""`aion dns` over the daemon's own views and a Cloudflare stand-in, both real servers."""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.core.model import DnsTrouble, Fleet, Now, Publication, ServiceState
from orchestrator.core.specs import DnsPolicy, FleetConfig, Service
from orchestrator.web import views
from tests.edge.dns.world import A1, NAME
from tests.standins.cloudflare import ROOT, TOKEN

NOW = Now(1_763_700_000.0, 1_763_700_000.0)
CONFIG = """
[services.chat.dns]
provider = "cloudflare"
zone = "example.org"
name = "ai.example.org"
token = { credential = "cloudflare" }
proxied = false
api = "%s"

[backends.lab]
kind = "static"
engine = "ollama"
url = "http://127.0.0.1:9"
dns = { a = "192.0.2.1" }
"""


@contextmanager
def daemon(publication):
    """Answers for one service, and remembers what it was told."""
    fleet = Fleet(FleetConfig({}, {"chat": Service("chat", (), dns=DnsPolicy(NAME))}))
    fleet.services["chat"] = ServiceState("chat", publication=publication)
    told = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, value):
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            if self.path == "/api/status":
                self.answer({"instance": "aion"})
                return
            view = views.service_view(fleet, "chat", NOW).model_dump(mode="json")
            self.answer([view] if self.path.endswith("/services") else view)

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            told.append(self.path)
            self.answer({"text": "the record of chat is being put right"})

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def cloudflare():
    """The stand-in as a child process."""
    words = [sys.executable, str(ROOT / "tests/standins/cloudflare.py"), "--token", TOKEN]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        yield json.loads(child.stdout.readline())
        child.terminate()


@pytest.fixture
def aion(tmp_path, cloudflare):
    (tmp_path / "aion.toml").write_text(CONFIG % cloudflare["api"])
    (tmp_path / "credentials").mkdir(mode=0o700)
    secret = tmp_path / "credentials" / "cloudflare"
    secret.write_text(TOKEN)
    secret.chmod(0o600)
    env = {k: v for k, v in os.environ.items() if not k.startswith("AION_")}

    def run(url, *words):
        (tmp_path / "token").write_text("token-for-tests-0123456789-abcdefgh\n")
        given = ["--url", url, "--token-file", "token", "--config", "aion.toml"]
        command = [sys.executable, "-m", "orchestrator.cli", *given, "dns", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    return run


def wanted(**more):
    return replace(Publication(wanted=(A1,), wanted_epoch=3), **more)


def test_show_says_what_stands_there_and_what_would_change(aion):
    with daemon(wanted(trouble=DnsTrouble.FOREIGN, detail="made by hand")) as (url, told):
        ran = aion(url, "show")
        assert ran.returncode == 3, ran.stderr
        assert "A 192.0.2.1, epoch 3" in ran.stdout
        assert "made by hand" in ran.stdout
        assert "would create A 192.0.2.1 (aion aion epoch=3)" in ran.stdout
        seen = json.loads(aion(url, "show", "chat", "--json").stdout)
        assert seen["plan"]["verdict"] == "change"
        assert [change["action"] for change in seen["changes"]] == ["create"]
        assert told == []


def test_sync_shows_the_plan_and_changes_nothing_unless_told_to_apply(aion):
    with daemon(wanted()) as (url, told):
        ran = aion(url, "sync")
        assert ran.returncode == 0
        assert "would create" in ran.stdout
        assert "--apply" in ran.stderr
        assert aion(url, "sync", "--apply").returncode == 2  # nobody can be asked here
        assert told == []
        ran = aion(url, "sync", "--apply", "-y")
        assert ran.returncode == 0
        assert told == ["/api/services/chat/dns/sync"]
        assert TOKEN not in ran.stdout + ran.stderr
