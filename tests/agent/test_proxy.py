"""The proxy: who comes in, what goes through, and what it answers itself."""

import hashlib
import json
import socket
import threading
import time  # noqa: TID251

import httpx
import pytest

from tests.agent.aion import proof
from tests.agent.kit import World, until

COMPLETE = "/v1/chat/completions"


def lives(folder, access, **options):
    """An agent that serves, its address and its engine's, for all tests here."""
    with World(folder) as world:
        world.aion.access = access
        engine = world.engine()
        agent = world.agent(engine_url=engine, **options)
        world.ready()
        agent.engine, agent.world = engine, world
        yield agent
        assert world.aion.wrong == []


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    front = "https://front.example.org"
    yield from lives(tmp_path_factory.mktemp("served"), "gateway", max_body_mb="1", origins=front)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    yield from lives(tmp_path_factory.mktemp("opened"), "open", paths="/predict,/mine")


def seen(agent):
    return httpx.get(agent.engine + "/seen").json()


def raw(agent, text, wait_s=5.0):
    """Send bytes as they are; returns the first line of the answer."""
    host, _, port = agent.url.partition("//")[2].partition(":")
    with socket.create_connection((host, int(port)), timeout=wait_s) as one:
        one.sendall(text.replace("\n", "\r\n").encode())
        return one.recv(65536).decode(errors="replace").partition("\r\n")[0]


def statuses(agent, path=COMPLETE, key="", method="POST"):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.request(method, agent.url + path, headers=headers, json={}).status_code


# ── the door ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("access", "nobody", "client", "stranger"),
    [("gateway", 401, 401, 401), ("clients", 401, 200, 401), ("open", 200, 200, 200)],
)
def test_the_door_lets_in_whom_the_daemon_says(world, access, nobody, client, stranger):
    world.aion.access = access
    keys = (b"another-client", b"client-key-1")
    world.aion.clients = [hashlib.sha256(key).hexdigest() for key in keys]
    agent = world.agent(engine_url=world.engine())
    world.ready()
    assert statuses(agent, key=world.key()) == 200
    assert statuses(agent) == nobody
    assert statuses(agent, key="client-key-1") == client
    assert statuses(agent, key="another") == stranger


def test_client_keys_come_and_go_with_heartbeats(world):
    world.aion.access = "clients"
    agent = world.agent(engine_url=world.engine())
    world.ready()
    assert statuses(agent, key="new-key") == 401
    world.aion.clients = [hashlib.sha256(b"new-key").hexdigest()]
    until(lambda: statuses(agent, key="new-key") == 200, "the new key is let in")
    world.aion.clients = []
    until(lambda: statuses(agent, key="new-key") == 401, "the key is not let in any more")


def test_a_door_that_was_opened_to_all_is_shut_while_the_session_goes_on(world):
    world.aion.access = "open"
    agent = world.agent(engine_url=world.engine())
    world.ready()
    assert statuses(agent) == 200
    world.aion.access = "gateway"
    until(lambda: statuses(agent) == 401, "nobody is let in any more")
    assert statuses(agent, key=world.key()) == 200
    assert len(world.aion.registrations) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/api/delete",
        "/api/pull",
        "/v1/load_lora_adapter",
        "/v1/internal/model/load",
        "/metrics",
        "/slots",
        "/adapter/merge",
        "/v1/models/../../api/delete",
        "/v1/models/%2e%2e/%2e%2e/api/delete",
        "/v1/models%2f..%2f..%2fapi/delete",
        "/v1/models/..%5c..%5capi",
        "//api/delete",
        "/v1//load_lora_adapter",
    ],
)
def test_clients_cannot_ask_for_what_is_the_daemons(opened, path):
    head = f"POST {path} HTTP/1.1\nHost: x\nContent-Length: 0\n\n"
    assert raw(opened, head).split()[1] == "403"
    key = opened.world.key()
    assert statuses(opened, "/api/delete", key=key, method="DELETE") == 200


def test_more_paths_can_be_opened(opened):
    assert (statuses(opened, "/predict/x"), statuses(opened, "/yours")) == (200, 403)


# ── identity and health ─────────────────────────────────────────────────────────────────────────


def test_the_identity_challenge_is_answered_and_tied_to_session_and_host(served):
    assert served.world.proves(served.url)
    ident, token = served.world.aion.session
    nonce = "ab" * 16
    said = httpx.get(f"{served.url}/.aion/identity", params={"nonce": nonce}).json()
    host = served.url.partition("//")[2]
    assert said == {"version": 1, "session": ident, "proof": proof(token, nonce, ident, host)}
    assert said["proof"] != proof(token, nonce, ident, "elsewhere.example.org")


