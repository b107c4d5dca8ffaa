"""The kind `libcloud` with drivers other than EC2's: the real ones, against servers that answer here.

What DigitalOcean and Linode answer is as their API references have it, cut down to what is needed;
Google's states are those of `NODE_STATE_MAP` of its driver.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from libcloud.compute.drivers.gce import GCENodeDriver

from backends import libcloud_child

LABEL = "aion-home-lab-7"


class Server:
    """Answers by method and path; `state` is that of its one machine."""

    def __init__(self, answer) -> None:
        self.asked: list[str] = []
        self.state = "off"
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                given = json.loads(self.rfile.read(size) or b"{}")
                server.asked.append(f"{self.command} {self.path.partition('?')[0]}")
                path = self.path.partition("?")[0]
                status, said = answer(server, self.command, path, given)
                body = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _any

            def log_message(self, *_) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self.port = self._http.server_address[1]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def given(provider, account, **more):
    return {
        "ask": "status",
        "label": "",
        "provider": provider,
        "node": "gpu-1",
        "region": None,
        "account": account,
        "arguments": {},
        "tag": True,
        "host": "127.0.0.1",
        "port": 9,
        "secure": False,
        **more,
    }


def droplet(server, method, path, wish):
    if path.startswith("/v2/droplets/7/actions"):
        server.state = {"power_on": "active", "shutdown": "off"}[wish["type"]]
        return 201, {"action": {"id": 1, "status": "in-progress"}}
    ways = [{"type": "public", "ip_address": "203.0.113.7"}]
    one = {
        "id": 7,
        "name": "gpu-1",
        "status": server.state,
        "created_at": "2026-11-01T00:00:00Z",
        "networks": {"v4": ways},
    }
    return 200, {"droplets": [one], "meta": {"total": 1}}


def instance(server, method, path, wish):
    if path.startswith("/v4/linode/instances/7/"):
        server.state = {"boot": "booting", "shutdown": "shutting_down"}[path.rpartition("/")[2]]
        return 200, {}
    one = {
        "id": 7,
        "label": "gpu-1",
        "status": {"off": "offline"}.get(server.state, server.state),
        "created": "2026-11-01T00:00:00",
        "updated": "2026-11-01T00:00:00",
        "ipv4": ["203.0.113.7"],
        "ipv6": "2001:db8::7/128",
        "image": None,
        "type": "g1-gpu-rtx6000-1",
        "region": "us-east",
        "group": "",
        "tags": [],
        "hypervisor": "kvm",
        "alerts": {},
        "backups": {},
        "specs": {"disk": 1, "memory": 1, "vcpus": 1, "transfer": 1},
        "watchdog_enabled": True,
    }
    return 200, {"data": [one], "page": 1, "pages": 1, "results": 1}


@pytest.mark.parametrize(
    ("provider", "answer", "on"),
    [("digitalocean", droplet, "on"), ("linode", instance, "starting")],
)
def test_a_machine_elsewhere_is_started_and_stopped_by_its_own_driver(provider, answer, on):
    with Server(answer) as there:
        asks = given(provider, "t0ken", port=there.port)
        assert libcloud_child.main(asks)["phase"] == "off"
        begun = libcloud_child.main({**asks, "ask": "start", "label": LABEL})
        assert begun == {"phase": "starting", "snag": "", "launch": ""}, "it has no tags"
        seen = libcloud_child.main(asks)
        assert (seen["phase"], seen["public"]) == (on, "203.0.113.7")
        asked = len(there.asked)
        again = libcloud_child.main({**asks, "ask": "start", "label": LABEL})
        assert (again["phase"], again["snag"]) == (on, ""), "what runs is what was started"
        assert not [one for one in there.asked[asked:] if one.startswith("POST")]
        ended = libcloud_child.main({**asks, "ask": "stop", "label": LABEL})
        assert (ended["phase"], ended["snag"]) == ("stopping", "")
        assert libcloud_child.main(asks)["phase"] in ("off", "stopping")


@pytest.mark.parametrize("provider", ["scaleway", "upcloud"])
def test_a_provider_whose_driver_cannot_start_machines_is_said_at_the_first_question(provider):
    account = {
        "scaleway": {"key": "k", "secret": "s"},
        "upcloud": {"username": "u", "password": "p"},
    }
    asks = given(provider, json.dumps(account[provider]), host=None, port=None, secure=True)
    for ask in ("status", "start", "stop"):
        said = libcloud_child.main({**asks, "ask": ask})
        assert said["snag"] == "denied"
        assert "cannot start machines of" in said["detail"]
        assert "`command`" in said["detail"]


def test_drivers_with_methods_of_other_names_are_not_taken_for_unable():
    account = '{"key": "k", "secret": "s"}'
    said = libcloud_child.main(given("exoscale", account))
    assert said == {
        "snag": "transient",
        "detail": "127.0.0.1:9 cannot be reached: connection refused",
    }


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("PROVISIONING", "starting"),
        ("STAGING", "starting"),
        ("RUNNING", "on"),
        ("STOPPING", "stopping"),
        ("SUSPENDING", "stopping"),
        ("TERMINATED", "off"),
        ("SUSPENDED", "off"),
    ],
)
def test_a_machine_at_google_that_is_off_is_there_all_the_same(status, phase):
    state = GCENodeDriver.NODE_STATE_MAP.get(status, "unknown")
    node = SimpleNamespace(
        id="1", name="gpu-1", state=state, extra={"status": status}, public_ips=[], private_ips=[]
    )
    found = libcloud_child._node(SimpleNamespace(list_nodes=lambda: [node]), "gpu-1")
    assert found is node
    assert libcloud_child._seen(node, tags=False)["phase"] == phase


@pytest.mark.parametrize(
    ("provider", "account", "words"),
    [
        ("ec2", "AKIA0123", "`account` has no secret: write it as"),
        ("ec2", '{"key": "AKIA0123"}', "`account` has no secret: write it as"),
        ("ec2", '{"key": "AKIA0123", "secret": ""}', "`account` has no secret"),
        ("ec2", '{"key": null, "secret": "s"}', "`account` has no key"),
        ("ec2", "", "`account` has no key"),
        ("ec2", "{}", "`account` has no key"),
        ("azure_arm", "k", "`account` has no secret"),
        ("linode", '{"token": "t"}', "missing 1 required positional argument: 'key'"),
        ("digital_ocean", "t", "knows no provider `digital_ocean`; did you mean `digitalocean`?"),
        ("hetzner", "t", "knows no provider `hetzner`"),
    ],
)
def test_what_is_wrong_with_an_account_is_one_line_that_says_what(provider, account, words):
    said = libcloud_child.main(given(provider, account))
    assert said["snag"] == "denied"
    assert words in said["detail"]


def test_a_provider_that_cannot_be_reached_is_one_line_without_the_signed_request():
    said = libcloud_child.main(given("ec2", '{"key": "AKIA0123", "secret": "s3cret"}'))
    assert said == {
        "snag": "transient",
        "detail": "127.0.0.1:9 cannot be reached: connection refused",
    }
