"""`aion serve`: the daemon itself, in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    ctx: typer.Context,
    *,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Only say what would be done: publish nothing.")
    ] = False,
    with_parent: Annotated[
        int, typer.Option("--with-parent", metavar="PID", hidden=True, help="End when it ends.")
    ] = 0,
) -> int:
    """Run the daemon until SIGTERM or Ctrl-C. SIGHUP, or `aion reload`, reads the file again."""
    if with_parent:
        end_with_parent(with_parent)
    without_rich()
    from orchestrator.main import serve as run

    return run(ctx.obj.config, shadow=shadow)


def without_rich() -> None:
    """Import structlog as if rich were not there.

    It would import it, to colour tracebacks: 3 MB for a daemon that logs one JSON object a line.
    """
    import sys

    if "rich" not in sys.modules:
        sys.modules["rich"] = None  # type: ignore[assignment]  # "import of rich halted"
        try:
            import structlog  # noqa: F401
        finally:
            del sys.modules["rich"]


def end_with_parent(pid: int) -> None:
    """Have the kernel send us SIGTERM when our parent `pid` ends, however it ends (Linux)."""
    import ctypes
    import os
    import signal

    set_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
    if os.getppid() != pid:
        raise SystemExit(1)  # it ended before we asked
