"""The child process as the daemon starts it, killed at any moment, and nothing secret around it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.backup.form import Copy, Plan
from orchestrator.edge.child import run_child
from orchestrator.errors import ChildFailed
from tests.backup import worlds
from tests.backup.conftest import BINS, Postgres
from tests.backup.plans import clients, plan
from tests.backup.test_run import ROWS, dumps
from tests.backup.worlds import wait_for


def ask(do: str, one: Plan, **more: str) -> dict:
    payload = {"do": do, "plan": one.to_json(), **more}
    return asyncio.run(run_child("jobs.backup.child", payload, timeout_s=100))


def test_a_dump_is_made_verified_and_drilled_by_the_child(pg16: Postgres, tmp_path: Path) -> None:
    one = plan(pg16.new(ROWS), tmp_path / "spool", tmp_path / "s1", tmp_path / "s2")
    made = ask("run", one)
    assert made["ok"], made
    assert "cnry" not in json.dumps(made)
    assert [f["ok"] for f in ask("verify", one)["found"]] == [True, True]
    assert ask("rehash", one, store=f"file:{tmp_path / 's2'}")["ok"]
    assert ask("expire", one) == {"ok": True, "found": [], "problems": []}
    outcome = ask("drill", one)
    assert outcome["ok"], outcome
    assert outcome["rows"] == 500
    path = next((tmp_path / "s1").rglob("archive.dump.zst"))
    path.write_bytes(path.read_bytes()[:-1])
    assert not ask("verify", one)["ok"]
    assert not ask("rehash", one, dump=made["dump"]["id"])["ok"]


@pytest.mark.parametrize("kind", ["bucket", "hub"])
def test_a_dump_shares_its_memory_with_no_library_of_a_store(
    pg16: Postgres, tmp_path: Path, kind: str
) -> None:
    """The stores are looked at before it, for its number, and written to after it."""
    maker = {"bucket": worlds.bucket_world, "hub": worlds.hub_world}[kind]
    seen = tmp_path / "seen"
    script = (
        f'grep VmRSS /proc/$PPID/status > {seen}; cat /proc/$PPID/maps >> {seen}\nexec "$REAL" "$@"'
    )
    folder = clients(tmp_path / "bin", 16, pg_dump=script)
    (tmp_path / "world").mkdir()
    for world in maker(tmp_path / "world"):
        one = plan(pg16.new(ROWS), tmp_path / "spool", pg_bin=folder)
        one = replace(one, copies=(Copy(world.target, world.access),))
        for night in (1, 2):
            made = ask("run", one)
            assert made["ok"], made
            assert made["dump"]["sequence"] == night
            said = seen.read_text()
            assert int(said.split()[1]) < 40_000, "kB of the child while it dumps"
            assert "crc32c" not in said
            seen.unlink()
            for path in (tmp_path / "spool").glob("*.json"):
                path.unlink()


def test_two_machines_at_once_are_told_by_the_process_that_looks(
    pg16: Postgres, tmp_path: Path
) -> None:
    for world in worlds.bucket_world(tmp_path):
        one = plan(pg16.new(ROWS), tmp_path / "spool")
        one = replace(one, copies=(Copy(world.target, world.access),))
        world.private.mkdir()
        store = world.open()
        (tmp_path / "ticket").write_text("{}")
        store.put(tmp_path / "ticket", f"locks/main/{'a' * 16}.json")
        answer = ask("run", one)
        assert (answer["ok"], answer["kind"]) == (False, "Busy")
        store.delete(f"locks/main/{'a' * 16}.json")
        assert ask("run", one)["ok"]
        assert not [entry for entry in store.list() if "locks" in entry.name]


def test_what_cannot_be_done_is_an_answer_and_not_a_crash(pg16: Postgres, tmp_path: Path) -> None:
    one = plan("postgresql://x:cnry-word@127.0.0.1:1/x", tmp_path / "spool", tmp_path / "s1")
    answer = ask("run", one)
    assert not answer["ok"]
    assert "refused" in answer["failure"]
    assert "cnry" not in json.dumps(answer)
    assert ask("drill", one)["detail"] == "there is no good dump"
    assert "none of the places" in ask("verify", one, store="file:/nowhere")["detail"]


def test_a_child_that_is_killed_takes_its_programs_along_and_the_next_run_heals(
    pg16: Postgres, tmp_path: Path
) -> None:
    folder = clients(
        tmp_path / "bin",
        16,
        pg_dump='echo $$ > "$0.pid.part"; mv "$0.pid.part" "$0.pid"; "$REAL" "$@" | head -c 5000; exec sleep 600',
    )
    one = plan(pg16.new(ROWS), tmp_path / "spool", tmp_path / "s1", pg_bin=folder)
    child = subprocess.Popen([sys.executable, "-m", "jobs.backup.child"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    assert child.stdin is not None
    child.stdin.write(json.dumps({"do": "run", "plan": one.to_json()}).encode() + b"\n")
    child.stdin.flush()
    pid = tmp_path / "bin" / "pg_dump.pid"
    wait_for(pid.exists, "pg_dump was started")
    dumper = int(pid.read_text())
    held = list((tmp_path / "spool").rglob("pass"))
    assert held
    assert held[0].stat().st_mode & 0o777 == 0o600
    for process in (child.pid, dumper):
        for place in ("cmdline", "environ"):
            assert b"cnry" not in Path(f"/proc/{process}/{place}").read_bytes()
    child.stdin.close()  # as when the daemon is killed
    assert child.wait(60) == -signal.SIGKILL
    wait_for(lambda: not Path(f"/proc/{dumper}").exists() or "Z" in Path(f"/proc/{dumper}/stat").read_text().rpartition(")")[2][:3], "pg_dump is gone")  # fmt: skip
    again = plan(one.dsn, tmp_path / "spool", tmp_path / "s1", pg_bin=str(BINS[16]))
    assert ask("run", again)["ok"]
    assert len(dumps(tmp_path / "s1")) == 1
    for path in (tmp_path / "spool").rglob("*"):
        assert path.is_dir() or b"cnry" not in path.read_bytes()


def test_a_payload_that_makes_no_sense_tells_nothing_of_itself(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed) as told:
        asyncio.run(run_child("jobs.backup.child", {"do": "run", "plan": {"dsn": "cnry-secret"}}, timeout_s=60))  # fmt: skip
    assert "cnry" not in str(told.value)
    assert os.getpid() > 0
