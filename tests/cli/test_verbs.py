"""What verbs show of the daemon, and what they tell it."""

from __future__ import annotations

import json
import signal

import pytest
from standin import Standin, fleet
from terminal import OnTerminal, aion

from orchestrator.core.model import Health

CHANGES = [
    (["failover"], "services/chat/failover", {}),
    (["failover", "chat", "--to", "lab"], "services/chat/failover", {"to": "lab"}),
    (
        ["pin", "chat", "lab"],
        "services/chat/pin",
        {"backend": "lab", "for": "14400s", "hard": False},
    ),
    (
        ["pin", "chat", "lab", "--for", "1h30m", "--hard"],
        "services/chat/pin",
        {"backend": "lab", "for": "5400s", "hard": True},
    ),
    (["unpin"], "services/chat/unpin", {}),
    (["pause", "--for", "90s"], "pause", {"for": "90s"}),
    (["pause"], "pause", {}),
    (["resume"], "resume", {}),
    (["reload"], "reload", {}),
    (["backend", "drain", "lab"], "backends/lab/drain", {}),
    (["backend", "undrain", "lab"], "backends/lab/undrain", {}),
    (["backend", "start", "lab"], "backends/lab/start", {}),
    (["backend", "stop", "lab"], "backends/lab/stop", {}),
    (["job", "run", "prune"], "jobs/prune/run?wait=false", {}),
    (["incident", "ack", "i7"], "incidents/i7/ack", {}),
    (["incident", "mute", "i7", "--for", "2h"], "incidents/i7/mute", {"for": "7200s"}),
]
IDS = [" ".join(words) for words, _, _ in CHANGES]


@pytest.mark.parametrize("words", [words for words, _, _ in CHANGES[::3]], ids=IDS[::3])
def test_what_changes_something_is_not_done_where_nobody_can_be_asked(daemon, at, words):
    ran = aion(*words, *at)
    assert (ran.code, ran.out, daemon.given) == (2, "", [])
    assert ran.err.startswith("error: not done")
    assert "-y" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(("words", "path", "body"), CHANGES, ids=IDS)
def test_yes_does_it_and_the_daemon_is_told_who_and_under_which_key(daemon, at, words, path, body):
    ran = aion(*words, "-y", *at)
    assert ran.code == 0, ran.err
    [(told, given, headers)] = daemon.given
    assert (told, given) == (path, body)
    assert len(headers["idempotency-key"]) >= 32
    assert headers["aion-user"]
    assert ran.out


def test_checking_a_backend_changes_nothing_and_does_not_ask(daemon, at):
    assert aion("backend", "check", "lab", *at).code == 0
    assert daemon.given[0][0] == "backends/lab/check"


def test_a_switchover_is_told_in_universal_time(daemon, at):
    words = ("switchover", "chat", "--to", "lab", "--at", "+2h", "-y")
    assert aion(*words, *at).code == 0
    assert daemon.given[0][1] == {"to": "lab", "at": "2025-11-21T06:40:00Z"}


@pytest.mark.parametrize("bad", [["--for", "90"], ["--for", "soon"]])
def test_a_duration_that_cannot_be_read_is_exit_2_and_nothing_is_told(daemon, at, bad):
    ran = aion("pause", *bad, "-y", *at)
    assert (ran.code, daemon.given) == (2, [])


@pytest.mark.parametrize(
    ("typed", "code"), [("y\r", 0), ("YES\r", 0), ("\r", 2), ("n\r", 2), ("what\r", 2)]
)
def test_on_a_terminal_the_consequence_is_told_and_the_operator_asked(daemon, at, typed, code):
    terminal = OnTerminal("failover", "--to", "lab", *at)
    terminal.until("chat moves from colab to lab now. Go on? [y/N]")
    terminal.type(typed)
    assert terminal.end().code == code
    assert len(daemon.given) == (code == 0)


def test_ctrl_c_at_the_question_is_quiet_and_does_nothing(daemon, at):
    terminal = OnTerminal("failover", *at)
    terminal.until("[y/N]")
    terminal.signal(signal.SIGINT)
    ran = terminal.end()
    assert ran.code == 130
    assert "Traceback" not in ran.out
    assert daemon.given == []


def test_a_command_whose_answer_was_lost_is_asked_again_under_the_same_key(daemon, at):
    daemon.drop_answers = 1
    assert aion("pause", "-y", *at).code == 0
    first, second = (headers["idempotency-key"] for _, _, headers in daemon.given)
    assert first == second


def test_a_daemon_that_never_answers_is_given_up_and_exit_6(daemon, at):
    daemon.drop_answers = 99
    ran = aion("pause", "-y", *at)
    assert ran.code == 6
    assert ran.err.count("\n") == 1
    assert len(daemon.given) == 2


