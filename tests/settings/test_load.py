"""What a good configuration comes to."""

import datetime as dt
import hashlib
from pathlib import Path

import pytest

from orchestrator.core.specs import Target, Tier
from orchestrator.errors import ConfigError
from orchestrator.settings import diff, find_path, load, study, with_admin_token
from orchestrator.settings.effective import rows
from orchestrator.settings.values import duration, is_remote, written

LAB = '[backends.lab]\nkind = "static"\nurl = "http://10.0.0.5:8080"\n'
SECRETS = {
    "AION_CREDENTIAL_GROQ": "gsk-value",
    "AION_CREDENTIAL_CF": "cf-value",
    "AION_CREDENTIAL_BOT": "123456:ABCdef",
    "AION_CREDENTIAL_MAIL": "mailtos://me:pw@example.org",
    "AION_CREDENTIAL_PING": "https://hc.example.org/uuid",
    "AION_CREDENTIAL_ADMIN": "0123456789abcdefghijklmnopqrstuvwxyz",
}


@pytest.fixture
def read(tmp_path):
    def read(text, environ=None, flags=None):
        path = tmp_path / "aion.toml"
        path.write_text(text)
        return load(
            path,
            environ={**SECRETS, "STATE_DIRECTORY": str(tmp_path), **(environ or {})},
            flags=flags,
        )

    return read


def test_one_backend_is_enough_and_defaults_are_those_documented(read, tmp_path):
    config = read(LAB)
    lab = config.fleet.backends["lab"]
    assert (lab.engine, lab.priority, lab.tier, lab.remote, lab.assignable) == (
        "openai",
        100,
        Tier.FREE,
        False,
        True,
    )
    policy = lab.health
    assert (policy.interval_s, policy.fast_interval_s, policy.down_interval_s) == (10, 2, 30)
    assert (policy.timeout_s, policy.fall, policy.rise, policy.canary_s) == (4, 3, 2, 300)
    assert config.fleet.services["default"].backends == ("lab",)
    assert (config.web.host, config.web.port, config.web.max_age_s) == ("127.0.0.1", 8765, 2)
    assert config.database == f"sqlite:///{tmp_path}/aion.db"
    assert (len(config.controls), config.fleet.controls) == (4, 4)
    assert (config.timezone, config.deadman, config.warnings) == ("UTC", None, ())


def test_a_flag_wins_over_the_environment_and_that_over_the_file(read):
    text = f'[server]\nlisten = "127.0.0.1:1"\n[health]\ninterval = "11s"\n{LAB}'
    assert read(text).web.port == 1
    environ = {"AION_SERVER__LISTEN": "127.0.0.1:2", "AION_HEALTH__INTERVAL": "12s"}
    config = read(text, environ)
    assert (config.web.port, config.fleet.backends["lab"].health.interval_s) == (2, 12)
    assert read(text, environ, {"server.listen": "[::1]:3", "timezone": None}).web.port == 3


def test_a_variable_finds_the_name_that_it_cannot_spell(read):
    text = LAB.replace("lab", '"gpu-vm.a"')
    assert (
        read(text, {"AION_BACKENDS__GPU_VM_A__PRIORITY": "7"}).fleet.backends["gpu-vm.a"].priority
        == 7
    )


def test_a_variable_that_looks_like_a_number_may_be_text(read):
    assert read(LAB, {"AION_INSTANCE": "7"}).fleet.instance == "7"
    assert (
        read(LAB, {"AION_HEALTH__CONTROLS": '["https://1.1.1.1", "https://a.org"]'}).fleet.controls
        == 2
    )


def test_variables_that_are_not_settings_are_left_alone(read):
    read(
        LAB,
        {
            "AION_URL": "http://x",
            "AION_CONFIG": "/x",
            "AION_BOOT_ID": "4ec066ddfe5a4879a4f5b35e9e08b08a",
            "AION_DEBUG": "1",
            "AION_CREDENTIAL_X__Y": "z",
        },
    )