@pytest.mark.parametrize("nonce", ["", "xyz", "ab", "g" * 32, "a" * 200, "../../etc"])
def test_only_a_nonce_is_answered(served, nonce):
    reply = httpx.get(f"{served.url}/.aion/identity", params={"nonce": nonce})
    assert reply.status_code == 400


def test_before_it_is_registered_nobody_is_served_and_nothing_proven(world):
    world.aion.away()
    agent = world.agent(engine_url=world.engine())
    health = until(lambda: httpx.get(agent.url + "/.aion/health").json(), "it listens")
    assert set(health) == {"state", "engine_ready", "tunnel_ready", "busy", "version"}
    assert httpx.get(agent.url + "/.aion/identity?nonce=" + "ab" * 16).status_code == 503
    reply = httpx.post(agent.url + COMPLETE, json={})
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")


def test_the_takeover_path_wants_its_own_secret(served):
    for headers in ({}, served.world.auth(), {"Authorization": "Bearer x"}):
        assert httpx.post(served.url + "/.aion/takeover", headers=headers).status_code == 401
    assert httpx.get(served.url + "/.aion/else", headers=served.world.auth()).status_code == 404
    assert served.child.poll() is None


# ── headers ─────────────────────────────────────────────────────────────────────────────────────


def test_the_engine_sees_no_key_no_cookie_and_nothing_of_the_connection(served):
    headers = {
        **served.world.auth(),
        "Cookie": "session=1",
        "X-Api-Key": "k",
        "Connection": "close, X-Mine",
        "X-Mine": "1",
        "Keep-Alive": "5",
        "TE": "trailers",
        "Origin": "https://front.example.org",
        "Cf-Connecting-Ip": "192.0.2.1",
        "X-Forwarded-For": "192.0.2.1",
        "X-Passing": "yes",
    }
    body = b'{"a": 1}'
    reply = httpx.post(served.url + COMPLETE + "?a=%2F&b=ü", headers=headers, content=body)
    assert reply.json()["length"] == len(body)
    last = seen(served)[-1]
    names = {name.lower(): value for name, value in last["headers"]}
    assert names["x-passing"] == "yes"
    assert names["content-length"] == str(len(body))
    assert names["host"] == served.engine.partition("//")[2]
    gone = {"authorization", "cookie", "x-api-key", "x-mine", "keep-alive", "te", "origin"}
    assert not names.keys() & (gone | {"cf-connecting-ip", "x-forwarded-for", "transfer-encoding"})
    assert last["path"] == COMPLETE + "?a=%2F&b=%C3%BC"


def test_the_engines_own_key_is_added(world):
    engine = world.engine()
    agent = world.agent(engine_url=engine, env={"AION_ENGINE_KEY": "engine-key-canary-1"})
    world.ready()
    assert statuses(agent, key=world.key()) == 200
    last = httpx.get(engine + "/seen").json()[-1]
    assert ["Authorization", "Bearer engine-key-canary-1"] in last["headers"]
    assert "engine-key-canary" not in agent.said()


def test_the_engines_cookies_and_its_own_cors_stay_behind(served):
    reply = httpx.post(served.url + COMPLETE, headers=served.world.auth(), json={})
    assert "set-cookie" not in reply.headers
    assert reply.headers["access-control-allow-origin"] == "https://front.example.org"
    assert reply.headers["server"].startswith("aion-agent/")


def test_browsers_are_told_what_they_may(served):
    asked = {
        "Origin": "https://front.example.org",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, x-mine",
    }
    reply = httpx.options(served.url + COMPLETE, headers=asked)
    assert reply.status_code == 204
    assert reply.headers["access-control-allow-origin"] == "https://front.example.org"
    assert reply.headers["access-control-allow-headers"] == "authorization, x-mine"
    assert "POST" in reply.headers["access-control-allow-methods"]
    refused = httpx.post(served.url + COMPLETE, json={})
    assert refused.headers["access-control-allow-origin"] == "https://front.example.org"


# ── what is refused ─────────────────────────────────────────────────────────────────────────────

HEAD = f"POST {COMPLETE} HTTP/1.1\nHost: x\n"


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "Content-Length: 4\nTransfer-Encoding: chunked\n\n0\n\n",
        HEAD + "Transfer-Encoding: chunked\nContent-Length: 4\n\n0\n\n",
        HEAD + "Content-Length: 4\nContent-Length: 5\n\nabcde",
        HEAD + "Transfer-Encoding: chunked, identity\n\n0\n\n",
        HEAD + "Content-Length: -1\n\n",
        HEAD + "Content-Length: 1 \n X: y\n\n",
        "GET http://169.254.169.254/latest HTTP/1.1\nHost: x\n\n",
        "BREW / HTTP/1.1\nHost: x\n\n",
    ],
)
def test_what_is_malformed_never_reaches_the_engine(served, text):
    before = len(seen(served))
    status = raw(served, text).split()[1:2]
    assert status and status[0] in {"400", "405"}
    assert len(seen(served)) == before


