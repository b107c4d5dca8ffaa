"""`aion alert test` sends through every channel and says which one works."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from terminal import aion

TOKEN = "123456789:AAcanary-7c1d5e0b9f-never-shown_x"


class _Hook(BaseHTTPRequestHandler):
    got: list[dict] = []  # noqa: RUF012

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        telegram = self.path.startswith("/bot")
        self.got.append(json.loads(body))
        answer = json.dumps({"ok": not telegram, "description": "Unauthorized"}).encode()
        self.send_response(401 if telegram else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args): ...


def test_each_channel_is_tried_and_the_one_that_fails_gets_a_remedy(tmp_path):
    with HTTPServer(("127.0.0.1", 0), _Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port
        config = tmp_path / "aion.toml"
        config.write_text(
            'language = "pt"\n[backends.lab]\nkind = "static"\nengine = "ollama"\n'
            'url = "http://127.0.0.1:1"\n[alerts]\nurls = [{ credential = "hook" }]\n'
            'telegram = { chat = 42, token = { credential = "telegram" }, '
            f'api = "http://127.0.0.1:{port}" }}\n'
        )
        env = {
            "AION_CREDENTIAL_HOOK": f"json://127.0.0.1:{port}/hook",
            "AION_CREDENTIAL_TELEGRAM": TOKEN,
        }
        ran = aion("--config", str(config), "alert", "test", **env)
        as_json = aion("--config", str(config), "--json", "alert", "test", **env)
        server.shutdown()
    assert ran.code == 1, ran.err
    assert "PASSED  hook" in ran.out
    assert "FAILED  telegram: " in ran.out
    assert "aion secret set telegram" in ran.out
    assert [row["ok"] for row in json.loads(as_json.out)] == [False, True]
    assert any("Mensagem de teste" in str(message) for message in _Hook.got)
    assert TOKEN.partition(":")[2] not in ran.out + ran.err + as_json.out


def test_without_a_channel_it_says_so(tmp_path):
    config = tmp_path / "aion.toml"
    config.write_text(
        '[backends.lab]\nkind = "static"\nengine = "ollama"\nurl = "http://127.0.0.1:1"\n'
    )
    ran = aion("--config", str(config), "alert", "test")
    assert ran.code == 1
    assert "No channel is configured" in ran.err
