"""The machine is gone: another one goes on from one copy alone, and the old one gives way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time  # noqa: TID251 - how long a real rebuild takes
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pyrage
import pytest

from tests.backup.conftest import BINS, pg16
from tests.backup.worlds import rclone
from tests.e2e.kit import (
    PATIENCE_S,
    ROOT,
    TOKEN,
    World,
    _environment,
    free_port,
    months_away,
    until,
)

__all__ = ["pg16"]
NOTEBOOK = "notebook-token-0123456789-abcdefghijklmnop"
BUDGET_S = 300.0  # as promised; it takes some seconds


@pytest.fixture
def key(tmp_path):
    """An age identity as age-keygen writes it; gives the file and the recipient."""
    identity = pyrage.x25519.Identity.generate()
    path = tmp_path / "identity.txt"
    path.write_text(f"# created: 2026-11-01\n{identity}\n")
    return path, str(identity.to_public())


@pytest.fixture
def kept(world, pg16, key, tmp_path):
    """A daemon with a history, whose database and own state were backed up to two places."""
    (tmp_path / "old").mkdir()
    world.folder = tmp_path / "old"
    world.config, world.state = world.folder / "aion.toml", world.folder / "var"
    remote = tmp_path / "drive"
    world.credentials["rclone"] = f"[gdrive]\ntype = alias\nremote = {remote}\n"
    world.credentials["pg_dsn"] = pg16.new("create table message as select 1 as id")
    world.credentials["nb"] = NOTEBOOK
    world.serve_from("alpha", "beta")
    world.tables["services.chat"]["backends"] = ["alpha", "beta"]
    world.zone = world.cloudflare()
    world.tables["backends.here"] = {
        "kind": "notebook",
        "engine": "openai",
        "models": ["demo-model"],
        "allow_private": True,
        "allow_hosts": ["127.0.0.1"],
        "token": {"credential": "nb"},
    }
    world.tables["services.notes"] = {"backends": ["here"]}
    world.tables["backups.main"] = {
        "schedule": months_away(),
        "dsn": {"credential": "pg_dsn"},
        "copies": [f"file:{tmp_path / 'folder'}", "rclone:gdrive:aion"],
        "rclone_config": {"credential": "rclone"},
        "pg_bin": str(BINS[16]),
        "encrypt": {"recipient": key[1]},
    }
    world.boot()
    world.serves("alpha")
    return world


def backed_up(world) -> str:
    """Have aion's own state backed up; gives the dump."""
    assert world.post("backups/aion-state/run").status_code in {202, 409}  # 409: it runs already

    def done() -> str:
        found = {one["name"]: one for one in world.api("backups")}["aion-state"]
        assert found["problem"] == ""
        return "" if found["running"] else found["dump"]

    return until(done, "it is backed up")


def rebuild(*words: str) -> subprocess.CompletedProcess:
    """Run it as on a machine that has nothing of the old one."""
    path = f"{Path(rclone()).parent}:{os.environ['PATH']}"
    argv = [sys.executable, "-m", "orchestrator.cli", "rebuild", *words]
    env = _environment(PATH=path)
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=120, check=False, env=env, cwd=ROOT
    )


@contextmanager
def moved(world, folder: Path):
    """Start the daemon of a rebuilt folder, on its file as it is and where the old one was."""
    with World(folder) as made:
        made.state = folder / "var"
        made.http.close()
        made.port, made.url = world.port, world.url
        made.http = httpx.Client(base_url=made.url, timeout=PATIENCE_S)
        made.launch()
        made.ready()
        yield made


