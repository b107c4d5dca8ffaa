"""The file that makes a VM into an orchestrator: its parts, each judged by who will read it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "config/cloud-init.yaml").read_text()
CLOUD: dict[str, Any] = yaml.safe_load(TEXT)
FILES = {entry["path"]: entry for entry in CLOUD["write_files"]}


def test_cloud_init_will_recognise_it():
    # The first line is how cloud-init tells it from a script.
    assert TEXT.startswith("#cloud-config\n")
    assert {"packages", "write_files", "runcmd", "swap"} <= set(CLOUD)


def test_every_script_is_a_script_and_may_be_run():
    for path, entry in FILES.items():
        if entry["content"].startswith("#!"):
            assert entry.get("permissions") == "0755", path
            done = subprocess.run(
                ["sh", "-n"], input=entry["content"], text=True, capture_output=True, check=False
            )
            assert (done.returncode, done.stderr) == (0, ""), path


def test_the_make_targets_and_verbs_it_runs_exist():
    script = FILES["/usr/local/sbin/aion-setup"]["content"]
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    assert set(re.findall(r"make -C \S+ ([a-z]+)", script)) <= targets
    assert "aion service install --yes --config /etc/aion/aion.toml" in script
    assert ["/usr/local/sbin/aion-setup"] in CLOUD["runcmd"]


def test_its_configuration_parses_and_names_no_secret_that_is_not_there():
    config = tomllib.loads(FILES["/etc/aion/aion.toml"]["content"])
    assert "credential" not in str(config)  # or the first start would fail
    assert config["server"]["listen"].startswith("127.0.0.1:")


def test_no_secret_is_asked_for_in_user_data():
    # Whatever runs on the machine can read user data from the metadata server.
    for path, entry in FILES.items():
        for line in entry["content"].splitlines():
            if not line.lstrip().startswith("#"):
                assert not re.match(r"\w*(TOKEN|SECRET|PASSWORD|KEY)\w*=", line.strip()), path


def test_a_gigabyte_machine_gets_swap_and_updates_itself():
    assert CLOUD["swap"]["size"] >= 512 * 1024 * 1024
    assert "unattended-upgrades" in CLOUD["packages"]
    assert 'Unattended-Upgrade "1"' in FILES["/etc/apt/apt.conf.d/52aion-upgrades"]["content"]


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and not os.environ.get("CI"),
    reason="needs systemd-analyze",
)
def test_systemd_verifies_the_tunnel_unit(tmp_path):
    path = tmp_path / "aion-tunnel.service"
    content = FILES["/etc/systemd/system/aion-tunnel.service"]["content"]
    path.write_text(content.replace("/usr/bin/cloudflared", "/bin/true"))
    words = ["systemd-analyze", "verify", "--man=no", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in done.stderr.splitlines() if "aion" in line]
    assert (done.returncode, said) == (0, [])


def test_caddy_passes_events_on_at_once_and_gets_its_name_from_the_settings():
    caddyfile = FILES["/etc/caddy/aion.caddyfile"]["content"]
    assert "{$AION_HOST}" in caddyfile
    assert "flush_interval -1" in caddyfile
    listen = tomllib.loads(FILES["/etc/aion/aion.toml"]["content"])["server"]["listen"]
    assert f"reverse_proxy {listen}" in caddyfile
