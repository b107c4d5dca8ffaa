"""What the file says of backends that register, and of clients."""

import hashlib

import pytest

from orchestrator.errors import ConfigError
from orchestrator.settings import diff, load
from orchestrator.web.carrier import RegisterSettings

TOKEN = "colab-token-0123456789-abcdefghijkl"
KEY = "client-key-0123456789-abcdefghijklm"
SECRETS = {"AION_CREDENTIAL_COLAB": TOKEN, "AION_CREDENTIAL_FRONT": KEY}
NOTEBOOK = '[backends.colab]\nkind = "notebook"\ntoken = { credential = "colab" }\n'
CLIENT = '[clients.front]\nkey = { credential = "front" }\n'


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "aion.toml"
        path.write_text(text)
        return load(path, environ={**SECRETS, "STATE_DIRECTORY": str(tmp_path)})

    return read


def test_of_tokens_and_keys_only_digests_reach_the_daemon(read):
    config = read(NOTEBOOK + CLIENT)
    assert config.fleet.seeds == {"colab": sha(TOKEN)}
    assert config.web.clients == {"front": sha(KEY)}
    shown = repr(config.fleet) + repr(config.web)
    for secret in (TOKEN, KEY, sha(TOKEN), sha(KEY)):
        assert secret not in shown


def test_where_a_backend_may_register_goes_to_the_web(read):
    more = 'allow_hosts = ["box.lan", "*.example.org"]\nallow_private = true\naccess = "gateway"\n'
    lab = '[backends.lab]\nkind = "static"\nurl = "http://10.0.0.5:8080"\n'
    assert read(NOTEBOOK + more + lab).web.registering == {
        "colab": RegisterSettings(("box.lan", "*.example.org"), True, "gateway")
    }
    usual = read(NOTEBOOK).web.registering["colab"]
    assert (usual.allow_private, usual.access) == (False, "clients")
    assert "*.trycloudflare.com" in usual.allow_hosts


COLAB = """
[backends.gpu]
kind = "colab"
accept_terms = true
allow_hosts = ["*.trycloudflare.com"]
"""


def test_what_is_started_at_colab_has_to_know_the_way_back(read):
    with pytest.raises(ConfigError, match=r"a `colab` needs server\.public_url"):
        read(COLAB)
    with pytest.raises(ConfigError, match="Colab cannot reach"):
        read('[server]\npublic_url = "http://127.0.0.1:8765"\n' + COLAB)
    config = read('[server]\npublic_url = "https://aion.example.org"\n' + COLAB)
    assert config.plans["gpu"].aion.rstrip("/") == "https://aion.example.org"
    assert config.fleet.backends["gpu"].powered
    assert config.fleet.backends["gpu"].registers


def test_the_operators_hours_are_minutes_of_the_day_in_their_time_zone(read):
    config = read(f'timezone = "Europe/Lisbon"\n{NOTEBOOK}')
    assert (config.fleet.operator_hours, config.fleet.timezone) == (None, "Europe/Lisbon")
    hours = '[alerts]\noperator_hours = "08:30-01:00"\n'
    assert read(NOTEBOOK + hours).fleet.operator_hours == (510, 60)


def test_a_reload_names_the_clients_that_change_and_not_their_keys(read):
    old, new = read(NOTEBOOK), read(NOTEBOOK + CLIENT)
    assert diff(old, new) == ["client `front` is added"]
    assert diff(new, old) == ["client `front` is removed"]
    other = read(NOTEBOOK + CLIENT.replace('"front"', '"colab"'))
    assert diff(new, other) == ["client `front` changes: key"]
    assert diff(old, read(NOTEBOOK + 'access = "open"\n')) == ["backend `colab` changes: access"]


KAGGLE = """
[backends.k]
kind = "kaggle"
engine = "ollama"
models = ["qwen3:8b"]
kernel = "ann/aion-gpu"
key = { credential = "colab" }
token = { credential = "colab" }
allow_hosts = ["*.trycloudflare.com"]
"""
HERE = '[server]\npublic_url = "http://127.0.0.1:8765"\n'


def test_what_runs_on_this_machine_reaches_a_daemon_that_is_only_here(read):
    with pytest.raises(ConfigError, match="set it to where the internet reaches this daemon"):
        read(HERE + KAGGLE)
    assert read(HERE + KAGGLE + 'api = "http://127.0.0.1:7777"\n')
