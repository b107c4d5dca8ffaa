"""Orders from the daemon and from a watched folder; saving on order, on schedule, before the end."""

import signal
import sys

import httpx
import pytest

from tests.agent.kit import PROGRAMS, alive, free_port, until

ENGINE = f"{sys.executable} {PROGRAMS / 'engine.py'} --port {{port}}"


@pytest.fixture
def saver(world):
    """A command that counts how often it ran, and how to read that."""
    path = world.folder / "saved"
    script = world.folder / "save.py"
    script.write_text(f"open({str(path)!r}, 'a').write('x')")

    def times():
        return len(path.read_text()) if path.exists() else 0

    times.command = f"{sys.executable} {script}"
    return times


def acknowledged(world, ident):
    return until(lambda: ident in world.aion.acknowledged, "it is acknowledged")


def test_a_drained_agent_takes_nothing_new_and_ends_what_is_open(world):
    agent = world.agent(engine_url=world.engine())
    world.ready()
    asked = {"tokens": 20, "every_s": 0.1}
    with httpx.stream(
        "POST", agent.url + "/v1/completions", json=asked, headers=world.auth(), timeout=30
    ) as reply:
        lines = reply.iter_lines()
        next(lines)
        acknowledged(world, world.aion.order("drain"))
        refused = httpx.post(agent.url + "/v1/completions", json={}, headers=world.auth())
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert "data: [DONE]" in list(lines)
    until(lambda: world.aion.now()["state"] == "draining", "draining")
    assert world.proves(agent.url)


def test_an_order_is_carried_out_once_however_often_it_is_repeated(world, saver):
    world.agent(engine_url=world.engine(), save_command=saver.command)
    world.ready()
    ident = world.aion.order("save")
    acknowledged(world, ident)
    with world.aion.lock:
        del world.aion.acknowledged[ident]  # the daemon did not hear it
    acknowledged(world, ident)
    assert (saver(), world.aion.acknowledged[ident]) == (1, True)


def test_a_save_that_fails_is_said_to_have_failed(world):
    command = f"{sys.executable} -c 'import sys; sys.exit(\"disk is full\")'"
    agent = world.agent(engine_url=world.engine(), save_command=command)
    world.ready()
    ident = world.aion.order("save")
    acknowledged(world, ident)
    assert world.aion.acknowledged[ident] is False
    assert "disk is full" in agent.said()


def test_a_restart_starts_another_engine_and_keeps_the_session(world):
    port = free_port()
    world.agent(engine_command=ENGINE, engine_port=port)
    world.ready()
    first = until(lambda: world.pids(f"--port\0{port}"), "the engine")[0]
    acknowledged(world, world.aion.order("restart"))
    until(lambda: not alive(first), "the old engine is gone")
    world.ready()
    assert len(world.aion.registrations) == 1


def test_an_engine_of_somebody_else_is_not_restarted(world):
    world.agent(engine_url=world.engine())
    world.ready()
    ident = world.aion.order("restart")
    acknowledged(world, ident)
    assert world.aion.acknowledged[ident] is False


def test_stop_is_acknowledged_saved_and_left(world, saver):
    agent = world.agent(engine_url=world.engine(), save_command=saver.command)
    world.ready()
    ident = world.aion.order("stop")
    assert agent.ended() == 0
    assert world.aion.acknowledged[ident] is True
    assert (world.aion.left, saver()) == (["s1"], 1)
    states = [beat["state"] for _, beat in world.aion.beats]
    assert states[-1] == "stopping"
    assert "saving" in states


def test_an_order_that_nobody_knows_is_refused(world):
    world.agent(engine_url=world.engine())
    world.ready()
    ident = world.aion.order("dance")
    acknowledged(world, ident)
    assert world.aion.acknowledged[ident] is False


def test_a_file_named_restart_restarts_the_engine(world):
    drive = world.folder / "drive"
    drive.mkdir()
    port = free_port()
    agent = world.agent(engine_command=ENGINE, engine_port=port, watch=drive)
    world.ready()
    first = until(lambda: world.pids(f"--port\0{port}"), "the engine")[0]
    (drive / "restart").touch()
    until(lambda: not alive(first), "the old engine is gone")
    assert not (drive / "restart").exists()
    world.ready()
    assert "restart, from the watched folder" in agent.said()


def test_a_watched_folder_that_is_not_there_harms_nobody(world):
    agent = world.agent(engine_url=world.engine(), watch=world.folder / "not mounted")
    world.ready()
    assert "unexpected" not in agent.said()


def test_it_is_saved_before_the_session_ends(world, saver):
    world.aion.ends_in_s = 60.0
    agent = world.agent(engine_url=world.engine(), save_command=saver.command, save_margin="57s")
    world.ready()
    until(saver, "it is saved")
    assert "done before the end" in until(
        lambda: "done" in agent.said() and agent.said(), "it says so"
    )
    seq = world.aion.now()["seq"]
    until(lambda: world.aion.now()["seq"] > seq + 5, "it goes on")
    assert saver() == 1


def test_it_is_saved_on_a_schedule(world, saver):
    agent = world.agent(engine_url=world.engine(), save_command=saver.command, save_every="1s")
    world.ready()
    until(lambda: saver() >= 2, "saved twice")
    assert "done on schedule" in agent.said()


def test_folders_are_copied_with_rclone_and_no_shell(world):
    asked = world.folder / "asked"
    world.program("rclone", "engine.py").write_text(
        f"#!{sys.executable}\nimport sys; open({str(asked)!r}, 'a').write(repr(sys.argv[1:]) + '\\n')\n"
    )
    folder = world.folder / 'ckpt"; touch x'
    folder.mkdir()
    agent = world.agent(engine_url=world.engine(), save_from=folder, save_to="gdrive:aion/colab/")
    world.ready()
    agent.signal(signal.SIGTERM)
    assert agent.ended() == 0
    said = eval(asked.read_text().splitlines()[0])
    assert said[0] == "copy"
    assert said[-2:] == [str(folder), f"gdrive:aion/colab/{folder.name}"]


def test_a_superseded_agent_saves_before_it_goes(world, saver):
    agent = world.agent(engine_url=world.engine(), save_command=saver.command)
    world.ready()
    with world.aion.lock:
        world.aion.over.add("s1")
    assert agent.ended() == 0
    assert saver() == 1


def test_a_save_that_hangs_is_given_up(world):
    command = f"{sys.executable} -c 'import time; time.sleep(1000)'"
    agent = world.agent(engine_url=world.engine(), save_command=command, save_timeout="500ms")
    world.ready()
    ident = world.aion.order("save")
    acknowledged(world, ident)
    assert world.aion.acknowledged[ident] is False
    assert "took longer than" in agent.said()
