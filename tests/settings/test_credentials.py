"""Where secrets come from, what is refused, and that they are shown nowhere."""

import os

import pytest

from orchestrator.errors import ConfigError
from orchestrator.settings import load, study
from orchestrator.settings.credentials import (
    Sources,
    find,
    looks_secret,
    new_token,
    weakness,
    write,
)
from orchestrator.settings.editor import schema
from orchestrator.settings.effective import rows

CANARIES = {
    name: f"c4n4ry{number}V4lue0011223344556677-WXYZwxyz"
    for number, name in enumerate(("admin", "key", "head", "cf"))
}
CANARIES |= {
    "bot": "123:c4n4ryB0t",
    "mail": "json://c4n4ryM4il@h",
    "ping": "https://c4n4ryP1ng.org",
}
TEXT = """
[server]
admin_token = { credential = "admin" }
[backends.lab]
kind = "static"
url = "http://10.0.0.5:8080"
key = { credential = "key" }
headers = { X-Api-Key = { credential = "head" } }
[services.chat.dns]
provider = "cloudflare"
zone = "example.org"
name = "ai.example.org"
gateway = "aion.example.org"
token = { credential = "cf" }
[alerts]
telegram = { chat = 1, token = { credential = "bot" } }
urls = [{ credential = "mail" }]
[deadman]
ping_url = { credential = "ping" }
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "aion.toml").write_text(TEXT)
    for name, value in CANARIES.items():
        write(tmp_path / "credentials" / name, value)
    return tmp_path


def test_no_secret_is_in_any_text_made_of_the_configuration(folder):
    path = folder / "aion.toml"
    config = load(path, environ={})
    reading = study(path, environ={})
    texts = [repr(config), str(config), repr(reading), repr(rows(reading)), repr(schema())]
    texts += [repr(config.plans["lab"]), repr(config.alerts), repr(config.dns), repr(config.web)]
    for value in CANARIES.values():
        assert not [text for text in texts if value in text]
    assert config.plans["lab"].secrets == {
        "key": CANARIES["key"],
        "headers.X-Api-Key": CANARIES["head"],
    }


def sources(folder, systemd=None, **environ):
    return Sources(systemd, folder / "credentials", environ)


def test_systemd_comes_first_then_the_folder_then_the_environment(tmp_path):
    given = {"AION_CREDENTIAL_A_B": "environment"}
    assert find("a-b", sources(tmp_path, **given)) == "environment"
    write(tmp_path / "credentials" / "a-b", "folder")
    assert find("a-b", sources(tmp_path, **given)) == "folder"
    write(tmp_path / "systemd" / "a-b", "systemd")
    (tmp_path / "systemd" / "a-b").chmod(0o644)  # systemd's own folder: nobody else gets there
    assert find("a-b", sources(tmp_path, tmp_path / "systemd", **given)) == "systemd"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_file_that_others_can_read_is_refused_with_the_remedy(tmp_path, mode):
    path = tmp_path / "credentials" / "a"
    write(path, "value")
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        find("a", sources(tmp_path, AION_CREDENTIAL_A="environment"))
    assert str(caught.value) == f"{path} can be read by others; fix: chmod 600 {path}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"a\nb\n", "more than one line"),
        (b"a\x00b", "control characters"),
        (b" a", "blanks"),
        (b"\xff\xfe", "is not text"),
        (b"x" * 70_000, "is larger than"),
    ],
)
def test_a_file_without_one_good_line_is_refused(tmp_path, content, said):
    path = tmp_path / "credentials" / "a"
    write(path, "x")
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        find("a", sources(tmp_path))


@pytest.mark.parametrize("content", ["value", "value\n", "value\r\n"])
def test_a_line_end_is_not_part_of_the_secret(tmp_path, content):
    path = tmp_path / "credentials" / "a"
    write(path, "x")
    path.write_bytes(content.encode())
    assert find("a", sources(tmp_path)) == "value"


def test_what_is_not_a_file_is_refused(tmp_path):
    (tmp_path / "credentials" / "a").mkdir(parents=True)
    with pytest.raises(ConfigError, match="is not a file"):
        find("a", sources(tmp_path))
    (tmp_path / "credentials" / "b").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="no such file"):
        find("b", sources(tmp_path))
    os.mkfifo(tmp_path / "credentials" / "c", 0o600)
    with pytest.raises(ConfigError, match="is not a file"):
        find("c", sources(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_we_cannot_read_says_what_to_do(tmp_path):
    path = tmp_path / "credentials" / "a"
    write(path, "value")
    path.chmod(0)
    with pytest.raises(ConfigError, match="permission denied; fix: chown"):
        find("a", sources(tmp_path))


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", ".a", "a b", "a\n", "ä", "a" * 65])
def test_a_credentials_name_cannot_leave_its_folder(tmp_path, name):
    with pytest.raises(ConfigError, match="a credential's name has"):
        find(name, sources(tmp_path))


@pytest.mark.parametrize(
    "name", ["groq", "rclone.conf", "telegram_bot_token_for_alerts_2", "hc-backup", "colab_token"]
)
def test_an_ordinary_name_does_not_look_like_a_secret(name):
    assert not looks_secret(name)


@pytest.mark.parametrize(
    "text",
    [
        "sk-abcdefgh12345678",
        "gsk_abcdefgh",
        "hf_abcdefghij",
        "postgresql://a:b@c/d",
        "x" * 15 + "1",
        "mailtos://user:pass@example.org",
    ],
)
def test_what_looks_like_a_secret_is_taken_for_one(text):
    assert looks_secret(text)


def test_a_file_is_written_whole_and_for_its_owner_only(tmp_path):
    path = tmp_path / "credentials" / "a"
    for value in ("one", "two"):
        write(path, value)
        assert path.read_text() == value + "\n"
        assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["a"]


def test_a_new_token_is_strong_and_a_short_or_dull_one_is_not():
    assert weakness(new_token()) is None
    assert weakness("a" * 64)
    assert weakness("0123456789abcdef")


def test_an_account_s_key_of_several_lines_is_one_credential(tmp_path):
    path = tmp_path / "aion.toml"
    path.write_text(
        '[backends.vm]\nkind = "gce"\nproject = "my-project-1"\nzone = "europe-west4-a"\n'
        'instance = "gpu-1"\nport = 8000\naccount = { credential = "sa" }\n'
    )
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    (folder / "sa").touch(mode=0o600)
    (folder / "sa").write_text('{\n  "type": "service_account"\n}\n')
    plan = load(path, environ={}).plans["vm"]
    assert plan.secrets["account"] == '{\n  "type": "service_account"\n}'
