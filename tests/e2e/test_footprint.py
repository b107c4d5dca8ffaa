"""What the daemon keeps in memory, and what it never shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.e2e.kit import ROOT, TOKEN, children, until

LOOK = """
import sys
import orchestrator.main
from orchestrator.edge.dns import open_provider
from orchestrator.edge.dns.base import DnsSettings
from orchestrator.core.specs import Drift

def loaded():
    print(*sorted({name.partition(".")[0] for name, module in sys.modules.items() if module}))

loaded()
for provider in sys.argv[1:]:
    open_provider(DnsSettings("chat", provider, "example.org", "ai.example.org", "token",
                              "http://127.0.0.1:9", True, 1, Drift.RESPECT, username="me"))
    loaded()
"""


def test_the_daemon_imports_nothing_heavy_and_cloudflare_only_where_dns_is_configured():
    words = [sys.executable, "-c", LOOK, "dyndns2", "cloudflare"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    bare, dyndns, cloudflare = (set(line.split()) for line in done.stdout.splitlines())
    assert "orchestrator" in bare
    heavy = {"google", "apprise", "alembic"}
    assert not bare & (heavy | {"cloudflare"})
    assert not dyndns & (heavy | {"cloudflare"})
    assert not cloudflare & heavy
    assert "cloudflare" in cloudflare


def test_a_running_daemon_never_held_what_its_children_need(world):
    world.serve_from("alpha")
    hook, dns = world.hook(), world.cloudflare()
    world.boot()
    until(lambda: hook.bodies, "a notice is sent, by a child")
    until(dns.records, "a record")
    maps = Path(f"/proc/{world.daemon.pid}/maps").read_text()
    assert "uvloop" in maps
    # apprise is the only one here that brings ctypes with it; the others have libraries of theirs.
    assert [name for name in ("_ctypes", "/google/", "grpc") if name in maps] == []


def give_secrets(world, hook) -> None:
    """Configure something for every credential there is, with a secret of its own."""
    world.credentials |= {
        "hook": f"json://canary-user:canary-hook-3141592653@127.0.0.1:{hook.port}/hook",
        "ping": f"http://127.0.0.1:{hook.port}/canary-ping-2718281828",
        "groq": "canary-groq-key-1618033988749894",
        "engine": "canary-engine-key-1414213562373095",
        "telegram": "987654321:canary-telegram-1732050807568877",
    }
    world.tables["alerts"]["telegram"] = {
        "chat": 123456789,
        "token": {"credential": "telegram"},
        "api": f"http://127.0.0.1:{hook.port}",
    }
    world.tables["deadman"] = {"ping_url": {"credential": "ping"}, "every": "1s"}
    world.tables["backends.alpha"]["key"] = {"credential": "engine"}
    world.tables["backends.groq"] = {
        "kind": "api",
        "base_url": f"http://127.0.0.1:{world.backends['beta'][1]}/v1",
        "key": {"credential": "groq"},
        "models": ["demo-model"],
        "health": {"interval": "1s"},
    }


def test_no_secret_is_in_database_log_answers_arguments_or_environment(world):
    """Distinctive secrets for everything, then a look at everything that could show them."""
    world.serve_from("alpha", "beta")
    hook, dns = world.hook(), world.cloudflare()
    give_secrets(world, hook)
    secrets = [TOKEN, dns.token, "canary-hook", "canary-ping", "canary-groq", "canary-engine"]
    secrets.append("canary-telegram")
    world.boot()
    world.serves("alpha")
    world.all_up_but("groq")
    seen = [shown(world.daemon.pid)]
    world.stop_backend("alpha")
    world.serves("beta")
    hook.failing = True
    dns.tell(fault={"kind": "html"})
    assert world.post("services/chat/failover", {"to": "beta"}).status_code == 200

    def told() -> bool:
        for pid in children(world.daemon.pid):
            seen.append(shown(pid))
        return hook.asked >= 2 and len(seen) > 2

    until(told, "alerts were tried, in a child", 40, every_s=0.05)
    paths = ("status", "backends", "backends/groq", "services", "incidents", "events", "jobs")
    seen += [world.http.get(f"/api/{path}", headers=world._bearer).text for path in paths]
    seen += [world.http.get(path).text for path in ("/discovery", "/status", "/healthz")]
    seen += [world.http.get("/metrics", headers=world._bearer).text]
    for words in (["config", "show"], ["status", "--json"], ["doctor"], ["events"]):
        done = world.aion(*words)
        seen += [done.stdout, done.stderr]
    for wrong in ("[[[", world.config.read_text().replace("kind", "kid")):
        world.config.write_text(wrong)
        seen.append(world.post("reload").text)
    assert world.stop()[0] == 0
    seen.append(world.log())
    seen += [path.read_bytes().decode("latin-1") for path in world.state.iterdir()]
    whole = "\n".join(seen)
    assert "alpha" in whole
    assert [secret for secret in secrets if secret in whole] == []


def shown(pid: int) -> str:
    """What anyone on the machine sees of a process."""
    try:
        here = Path(f"/proc/{pid}")
        return "\n".join((here / name).read_text("latin-1") for name in ("cmdline", "environ"))
    except OSError:
        return ""