@pytest.mark.parametrize("place", ["folder", "remote"])
def test_a_machine_that_is_gone_is_rebuilt_from_one_copy_and_is_the_same_instance(
    kept, key, tmp_path, place
):
    before = kept.serves("alpha")
    token = kept.post("tokens", {"backend": "here"}).json()
    events = {(one["at"], one["text"]) for one in kept.api("events", limit=1000)}
    dump = backed_up(kept)
    kept.crash()
    told = kept.log().encode() + b"".join(
        path.read_bytes() for path in tmp_path.glob("folder/**/*") if path.is_file()
    )
    assert not [secret for secret in secrets(kept) if secret.encode() in told]
    shutil.rmtree(kept.folder)
    conf = tmp_path / "rclone.conf"
    conf.write_text(kept.credentials["rclone"])
    source = {
        "folder": [f"file:{tmp_path / 'folder'}"],
        "remote": ["rclone:gdrive:aion", "--rclone-config", str(conf)],
    }[place]
    began = time.monotonic()
    new = tmp_path / "new"
    done = rebuild("--from", *source, "--identity", str(key[0]), "--to", str(new), "-y", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert (said["dump"], said["missing"], said["problems"]) == (dump, {}, [])
    with moved(kept, new) as world:
        after = world.serves("alpha")
        took_s = time.monotonic() - began
        assert took_s < BUDGET_S
        assert after["active"]["url"] == before["active"]["url"]
        assert after["epoch"] >= said["epoch"] > before["epoch"]
        now = {(one["at"], one["text"]) for one in world.api("events", limit=1000)}
        assert events <= now
        assert any(f"rebuilt from {dump}" in text for _, text in now)
        assert registers(world, "no-such-token") == 401
        assert registers(world, token["token"]) != 401  # its machine is not up, but it is known
        assert (new / "credentials" / "pg_dsn").stat().st_mode & 0o777 == 0o600


def secrets(world) -> list[str]:
    """What is in its credentials, as an outsider might search for it."""
    password = psycopg.conninfo.conninfo_to_dict(world.credentials["pg_dsn"])["password"]
    return [password, world.credentials["pg_dsn"], NOTEBOOK, TOKEN, world.credentials["cloudflare"]]


def registers(world, token: str) -> int:
    body = {"backend": "here", "url": "http://127.0.0.1:9", "engine": "openai", "gpu": None}
    at = world.discovery()["as_of"]
    body |= {"models": ["demo-model"], "started_at": at, "now": at, "agent": "0"}
    bearer = {"Authorization": f"Bearer {token}"}
    return httpx.post(f"{world.url}/register", json=body, headers=bearer).status_code


def test_the_old_machine_that_comes_back_gives_way_and_starts_nothing(kept, key, tmp_path):
    first = backed_up(kept)
    kept.crash()
    new = tmp_path / "new"
    source = f"file:{tmp_path / 'folder'}"
    done = rebuild("--from", source, "--identity", str(key[0]), "--to", str(new), "-y", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    epoch = json.loads(done.stdout)["epoch"]
    with moved(kept, new) as world:
        until(lambda: epoch_of(kept.zone) >= epoch, "the name is the new one's")
        # The run that the copy was made in ended with the old machine, and is begun anew.
        until(lambda: last_dump(world) > first, "it backs itself up at once")
        back = returned(kept)
        until(lambda: "dns_newer" in back.kinds(), "the old one sees who it is")
        assert back.api("status")["paused"] is not None
        assert epoch_of(kept.zone) >= epoch
        assert back.aion("job", "run", "backup-aion-state", "-y").returncode == 1
        found = {one["name"]: one["problem"] for one in back.api("backups")}
        assert "was rebuilt: this one is the old one" in found["aion-state"]
        until(lambda: "replaced" in back.kinds(), "it is told as what it is")
        assert not {"dns_newer", "replaced"} & world.kinds()
        assert world.api("status")["paused"] is None


def epoch_of(zone) -> int:
    """The epoch that the record carries; 0 while there is none."""
    return max((int(one["comment"].rpartition("=")[2]) for one in zone.records()), default=0)


def last_dump(world) -> str:
    found = {one["name"]: one["dump"] for one in world.api("backups")}
    return found["aion-state"]


def returned(old) -> World:
    """Start the old machine's daemon again; its port is another's now."""
    port = free_port()
    old.http.close()
    text = old.config.read_text()
    old.config.write_text(text.replace(f"127.0.0.1:{old.port}", f"127.0.0.1:{port}"))
    old.port, old.url = port, f"http://127.0.0.1:{port}"
    old.http = httpx.Client(base_url=old.url, timeout=PATIENCE_S)
    old.launch()
    until(lambda: old.http.get("/healthz").status_code == 200, "it answers")
    return old