def test_a_body_over_the_limit_is_refused_with_and_without_a_length(served):
    big = b"x" * 1_500_000
    reply = httpx.post(served.url + COMPLETE, content=big, headers=served.world.auth())
    assert reply.status_code == 413

    def pieces():
        for _ in range(15):
            yield b"x" * 100_000

    try:
        status = httpx.post(
            served.url + COMPLETE, content=pieces(), headers=served.world.auth()
        ).status_code
    except httpx.WriteError:  # it hung up while we were still sending
        status = 413
    assert status == 413
    assert (
        httpx.post(
            served.url + COMPLETE, content=b"x" * 900_000, headers=served.world.auth()
        ).json()["length"]
        == 900_000
    )


def test_too_many_at_once_are_told_to_come_back(world):
    agent = world.agent(engine_url=world.engine(), max_streams="2")
    world.ready()
    slow = {"tokens": 20, "every_s": 0.1}
    threads = [
        threading.Thread(
            target=httpx.post,
            args=(agent.url + COMPLETE,),
            kwargs={"json": slow, "headers": world.auth()},
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    until(lambda: httpx.get(agent.url + "/.aion/health").json()["busy"] == 2, "both are open")
    reply = httpx.post(agent.url + COMPLETE, json={}, headers=world.auth())
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
    until(lambda: world.aion.now()["busy"] == 2, "the daemon hears of it")
    for thread in threads:
        thread.join()


def test_expect_100_continue_is_answered_before_the_body(served):
    host, _, port = served.url.partition("//")[2].partition(":")
    head = f"POST {COMPLETE} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as one:
        one.sendall(f"{head}Authorization: Bearer {served.world.key()}\r\n\r\n".encode())
        assert one.recv(100).startswith(b"HTTP/1.1 100")
        one.sendall(b"{}")
        assert one.recv(4096).startswith(b"HTTP/1.1 200")


# ── streams ─────────────────────────────────────────────────────────────────────────────────────


def test_each_piece_of_an_answer_comes_when_it_is_there(served):
    late = []
    asked = {"tokens": 20, "every_s": 0.05}
    with httpx.stream(
        "POST", served.url + COMPLETE, json=asked, headers=served.world.auth()
    ) as reply:
        assert reply.headers["content-type"] == "text/event-stream"
        late.extend(
            time.time() - json.loads(line[6:])["at"]
            for line in reply.iter_lines()
            if line.startswith("data: {")
        )
    assert len(late) == 20
    # Had they been held back, the first would have come a second late.
    assert sorted(late)[10] < 0.1


def test_a_request_body_goes_through_as_it_comes(served):
    host, _, port = served.url.partition("//")[2].partition(":")
    head = "POST /v1/audio/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as one:
        one.sendall(
            f"{head}Authorization: Bearer {served.world.key()}\r\n\r\n5\r\nfirst\r\n".encode()
        )
        found = b""
        while b"first" not in found:
            found += one.recv(4096)
        one.sendall(b"6\r\nsecond\r\n0\r\n\r\n")
        while not found.endswith(b"0\r\n\r\n"):
            found += one.recv(4096)
    assert b"6\r\nsecond" in found


def test_half_an_answer_does_not_look_like_a_whole_one(world):
    agent = world.agent(engine_url=world.engine())
    world.ready()
    asked = {"tokens": 20, "every_s": 0.01, "dies_at": 5}
    with (
        pytest.raises(httpx.TransportError),
        httpx.stream("POST", agent.url + COMPLETE, json=asked, headers=world.auth()) as reply,
    ):
        list(reply.iter_lines())


def test_an_engine_that_is_not_there_is_a_503_in_openais_form(world):
    agent = world.agent(engine_url="http://127.0.0.1:9")
    until(lambda: world.aion.now().get("engine_ready") is False, "a heartbeat")
    reply = httpx.post(agent.url + COMPLETE, json={}, headers=world.auth())
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
    assert reply.json()["error"]["type"] == "server_error"


def test_an_answer_that_nobody_wants_any_more_is_not_counted_as_open(served):
    asked = {"tokens": 2, "every_s": 50}  # silent, so no write can fail
    with httpx.stream(
        "POST", served.url + COMPLETE, json=asked, headers=served.world.auth()
    ) as reply:
        lines = reply.iter_lines()
        next(lines)
        assert httpx.get(served.url + "/.aion/health").json()["busy"] == 1
    until(lambda: httpx.get(served.url + "/.aion/health").json()["busy"] == 0, "it is closed", 20)


@pytest.mark.parametrize("method", ["HEAD", "GET", "DELETE", "PUT"])
def test_other_methods_go_through(served, method):
    assert statuses(served, "/v1/models/m", key=served.world.key(), method=method) == 200
