"""What a child process of the daemon does at its start and end: one JSON line in, one out.

A child module ends in `if __name__ == "__main__": serve(main)`. The daemon keeps the child's stdin
open for as long as it wants the child: when it closes, be it that the daemon was killed, the whole
process group goes. `orchestrator.edge.child` is the other side.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NoReturn
from urllib.parse import unquote

MAX_LINE = 4_000_000
_SHORTEST_SECRET = 6


NEWS = b"\x1e"
"""Begins a line that is no answer; JSON has no such byte."""
_answer_to = -1


def serve(main: Callable[[dict[str, Any]], dict[str, Any]]) -> NoReturn:
    """Read the payload, run `main`, answer, exit. Nothing else reaches stdout but `tell`'s."""
    global _answer_to  # noqa: PLW0603 - a process has one stdout
    answer_to = _answer_to = os.dup(1)
    os.dup2(2, 1)  # a library that prints would spoil the answer
    logging.getLogger().addHandler(logging.NullHandler())  # urllib3 warns with whole URLs
    payload = json.loads(sys.stdin.buffer.readline(MAX_LINE))
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        answer = main(payload)
    except Exception as error:  # noqa: BLE001 - the last place to catch it, and it must stay mute
        # The message of an unexpected exception may hold a URL with a token in it: it is not told.
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119 - only a name
        answer = {"error": f"{type(error).__name__} at {place}"}
    with os.fdopen(answer_to, "wb") as out:
        out.write(b"\n" + json.dumps(answer).encode() + b"\n")
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a library's thread that still waits for a server would keep us here.
    os._exit(0)


def tell(news: dict[str, Any]) -> None:
    """Say how far it is, on a line of its own before the answer; for `main` to call, not often.

    In a process that does not `serve`, nothing happens.
    """
    if _answer_to >= 0:
        line = NEWS + json.dumps(news).encode() + b"\n"
        with contextlib.suppress(OSError):  # nobody listens any more: the answer will show that
            os.write(_answer_to, line)


def _die_with_parent() -> None:
    while os.read(0, 65536):
        pass
    os.killpg(0, signal.SIGKILL)


def pieces(secret: str, public: str = "") -> frozenset[str]:
    """Return the parts of a URL or other secret that must not be shown.

    `public` is the same URL as it may be shown: what stands in it is no secret.
    """
    found: set[str] = set()
    for text in (secret, unquote(secret)):
        found.add(text)
        found.update(re.split(r"[/@?&=#]|:(?=//)|(?<=//)", text))
        found.update(re.split(r"[:/@?&=#]", text))
    return frozenset(
        piece for piece in found if len(piece) >= _SHORTEST_SECRET and piece not in public
    )


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with every one of `secrets` blotted out, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    return text
