"""A strict stand-in for the part of the Hugging Face Hub that is used: datasets, LFS, commits."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = 100_000
PART = 1_000_000


@dataclass(frozen=True)
class File:
    """One file of a commit: its bytes, or the hash of a large one."""

    data: bytes | None
    oid: str
    size: int

    def info(self, path: str) -> dict:
        made = {"type": "file", "path": path, "size": self.size, "oid": self.oid[:40]}
        if self.data is None:
            made["lfs"] = {"oid": self.oid, "size": self.size, "pointerSize": 134}
        return made


@dataclass
class Dataset:
    """What the server holds, and what is wrong with it today."""

    repo: str = "user/name"
    token: str = "canary-hub-token-51e0"
    private: bool = True
    commits: dict[str, dict[str, File]] = field(default_factory=lambda: {"0" * 40: {}})
    head: str = "0" * 40
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    refuse: tuple[int, str] | None = None
    refuse_object: str = ""  # what the LFS server says of every object
    headers: dict[str, str] = field(default_factory=dict)  # of what is refused
    portal: bytes = b""  # something in between answers 200 with this
    expired: int = 0  # so many parts of an upload come too late for their signature
    mute: threading.Event | None = None  # a commit is not answered before that
    cut: int = 0  # so many parts of an upload break
    lie: bool = False
    leaked: list[str] = field(default_factory=list)  # tokens that arrived where none belongs

    def commit(self, files: dict[str, File]) -> None:
        self.head = hashlib.sha1(f"{self.head}{sorted(files)}".encode()).hexdigest()
        self.commits[self.head] = files

    def at(self, revision: str) -> dict[str, File]:
        return self.commits[self.head if revision == "main" else revision]

    def bytes_of(self, path: str) -> bytes | None:
        file = self.commits[self.head].get(path)
        if file is None:
            return None
        return self.objects[file.oid] if file.data is None else file.data

    def place(self, path: str, data: bytes) -> None:
        oid = hashlib.sha256(data).hexdigest()
        large = len(data) > LARGE
        if large:
            self.objects[oid] = data
        self.commit(
            {**self.commits[self.head], path: File(None if large else data, oid, len(data))}
        )


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
        if not isinstance(value, bytes):
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status: int, said: str, **headers: str) -> None:
        self.answer(status, {"error": said}, X_Error_Message=said, **headers)

    def whatever(self) -> None:
        held, url = self.server.held, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, given = unquote(url.path), self.headers.get("Authorization", "")
        if held.portal:
            return self.answer(200, held.portal)
        if path.startswith("/signed/"):
            if given:
                held.leaked.append(given)
            return self.signed(held, path.removeprefix("/signed/"), body)
        if given != f"Bearer {held.token}":
            return self.fail(401, "Invalid credentials in Authorization header")
        if held.refuse:
            return self.fail(*held.refuse, **held.headers)
        api, plain = f"/api/datasets/{held.repo}", f"/datasets/{held.repo}"
        if path == api:
            return self.answer(
                200,
                {
                    "id": held.repo,
                    "sha": held.head,
                    "private": held.private,
                    "usedStorage": sum(map(len, held.objects.values())),
                },
            )
        if path.startswith(f"{api}/"):
            verb, _, rest = path.removeprefix(f"{api}/").partition("/")
            return getattr(self, "do_" + verb.replace("-", "_"))(
                held, rest, body, parse_qs(url.query)
            )
        if path == f"{plain}.git/info/lfs/objects/batch":
            return self.batch(held, json.loads(body))
        if path.startswith(f"{plain}/resolve/"):
            return self.resolve(held, *path.removeprefix(f"{plain}/resolve/").split("/", 1))
        return self.fail(404, "Repository not found", X_Error_Code="RepoNotFound")

    do_GET = do_POST = do_PUT = whatever

    def do_tree(self, held: Dataset, rest: str, body: bytes, query: dict) -> None:
        revision, _, folder = rest.partition("/")
        folder = f"{folder}/" if folder else ""
        found = [
            f.info(path) for path, f in sorted(held.at(revision).items()) if path.startswith(folder)
        ]
        if folder and not found:
            return self.fail(404, "Entry not found", X_Error_Code="EntryNotFound")
        assert query.get("recursive") == ["true"] or query.get("recursive") == ["True"], query
        start = int(query.get("cursor", ["0"])[0])
        again = f'<{self.server.url}{urlsplit(self.path).path}?recursive=true&cursor={start + 2}>; rel="next"'
        return self.answer(
            200, found[start : start + 2], **({"Link": again} if start + 2 < len(found) else {})
        )

    def do_paths_info(self, held: Dataset, rest: str, body: bytes, query: dict) -> None:
        wanted = parse_qs(body.decode())["paths"]
        files = held.at(rest)
        self.answer(200, [files[path].info(path) for path in wanted if path in files])

    def do_preupload(self, held: Dataset, rest: str, body: bytes, query: dict) -> None:
        files = json.loads(body)["files"]
        modes = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["size"] > LARGE else "regular",
                "shouldIgnore": False,
            }
            for f in files
        ]
        self.answer(200, {"files": modes})

    def do_commit(self, held: Dataset, rest: str, body: bytes, query: dict) -> None:
        if held.mute is not None:
            held.mute.wait()
            return self.fail(503, "too late")
        lines = [json.loads(line) for line in body.splitlines()]
        assert lines[0]["key"] == "header"
        if lines[0]["value"].get("parentCommit") != held.head:
            return self.fail(412, "A commit has happened since. Please refresh and try again.")
        files = dict(held.commits[held.head])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "file":
                data = base64.b64decode(value["content"])
                files[value["path"]] = File(data, hashlib.sha256(data).hexdigest(), len(data))
            else:
                if len(held.objects.get(value["oid"], b"")) != value["size"]:
                    return self.fail(400, "the object was not uploaded")
                oid = "0" * 64 if held.lie else value["oid"]
                files[value["path"]] = File(None, oid, value["size"])
        held.commit(files)
        return self.answer(
            200,
            {
                "commitUrl": f"{self.server.url}/c/{held.head}",
                "commitOid": held.head,
                "pullRequestUrl": None,
            },
        )

    def do_lfs_files(self, held: Dataset, rest: str, body: bytes, query: dict) -> None:
        for oid in json.loads(body)["deletions"]["sha"]:
            held.objects.pop(oid)
        self.answer(200, {})

    def batch(self, held: Dataset, asked: dict) -> None:
        assert "multipart" in asked["transfers"]
        objects = []
        for one in asked["objects"]:
            made: dict = {"oid": one["oid"], "size": one["size"]}
            if held.refuse_object:
                made["error"] = {"code": 422, "message": held.refuse_object}
            elif one["oid"] not in held.objects:
                at = f"{self.server.url}/signed/{one['oid']}"
                count = -(-one["size"] // PART)
                header = {
                    "chunk_size": str(PART),
                    **{
                        f"{n:05d}": f"{at}/{n}?signature=canary-signature"
                        for n in range(1, count + 1)
                    },
                }
                upload = {"href": f"{at}/done?signature=canary-signature", "header": header}
                made["actions"] = {"upload": upload}
            objects.append(made)
        self.answer(200, {"transfer": "multipart", "objects": objects})

    def signed(self, held: Dataset, rest: str, body: bytes) -> None:
        oid, _, part = rest.partition("/")
        if self.command == "GET":
            return self.answer(200, held.objects[oid])
        if part != "done":
            if held.expired:
                held.expired -= 1
                return self.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
            if held.cut:
                held.cut -= 1
                self.close_connection = True
                return self.connection.shutdown(2)
            held.parts.setdefault(oid, {})[int(part)] = body
            return self.answer(200, b"", ETag=f'"{part}"')
        data = b"".join(piece for _, piece in sorted(held.parts.pop(oid).items()))
        if hashlib.sha256(data).hexdigest() != oid:
            return self.fail(400, "the hash does not match")
        held.objects[oid] = data
        return self.answer(200, {})

    def resolve(self, held: Dataset, revision: str, path: str) -> None:
        file = held.at(revision).get(path)
        if file is None:
            return self.fail(404, "Entry not found", X_Error_Code="EntryNotFound")
        if file.data is not None:
            return self.answer(200, file.data)
        # As at the Hub, another host: the token must not follow.
        other = self.server.url.replace("127.0.0.1", "localhost")
        return self.answer(
            302, b"", Location=f"{other}/signed/{file.oid}?signature=canary-signature"
        )


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, held: Dataset) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.held = held
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        pass  # the other side went away: tests do that


@contextmanager
def standing_in(held: Dataset) -> Iterator[str]:
    """Serve `held` for as long as the block; gives the address."""
    with Server(held) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()
