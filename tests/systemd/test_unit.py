"""The unit as systemd's own tools judge it, and as `aion service install` fills it in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli import unit
from orchestrator.errors import AionError, ConfigError

TEMPLATE = unit.TEMPLATE.read_text()
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and not os.environ.get("CI"),
    reason="needs systemd-analyze; .ci/run installs it",
)


def installation(**changes) -> unit.Installation:
    given = {
        "program": Path("/opt/aion/.venv/bin/aion"),
        "config": Path("/etc/aion/aion.toml"),
        "credentials": ("cloudflare", "groq"),
    }
    return unit.Installation(**given | changes)


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False
    )


@needs_systemd
def test_systemd_finds_the_unit_no_more_exposed_than_1_5(tmp_path):
    for text in (TEMPLATE, unit.render(installation())):
        path = tmp_path / "aion.service"
        path.write_text(text)
        done = analyze("security", "--offline=true", "--threshold=15", str(path))
        assert done.returncode == 0, done.stdout[-300:]
        exposure = re.search(r"exposure level for aion.service: ([\d.]+)", done.stdout)
        assert exposure is not None
        assert float(exposure[1]) <= 1.5


@needs_systemd
def test_systemd_verifies_the_filled_in_unit_and_every_example_without_a_word(tmp_path):
    # A program that exists, for `verify` looks.
    text = unit.render(installation(program=Path("/bin/true")))
    (tmp_path / "aion.service").write_text(text)
    examples = sorted((unit.TEMPLATE.parent / "examples").glob("*.conf"))
    assert examples
    folder = tmp_path / "aion.service.d"
    folder.mkdir()
    for example in [None, *examples]:
        if example is not None:
            shutil.copy(example, folder / example.name)
        done = analyze("verify", "--man=no", str(tmp_path / "aion.service"))
        ours = [line for line in (done.stdout + done.stderr).splitlines() if "aion" in line]
        assert (done.returncode, ours) == (0, []), example


def test_the_unit_says_what_the_watchdog_and_the_stop_rely_on():
    for line in ("Type=notify", "WatchdogSec=30", "DynamicUser=yes", "StateDirectory=aion"):
        assert f"\n{line}\n" in TEMPLATE
    for line in ("OOMPolicy=continue", "Restart=always", "TimeoutStopSec=10", "LimitCORE=0"):
        assert f"\n{line}\n" in TEMPLATE
    # The command line's exit codes for wrong usage and bad configuration.
    assert f"\nRestartPreventExitStatus=2 {ConfigError.exit_code}\n" in TEMPLATE


def test_each_credential_gets_one_line_and_the_rest_of_the_template_stays():
    text = unit.render(installation())
    assert "\nExecStart=/opt/aion/.venv/bin/aion serve --config /etc/aion/aion.toml\n" in text
    assert re.findall(r"(?m)^LoadCredential=.*$", text) == [
        "LoadCredential=cloudflare:/etc/aion/credentials/cloudflare",
        "LoadCredential=groq:/etc/aion/credentials/groq",
    ]
    ours = ("LoadCredential=", "ExecStart=", "# LoadCredential=", "Documentation=")
    rest = [line for line in TEMPLATE.splitlines() if not line.startswith(ours)]
    assert [line for line in text.splitlines() if not line.startswith(ours)] == rest


def test_without_credentials_no_line_is_left_to_load_one():
    assert "LoadCredential=" not in unit.render(installation(credentials=())).replace(
        "a LoadCredential= line", ""
    )


@pytest.mark.parametrize(
    "config", ["aion.toml", "/etc/a b/aion.toml", "/etc/%h/aion.toml", "/etc/a\nb", "/etc/$X", "/é"]
)
def test_a_path_that_systemd_would_read_differently_is_refused(config):
    with pytest.raises(ConfigError, match="cannot stand in a unit"):
        unit.render(installation(config=Path(config)))


def test_a_template_without_a_start_line_is_refused():
    with pytest.raises(AionError, match="ExecStart"):
        unit.render(installation(), "[Service]\n")


def test_every_credential_is_found_wherever_it_stands_and_named_once():
    data = {
        "server": {"admin_token": {"credential": "admin_token"}},
        "backends": {"a": {"key": {"credential": "groq"}}, "b": {"key": {"credential": "groq"}}},
        "alerts": {"urls": [{"credential": "smtp_url"}, "json://localhost"]},
        "models": {"credential": "theirs", "other": "model"},  # a table, not a reference
    }
    assert unit.credentials(data) == ("admin_token", "groq", "smtp_url")


@pytest.mark.parametrize("name", ["../shadow", "a/b", "", ".hidden", "a\nExecStartPre=x", "x" * 80])
def test_a_credential_that_is_a_path_is_refused(name):
    with pytest.raises(ConfigError, match="not a credential's name"):
        unit.credentials({"key": {"credential": name}})


# ── the command ─────────────────────────────────────────────────────────────────────────────────

CONFIG = '[server]\nadmin_token = { credential = "admin_token" }\n'


def aion(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AION_")}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The root folder of an image being made, configured, with its one credential."""
    etc = tmp_path / "image/etc/aion"
    (etc / "credentials").mkdir(parents=True)
    (etc / "aion.toml").write_text(CONFIG)
    (etc / "credentials/admin_token").write_text("t" * 43)
    return tmp_path / "image"


def test_install_below_a_root_writes_the_unit_and_starts_nothing(image, tmp_path):
    done = aion("service", "install", "--root", str(image), "-y", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = image / "etc/systemd/system/aion.service"
    text = written.read_text()
    assert "LoadCredential=admin_token:/etc/aion/credentials/admin_token\n" in text
    assert written.stat().st_mode & 0o777 == 0o644
    assert sorted(p.name for p in written.parent.iterdir()) == ["aion.service"]


def test_a_dry_run_prints_the_unit_and_writes_nothing(image, tmp_path):
    done = aion("service", "install", "--root", str(image), "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "LoadCredential=admin_token:" in done.stdout
    assert not (image / "etc/systemd").exists()


def test_nothing_is_written_when_nobody_can_be_asked(image, tmp_path):
    done = aion("service", "install", "--root", str(image), cwd=tmp_path)
    assert done.returncode == 2
    assert "-y does it" in done.stderr
    assert not (image / "etc/systemd").exists()


def test_a_missing_credential_is_named_with_its_remedy(image, tmp_path):
    (image / "etc/aion/credentials/admin_token").unlink()
    done = aion("service", "install", "--root", str(image), "-y", cwd=tmp_path)
    assert done.returncode == 5
    assert "aion secret set admin_token" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["server = [", None])
def test_an_unusable_configuration_is_one_line_and_exit_5(image, tmp_path, text):
    config = image / "etc/aion/aion.toml"
    config.unlink() if text is None else config.write_text(text)
    done = aion("service", "install", "--root", str(image), "-y", cwd=tmp_path)
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1


def test_an_installation_that_the_sandbox_would_hide_is_refused(tmp_path):
    (tmp_path / "aion.toml").write_text("")  # below /tmp
    done = aion("service", "install", "-y", "--config", str(tmp_path / "aion.toml"), cwd=tmp_path)
    assert done.returncode == 5
    assert "/opt/aion" in done.stderr
