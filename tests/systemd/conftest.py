"""One boot for all tests that need it, and a word at the end when there was none."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.systemd import rootfs

BOOT_S = 150
CONFIG = """
[server]
admin_token = { credential = "admin_token" }

[health]
controls = []

[backends.lab]
kind = "static"
engine = "tcp"
url = "tcp://127.0.0.1:9"
"""
TOKEN = "boot-canary-0123456789abcdefghijklmnopqrstuvwxyz"
RUNNER = """
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 /results/inside.py
StandardOutput=file:/results/log
StandardError=file:/results/log
[Install]
WantedBy=default.target
"""
NOT_RUN = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def boot(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """What was seen in a real systemd where aion was installed, asked, reloaded, hung, stopped."""
    reason = rootfs.reason_not_to_boot()
    if reason:
        if os.environ.get("AION_TEST_BOOT") == "required" and "power to mount" not in reason:
            pytest.fail(f"the boot under systemd {reason}")
        request.config.stash[NOT_RUN] = reason
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("boot")
    tree = rootfs.copy_of_rootfs(folder / "rootfs")
    results = folder / "results"
    results.mkdir()
    prepare(tree)
    (results / "inside.py").write_text(Path(__file__).with_name("inside.py").read_text())
    command = ["systemd-nspawn", "--quiet", "-D", str(tree), "--private-network", "--boot"]
    command += ["--register=no", "--console=pipe", f"--bind={results}:/results"]
    if not Path("/run/systemd/system").is_dir():
        command.append("--keep-unit")  # nobody here could make it a scope of its own
    command += rootfs.install_aion(tree)
    console = folder / "console"
    with console.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        process.wait(BOOT_S)
    except subprocess.TimeoutExpired:
        process.kill()  # the container's PID 1 dies with it
        process.wait()
    seen = results / "seen.json"
    assert seen.exists(), f"nothing came back from the container: {console.read_text()[-3000:]}"
    yield json.loads(seen.read_text())
    subprocess.run(["rm", "-rf", "--one-file-system", str(tree)], check=False)


def prepare(tree: Path) -> None:
    """Write what an operator would have: configuration, a credential, a shorter watchdog."""
    etc = tree / "etc/aion"
    (etc / "credentials").mkdir(parents=True)
    (etc / "aion.toml").write_text(CONFIG)
    (etc / "credentials/admin_token").write_text(TOKEN + "\n")
    (etc / "credentials").chmod(0o700)
    (etc / "credentials/admin_token").chmod(0o600)
    system = tree / "etc/systemd/system"
    (system / "aion.service.d").mkdir()
    (system / "aion.service.d/test.conf").write_text("[Service]\nWatchdogSec=3\n")
    (system / "inside.service").write_text(RUNNER)
    wants = system / "default.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "inside.service").symlink_to("../inside.service")
    (tree / "var/log/journal").mkdir(exist_ok=True)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    reason = config.stash.get(NOT_RUN, None)
    if reason:
        terminalreporter.write_line(f"NOT RUN: the boot under a real systemd: {reason}")