API = '[backends.groq]\nkind = "api"\nbase_url = "https://api.groq.com/openai/v1"\nkey = { credential = "groq" }\n'


def test_an_api_is_probed_every_five_minutes_and_never_shown(read):
    config = read(
        f'[health]\ninterval = "1s"\nfast_interval = "250ms"\n{API}models = {{ ours = "theirs" }}'
    )
    groq = config.plans["groq"]
    policy = groq.backend.health
    assert (policy.interval_s, policy.fast_interval_s, policy.down_interval_s) == (300, 300, 300)
    assert policy.canary_s is None
    assert (groq.backend.url, groq.backend.assignable, groq.backend.tier) == (
        None,
        False,
        Tier.PAID,
    )
    assert groq.backend.remote
    assert groq.secrets == {"key": "gsk-value"}
    assert (groq.models, groq.backend.models) == ({"ours": "theirs"}, ("ours",))


def test_an_apis_own_table_decides_over_the_kind(read):
    policy = (
        read(API + 'tier = "free"\nhealth = { interval = "1m", canary = "1h" }')
        .fleet.backends["groq"]
        .health
    )
    assert (policy.interval_s, policy.fast_interval_s, policy.canary_s) == (60, 60, 3600)


def test_a_metered_tunnel_is_asked_every_five_minutes(read):
    config = read('[backends.a]\nkind = "static"\nurl = "https://x.ngrok-free.app"\n')
    policy = config.fleet.backends["a"].health
    assert (policy.interval_s, policy.fast_interval_s, policy.down_interval_s) == (300, 300, 300)
    config = read(
        '[backends.a]\nkind = "static"\nurl = "https://x.ngrok-free.app"\nhealth.interval = "1m"\n'
    )
    assert "43200 requests a month" in config.warnings[0]


def test_a_short_interval_takes_the_fast_one_with_it(read):
    policy = read(f'[health]\ninterval = "1s"\n{LAB}').fleet.backends["lab"].health
    assert (policy.interval_s, policy.fast_interval_s) == (1, 1)


def test_a_pool_goes_by_priority_then_its_own_order_then_name(read):
    text = "".join(
        f'[backends.{name}]\nkind = "static"\nurl = "http://h:1"\npriority = {priority}\n'
        for name, priority in (("b", 10), ("a", 10), ("c", 5), ("z", 10))
    )
    assert read(text).fleet.services["default"].backends == ("c", "a", "b", "z")
    config = read(text + '[services.s]\nbackends = ["z", "a", "c"]\n')
    assert config.fleet.services["s"].backends == ("c", "z", "a")


DNS = """
[services.chat.dns]
provider = "cloudflare"
zone = "Example.org"
name = "AI.example.org."
token = { credential = "cf" }
gateway = "aion.example.org"
"""


def test_a_dns_name_is_carried_to_the_core_and_the_provider(read):
    config = read(LAB + 'dns = { a = ["203.0.113.7"], aaaa = "2001:db8::1" }\n' + DNS)
    dns = config.fleet.services["chat"].dns
    assert (dns.name, dns.ttl_s) == ("ai.example.org", 300)
    assert dns.gateway == (Target("CNAME", "aion.example.org"),)
    assert config.fleet.backends["lab"].targets == (
        Target("A", "203.0.113.7"),
        Target("AAAA", "2001:db8::1"),
    )
    (settings,) = config.dns
    assert (settings.service, settings.zone, settings.name) == (
        "chat",
        "example.org",
        "ai.example.org",
    )
    assert (settings.token, settings.proxied, settings.ttl) == ("cf-value", True, 1)
    assert settings.api == "https://api.cloudflare.com/client/v4"
    plain = read(LAB + DNS + "proxied = false\nttl = 60\n")
    assert (plain.dns[0].ttl, plain.fleet.services["chat"].dns.ttl_s) == (60, 60)


ALERTS = """
language = "pt"
timezone = "Europe/Lisbon"
[alerts]
quiet_hours = "23:30-07:30"
remind_every = "1h"
telegram = { chat = 123, token = { credential = "bot" } }
urls = [{ credential = "mail" }]
[deadman]
ping_url = { credential = "ping" }
every = "90s"
"""


