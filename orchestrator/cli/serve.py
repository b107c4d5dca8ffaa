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
        bool, typer.Option("--with-parent", hidden=True, help="End when the parent process ends.")
    ] = False,
) -> int | None:
    """Run the daemon until SIGTERM or Ctrl-C. SIGHUP, or `aion reload`, reads the file again."""
    if with_parent:
        end_with_parent()
    without_rich()
    from orchestrator.main import serve as run

    return run(ctx.obj.config, shadow=shadow)


def without_rich() -> None:
    """Keep structlog from importing rich and pygments: 4 MB for tracebacks it never prints here."""
    import sys

    if "rich" not in sys.modules:
        sys.modules["rich"] = None  # type: ignore[assignment]
        import structlog.dev  # noqa: F401 - for what it does not import

        del sys.modules["rich"]


def end_with_parent() -> None:
    """Have the kernel send us SIGTERM when the parent ends, however it ends (Linux)."""
    import ctypes
    import os
    import signal

    set_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
    parent = os.getppid()
    if ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM) == 0 and os.getppid() != parent:
        raise SystemExit(1)  # it ended between our start and the call
