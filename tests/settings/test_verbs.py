"""`aion config`, `aion secret` and `aion init`, as they are typed."""

import json
import os
import stat
import subprocess
import sys

import pytest

LAB = '[backends.lab]\nkind = "static"\nurl = "http://10.0.0.5:8080"\n'


@pytest.fixture
def aion(tmp_path):
    def run(*words, code=0, stdin=""):
        environ = {k: v for k, v in os.environ.items() if not k.startswith("AION_")}
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words],
            cwd=tmp_path,
            env={**environ, "STATE_DIRECTORY": str(tmp_path / "state"), "TZ": "Europe/Lisbon"},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def test_show_writes_hours_as_they_would_be_read(aion, tmp_path):
    vm = '[backends.vm]\nkind = "fake"\npower = "boot 5s"\nstart = "auto"\n'
    given = 'on_from = "22:00"\non_until = "24:00"\non_days = "mon-tue"\n'
    (tmp_path / "aion.toml").write_text(vm + given)
    shown = json.loads(aion("config", "show", "--json").stdout)["values"]
    values = {one["key"]: one["value"] for one in shown}
    assert values["backends.vm.on_from"] == "22:00"
    assert values["backends.vm.on_until"] == "24:00"
    assert values["backends.vm.on_days"] == ["monday", "tuesday"]


def test_check_says_in_one_line_that_all_is_well(aion, tmp_path):
    (tmp_path / "aion.toml").write_text(LAB)
    done = aion("config", "check")
    assert done.stdout == f"{tmp_path}/aion.toml is right: 1 backend, 1 service\n"
    assert done.stderr == ""


def test_check_prints_every_problem_however_many_and_exits_5(aion, tmp_path):
    (tmp_path / "aion.toml").write_text(LAB + "".join(f"modles{n} = 1\n" for n in range(100)))
    done = aion("config", "check", code=5)
    assert done.stderr.startswith("error: 100 problems in ")
    assert done.stderr.count("\n") == 201
    listed = json.loads(aion("config", "check", "--json", code=5).stdout)
    assert listed["problems"][0] == {
        "line": 4,
        "column": 1,
        "key": "backends.lab.modles0",
        "text": "backends.lab: unknown key; did you mean `models`?",
    }


def test_without_a_configuration_the_way_out_is_said(aion):
    assert "`aion init` writes one" in aion("config", "check", code=5).stderr


def test_show_and_schema_are_data(aion, tmp_path):
    (tmp_path / "aion.toml").write_text(LAB)
    values = json.loads(aion("config", "show", "--json").stdout)["values"]
    assert {
        "key": "backends.lab.kind",
        "value": "static",
        "source": "file",
        "where": "aion.toml:2",
    } in values
    schema = json.loads(aion("config", "schema").stdout)
    assert schema["properties"]["timezone"]["default"] == "UTC"
    assert schema["$defs"]["backend_static"]["properties"]["kind"]["const"] == "static"
    assert schema["$defs"]["Health"]["properties"]["interval"]["default"] == "10s"


def test_init_without_a_terminal_writes_what_the_flags_say(aion, tmp_path):
    aion("init", code=2)
    words = ("init", "-y", "--server", "http://127.0.0.1:8080", "--second", "http://10.0.0.7:11434")
    aion(*words, "--alert-file", "-", stdin="json://hook.example.org/x\n")
    text = (tmp_path / "aion.toml").read_text()
    assert 'engine = "llamacpp"' in text
    assert 'engine = "ollama"' in text
    assert 'timezone = "Europe/Lisbon"' in text
    assert "hook.example.org" not in text
    for name in ("admin_token", "alert_url"):
        assert stat.S_IMODE((tmp_path / "credentials" / name).stat().st_mode) == 0o600
    aion("config", "check")
    before = text
    assert "--overwrite" in aion("init", "-y", code=2).stderr
    assert (
        "nothing was written"
        in aion("init", "-y", "--overwrite", "--server", "gopher://h", code=5).stderr
    )
    assert (tmp_path / "aion.toml").read_text() == before
    aion("init", "-y", "--overwrite")
    assert (tmp_path / "aion.toml.old").read_text() == before


def test_a_secret_is_kept_listed_and_replaced_without_being_shown(aion, tmp_path):
    (tmp_path / "aion.toml").write_text(LAB + 'key = { credential = "groq" }\n')
    listed = aion("secret", "list", code=1)
    assert "missing; fix: aion secret set groq" in listed.stdout
    done = aion("secret", "set", "groq", stdin="s3cr3t-value\n")
    assert "s3cr3t" not in done.stdout + done.stderr
    path = tmp_path / "credentials" / "groq"
    assert path.read_text() == "s3cr3t-value\n"
    aion("config", "check")
    assert "-y does it" in aion("secret", "set", "groq", code=2, stdin="other\n").stderr
    aion("secret", "rotate", "groq", "-y", stdin="other\n")
    assert path.read_text() == "other\n"
    rows = json.loads(aion("secret", "list", "--json").stdout)["credentials"]
    assert rows == [
        {"name": "groq", "state": "ok", "where": str(path), "used_by": ["backends.lab.key"]}
    ]
    aion("secret", "rotate", "-y")
    assert len((tmp_path / "state" / "admin_token").read_text()) > 32
    assert "1 to 64 letters" in aion("secret", "set", "../x", code=5, stdin="v").stderr
    assert "nothing was kept" in aion("secret", "set", "new", code=5, stdin="a\nb\n").stderr