def test_alerts_and_the_deadman_get_their_secrets_and_their_times(read):
    config = read(ALERTS + LAB)
    assert [channel.name for channel in config.alerts.channels] == ["telegram", "mail"]
    assert config.alerts.channels[0].url == "tgram://123456:ABCdef/123"
    assert (config.alerts.language, config.alerts.timezone) == ("pt", "Europe/Lisbon")
    assert config.alerts.quiet == (dt.time(23, 30), dt.time(7, 30))
    assert config.fleet.alerts.remind_s == 3600
    assert (config.deadman.ping_url, config.deadman.every_s) == ("https://hc.example.org/uuid", 90)


def test_a_configured_admin_token_is_kept_as_its_hash_only(read):
    config = read(LAB + '[server]\nadmin_token = { credential = "admin" }\n')
    assert (
        config.web.admin_token_sha256
        == hashlib.sha256(SECRETS["AION_CREDENTIAL_ADMIN"].encode()).digest()
    )
    assert with_admin_token(config) == (config, None, False)


def test_an_admin_token_is_made_once_and_only_its_owner_reads_it(read, tmp_path):
    config, path, made = with_admin_token(read(LAB))
    assert made
    assert path == tmp_path / "admin_token"
    assert path.stat().st_mode & 0o777 == 0o600
    again, _, made = with_admin_token(read(LAB))
    assert not made
    assert again.web == config.web
    path.write_text("short\n")
    with pytest.raises(ConfigError, match="too easily guessed"):
        with_admin_token(read(LAB))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("90s", 90),
        ("15m", 900),
        ("12h", 43200),
        ("7d", 604800),
        ("1.5h", 5400),
        ("0s", 0),
    ],
)
def test_durations_are_read_and_written(text, seconds):
    assert duration(text) == seconds
    assert duration(written(seconds)) == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "10 s", "-1s", "1h30m", "s", "1e3s", "٣s", "9999d", 10, None, True]
)
def test_what_is_not_a_duration_is_refused(text):
    with pytest.raises(ValueError, match=r"expected a duration|ten years"):
        duration(text)


@pytest.mark.parametrize(
    ("address", "remote"),
    [
        ("http://127.0.0.1:1", False), ("http://[::1]:1", False), ("http://localhost", False), ("http://10.1.2.3", False),
        ("http://192.168.1.1", False), ("http://169.254.1.1", False), ("http://[fe80::1]", False), ("http://[fd00::1]", False),
        ("http://100.64.0.1", False), ("http://gpu", False), ("http://gpu.local", False), ("http://a.lan", False),
        ("http://a.internal", False), ("http://a.home.arpa", False), ("tcp://10.0.0.1:22", False), ("http://8.8.8.8", True),
        ("https://ai.example.org", True), ("https://[2606:4700::1]", True), ("https://x.local.example.org", True),
        ("http://100.128.0.1", True),
    ],
)  # fmt: skip
def test_remote_is_what_needs_more_than_the_local_network(address, remote):
    assert is_remote(address) is remote


def test_a_reload_is_told_in_sentences(read):
    old = read(LAB + API + DNS)
    assert diff(old, old) == []
    new = read(
        LAB.replace("8080", "8081").replace("lab]", "lab]\npriority = 3")
        + LAB.replace("lab", "new")
        + DNS
        + '[server]\nlisten = "127.0.0.1:9"\n',
        {"AION_CREDENTIAL_CF": "another"},
    )
    assert diff(old, new) == [
        "backend `new` is added",
        "backend `groq` is removed",
        "backend `lab` changes: priority, url",
        "service `chat` changes: backends",
        "DNS of service `chat` changes: token",
        "server.listen changes; takes effect at the next restart",
    ]


