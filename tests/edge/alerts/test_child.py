import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import structlog

from orchestrator.edge.child import clean_environment, run_child
from orchestrator.errors import ChildFailed

CANARY = "canary-5f3a9c-do-not-show"
PREFACE = """
import json, os, signal, subprocess, sys, time
from orchestrator.childside import serve
"""


def _module(folder: Path, body: str) -> dict[str, str]:
    """Write a child called `kid` and return an environment in which `-m kid` finds it."""
    text = PREFACE + textwrap.dedent(body) + "\nif __name__ == '__main__':\n    serve(main)\n"
    (folder / "kid.py").write_text(text)
    return clean_environment() | {"PYTHONPATH": str(folder)}


def _run(env: dict[str, str], payload: dict | None = None, timeout_s: float = 60.0) -> dict:
    return asyncio.run(run_child("kid", payload or {}, timeout_s=timeout_s, env=env))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def _until(holds, what: str, limit_s: float = 60.0) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while not holds():  # noqa: ASYNC110 - it waits for the world, which sets no event
                await asyncio.sleep(0.01)
    assert holds(), what


def test_what_a_child_tells_arrives_before_its_answer_and_spoils_nothing(tmp_path):
    env = _module(
        tmp_path,
        """
        from orchestrator.childside import tell

        def main(payload):
            for number in range(3):
                tell({"done": number, "text": "one\\ntwo"})
            return {"news": "all done", "many": "x" * 200_000}
        """,
    )
    told = []

    async def go():
        return await run_child("kid", {}, timeout_s=20.0, env=env, news=told.append)

    answer = asyncio.run(go())
    assert [one["done"] for one in told] == [0, 1, 2]
    assert told[0]["text"] == "one\ntwo"
    assert (answer["many"], answer["news"]) == ("x" * 200_000, "all done")


def test_what_a_child_prints_does_not_spoil_its_answer(tmp_path):
    env = _module(
        tmp_path,
        """
        def main(payload):
            print("chatter")
            os.write(1, b"more chatter")
            return {"twice": payload["n"] * 2}
        """,
    )
    assert _run(env, {"n": 21}) == {"twice": 42}


def test_a_child_sees_an_allow_listed_environment_and_no_secret_in_its_arguments(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("AION_CREDENTIAL_TELEGRAM", CANARY)
    monkeypatch.setenv("HTTPS_PROXY", f"http://u:{CANARY}@proxy")
    env = _module(
        tmp_path,
        """
        def main(payload):
            return {"environ": dict(os.environ), "argv": open("/proc/self/cmdline").read()}
        """,
    )
    answer = _run(env, {"secret": CANARY})
    assert CANARY not in json.dumps(answer)
    assert set(answer["environ"]) <= set(clean_environment()) | {"PYTHONPATH", "LC_CTYPE"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def main(payload): raise ValueError(payload['secret'])", "kid failed: ValueError at kid"),
        ("def main(payload): os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("def main(payload): os._exit(3)", "ended with status 3"),
        ("def main(payload): return [1]", "not answer with an object"),
        ("def main(payload): return {'x': 'y' * 2_000_000}", "answered more than"),
        ("os.write(1, b'nonsense'); os._exit(0)", "not answer in JSON"),
        ("sys.stderr.write('x' * 10_000_000); os._exit(4)", "ended with status 4"),
    ],
)
def test_a_child_that_fails_says_how_and_tells_no_secret(tmp_path, body, says):
    env = _module(tmp_path, body if "main" in body else f"main = None\n{body}")
    with (
        structlog.testing.capture_logs() as lines,
        pytest.raises(ChildFailed, match=says) as raised,
    ):
        _run(env, {"secret": CANARY})
    assert CANARY not in str(raised.value)
    assert CANARY not in repr(raised.value.__cause__)
    assert CANARY not in repr(lines)


def test_what_a_child_says_on_stderr_is_logged_without_secrets(tmp_path):
    env = _module(
        tmp_path,
        """
        def main(payload):
            sys.stderr.write("could not reach " + payload["url"])
            return {}
        """,
    )
    with structlog.testing.capture_logs() as lines:
        _run(env, {"url": f"https://x.example/bot{CANARY}/send"})
    assert [line["event"] for line in lines] == ["child_said"]
    assert CANARY not in repr(lines)


STUBBORN = """
def main(payload):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    kid = subprocess.Popen(["sleep", "300"])
    open(payload["file"], "w").write(f"{os.getpid()} {kid.pid}")
    time.sleep(300)
"""


def _pids(file: Path) -> list[int]:
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def test_a_child_past_its_deadline_is_killed_with_all_it_started(tmp_path):
    file = tmp_path / "pids"

    async def world(timeout_s):
        with pytest.raises(ChildFailed, match=rf"took longer than {timeout_s:g} s"):
            await run_child(
                "kid", {"file": str(file)}, timeout_s=timeout_s, env=_module(tmp_path, STUBBORN)
            )
        await _until(lambda: not any(map(_alive, _pids(file))), "something survived")

    for timeout_s in (1.5, 6.0, 30.0):  # until it had time to start its own child
        asyncio.run(world(timeout_s))
        if len(_pids(file)) == 2:
            break
    assert len(_pids(file)) == 2


def test_a_child_dies_when_its_caller_is_cancelled(tmp_path):
    file = tmp_path / "pids"

    async def world():
        env = _module(tmp_path, STUBBORN)
        task = asyncio.create_task(run_child("kid", {"file": str(file)}, timeout_s=60, env=env))
        await _until(lambda: len(_pids(file)) == 2, "the child did not start")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _until(lambda: not any(map(_alive, _pids(file))), "something survived")

    asyncio.run(world())


def test_a_child_never_outlives_a_daemon_that_was_killed(tmp_path):
    file = tmp_path / "pids"
    env = _module(tmp_path, STUBBORN)
    script = (
        "import asyncio, sys, json; from orchestrator.edge.child import run_child; "
        "asyncio.run(run_child('kid', {'file': sys.argv[1]}, timeout_s=60,"
        " env=json.loads(sys.argv[2])))"
    )
    daemon = subprocess.Popen([sys.executable, "-c", script, str(file), json.dumps(env)])

    async def world():
        await _until(lambda: len(_pids(file)) == 2, "the child did not start")
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait()
        await _until(lambda: not any(map(_alive, _pids(file))), "the child survived")

    asyncio.run(world())
