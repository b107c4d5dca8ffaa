"""A stand-in for Cloudflare's DNS API that is as strict as the real one, and serves real DNS.

Run it: `python tests/standins/cloudflare.py --port 0 --dns-port 0` prints one JSON line with its
addresses. Its faults are switched by `POST /_control`, see `Faults`; `GET /_control` shows what it
holds, its journal of writes (`at` on the machine's monotonic clock) and how often it was asked.

Where the answers come from (issue threads show them verbatim): 81053 terraform-provider-cloudflare
#1247; 81054 favonia/cloudflare-ddns #990; 81057 NewFuture/DDNS #21; 81058 with HTTP 400
jeessy2/ddns-go #1378; 81044 zanjie1999/cloudflare-api-v4-ddns #5; 9005 and 9006
timothymiller/cloudflare-ddns #230, wherelse/cloudflare-ddns-script #15; 9021, 9041 under 1004
ZE3kr/Cloudflare-CNAME-Setup #16, jordantrizz/cloudflare-cli #8; 9109 with HTTP 403 ddns-go #890;
10000 favonia #897; 6003 with 6111 favonia #1053; 7003 K0p1-Git/cloudflare-ddns-updater #61. A name
outside the zone gets the zone appended, as in NewFuture/DDNS #21. The messages "comment too long"
and "NS records with that host already exist" are documented, their numbers here are not.
"""

import argparse
import asyncio
import contextlib
import copy
import ipaddress
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from tests.standins.nameserver import NameServer  # noqa: E402

TOKEN = "cf-token-for-tests-0123456789-abcdefghij"
ADDRESS_TYPES = ("A", "AAAA", "CNAME")
PROXY = {"A": "104.16.1.1", "AAAA": "2606:4700::6810:101"}
KEYS = {
    "id",
    "name",
    "type",
    "content",
    "ttl",
    "proxied",
    "comment",
    "tags",
    "settings",
    "priority",
}
HOST = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]{0,61}")
FREE_COMMENT, FREE_BATCH = 100, 200


class Refused(Exception):
    def __init__(self, status: int, *errors: tuple[int, str]) -> None:
        super().__init__(str(errors))
        self.status, self.errors = status, errors


@dataclass
class Faults:
    """One fault at a time, for `times` requests (None: until changed), `on` read, write or any.

    throttle (retry_after), unsuccessful (HTTP 200, success false), html, error (HTTP 500), reset
    (the connection drops, nothing done), lost (done, but the answer never comes), hang (nothing
    done, no answer), slow (`seconds`, then as usual), stale (reads show what was before the last
    write).
    """

    kind: str = ""
    on: str = "any"
    times: int | None = None
    retry_after: str | None = "1"
    seconds: float = 1.0

    def take(self, writing: bool) -> str:
        if not self.kind or self.on not in ("any", "write" if writing else "read"):
            return ""
        if self.times is not None:
            if self.times <= 0:
                return ""
            self.times -= 1
        return self.kind


@dataclass
class Zone:
    id: str
    name: str
    records: dict[str, dict] = field(default_factory=dict)
    before: dict[str, dict] = field(default_factory=dict)


