"""What `aion doctor` looks at, one finding after the other. Nothing here writes or changes a thing.

On this machine here (configuration, files, database, port, unit); on the network in `reach`; the
places of backups, where a small object is written and deleted, in `storecheck`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from backends import terms
from orchestrator.cli import reach, storecheck
from orchestrator.cli.finding import ADVICE, FAILED, PASSED, Finding
from orchestrator.cli.where import base_url, find_config
from orchestrator.errors import AionError, ConfigError

if TYPE_CHECKING:
    from orchestrator.settings import Config

ROOM_BYTES = 500_000_000
SYSTEM_CONFIG, SYSTEM_STATE = Path("/etc/aion/aion.toml"), Path("/var/lib/aion")


async def examine(given: Path | None) -> AsyncIterator[Finding]:
    """Yield every finding, as it is known."""
    path = find_config(given)
    config, findings = _configuration(path)
    for finding in findings:
        yield finding
    if config is None:
        return
    for finding in (*_credentials(config), *_files(config), *_advice(config)):
        yield finding
    yield await _port(config)
    yield await _unit()
    for look in (reach.examine, storecheck.examine):
        async for finding in look(config):
            yield finding


def _configuration(path: Path | None) -> tuple[Config | None, list[Finding]]:
    from orchestrator.settings import load, report, study

    environ = dict(os.environ)
    if path == SYSTEM_CONFIG and SYSTEM_STATE.exists():
        environ.setdefault("STATE_DIRECTORY", str(SYSTEM_STATE))  # as the unit would say
    try:
        config = load(path, environ=environ)
        warnings = report(study(path, environ=environ), warnings=True)
    except ConfigError as error:
        remedy = "correct the file, then: aion config check"
        return None, [Finding(FAILED, "configuration", str(error), remedy)]
    counted = f"{len(config.fleet.backends)} backends, {len(config.fleet.services)} services"
    findings = [Finding(PASSED, "configuration", f"{path or 'the environment'}: {counted}")]
    if config.warnings:
        findings.append(Finding(ADVICE, "configuration", warnings))
    return config, findings


def _credentials(config: Config) -> Iterator[Finding]:
    """Check who can reach the credentials; those that others can read did not pass the load."""
    folder = (config.path.parent if config.path else Path()) / "credentials"
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
        count = sum(1 for _ in folder.iterdir())
    except OSError:
        yield Finding(PASSED, "credentials", "every one that is used was found")
        return
    if mode & 0o022:
        text = f"others can put files into {folder}"
        yield Finding(FAILED, "credentials", text, f"chmod 700 {folder}")
    else:
        yield Finding(PASSED, "credentials", f"{count} in {folder}, readable by their owner only")


def _files(config: Config) -> Iterator[Finding]:
    yield _state(config.state_dir)
    from orchestrator.edge.sqlite import path_of

    database = path_of(config.database)
    if database is None:
        return
    try:
        free = shutil.disk_usage(_existing(database.parent)).free
    except OSError as error:
        yield Finding(FAILED, "disk", f"{database.parent}: {error.strerror}")
        return
    text = f"{free / 1e9:.1f} GB free where the database is"
    if free < ROOM_BYTES:
        yield Finding(FAILED, "disk", text, f"make room: {ROOM_BYTES / 1e6:.0f} MB at least")
    else:
        yield Finding(PASSED, "disk", text)
    yield _database(database)


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())


def _state(folder: Path) -> Finding:
    there = _existing(folder)
    if os.access(there, os.W_OK | os.X_OK):
        return Finding(PASSED, "state folder", f"{folder} can be written")
    text = f"{folder} cannot be written by user {os.geteuid()}"
    return Finding(FAILED, "state folder", text, f"chown {os.geteuid()} {there}, or use sudo")


def _database(path: Path) -> Finding:
    """Check the file as a whole, and that this aion knows its tables."""
    import sqlite3
    from contextlib import closing

    from orchestrator.edge.tables import REVISIONS

    if not path.exists():
        return Finding(PASSED, "database", f"{path} is made at the first start")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        remedy = "put it aside and start with a new one, or restore a copy of it"
        return Finding(FAILED, "database", f"{path}: {error}", remedy)
    if verdict != "ok":
        remedy = "stop aion, then restore a copy of it"
        return Finding(FAILED, "database", f"{path} is damaged: {verdict}", remedy)
    if found and found[0] not in REVISIONS:
        text = f"{path} was written by a newer aion (revision {found[0]})"
        return Finding(FAILED, "database", text, "upgrade aion")
    return Finding(PASSED, "database", f"{path} is sound")


async def _port(config: Config) -> Finding:
    """Say whether our daemon listens, or could."""
    from orchestrator.cli.client import Client

    host, port = config.web.host, config.web.port
    url = base_url(f"{host}:{port}")
    try:
        services = await asyncio.to_thread(Client(url).get, "/discovery")
    except AionError as error:
        taken = "connection refused" not in str(error)
    else:
        taken = True
        if isinstance(services, dict) and "epoch" in services:
            return Finding(PASSED, "daemon", f"it runs at {url}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            why = "another program listens there" if taken else str(error.strerror).lower()
            remedy = "stop it, or set server.listen to another port"
            return Finding(FAILED, "port", f"{host}:{port}: {why}", remedy)
    text = f"{host}:{port} is free; the daemon does not run"
    return Finding(ADVICE, "port", text, "aion serve, or aion service install")


async def _unit() -> Finding:
    """Ask systemd about the unit, where there is a systemd."""
    try:
        child = await asyncio.create_subprocess_exec(
            *("systemctl", "show", "aion.service", "-p", "LoadState,ActiveState,UnitFileState"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        said, _ = await asyncio.wait_for(child.communicate(), 5.0)
    except (OSError, TimeoutError):
        return Finding(ADVICE, "systemd", "there is none here; something else must restart aion")
    state = dict(line.split("=", 1) for line in said.decode().splitlines() if "=" in line)
    if state.get("LoadState") != "loaded":
        text = "aion.service is not installed: a crash or reboot ends aion"
        return Finding(ADVICE, "systemd", text, "aion service install")
    if state.get("ActiveState") != "active":
        text = f"aion.service is {state.get('ActiveState')}"
        return Finding(FAILED, "systemd", text, "systemctl status aion; journalctl -u aion")
    if state.get("UnitFileState") != "enabled":
        text = "aion.service runs, but will not after a reboot"
        return Finding(FAILED, "systemd", text, "systemctl enable aion")
    return Finding(PASSED, "systemd", "aion.service runs, and will after a reboot")


def _advice(config: Config) -> Iterator[Finding]:
    """Say what is missing for peace of mind, and what should be known."""
    if config.alerts.channels:
        names = ", ".join(channel.name for channel in config.alerts.channels)
        yield Finding(PASSED, "alerts", f"channels: {names}; to try them: aion alert test")
    else:
        remedy = "add a channel under [alerts], then: aion alert test"
        yield Finding(ADVICE, "alerts", "nobody is told when something breaks", remedy)
    if config.deadman is None:
        text = "nobody outside notices if this machine dies"
        yield Finding(ADVICE, "dead-man", text, "add [deadman] with a ping URL (healthchecks.io)")
    else:
        yield Finding(PASSED, "dead-man", "an outside service is pinged")
    for name, plan in config.plans.items():
        platform = getattr(plan.options, "platform", plan.backend.kind)
        if rules := terms.of(platform, plan.backend.restart_url):
            text = f"{rules.text} ({rules.link})"
            yield Finding(ADVICE, f"terms of {name}", text, rules.advice)
