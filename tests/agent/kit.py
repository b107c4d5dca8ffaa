"""The agent as a child process, with a real engine, a strict daemon and its tunnels' programs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time  # noqa: TID251 - deadlines for real processes
from pathlib import Path

import httpx

from backends.agent.bundle import source
from tests.agent.aion import TOKEN, Aion, gateway_key, proof
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"
QUICK = {
    "engine-check": "200ms",
    "tunnel-check": "300ms",
    "tunnel-patience": "1s",
    "hang": "1s",
    "linger": "300ms",
    "drain": "10s",
    "retry-most": "300ms",
    "doh": "",
}


def until(true, what, within_s=60.0, every_s=0.02):
    """Wait until `true()` gives something true, and return it; a server not there counts as no."""
    end = time.monotonic() + within_s
    last = None
    while time.monotonic() < end:
        try:
            last = true()
        except (httpx.HTTPError, OSError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(every_s)
    raise AssertionError(f"not within {within_s} s: {what}; last seen: {last!r}")


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


class Agent:
    """One run of the one file, as a child."""

    def __init__(self, world, *words, stdin=None, **env):
        self.log = world.folder / f"agent{len(world.agents)}.log"
        argv = [sys.executable, "-u", str(world.file), *words]
        if stdin is not None:
            argv = [sys.executable, "-u", "-", *words]
        with self.log.open("wb") as out:
            self.child = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=world.env(**env),
                cwd=world.folder,
            )
        if stdin is not None:
            self.child.stdin.write(stdin)
            self.child.stdin.close()

    @property
    def pid(self):
        return self.child.pid

    def said(self):
        return self.log.read_text()

    def signal(self, number):
        self.child.send_signal(number)

    def ended(self, within_s=90.0):
        return self.child.wait(within_s)


class World:
    """A folder, a daemon, engines and agents; all gone at the end."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.state = folder / "state"
        self.control = folder / "control"
        self.control.mkdir()
        self.file = folder / "agent.py"
        self.file.write_text(source())
        self.aion = Aion()
        self.agents = []
        self.children = []
        self.closing = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for agent in self.agents:
            if agent.child.poll() is None:
                agent.child.send_signal(signal.SIGCONT)
                agent.child.kill()
                agent.child.wait()
        for child in self.children:
            child.kill()
            child.wait()
        for stream in self.closing:
            stream.close()
        self.sweep()
        self.aion.away()

    def sweep(self):
        """End what an agent that was killed left: engines and tunnels of this folder."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                    if f"{self.folder}/control".encode() in words:
                        os.kill(int(entry.name), signal.SIGKILL)

    def env(self, **more):
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("AION_", "PYTHON"))}
        told = {
            "AION_TOKEN": TOKEN,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "ENGINE_CONTROL": str(self.control),
            "TUNNEL_CUT": str(self.control / "cut"),
            "HOME": str(self.folder),
        }
        return {
            name: value for name, value in {**kept, **told, **more}.items() if value is not None
        }

    def program(self, name, script, first_lines=""):
        """Put an executable on the path."""
        path = self.bin / name
        path.write_text(f"#!{sys.executable}\n{first_lines}" + (PROGRAMS / script).read_text())
        path.chmod(0o755)
        return path

    def engine(self):
        """Start an engine of somebody else's; returns its address."""
        port = free_port()
        argv = [sys.executable, str(PROGRAMS / "engine.py"), "--port", str(port)]
        self.children.append(subprocess.Popen(argv, env=self.env()))
        url = f"http://127.0.0.1:{port}"
        until(lambda: httpx.get(url + "/seen").status_code == 200, "the engine listens")
        return url

    def agent(self, *words, env=None, stdin=None, **options):
        """Start an agent on a port of its own, reachable there without a tunnel."""
        port = options.pop("port", None) or free_port()
        told = {"aion": self.aion.url, "backend": "colab", "engine": "openai", "models": "m"}
        told |= {"state": str(self.state), **QUICK, "port": str(port)}
        if "tunnel" not in options:
            told["url"] = f"http://127.0.0.1:{port}"
        told |= {name.replace("_", "-"): str(value) for name, value in options.items()}
        argv = [word for name, value in told.items() for word in (f"--{name}", value)]
        made = Agent(self, *argv, *words, stdin=stdin, **(env or {}))
        made.url = f"http://127.0.0.1:{port}"
        self.agents.append(made)
        return made

    def ready(self, what="ready"):
        """Wait until the newest session's last heartbeat says that all works."""
        return until(lambda: self.aion.now().get("state") == "ready", what)

    def key(self):
        ident, token = self.aion.session
        return gateway_key(token, ident)

    def auth(self):
        return {"Authorization": f"Bearer {self.key()}"}

    def proves(self, url):
        """Challenge whoever answers at an address, as the daemon does."""
        ident, token = self.aion.session
        nonce = os.urandom(16).hex()
        reply = httpx.get(f"{url}/.aion/identity", params={"nonce": nonce})
        if reply.status_code != 200:
            return False
        right = {
            "version": 1,
            "session": ident,
            "proof": proof(token, nonce, ident, url.partition("//")[2]),
        }
        return reply.json() == right

    def pids(self, words):
        """Processes of this world whose command line holds these words."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    line = (entry / "cmdline").read_text()
                    mine = str(self.folder) in line or str(PROGRAMS) in line
                    if mine and words in line and "agent.py" not in line and alive(int(entry.name)):
                        found.append(int(entry.name))
        return found
