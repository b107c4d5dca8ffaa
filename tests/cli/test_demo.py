"""The demo: a story observed step by step, and nothing left behind however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time  # noqa: TID251 - deadlines for real processes
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from terminal import COMMAND, LONGEST_S, OnTerminal, environment

from orchestrator.cli.backup_world import BackupWorld
from orchestrator.cli.failover_story import Failover
from orchestrator.cli.narrator import Narrator
from orchestrator.cli.output import Output
from orchestrator.cli.watch import Watch
from orchestrator.errors import AionError

STARTED = re.compile(r"started alpha (\d+), beta (\d+), slow (\d+) and the daemon (\d+)")
SESSIONS = [
    *("started", "promoted", "idle", "stolen elsewhere", "stolen here", "warned", "followed"),
    *("drained", "unrefused", "revoked"),
]
POWER = [
    *("cheapest", "stockout", "lost", "found", "adopted", "home", "idle", "paid", "spent"),
    *("told", "receipt"),
]
BACKUP = [
    *("ready", "dumped", "whole", "found", "restored"),
    *("itself", "brought back", "rebuilt"),
]
STEPS = ["ready", "failover", "fallback", "recovery", "failback"]


def until(true, what, deadline_s=60.0):
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@contextmanager
def demo(tmp_path, *words):
    """Run it with its temporary folder inside `tmp_path`; yields the child and its lines."""
    child = subprocess.Popen(
        [*COMMAND, "demo", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(TMPDIR=str(tmp_path)),
        start_new_session=True,
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        child.stdout.close()


def read_until(child, pattern):
    shown = ""
    for line in child.stdout:
        shown += line
        if found := re.search(pattern, shown):
            return found
    raise AssertionError(shown)


def test_the_story_is_observed_step_by_step_and_leaves_nothing_behind(tmp_path):
    assert any(failover_took_s(tmp_path) < 2.5 for _ in range(3))  # a busy machine is slow at times


def failover_took_s(tmp_path) -> float:
    """Have the story told and look at all of it; gives how long nobody alive was published."""
    with demo(tmp_path, "--script", "--json") as child:
        lines = [json.loads(line) for line in child.stdout]
        assert child.wait(LONGEST_S) == 0, lines
    seen = [line for line in lines if line["kind"] == "seen" and "step" in line]
    assert [line["step"] for line in seen] == STEPS
    assert [line["active"] for line in seen] == ["alpha", "beta", "slow", "slow", "alpha"]
    epochs = [line["epoch"] for line in seen]
    assert epochs == sorted(epochs)
    assert any("shortened" in line["text"] for line in lines)
    pids = map(int, STARTED.search(lines[0]["text"]).groups())
    assert not any(map(alive, pids))
    assert list(tmp_path.iterdir()) == []
    return seen[1]["took_s"]


def test_sessions_follow_each_other_with_no_refused_request_and_a_thief_gets_nowhere(tmp_path):
    with demo(tmp_path, "sessions", "--script", "--json") as child:
        lines = [json.loads(line) for line in child.stdout]
        assert child.wait(LONGEST_S) == 0, lines
    seen = [line["step"] for line in lines if line["kind"] == "seen" and "step" in line]
    assert seen == SESSIONS
    asked = next(line["text"] for line in lines if line.get("step") == "unrefused")
    assert int(re.search(r"of (\d+) requests", asked)[1]) > 50
    until(lambda: list(tmp_path.iterdir()) == [], "what the demo left behind")
    until(lambda: not boxes(tmp_path), "a box that the demo left running")


def test_machines_are_started_once_adopted_stopped_and_paid_within_a_budget(tmp_path):
    with demo(tmp_path, "power", "--script", "--json") as child:
        lines = [json.loads(line) for line in child.stdout]
        assert child.wait(LONGEST_S) == 0, lines
    seen = [line["step"] for line in lines if line["kind"] == "seen" and "step" in line]
    assert seen == POWER
    assert any(line["text"].startswith("rented: 1 start, on for ") for line in lines)
    until(lambda: list(tmp_path.iterdir()) == [], "what the demo left behind")
    until(lambda: not boxes(tmp_path), "a machine that the demo left running")


def test_killed_outright_the_story_of_power_leaves_no_machine_running(tmp_path):
    with demo(tmp_path, "power", "--script") as child:
        read_until(child, r"reserve serves")
        child.kill()
        until(lambda: not boxes(tmp_path), "a machine that outlived the demo")


@pytest.fixture
def open_folder():
    """A folder that the database's own user may enter, where that is not ours."""
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_copy_that_rots_is_found_and_a_machine_that_is_gone_is_rebuilt(open_folder):
    with demo(open_folder, "backup", "--script", "--json") as child:
        lines = [json.loads(line) for line in child.stdout]
        assert child.wait(LONGEST_S) == 0, lines
    seen = [line["step"] for line in lines if line["kind"] == "seen" and "step" in line]
    assert seen == BACKUP
    assert lines[-1]["t"] < 60
    until(lambda: list(open_folder.iterdir()) == [], "what the demo left behind")
    until(lambda: not boxes(open_folder), "a server that the demo left running")


