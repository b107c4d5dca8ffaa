"""What the daemon keeps in memory, and what it never shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.e2e.kit import ROOT, TOKEN, children, until

LOOK = """
import sys
import orchestrator.main
print(*sorted({name.partition(".")[0] for name, module in sys.modules.items() if module}))
"""


def test_the_daemon_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(done.stdout.split())
    assert "orchestrator" in loaded
    assert not loaded & {"google", "apprise", "alembic", "cloudflare"}


def opened(pid: int, what: str) -> bool:
    return f"/{what}" in Path(f"/proc/{pid}/maps").read_text()


def test_cloudflare_is_there_only_where_dns_is_configured(world):
    # Its SDK is the only thing here that brings jiter or distro with it: compiled, so in the maps.
    world.serve_from("alpha", "beta")
    world.boot()
    world.serves("alpha")
    assert not any(opened(world.daemon.pid, name) for name in ("jiter", "google", "grpc"))
    world.stop()
    dns = world.cloudflare()
    world.boot()
    until(dns.records, "a record")
    assert not any(opened(world.daemon.pid, name) for name in ("google", "grpc"))


def test_no_secret_is_in_database_log_answers_arguments_or_environment(world):
    """Distinctive secrets for everything, then a look at everything that could show them."""
    world.serve_from("alpha", "beta")
    hook, dns = world.hook(), world.cloudflare()
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