class CloudflareStandin:
    """`async with` it; `api` and `dns` are its addresses."""

    def __init__(self, zones=("example.org",), token: str = TOKEN, sees=None) -> None:
        self.zones = {
            f"{n:032x}": Zone(f"{n:032x}", name) for n, name in enumerate(zones, start=0xA10)
        }
        self.token = token
        self.sees = set(sees if sees is not None else zones)
        self.status = "active"
        self.faults = Faults()
        self.journal: list[dict] = []
        self.requests: list[tuple[str, str]] = []
        self._ids = 0x9000
        self.nameserver = NameServer(self._rows)

    async def start(self, port: int = 0, dns_port: int = 0) -> None:
        app = web.Application(middlewares=[self._front])
        add = app.router.add_route
        base = "/client/v4"
        add("GET", f"{base}/user/tokens/verify", self._verify)
        add("GET", f"{base}/zones", self._zones)
        add("GET", f"{base}/zones/{{zone}}/dns_records", self._list)
        add("POST", f"{base}/zones/{{zone}}/dns_records", self._post)
        add("POST", f"{base}/zones/{{zone}}/dns_records/batch", self._batch)
        add("*", f"{base}/zones/{{zone}}/dns_records/{{record}}", self._one)
        add("*", "/_control", self._control)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        await self.nameserver.start(dns_port)

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self.nameserver.stop()

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await self.stop()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/client/v4"

    @property
    def dns(self) -> str:
        return self.nameserver.address

    def zone(self, name: str = "example.org") -> Zone:
        return next(z for z in self.zones.values() if z.name == name)

    def held(self, name: str) -> list[dict]:
        return [r for z in self.zones.values() for r in z.records.values() if r["name"] == name]

    def by_hand(self, name: str, type_: str, content: str, **more) -> dict:
        """Make a record as somebody would in the dashboard."""
        zone = next(z for z in self.zones.values() if name == z.name or name.endswith("." + z.name))
        return self._create(zone, {"name": name, "type": type_, "content": content, **more})

    # ── HTTP ────────────────────────────────────────────────────────────────────────────────────

    @web.middleware
    async def _front(self, request, handler):
        if request.path == "/_control":
            return await handler(request)
        self.requests.append((request.method, request.path))
        writing = request.method != "GET"
        fault = self.faults.take(writing)
        if fault in ("throttle", "unsuccessful", "html", "error", "reset", "hang"):
            return await self._broken(request, fault)
        if fault == "slow":
            await asyncio.sleep(self.faults.seconds)
        self._stale = fault == "stale"  # the list handler reads it before it awaits
        try:
            self._authorize(request)
            result = await handler(request)
        except Refused as refused:
            response = envelope(refused.status, None, refused.errors)
        except web.HTTPException as error:
            response = envelope(error.status, None, [(7000, "No route for that URI")])
        else:
            response = result
        if fault == "lost":
            await self._broken(request, "hang")
        response.headers["Ratelimit-Policy"] = '"default";q=1200;w=300'
        left = max(0, 1200 - len(self.requests))
        response.headers["Ratelimit"] = f'"default";r={left};t=300'
        return response

    async def _broken(self, request, fault):
        if fault == "throttle":
            response = envelope(429, None, [(10429, "Too many requests")])
            if self.faults.retry_after is not None:
                response.headers["retry-after"] = self.faults.retry_after
            return response
        if fault == "unsuccessful":
            return envelope(200, None, [(1001, "Something went wrong inside")], success=False)
        if fault == "html":
            return web.Response(
                text="<html><h1>Just a moment...</h1></html>", content_type="text/html"
            )
        if fault == "error":
            return envelope(500, None, [(10001, "Internal server error")])
        if fault == "hang":
            await asyncio.sleep(3600)
        request.transport.abort()
        return web.Response()

    def _authorize(self, request) -> None:
        header = request.headers.get("Authorization", "")
        if not header:
            raise Refused(400, (9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers"))
        if not re.fullmatch(r"Bearer [\x21-\x7e]{20,}", header):
            raise Refused(400, (6003, "Invalid request headers"))
        if header != f"Bearer {self.token}" or self.status == "expired":
            if "/user/tokens" in request.path:
                raise Refused(401, (1000, "Invalid API Token"))
            if "/dns_records" in request.path:
                raise Refused(403, (10000, "Authentication error"))
            raise Refused(403, (9109, "Invalid access token"))

    async def _verify(self, request):
        return envelope(200, {"id": "f" * 32, "status": self.status})

    async def _zones(self, request):
        name = request.query.get("name")
        zones = [
            {"id": z.id, "name": z.name, "status": "active"}
            for z in self.zones.values()
            if z.name in self.sees and name in (None, z.name)
        ]
        return paged(request, zones, largest=50)

    def _zone(self, request) -> Zone:
        id_ = request.match_info["zone"]
        if not re.fullmatch("[0-9a-f]{32}", id_):
            what = f"Could not route to {request.path}, perhaps your object identifier is invalid?"
            raise Refused(404, (7003, what))
        zone = self.zones.get(id_)
        if zone is None or zone.name not in self.sees:
            raise Refused(403, (10000, "Authentication error"))
        return zone

    async def _list(self, request):
        zone = self._zone(request)
        unknown = set(request.query) - {"name.exact", "name", "type", "page", "per_page", "match"}
        if unknown:
            raise Refused(400, (9207, f"unknown filters {sorted(unknown)}"))
        records = zone.before if self._stale else zone.records
        name = request.query.get("name.exact", request.query.get("name"))
        rows = [
            r
            for r in records.values()
            if name in (None, r["name"]) and request.query.get("type") in (None, r["type"])
        ]
        return paged(request, rows, largest=5_000_000)

    async def _post(self, request):
        zone = self._zone(request)
        body = await body_of(request)
        with self._transaction(zone, request.path) as held:
            return envelope(200, self._create(zone, body, held))

    async def _one(self, request):
        zone, id_ = self._zone(request), request.match_info["record"]
        if request.method == "GET":
            return envelope(200, existing(zone.records, id_))
        body = None if request.method == "DELETE" else await body_of(request)
        with self._transaction(zone, request.path) as held:
            if request.method == "DELETE":
                existing(held, id_)
                del held[id_]
                return envelope(200, {"id": id_})
            if request.method not in ("PATCH", "PUT"):
                raise Refused(405, (10405, "Method not allowed"))
            return envelope(200, self._edit(zone, held, id_, body, request.method == "PUT"))

    async def _batch(self, request):
        zone = self._zone(request)
        body = await body_of(request)
        if set(body) - {"deletes", "patches", "puts", "posts"}:
            raise Refused(400, (9207, "Request body is invalid."))
        if sum(len(v) for v in body.values()) > FREE_BATCH:
            raise Refused(400, (9207, "too many changes in one batch"))
        done = {"deletes": [], "patches": [], "puts": [], "posts": []}
        with self._transaction(zone, request.path) as held:
            for item in body.get("deletes", ()):
                done["deletes"].append(existing(held, item["id"]))
                del held[item["id"]]
            for kind in ("patches", "puts"):
                for item in body.get(kind, ()):
                    edited = self._edit(zone, held, item.get("id"), item, kind == "puts")
                    done[kind].append(edited)
            done["posts"] = [self._create(zone, item, held) for item in body.get("posts", ())]
        return envelope(200, done)

    async def _control(self, request):
        if request.method == "POST":
            wish = await request.json()
            if "fault" in wish:
                self.faults = Faults(**wish["fault"])
            for row in wish.get("by_hand", ()):
                self.by_hand(row.pop("name"), row.pop("type"), row.pop("content"), **row)
            for id_ in wish.get("delete", ()):
                for zone in self.zones.values():
                    zone.records.pop(id_, None)
        held = [r for z in self.zones.values() for r in z.records.values()]
        return web.json_response(
            {"records": held, "journal": self.journal, "requests": len(self.requests)}
        )

    # ── what it holds ───────────────────────────────────────────────────────────────────────────

    def _transaction(self, zone: Zone, path: str):
        return Transaction(self, zone, path)

    def _create(self, zone: Zone, body: dict, held: dict | None = None) -> dict:
        held = zone.records if held is None else held
        if body.get("id"):
            raise Refused(400, (9207, "Request body is invalid."))
        self._ids += 1
        record = {"id": f"{self._ids:032x}", **checked(zone, body)}
        fits(held, record)
        held[record["id"]] = record
        return record

    def _edit(self, zone: Zone, held: dict, id_: str, body: dict, whole: bool) -> dict:
        old = existing(held, id_)
        merged = body if whole else {**old, **body}
        if merged.get("type") != old["type"]:
            raise Refused(400, (1004, "DNS Validation Error: the type cannot be edited"))
        record = {"id": id_, **checked(zone, {k: v for k, v in merged.items() if k in KEYS})}
        if set(body) - KEYS:
            raise Refused(400, (9207, "Request body is invalid."))
        fits({k: v for k, v in held.items() if k != id_}, record)
        held[id_] = record
        return record

    def _rows(self, name: str):
        rows = self.held(name)
        if not rows:
            return None
        out = []
        for r in rows:
            ttl = 300 if r["ttl"] == 1 else r["ttl"]
            if r["proxied"]:  # the world sees Cloudflare's addresses, never the content
                out += [(kind, address, 300) for kind, address in PROXY.items()]
            else:
                out.append((r["type"], r["content"], ttl))
        return list(dict.fromkeys(out))


class Transaction:
    """All of it or nothing, and a line in the journal."""

    def __init__(self, standin: CloudflareStandin, zone: Zone, path: str) -> None:
        self.standin, self.zone, self.path = standin, zone, path

    def __enter__(self) -> dict:
        self.held = copy.deepcopy(self.zone.records)
        return self.held

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self.zone.before, self.zone.records = self.zone.records, self.held
            at = asyncio.get_running_loop().time()
            rows = [
                [r["name"], r["type"], r["content"], r["comment"]]
                for r in self.held.values()
                if r["type"] in ADDRESS_TYPES
            ]
            self.standin.journal.append({"at": at, "path": self.path, "after": rows})


def envelope(status: int, result, errors=(), *, success: bool | None = None, info=None):
    body = {
        "success": status < 300 if success is None else success,
        "errors": [{"code": code, "message": text} for code, text in errors],
        "messages": [],
        "result": result,
    }
    if info:
        body["result_info"] = info
    return web.json_response(body, status=status)


def paged(request, rows: list, *, largest: int):
    try:
        page = int(float(request.query.get("page", "1")))
        size = int(float(request.query.get("per_page", "20" if largest == 50 else "100")))
    except ValueError:
        raise Refused(400, (9207, "page must be a number")) from None
    if page < 1 or not 5 <= size <= largest:
        raise Refused(400, (9207, f"per_page must be between 5 and {largest}"))
    part = rows[(page - 1) * size : page * size]
    info = {
        "page": page,
        "per_page": size,
        "count": len(part),
        "total_count": len(rows),
        "total_pages": -(-len(rows) // size),
    }
    return envelope(200, part, info=info)


async def body_of(request) -> dict:
    text = "Failed to parse request body, content-type must be application/json"
    if request.content_type != "application/json":
        raise Refused(400, (9207, text))
    try:
        body = await request.json()
    except json.JSONDecodeError:
        raise Refused(400, (9207, text)) from None
    if not isinstance(body, dict):
        raise Refused(400, (9207, text))
    return body


def existing(held: dict, id_) -> dict:
    if id_ not in held:
        raise Refused(404, (81044, "Record does not exist."))
    return held[id_]


def checked(zone: Zone, body: dict) -> dict:
    """A record as Cloudflare would keep it, or `Refused`."""
    if set(body) - KEYS:
        raise Refused(400, (9207, "Request body is invalid."))
    name, type_ = str(body.get("name", "")).rstrip(".").lower(), body.get("type")
    content, ttl = str(body.get("content", "")), body.get("ttl", 1)
    proxied, comment = body.get("proxied", False), body.get("comment") or ""
    if name != zone.name and not name.endswith("." + zone.name):
        name = f"{name}.{zone.name}"
    if type_ not in ("A", "AAAA", "CNAME", "MX", "TXT", "NS"):
        raise Refused(400, (9004, "Invalid or missing type"))
    problem = bad_content(type_, content)
    if problem:
        raise Refused(400, problem)
    if not isinstance(ttl, int | float) or (ttl != 1 and not 60 <= ttl <= 86400):
        raise Refused(400, (9021, "Invalid TTL. Must be between 60 and 86400 seconds, or 1."))
    if proxied and (type_ not in ADDRESS_TYPES or private(type_, content)):
        raise Refused(400, (9041, "Invalid proxied mode. Record cannot be proxied"))
    if len(comment) > FREE_COMMENT or "\n" in comment or "\r" in comment:
        raise Refused(400, (9300, "DNS record comment exceeds the maximum allowed length"))
    if body.get("tags"):
        raise Refused(400, (9301, "DNS record has more tags than the quota allows"))
    return {
        "name": name,
        "type": type_,
        "content": content.rstrip(".") if type_ == "CNAME" else content,
        "ttl": 1 if proxied else int(ttl),
        "proxied": bool(proxied),
        "proxiable": type_ in ADDRESS_TYPES,
        "comment": comment or None,
        "tags": [],
    }


def bad_content(type_: str, content: str):
    try:
        if type_ == "A":
            ipaddress.IPv4Address(content)
        if type_ == "AAAA":
            ipaddress.IPv6Address(content)
    except ValueError:
        if type_ == "A":
            return (9005, "Content for A record must be a valid IPv4 address.")
        return (9006, "Content for AAAA record must be a valid IPv6 address.")
    if type_ == "CNAME" and not HOST.fullmatch(content.rstrip(".").lower()):
        return (9007, "Content for CNAME record is invalid.")
    return None


def private(type_: str, content: str) -> bool:
    documentation = ("192.0.2.", "198.51.100.", "203.0.113.", "2001:db8:")
    if type_ == "CNAME" or content.startswith(documentation):
        return False
    return not ipaddress.ip_address(content).is_global


def fits(held: dict, record: dict) -> None:
    """What cannot stand together at one name."""
    beside = [r for r in held.values() if r["name"] == record["name"]]
    kinds = {r["type"] for r in beside}
    if record["type"] not in ADDRESS_TYPES:
        return
    if any((r["type"], r["content"]) == (record["type"], record["content"]) for r in beside):
        raise Refused(400, (81058, "An identical record already exists."))
    if "NS" in kinds:
        raise Refused(400, (81056, "NS records with that host already exist."))
    if record["type"] == "CNAME" and kinds & set(ADDRESS_TYPES):
        text = "An A, AAAA, or CNAME record with that host already exists."
        raise Refused(400, (81053, text))
    if "CNAME" in kinds:
        raise Refused(400, (81054, "A CNAME record with that host already exists."))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dns-port", type=int, default=0)
    parser.add_argument("--zone", action="append")
    parser.add_argument("--token", default=TOKEN)
    args = parser.parse_args()
    standin = CloudflareStandin(args.zone or ("example.org",), args.token)
    await standin.start(args.port, args.dns_port)
    ports = {"api": standin.api, "port": standin.port, "dns": standin.dns, "token": args.token}
    print(json.dumps({**ports, "dns_port": standin.nameserver.port}), flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await standin.stop()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