def test_killed_outright_the_story_of_backups_leaves_no_server_running(open_folder):
    with demo(open_folder, "backup", "--script") as child:
        read_until(child, r"started alpha \d+, database \d+")
        child.kill()
        until(lambda: not boxes(open_folder), "a server that outlived the demo")


def test_without_a_database_server_the_story_of_backups_says_what_to_install(tmp_path):
    newer = (
        f"from orchestrator.cli import demo_database as it; it.ANY = '99'; it.main(['{tmp_path}'])"
    )

    class Bare(BackupWorld):
        async def spawn(self, name, *words, **more):
            words = ("-c", newer) if "orchestrator.cli.demo_database" in words else words
            return await super().spawn(name, *words, **more)

    async def enter():
        async with Bare():
            raise AssertionError("it started")

    with pytest.raises(AionError, match="sudo apt install postgresql, or pip install pixel"):
        asyncio.run(enter())


def boxes(folder):
    """Find processes that run for a demo in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(folder) in path.read_bytes().decode(errors="replace"):
                found.append(path.parent.name)
    return [pid for pid in found if alive(pid)]


def test_an_unknown_story_is_refused_with_the_nearest_one(tmp_path):
    with demo(tmp_path, "session", "--script") as child:
        assert "did you mean sessions?" in " ".join(child.stdout.read().split())
        assert child.wait(LONGEST_S) == 2


def test_a_taken_port_is_told_and_another_one_used(tmp_path):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # another program holds it: just as well
            other.bind(("127.0.0.1", 8765))
            other.listen()
        with demo(tmp_path) as child:
            told = read_until(
                child, r"port 8765 is taken by another program, so this is port (\d+)"
            )
            assert told[1] != "8765"
            read_until(child, r"alpha serves \(serving")
            child.send_signal(signal.SIGINT)
            assert child.wait(LONGEST_S) == 0


def test_a_port_for_later_is_given_once_and_is_none_that_the_kernel_gives_to_others():
    box = BackupWorld()
    with socket.create_server(("127.0.0.1", 0)) as other:
        named = other.getsockname()[1]
        ports = [box.free_port(named) for _ in range(200)]
    assert len(set(ports)) == 200
    assert max(ports) < int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_within_five_seconds_and_leaves_nothing_behind(tmp_path, number):
    with demo(tmp_path) as child:
        pids = list(map(int, read_until(child, STARTED).groups()))
        if number == signal.SIGINT:
            read_until(child, r"alpha serves \(serving")
        assert all(map(alive, pids))
        child.send_signal(number)
        assert child.wait(6) == 0
        assert not any(map(alive, pids))
        assert list(tmp_path.iterdir()) == []


def test_a_signal_during_the_start_leaves_nothing_behind(tmp_path):
    with demo(tmp_path) as child:
        until(lambda: any(tmp_path.iterdir()), "no folder was made")
        child.send_signal(signal.SIGINT)
        assert child.wait(6) == 0
        assert list(tmp_path.iterdir()) == []


def test_when_the_demo_is_killed_outright_its_children_end(tmp_path):
    with demo(tmp_path) as child:
        pids = list(map(int, read_until(child, STARTED).groups()))
        child.kill()
        until(lambda: not any(map(alive, pids)), "a child outlived the demo")


def test_a_backend_that_somebody_kills_is_replaced_and_told(tmp_path):
    with demo(tmp_path) as child:
        pid = int(read_until(child, r"kill -9 (\d+)")[1])
        read_until(child, r"alpha serves \(serving")
        os.kill(pid, signal.SIGKILL)
        read_until(child, r"beta serves")
        child.send_signal(signal.SIGINT)
        assert child.wait(LONGEST_S) == 0


class Nowhere:
    """A world whose daemon answers nothing."""

    url = "http://127.0.0.1:9"

    def log(self, _name, _lines):
        return "killed"


def test_a_story_in_which_a_step_is_not_observed_says_which_and_exits_1(capsys):
    async def play():
        narrator = Narrator(Output(), asyncio.get_running_loop().time)
        story = Failover(Nowhere(), Watch(Nowhere.url, "chat"), narrator, patience=0.001)
        return await story.play()

    assert asyncio.run(play()) == 1
    assert "ready was not observed within 0.03 s: all three are up" in capsys.readouterr().out


def test_a_daemon_that_dies_ends_the_demo_with_its_last_words(tmp_path):
    with demo(tmp_path, "--script") as child:
        daemon = int(read_until(child, STARTED)[4])
        os.kill(daemon, signal.SIGKILL)
        assert "the demo's daemon ended" in child.stdout.read()
        assert child.wait(LONGEST_S) == 1
    assert list(tmp_path.iterdir()) == []


def test_on_a_narrow_terminal_the_story_is_typeset_and_ctrl_c_ends_it(tmp_path):
    terminal = OnTerminal("demo", columns=40, TMPDIR=str(tmp_path))
    terminal.until("standing by")
    terminal.type("\x03")
    ran = terminal.end()
    assert ran.code == 0
    assert "Traceback" not in ran.out
    assert list(tmp_path.iterdir()) == []