def test_a_refused_reload_shows_every_problem_and_is_exit_5(daemon, at):
    problems = ["1 problem in aion.toml", "  3 | foo = 1", "    | ^^^ unknown key"]
    daemon.refuse = (422, {"code": "configuration", "detail": problems[0], "problems": problems})
    ran = aion("reload", "-y", *at)
    assert ran.code == 5
    assert ran.err == "error: " + "\n".join(problems) + "\n"


def test_two_commands_have_two_keys(daemon, at):
    aion("pause", "-y", *at)
    aion("pause", "-y", *at)
    first, second = (headers["idempotency-key"] for _, _, headers in daemon.given)
    assert first != second


@pytest.mark.parametrize(
    ("world", "code"),
    [
        (fleet(), 0),
        (fleet(colab=Health.DEGRADED), 3),
        (fleet(active=None, colab=Health.DOWN), 3),
    ],
)
def test_the_exit_status_of_status_says_how_things_stand(token_file, world, code):
    with Standin(world) as daemon:
        words = ("status", "--url", daemon.url, "--token-file", str(token_file))
        assert aion(*words).code == aion(*words, "--json", "-q").code == code


def test_status_says_who_serves_until_when_what_is_next_and_what_is_wrong(daemon, at):
    daemon.pin("lab", hard=True)
    shown = aion("status", *at, TZ="UTC").out
    for text in ("colab", "1 h 56 min", "05:40 (in 1 h)", "hard-pinned to lab", "groq is down"):
        assert text in shown


@pytest.mark.parametrize(
    ("verb", "picked"),
    [
        ("status", lambda got: got["services"][0]["active"] == "colab"),
        ("explain", lambda got: got[0]["candidates"][1]["backend"] == "lab"),
        ("explain chat", lambda got: got["active"] == "colab"),
        ("backend list", lambda got: [one["name"] for one in got] == ["colab", "lab", "groq"]),
        ("backend show lab", lambda got: got["engine"] == "llamacpp"),
        ("incident list", lambda got: got[0]["id"] == "i7"),
        ("incident show backend_down:groq", lambda got: got["subject"] == "groq"),
        ("job list", lambda got: got[0]["name"] == "prune"),
        ("events", lambda got: [one["seq"] for one in got] == [1, 2, 3]),
        ("pause -y", lambda got: got == {"text": "did pause"}),
        ("reload -y", lambda got: got["changes"]),
    ],
)
def test_json_is_one_document_of_the_apis_own_shape(at, verb, picked):
    ran = aion(*verb.split(), "--json", *at)
    assert ran.err == ""
    assert picked(json.loads(ran.out))


def test_quiet_commands_say_nothing_when_all_went_well(at):
    ran = aion("pause", "-y", "-q", *at)
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_a_watched_status_is_drawn_in_place_and_ends_quietly(daemon, at):
    terminal = OnTerminal("status", "-w", *at, columns=100)
    terminal.until("colab")
    daemon.pin("lab")
    terminal.until("pinned to lab")
    terminal.signal(signal.SIGINT)
    ran = terminal.end()
    assert ran.code == 0
    assert "Traceback" not in ran.out


def test_a_watched_status_outlives_the_daemon(daemon, at):
    terminal = OnTerminal("status", "-w", *at, columns=100)
    terminal.until("colab")
    daemon.__exit__()
    terminal.until("no daemon answers")
    assert terminal.child.poll() is None
    terminal.signal(signal.SIGINT)
    assert terminal.end().code == 0
    daemon.__init__()
    daemon.__enter__()


def test_status_watched_in_a_pipe_prints_a_line_of_json_per_change(daemon, at):
    terminal = OnTerminal("status", "-w", "--json", *at)
    terminal.until('"pin": null')
    daemon.pin("lab")
    terminal.until_lines(2, "{")
    terminal.signal(signal.SIGINT)
    lines = [line for line in terminal.end().out.splitlines() if line.startswith("{")]
    assert [json.loads(line)["services"][0]["pin"] is None for line in lines] == [True, False]


def test_several_services_must_be_told_apart(token_file):
    world = fleet()
    world.config.services["images"] = world.config.services["chat"]
    with Standin(world) as daemon:
        daemon._found_services = daemon._found
        daemon._found = lambda words, query: (
            [{"name": "chat"}, {"name": "images"}]
            if words == ["services"]
            else daemon._found_services(words, query)
        )
        words = ("failover", "-y", "--url", daemon.url, "--token-file", str(token_file))
        ran = aion(*words)
        assert (ran.code, daemon.given) == (2, [])
    assert "chat, images" in ran.err
