"""Broken configurations, and the whole of what is printed about them.

Each case is a file and its report: what stands after the first line, which counts.
"""

import re
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.settings import load, report, study

CASES = Path(__file__).parent / "broken"
SECRET = {
    "AION_CREDENTIAL_GOOD": "good-value-of-a-secret",
    "AION_CREDENTIAL_WEAK": "weakling",
    "AION_CREDENTIAL_LONG": "a-long-secret-0123456789-abcdefghijklmnop",
    "AION_CREDENTIAL_TWO": "two\nlines",
    "AION_CREDENTIAL_EMPTY": "",
}


def printed(path, environ=None, flags=None):
    reading = study(path, environ={**SECRET, **(environ or {})}, flags=flags)
    text = report(reading) if reading.problems else ""
    if reading.warnings:
        text += "\nwarning: " + report(reading, warnings=True)
    return text.strip("\n").replace(str(path), path.name)


@pytest.mark.parametrize("case", sorted(CASES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_broken_file_is_reported_whole(case):
    assert printed(case) + "\n" == case.with_suffix(".txt").read_text()


def test_the_report_has_the_contracts_form(tmp_path):
    lines = (
        [""] * 13
        + ['sesion = "12h"']
        + [""] * 14
        + ["[backends.groq]", 'kind = "api"', 'key = { credential = "groq" }']
    )
    lines[9] = "[backends.colab]"
    lines[10] = 'kind = "static"\nurl = "http://h"'
    lines.pop(12)
    lines.append('base_url = "https://api.groq.com/openai/v1"')
    path = tmp_path / "aion.toml"
    path.write_text("\n".join(lines))
    assert printed(path) == (
        "2 problems in aion.toml\n"
        '  14 | sesion = "12h"\n'
        "     | ^^^^^^ backends.colab: unknown key; did you mean `session`?\n"
        '  31 | key = { credential = "groq" }\n'
        "     |       ^ credential `groq` not found; fix: aion secret set groq"
    )


LAB = '[backends.lab]\nkind = "static"\nurl = "http://10.0.0.5:8080"\n'


@pytest.mark.parametrize(
    ("environ", "flags", "said"),
    [
        (
            {"AION_HEALTH__FALL": "x"},
            {},
            "  AION_HEALTH__FALL: health.fall: expected a whole number",
        ),
        (
            {"AION_HEALTH__FAL": "3"},
            {},
            "  AION_HEALTH__FAL: health: unknown key; did you mean `fall`?",
        ),
        (
            {"AION_HELTH__FALL": "3"},
            {},
            "  AION_HELTH__FALL: unknown key; did you mean AION_HEALTH?",
        ),
        ({"AION_LANGUGE": "pt"}, {}, "  AION_LANGUGE: unknown key; did you mean AION_LANGUAGE?"),
        (
            {"AION_BACKENDS__NEW__PRIORITY": "1"},
            {},
            "  AION_BACKENDS__NEW__PRIORITY: backends.new: `kind` is missing",
        ),
        (
            {},
            {"server.listen": "x"},
            '  --listen: server.listen: expected "host:port", such as "127.0.0.1:8765"',
        ),
    ],
)
def test_a_problem_names_the_variable_or_flag_it_came_from(tmp_path, environ, flags, said):
    path = tmp_path / "aion.toml"
    path.write_text(LAB)
    assert printed(path, environ, flags) == f"1 problem in aion.toml\n{said}"


def test_without_a_file_the_missing_backend_is_said():
    with pytest.raises(ConfigError, match="there is no backend"):
        load(None, environ={})


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"a = \xff", "is not UTF-8 text (line 1)"),
        (b"#" * 4_000_001, "is larger than 4 MB"),
        (b"a = " + b"[" * 3000, "nested too deeply"),
        (b"a = " + b"{a=" * 3000, "nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, raw, said):
    path = tmp_path / "aion.toml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(path, environ={})


def test_a_folder_is_not_a_configuration(tmp_path):
    with pytest.raises(ConfigError, match="is a directory"):
        load(tmp_path, environ={})


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path):
    path = tmp_path / "aion.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (LAB + "a = 1").replace("\n", "\r\n").encode())
    assert "   4 | a = 1\n" in printed(path)


def test_hostile_names_are_shown_harmless_and_short(tmp_path):
    path = tmp_path / "aion.toml"
    name = "\\u001b[31mevil\\u0007" + "x" * 300
    path.write_text(
        f'{LAB}[backends."{name}"]\nkind = "static"\nurl = "http://h"\n[services.a]\nbackends = ["{name}", "\\u202e"]'
    )
    text = printed(path)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert max(len(line) for line in text.split("\n")) < 300


# ── no secret is ever shown ─────────────────────────────────────────────────────────────────────

CANARY = "c4n4ryS3cr3tV4lue00112233445566"
LEAKS = [
    f'key = "{CANARY}"',
    f"key = '''{CANARY}'''",
    f'key = "{CANARY}',
    f'key = """\n{CANARY}',
    f"key = {CANARY}",
    f'key = {{ credential = "{CANARY}" }}',
    f'key = {{ credential = "good", x = "{CANARY}" }}',
    f'key = ["{CANARY}"]',
    f'kay = "{CANARY}"',
    f'keys = "sk-{CANARY}"',
    f'url = "http://me:{CANARY}@h/"',
    f'headers = {{ Authorization = "Bearer {CANARY}" }}',
    f'headers = {{ X-Api-Key = "{CANARY}", bad = 1 }}',
    f'priority = "{CANARY}"',
    f'priority = 1\npriority = "{CANARY}"',
    f'tier = "{CANARY}"',
    f'engine = "{CANARY}"',
    f'[server]\nadmin_token = "{CANARY}"',
    f'[server]\ndatabase = "postgresql://me:{CANARY}@db/aion"',
    f'[alerts]\nurls = ["tgram://{CANARY}/1"]',
    f'[alerts]\ntelegram = {{ chat = 1.5, token = "{CANARY}" }}',
    f'[deadman]\nping_url = "https://hc-ping.com/{CANARY}"',
    f'kind = "{CANARY}"\nkind = "{CANARY}"',
    f'[services.a]\nbackends = ["{CANARY}"]',
]


@pytest.mark.parametrize("leak", LEAKS)
def test_a_secret_in_the_wrong_place_is_never_shown(tmp_path, leak):
    path = tmp_path / "aion.toml"
    path.write_text(LAB + leak + "\n")
    reading = study(path, environ=SECRET)
    assert reading.problems
    assert CANARY not in report(reading)
    with pytest.raises(ConfigError) as caught:
        load(path, environ=SECRET)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "variable",
    [
        "AION_BACKENDS__LAB__KEY",
        "AION_SERVER__ADMIN_TOKEN",
        "AION_BACKENDS__LAB__PRIORITY",
        "AION_SERVER__DATABASE",
    ],
)
def test_a_secret_in_a_variable_is_never_shown(tmp_path, variable):
    path = tmp_path / "aion.toml"
    path.write_text(LAB)
    assert CANARY not in printed(path, {variable: CANARY})