def test_the_file_is_looked_for_where_the_contract_says(tmp_path):
    usual, asked, named = (tmp_path / name for name in ("aion.toml", "a.toml", "b.toml"))
    for path in (usual, asked, named):
        path.touch()
    environ = {"AION_CONFIG": str(named)}
    assert find_path(asked, environ=environ, cwd=tmp_path) == asked
    assert find_path(None, environ=environ, cwd=tmp_path) == named
    assert find_path(None, environ={}, cwd=tmp_path) == usual
    with pytest.raises(ConfigError, match="does not exist"):
        find_path(tmp_path / "no.toml", environ={}, cwd=tmp_path)


def test_show_says_where_each_value_came_from(tmp_path):
    path = tmp_path / "aion.toml"
    path.write_text(f'[health]\ninterval = "20s"\n{LAB}{API}')
    reading = study(
        path,
        environ={**SECRETS, "AION_BACKENDS__LAB__PRIORITY": "7"},
        flags={"server.listen": "127.0.0.1:1"},
    )
    found = {row.key: (row.value, row.source, row.where) for row in rows(reading)}
    assert found["server.listen"] == ("127.0.0.1:1", "flag", "--listen")
    assert found["backends.lab.priority"] == (7, "env", "AION_BACKENDS__LAB__PRIORITY")
    assert found["health.interval"] == ("20s", "file", "aion.toml:2")
    assert found["backends.lab.health.interval"] == ("20s", "file", "aion.toml:2")
    assert found["backends.groq.health.interval"] == ("5m", "default", "its kind")
    assert found["backends.groq.key"] == ({"credential": "groq"}, "file", "aion.toml:9")
    assert found["health.fall"] == (3, "default", "")


# ── the files we ship ───────────────────────────────────────────────────────────────────────────

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize("name", ["aion.toml", "demo.toml"])
def test_the_files_we_ship_load_as_they_are(name):
    assert load(CONFIG / name, environ={}).warnings == ()


def test_every_key_of_the_explained_file_is_right_once_it_is_used(tmp_path):
    import re

    text = re.sub(r"(?m)^#([a-z_]+ = |\[)", r"\1", (CONFIG / "aion.toml").read_text())
    path = tmp_path / "aion.toml"
    path.write_text(text)
    names = set(re.findall(r'(?m)^[^#]*credential = "(\w+)"', text)) | {"local_header"}
    environ = {
        f"AION_CREDENTIAL_{name.upper()}": SECRETS["AION_CREDENTIAL_ADMIN"] for name in names
    }
    environ |= {
        "AION_CREDENTIAL_TELEGRAM": "1:a", "AION_CREDENTIAL_SMTP_URL": "mailto://a", "AION_CREDENTIAL_HEALTHCHECKS": "https://a.org",
        "AION_CREDENTIAL_PG_DSN": "postgresql://a:b@h/d", "AION_CREDENTIAL_DRILL_DSN": "host=h", "AION_CREDENTIAL_HC_BACKUP": "https://a.org",
        "AION_CREDENTIAL_AGE_IDENTITY": "AGE-SECRET-KEY-1A",
    }  # fmt: skip
    config = load(path, environ=environ)
    assert set(config.plans) == {"local", "tunnel", "groq", "rehearsal", "colab", "gpu-box"} | {
        "rented-pod", "made-pod", "rented-box", "rented-vm", "colab-auto", "kaggle", "gpu-vm", "made-vm",
    }  # fmt: skip
    assert config.warnings == ()


def test_the_explained_file_names_every_key():
    from orchestrator.settings.editor import schema

    text = (CONFIG / "aion.toml").read_text()
    definitions = schema()["$defs"]
    keys = {
        key
        for name, each in definitions.items()
        for key in each.get("properties", {})
        if name not in {"Quota", "Cost"}
    }
    assert {key for key in keys if key not in text} == set()


def test_a_canary_asked_of_an_engine_without_completions_is_warned_of(read):
    config = read(
        '[backends.lab]\nkind = "static"\nengine = "tcp"\nurl = "tcp://127.0.0.1:9"\n'
        'health = { canary = "1m" }\n'
    )
    assert config.fleet.backends["lab"].health.canary_s is None
    assert any("no completions" in warning for warning in config.warnings)
