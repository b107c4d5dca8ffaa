"""A strict stand-in for Google's `colab` tool: what aion uses of it, and nothing else.

Sources: googlecolab/google-colab-cli, README and `src/colab_cli/commands/{session,execution}.py`:
the sub-commands, their options, what they print and how they end. An unknown sub-command or option
ends with 2, as Typer has it; what its client raises ends with 1 and a traceback whose last line is
"colab_cli.client.TooManyAssignmentsError: …" or "…ColabRequestError: Failed to issue request …".
Never compared with the real one.

Its truth is the file `$COLAB_STANDIN`: `sessions`, `faults`, `asked`, `began`, `kernels`. A fault is
`{"on": verb, "says": text, "status": n, "done": bool, "sleep": seconds}`, for one time. `exec` has
a process run the code that stays, as a kernel does, and shows its last expression.
"""

import argparse
import ast
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time  # noqa: TID251 - as slow as a real one
from pathlib import Path

KERNEL, DONE = "--kernel", "\x04"
PREFIX = "[colab] "
CLIENT = "colab_cli.client."
TOO_MANY = (
    f"{CLIENT}TooManyAssignmentsError: Failed to issue request POST"
    " https://colab.research.google.com/tun/m/assign: Precondition Failed"
)
REJECTED = (
    f"{PREFIX}Backend rejected accelerator 'T4'. You may not have quota or entitlement for this"
    " accelerator on your account. Try a different one (e.g. --gpu T4) or omit --gpu/--tpu for a"
    " CPU runtime."
)
UNAUTHORIZED = (
    f"{CLIENT}ColabRequestError: Failed to issue request GET"
    " https://colab.research.google.com/tun/m/assignments: Unauthorized"
)
THROTTLED = UNAUTHORIZED.replace("Unauthorized", "Too Many Requests")
BROKEN = UNAUTHORIZED.replace("Unauthorized", "Service Unavailable")


EMPTY = {"sessions": {}, "faults": [], "asked": [], "began": [], "kernels": {}}


class Truth:
    """The file, held for as long as this is entered."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> dict:
        self.file = self.path.open("r+")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.held = json.load(self.file)
        return self.held

    def __exit__(self, *_) -> None:
        self.file.seek(0)
        self.file.truncate()
        json.dump(self.held, self.file)
        self.file.close()


def parsed(argv):
    parser = argparse.ArgumentParser(prog="colab", allow_abbrev=False)
    parser.add_argument("--auth", choices=("oauth2", "adc"), default="oauth2")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("sessions", allow_abbrev=False)
    new = verbs.add_parser("new", allow_abbrev=False)
    new.add_argument("--gpu", choices=("T4", "L4", "G4", "A100", "H100"))
    run = verbs.add_parser("exec", allow_abbrev=False)
    run.add_argument("--timeout", type=float, default=10.0)
    for verb in (new, run, verbs.add_parser("stop", allow_abbrev=False)):
        verb.add_argument("-s", "--session", required=True)
    return parser.parse_args(argv)


def sessions(truth, _):
    if not truth["sessions"]:
        print(f"{PREFIX}No active sessions found on server.")
    for name, gpu in truth["sessions"].items():
        print(f"[{name}] gpu-{gpu.lower()}-s-abc | Hardware: {gpu} | Variant: GPU")
    return 0


def new(truth, given):
    print(f"{PREFIX}Creating session '{given.session}'...")
    truth["sessions"][given.session] = given.gpu or "CPU"
    truth["began"].append(given.session)
    print(f"{PREFIX}Session READY.")
    return 0


def run(truth, given):
    code = sys.stdin.read()
    if given.session not in truth["sessions"]:
        print(f"{PREFIX}Session '{given.session}' not found.")
        return 1
    shown = Path(os.environ["COLAB_STANDIN"] + f".{len(truth['asked'])}")
    with shown.open("wb") as out:
        kernel = subprocess.Popen(
            [sys.executable, "-u", __file__, KERNEL],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    truth["kernels"].setdefault(given.session, []).append(kernel.pid)
    kernel.stdin.write(code.encode())
    kernel.stdin.close()
    end = time.monotonic() + given.timeout
    while DONE not in (text := shown.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    print(text.partition(DONE)[0])
    return 0 if DONE in text else 1  # what the kernel does goes on all the same


def kernel():
    """Run one cell as a session's kernel does, show its last expression, and stay."""
    tree = ast.parse(sys.stdin.read())
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    space = {"__name__": "__main__"}
    try:
        exec(compile(tree, "cell", "exec"), space)
        shown = eval(compile(ast.Expression(last.value), "cell", "eval"), space) if last else None
    except Exception as error:  # noqa: BLE001 - the cell's, which is shown and none of the tool's
        print(f"{type(error).__name__}: {error}")
    else:
        print("" if shown is None else repr(shown))
    sys.stdout.write(DONE)
    sys.stdout.flush()
    threading.Event().wait()


def let_go(pids):
    """End kernels, and what they began."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def stop(truth, given):
    if given.session not in truth["sessions"]:
        print(f"{PREFIX}Session '{given.session}' not found.")
        return 0
    print(f"{PREFIX}Stopping session '{given.session}'...")
    del truth["sessions"][given.session]
    let_go(truth["kernels"].pop(given.session, []))
    print(f"{PREFIX}Session terminated.")
    return 0


VERBS = {"sessions": sessions, "new": new, "exec": run, "stop": stop}


def main(argv):
    given = parsed(argv)
    with Truth(Path(os.environ["COLAB_STANDIN"])) as truth:
        truth["asked"].append(argv)
        fault = next((one for one in truth["faults"] if one["on"] == given.verb), None)
        if fault is None:
            return VERBS[given.verb](truth, given)
        truth["faults"].remove(fault)
        if fault.get("done"):
            VERBS[given.verb](truth, given)
    time.sleep(fault.get("sleep", 0))
    print(fault.get("says", ""), file=sys.stderr)
    return fault.get("status", 1)


def tool(folder: Path) -> str:
    """Make it a program of its own there."""
    path = folder / "colab"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    path.chmod(0o755)
    return str(path)


if __name__ == "__main__":
    if sys.argv[1:] == [KERNEL]:
        kernel()
    sys.exit(main(sys.argv[1:]))
