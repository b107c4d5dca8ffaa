"""What the README prints works as printed."""

import re
import tomllib
from pathlib import Path

from orchestrator.settings import load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_configuration_is_short_and_loads_without_a_warning(tmp_path):
    [toml] = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    assert len(toml.splitlines()) <= 25
    path = tmp_path / "aion.toml"
    path.write_text(toml)
    config = load(path, environ={"STATE_DIRECTORY": str(tmp_path)})
    assert list(config.fleet.backends) == list(tomllib.loads(toml)["backends"])
    # Both controls and alerts are left at their defaults; only the missing channel is worth a word.
    assert all("alert" in warning for warning in config.warnings), config.warnings


def test_the_alert_section_it_adds_loads_once_the_secret_is_set(tmp_path):
    [toml] = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    [added] = re.findall(r"printf '(.*?)' >> aion.toml", README)
    path = tmp_path / "aion.toml"
    path.write_text(toml + added.replace("\\n", "\n"))
    folder = tmp_path / "credentials"
    folder.mkdir()
    secret = folder / "alert_url"
    secret.write_text("json://127.0.0.1:9/hook\n")
    secret.chmod(0o600)
    config = load(path, environ={"STATE_DIRECTORY": str(tmp_path)})
    assert [channel.url for channel in config.alerts.channels] == ["json://127.0.0.1:9/hook"]


def test_every_page_it_links_to_is_there():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if not link.startswith("https://"):
            assert (ROOT / link).exists(), link
