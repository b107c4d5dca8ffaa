"""What holds for every verb: starting fast, errors, exit statuses, options."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from standin import TOKEN
from terminal import COMMAND, aion, environment

from orchestrator.cli import NOUNS, load

HEAVY = ("httpx", "aiohttp", "fastapi", "sqlmodel", "sqlalchemy", "cloudflare", "rich")


def imported_by(*words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "orchestrator.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    lines = (line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines())
    return {line.partition(".")[0] for line in lines}


def test_help_names_every_verb_and_imports_nothing_heavy():
    ran = aion("--help")
    assert ran.code == 0
    assert all(f"  {noun.name} " in ran.out for noun in NOUNS)
    assert not imported_by("--help").intersection(HEAVY)


def test_a_verb_that_only_asks_the_daemon_imports_nothing_heavy(at):
    assert not imported_by("status", *at).intersection(HEAVY)


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.name)
def test_every_verb_can_be_loaded_explains_itself_and_has_the_common_options(noun):
    command = load(noun)
    assert command.help
    leaves = getattr(command, "commands", None) or {noun.name: command}
    for leaf in leaves.values():
        names = {name for param in leaf.params for name in param.opts}
        assert {"--json", "-q", "--config", "--debug"} <= names
        assert "--show-completion" not in names


def test_the_version_is_told():
    ran = aion("--version")
    assert (ran.code, ran.out.split()[0]) == (0, "aion")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["statu"], "Did you mean 'status'?"),
        (["status", "--nope"], "--nope"),
        (["pin", "chat"], "backend"),
        (["switchover", "chat", "--to", "lab"], "--at"),
        (["failover", "a", "b"], "b"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(words, said):
    ran = aion(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("error: ")
    assert said in ran.err
    assert "--help" in ran.err


def test_a_daemon_that_is_not_there_is_one_line_and_exit_6():
    ran = aion("status", "--url", "http://127.0.0.1:9")
    assert (ran.code, ran.out) == (6, "")
    assert "connection refused" in ran.err
    assert "aion serve" in ran.err
    assert ran.err.count("\n") == 1


def test_a_wrong_token_is_one_line_and_exit_4(daemon, tmp_path):
    (tmp_path / "wrong").write_text("wrong")
    ran = aion("status", "--url", daemon.url, "--token-file", str(tmp_path / "wrong"))
    assert (ran.code, ran.out) == (4, "")
    assert "admin token" in ran.err
    assert str(tmp_path / "wrong") in ran.err


def test_a_token_file_that_cannot_be_read_is_one_line_and_exit_4(daemon, tmp_path):
    ran = aion("status", "--url", daemon.url, "--token-file", str(tmp_path / "none"))
    assert ran.code == 4
    assert ran.err.count("\n") == 1


def test_a_broken_configuration_is_one_line_and_exit_5(tmp_path):
    (tmp_path / "aion.toml").write_text("[server\n")
    ran = aion("status", cwd=tmp_path)
    assert ran.code == 5
    assert "aion.toml" in ran.err
    assert ran.err.count("\n") == 1


def test_what_answers_but_is_not_the_daemon_is_told_so(token_file):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Other)
    thread = Thread(target=server.handle_request)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    ran = aion("status", "--url", url, "--token-file", str(token_file))
    thread.join()
    server.server_close()
    assert ran.code == 1
    assert "is it aion's daemon?" in ran.err


def test_an_unknown_name_is_the_daemons_own_sentence_and_exit_1(at):
    ran = aion("backend", "show", "nope", *at)
    assert (ran.code, ran.err) == (1, "error: there is no backend `nope`\n")


def test_a_traceback_comes_only_with_debug():
    words = ("status", "--url", "http://127.0.0.1:9")
    assert "Traceback" not in aion(*words).err
    debug = aion(*words, "--debug")
    assert debug.code == 6
    assert "Traceback" in debug.err


def test_common_options_may_stand_before_and_after_the_verb(at):
    before, after = aion("--json", *at, "status"), aion("status", "--json", *at)
    assert json.loads(before.out) == json.loads(after.out)


def test_the_token_and_address_are_found_through_the_configuration(daemon, tmp_path):
    listen = daemon.url.removeprefix("http://")
    text = f'[server]\nlisten = "{listen}"\nadmin_token = {{ credential = "mine" }}\n'
    (tmp_path / "aion.toml").write_text(text)
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "mine").write_text(TOKEN)
    assert aion("status", "-q", cwd=tmp_path).code == 0
    elsewhere = ("--config", str(tmp_path / "aion.toml"))
    assert aion("status", *elsewhere, cwd="/").code == 0


def test_the_token_that_the_daemon_made_itself_is_found_in_its_state_folder(daemon, tmp_path):
    (tmp_path / "aion.toml").write_text(f'[server]\nlisten = "{daemon.url[7:]}"\n')
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "admin_token").write_text(TOKEN + "\n")
    assert aion("status", cwd=tmp_path).code == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_token_of_another_user_is_told_so(daemon, tmp_path):
    (tmp_path / "aion.toml").write_text(f'[server]\nlisten = "{daemon.url[7:]}"\n')
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "admin_token").touch(mode=0)
    ran = aion("status", cwd=tmp_path)
    assert ran.code == 4
    assert "sudo" in ran.err


def test_output_that_nobody_reads_on_is_no_error(at):
    words = " ".join([*COMMAND, "backend", "list", *at])
    done = subprocess.run(
        ["sh", "-c", f"{words} | head -0"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.stderr == ""


def test_completion_knows_verbs_and_their_parts():
    script = environment(_AION_COMPLETE="complete_bash", COMP_CWORD="1", COMP_WORDS="aion fail")
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False, env=script)
    assert done.stdout.split() == ["failover"]
    script = environment(
        _AION_COMPLETE="complete_bash", COMP_CWORD="2", COMP_WORDS="aion backend dr"
    )
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False, env=script)
    assert done.stdout.split() == ["drain"]
