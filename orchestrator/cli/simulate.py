"""`aion simulate`: what the coming weeks are likely to be, and what one mishap would do."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import Declined

if TYPE_CHECKING:
    from orchestrator.cli.options import Given
    from orchestrator.outlook.play import Plot
    from orchestrator.outlook.story import Ending
    from orchestrator.outlook.tally import Tally

DAY_S = 86400.0
AT_ONCE = 60.0  # days of play that one process does before others are worth starting
MOST_PROCESSES = 8
MOMENTS = 40  # other moments at which a mishap is played, for the spread


class Misunderstood(Declined):
    """What was asked for is not understood: a usage error."""


def simulate(
    ctx: typer.Context,
    *,
    days: Annotated[float, typer.Option(min=0.1, max=366, help="How many days to play.")] = 30,
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="How often to play them.")] = 100,
    what_if: Annotated[
        str, typer.Option(metavar="TEXT", help='A mishap, such as "colab dies for 10m".')
    ] = "",
    mtbf: Annotated[
        list[str] | None, typer.Option(metavar="NAME=6h", help="Mean time between failures.")
    ] = None,
    mttr: Annotated[
        list[str] | None, typer.Option(metavar="NAME=20m", help="Mean time to recover.")
    ] = None,
) -> None:
    """Play your own fleet under the daemon's rules: weeks of it, or one mishap second by second.

    Nothing is started, probed or changed; the daemon need not run.
    """
    from orchestrator.cli import outlooks, plotting
    from orchestrator.edge.clock import SystemClock

    given: Given = ctx.obj
    found, now = plotting.find(given.config), SystemClock().wall()
    if what_if:
        _mishap(given, found, now, what_if)
        return
    plot = plotting.plot(found, days, now, mtbf or (), mttr or ())
    if not plot.habits:
        raise Misunderstood("no backend of this configuration can serve, so there is no outlook")
    tallies = list(_played(plot, seeds, given))
    outlooks.month(given.output(), found, plot, tallies)


# ── a month, often ──────────────────────────────────────────────────────────────────────────────

_PLOT: list[Plot] = []  # what a child process plays


def _played(plot: Plot, seeds: int, given: Given) -> Iterator[Tally]:
    """Play it once for each seed, over all processors where that is worth it."""
    from orchestrator.cli.progress import Progress

    processes = min(os.cpu_count() or 1, seeds, MOST_PROCESSES)
    with Progress(seeds, "plays", quiet=given.quiet) as progress:
        if processes == 1 or seeds * plot.lasts_s / DAY_S <= AT_ONCE:
            _take(plot)
            yield from progress.over(map(_play, range(1, seeds + 1)))
            return
        from concurrent.futures import ProcessPoolExecutor

        pool = ProcessPoolExecutor(processes, initializer=_begin, initargs=(plot,))
        try:
            yield from progress.over(pool.map(_play, range(1, seeds + 1)))
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(plot: Plot) -> None:
    """Begin a child process: Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _take(plot)


def _take(plot: Plot) -> None:
    _PLOT[:] = [plot]


def _play(seed: int) -> Tally:
    from orchestrator.edge.clock import SeededRandom
    from orchestrator.outlook.play import play
    from orchestrator.outlook.tally import Tally

    tally = Tally(_PLOT[0].person)
    play(_PLOT[0], SeededRandom(seed), [tally])
    return tally


# ── one mishap ──────────────────────────────────────────────────────────────────────────────────


def _mishap(given: Given, found: object, now: float, text: str) -> None:
    from orchestrator.cli import outlooks, plotting
    from orchestrator.edge.clock import SeededRandom
    from orchestrator.outlook import story, whatif

    assert isinstance(found, plotting.Found)
    try:
        acts = whatif.parse(text, list(found.config.backends))
    except whatif.Unclear as unclear:
        raise Misunderstood(str(unclear)) from unclear
    scene = plotting.setting(found, now)
    told = story.tell(scene, acts, SeededRandom(1))
    others: list[list[Ending]] = []
    if all(act.change in (whatif.Change.KILL, whatif.Change.REVIVE) for act in acts):
        others = [
            story.tell(scene, acts, SeededRandom(seed), dense=False).endings
            for seed in range(1, MOMENTS + 1)
        ]
    outlooks.mishap(given.output(), found, text, told, others)
