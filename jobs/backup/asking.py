"""Asks a database what it is, in a process of its own: `python -m jobs.backup.asking`.

In: `{"dsn": …, "timeouts": {…}}` by stdin; out: `{"server": {…}, "parts": {…}}` or
`{"failed": …}`, a line without anything secret. The parts hold the password, as the DSN did: both
go by pipes only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any, Final

from jobs.backup import source
from jobs.backup.clients import environment
from jobs.backup.errors import SourceFailed
from jobs.backup.form import Timeouts

_SLACK_S: Final = 30.0


def ask(dsn: str, timeouts: Timeouts) -> tuple[source.Server, dict[str, str]]:
    """Return what a server says of itself, and the parts of the DSN. Raises `SourceFailed`."""
    # -P: a module lying about in the working folder must not be taken for a library.
    argv = [sys.executable, "-P", "-W", "ignore", "-m", __spec__.name]
    try:
        done = subprocess.run(
            argv,
            input=json.dumps({"dsn": dsn, "timeouts": timeouts.to_json()}).encode(),
            capture_output=True,
            check=False,
            env=environment(),
            timeout=timeouts.connect_s + timeouts.statement_s + _SLACK_S,
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise SourceFailed("the database did not answer in time") from None
    except ValueError:
        raise SourceFailed("the database could not be asked: whoever asked it died") from None
    if "failed" in answer:
        raise SourceFailed(answer["failed"])
    return source.Server(**answer["server"]), answer["parts"]


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """Ask; see the module's docstring."""
    try:
        server = source.look(payload["dsn"], Timeouts.from_json(payload["timeouts"]))
        return {"server": asdict(server), "parts": source.parameters(payload["dsn"])}
    except SourceFailed as error:
        return {"failed": str(error)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.load(sys.stdin))))
