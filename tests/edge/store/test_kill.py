import json
import signal
import subprocess
import sys
from pathlib import Path

LIVES = 40


def test_a_daemon_killed_anywhere_leaves_a_whole_number_of_turns(database):
    """State, outbox, incidents, log and answers are of the same turn, and none that was answered
    is missing."""
    delays = [str(500 + 377 * life) for life in range(LIVES)]
    script = Path(__file__).with_name("killed.py")
    done = subprocess.run(
        [sys.executable, script, database, *delays],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lives) == LIVES
    before = 0
    for life in lives:
        n = life["n"]
        assert life["signal"] == signal.SIGALRM
        assert life["check"] == "ok"
        assert life["epoch"] == life["wanted_epoch"] == n
        assert life["backends"] == [n]
        assert life["outbox"] == ([f"n{n}"] if n else [])
        assert life["incidents"] == ([f"i{n}"] if n else [])
        assert life["events"] == ([str(n)] if n else [])
        assert life["answered"] == str(n)
        assert not life["next"]
        assert life["written_at"] == n
        assert life["rows"] == [5 * n, n]
        acknowledged = life["acknowledged"][0] if life["acknowledged"] else before
        assert n - acknowledged in {0, 1}  # committed, but killed before it could say so
        before = n
    assert before >= LIVES
