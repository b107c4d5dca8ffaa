import hashlib
import io
import json
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.agent.kit import World


@pytest.fixture
def world(tmp_path):
    with World(tmp_path) as made:
        yield made
        assert made.aion.wrong == []


class Web(ThreadingHTTPServer):
    """A small server on loopback; `answer(path, query)` gives a body or None."""

    daemon_threads = True

    def __init__(self, answer):
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                parts = urlsplit(self.path)
                body = answer(parts.path, parse_qs(parts.query))
                self.send_response(404 if body is None else 200)
                self.end_headers()
                self.wfile.write(body or b"")

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()


@pytest.fixture
def shelf():
    """A place to fetch programs from: shelf(name, script) → address, SHA-256."""
    files = {}
    server = Web(lambda path, _: files.get(path))

    def put(name, script, archive=False):
        data = f"#!{sys.executable}\n{script}".encode()
        path = f"/{name}"
        if archive:
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz") as tar:
                info = tarfile.TarInfo(f"bin/{name}")
                info.size, info.mode = len(data), 0o755
                tar.addfile(info, io.BytesIO(data))
            data, path = packed.getvalue(), f"/{name}.tgz"
        files[path] = data
        return server.url + path, hashlib.sha256(data).hexdigest()

    yield put
    server.close()


@pytest.fixture
def resolver():
    """DNS over HTTPS that knows every name, or none."""

    def answer(_, query):
        name = query["name"][0]
        server.asked.append((name, query["type"][0]))
        found = {"Status": 0, "Answer": [{"name": name, "data": "192.0.2.1"}]}
        return json.dumps(found if server.knows else {"Status": 3}).encode()

    server = Web(answer)
    server.knows, server.asked = True, []
    yield server
    server.close()
