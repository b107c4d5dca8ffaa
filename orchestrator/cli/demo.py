"""`aion demo`: backends, a daemon and a failover to watch, on this machine only."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import AionError

if TYPE_CHECKING:
    from orchestrator.cli.narrator import Narrator
    from orchestrator.cli.options import Given
    from orchestrator.cli.sandbox import Sandbox
    from orchestrator.cli.story import Story
    from orchestrator.cli.watch import Sight, Watch
    from orchestrator.cli.world import World

SERVICE = "chat"
RESTART_S = 15.0
_READY_S = 30.0
STORIES = {
    "failover": "two backends, a slow fallback and the daemon",
    "sessions": "a notebook, its successor and the daemon",
    "power": "a box at home, three machines to rent and the daemon",
    "backup": "a database, two places for copies and the daemon",
}


def demo(
    ctx: typer.Context,
    story: Annotated[
        str, typer.Argument(help=f"Which story: {', '.join(STORIES)}.", metavar="STORY")
    ] = "failover",
    *,
    script: Annotated[
        bool, typer.Option("--script", help="Play the story by itself, and check each step.")
    ] = False,
) -> int:
    """Start backends and the daemon on loopback, and watch what becomes of them.

    Nothing is configured and nothing stays behind: Ctrl-C ends it all. With --script a story of
    a minute at most is played: exit 0 if each of its steps was observed, 1 if one was not.
    `failover` kills backends; `sessions` has notebooks register, end and follow each other;
    `power` has machines started when they are needed, never twice, and stopped within a budget;
    `backup` damages a copy, restores from the other, and rebuilds a machine that is gone.
    """
    if story not in STORIES:
        near = get_close_matches(story, STORIES, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(STORIES)}"
        raise typer.BadParameter(f"there is no story “{story}”{hint}", param_hint="STORY")
    if not script and story != "failover":
        raise typer.BadParameter(f"the story “{story}” is played with --script only")
    return asyncio.run(_until_signalled(_play(ctx.obj, story, script=script), script=script))


async def _until_signalled(work: Coroutine[None, None, int], *, script: bool) -> int:
    """Run `work`; a signal cancels it, once, and lets it clean up undisturbed."""
    task = asyncio.ensure_future(work)
    signalled = False

    def stop() -> None:
        nonlocal signalled
        if not signalled:
            signalled = True
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        # A story that was cut short did not show what it should; a demo was meant to be ended.
        return AionError.exit_code if script else 0


async def _play(given: Given, story: str, *, script: bool) -> int:
    from orchestrator.cli.narrator import Narrator
    from orchestrator.cli.watch import Watch
    from orchestrator.cli.world import World

    loop = asyncio.get_running_loop()
    began = loop.time()
    narrator = Narrator(given.output(), lambda: loop.time() - began)
    narrator.plain(f"aion demo: {STORIES[story]}, all on this machine")
    narrator.plain()
    async with _sandbox(story) as world:
        watch = Watch(world.url, SERVICE)
        _introduce(world, narrator)
        if script:
            return await _together(world, watch, _story(world, watch, narrator).play())
        assert isinstance(world, World)
        return await _together(world, watch, _interactive(world, watch, narrator))


def _sandbox(story: str) -> Sandbox:
    from orchestrator.cli.backup_world import BackupWorld
    from orchestrator.cli.power_world import PowerWorld
    from orchestrator.cli.sessions_world import SessionsWorld
    from orchestrator.cli.world import World

    worlds: dict[str, type[Sandbox]] = {
        "sessions": SessionsWorld,
        "power": PowerWorld,
        "backup": BackupWorld,
    }
    return worlds.get(story, World)()


def _story(world: Sandbox, watch: Watch, narrator: Narrator) -> Story:
    from orchestrator.cli.backup_story import Backups
    from orchestrator.cli.backup_world import BackupWorld
    from orchestrator.cli.failover_story import Failover
    from orchestrator.cli.power_story import Powering
    from orchestrator.cli.power_world import PowerWorld
    from orchestrator.cli.sessions_story import Sessions
    from orchestrator.cli.sessions_world import SessionsWorld
    from orchestrator.cli.world import World

    if isinstance(world, SessionsWorld):
        return Sessions(world, watch, narrator)
    if isinstance(world, PowerWorld):
        return Powering(world, watch, narrator)
    if isinstance(world, BackupWorld):
        return Backups(world, watch, narrator)
    assert isinstance(world, World)
    return Failover(world, watch, narrator)


async def _together(world: Sandbox, watch: Watch, work: Coroutine[None, None, int]) -> int:
    """Do `work` while the daemon lives and discovery is followed; the first to end ends all."""
    working = asyncio.ensure_future(work)
    tasks = {
        working,
        asyncio.ensure_future(watch.run()),
        asyncio.ensure_future(world.ended("daemon")),
    }
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if working in done:
        return working.result()
    raise AionError(f"the demo's daemon ended: {world.log('daemon')}")


def _introduce(world: Sandbox, narrator: Narrator) -> None:
    from orchestrator.cli.sandbox import USUAL_PORT

    names = [name for name in world.running if name != "daemon"]
    pids = "".join(f"{name} {world.pid(name)}, " for name in names)
    who = f"{pids.removesuffix(', ')} and " if pids else ""
    narrator.did(f"started {who}the daemon {world.pid('daemon')} (process ids)")
    if world.port != USUAL_PORT:
        narrator.note(
            f"port {USUAL_PORT} is taken by another program, so this is port {world.port}"
        )
    narrator.note(world.introduction())
    narrator.note(f"who serves, for anyone: {world.url}/discovery/{SERVICE}")


async def _interactive(world: World, watch: Watch, narrator: Narrator) -> int:
    """Show each change until we are told to stop."""
    from orchestrator.cli.where import ourselves
    from orchestrator.cli.world import PARTS

    ready = await watch.until(lambda sight: sight["state"] == "serving", _READY_S)
    if ready is None:
        raise AionError(f"the demo's daemon does not serve: {world.log('daemon')}")
    narrator.plain()
    narrator.plain(f"  look       curl -s {world.url}/discovery/{SERVICE}")
    narrator.plain(f"  ask why    {ourselves()} explain --config {world.config}")
    narrator.plain(f"  break it   kill -9 {world.pid('alpha')}")
    narrator.plain("  end        Ctrl-C")
    narrator.plain()
    tasks = [asyncio.ensure_future(_tell_changes(watch, narrator))]
    tasks += [asyncio.ensure_future(_keep(world, part.name, narrator)) for part in PARTS]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return 0


async def _tell_changes(watch: Watch, narrator: Narrator) -> None:
    async for sight in watch.changes():
        narrator.seen(describe(sight), epoch=sight["epoch"], state=sight["state"])


async def _keep(world: World, name: str, narrator: Narrator) -> None:
    """Start a backend again some time after somebody killed it, as its supervisor would."""
    while True:
        await world.ended(name)
        narrator.did(f"{name} is gone; it is started again in {RESTART_S:g} s", backend=name)
        await asyncio.sleep(RESTART_S)
        await world.start(name)
        narrator.did(f"{name} is back; kill -9 {world.pid(name)} ends it", backend=name)


def describe(sight: Sight) -> str:
    """Say in one line what discovery answers."""
    from orchestrator.cli.watch import active, standing_by

    who = active(sight) or "nobody"
    others = ", ".join(sorted(standing_by(sight))) or "nobody"
    return f"{who} serves ({sight['state']}, epoch {sight['epoch']}); {others} standing by"
