"""What every kind that can be started promises, whatever its provider does.

A kind adds itself with one row in KINDS: the function that makes one which is off, with the truth
of its provider, and which fates its provider can have. Where the function stands in a module of its
own (`tests.standins.NAME`), it is named as "module:function" and imported on first use.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import pytest

import backends
import backends.fake
from backends.base import Launch, Powered
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import Ask, Snag
from orchestrator.edge.programs import run_program
from tests.backends.worlds import TableHttp, driver, plan, ports

SECRET = "s3cret-0123456789"  # what a kind's credential is to be here
LABEL, OTHER, FOREIGN = "aion-home-lab-7", "aion-home-lab-8", "aion-elsewhere-lab-3"


class World(Protocol):
    """The truth at a provider."""

    async def runs(self) -> list[str]:
        """List the labels of what runs or boots there, "" for one without: what costs money."""
        ...

    async def began(self) -> int:
        """Say how many launches were made since the world began, by whomever."""
        ...

    async def settle(self) -> None:
        """Let whatever boots or shuts down come to its end."""
        ...

    async def put(self, label: str) -> None:
        """Have something run there under that label, where it would be ours."""
        ...

    async def longest_s(self) -> float | None:
        """Say after how long the provider ends what runs now by itself; None: never."""
        ...


@dataclass(frozen=True)
class Case:
    """How the provider is: the first time it is asked that, it goes like this; then all is well.

    LOST: it is done, and the answer does not come. The others: it is not done, and it says so.
    """

    ask: Ask = Ask.START
    fate: Snag = Snag.NONE


Make = Callable[[Path, Case], AbstractAsyncContextManager[tuple[Powered, World]]]


@dataclass(frozen=True)
class Kind:
    """One row. `start`, `status`, `stop`: the fates that each can have there.

    `limits`: the provider ends a launch by itself when told to.
    """

    make: Make | str
    start: frozenset[Snag]
    status: frozenset[Snag]
    stop: frozenset[Snag]
    limits: bool = True


# ── the kinds ───────────────────────────────────────────────────────────────────────────────────

PROGRAM = """
import pathlib, sys
folder, verb = pathlib.Path(sys.argv[1]), sys.argv[2]
on, fate = folder / "on", folder / verb
said = int(fate.read_text()) if fate.exists() else 0
fate.unlink(missing_ok=True)
if said not in (0, 1):
    sys.exit(said)
if verb == "start":
    if not on.exists():
        on.write_text("\\n".join(sys.argv[3:]))
        (folder / "began").open("a").write("x")
elif verb == "stop":
    if on.exists() and sys.argv[3] in ("", on.read_text().partition("\\n")[0]):
        on.unlink()
    elif not on.exists():
        print('{"state": "off"}')
elif said == 0:
    if not on.exists():
        sys.exit(3)
    print('{"launch": "%s"}' % on.read_text().partition("\\n")[0])
sys.exit(said)
"""
STATUSES = {
    Snag.LOST: 1,
    Snag.STOCKOUT: 69,
    Snag.QUOTA: 73,
    Snag.TRANSIENT: 75,
    Snag.DENIED: 77,
}


@dataclass
class Folder:
    """What the programs of a `command` keep in a folder."""

    path: Path

    async def runs(self) -> list[str]:
        on = self.path / "on"
        return [on.read_text().partition("\n")[0]] if on.exists() else []

    async def began(self) -> int:
        file = self.path / "began"
        return len(file.read_text()) if file.exists() else 0

    async def settle(self) -> None:
        return

    async def put(self, label: str) -> None:
        (self.path / "on").write_text(label)

    async def longest_s(self) -> float | None:
        return float((self.path / "on").read_text().partition("\n")[2]) or None


@asynccontextmanager
async def command(folder: Path, case: Case) -> AsyncIterator[tuple[Powered, World]]:
    if case.fate is not Snag.NONE:
        (folder / case.ask.value).write_text(str(STATUSES[case.fate]))
    run = (sys.executable, "-c", PROGRAM, str(folder))
    verbs = {
        "start": (*run, "start", "{launch}", "{max_run_s}"),
        "stop": (*run, "stop", "{launch}"),
        "status": (*run, "status"),
    }
    made = plan("command", commands=verbs, secrets={"commands.stdin": SECRET})
    yield backends.driver(made, ports(TableHttp({}), None, run_program)), Folder(folder)


@dataclass
class Played:
    """What a `fake` plays."""

    plant: backends.fake.Plant

    async def runs(self) -> list[str]:
        return [self.plant.launch] if self.plant.launch else []

    async def began(self) -> int:
        return self.plant.started

    async def settle(self) -> None:
        return

    async def put(self, label: str) -> None:
        self.plant.launch = label

    async def longest_s(self) -> float | None:
        return None


@asynccontextmanager
async def fake(_: Path, case: Case) -> AsyncIterator[tuple[Powered, World]]:
    first = {Snag.NONE: "", Snag.LOST: "lost 0s, "}.get(case.fate, f"{case.fate.value}, ")
    one = driver(TableHttp({}), plan("fake", power=f"{first}boot 0s"))
    yield one, Played(one.plant)


REFUSED = frozenset({Snag.QUOTA, Snag.STOCKOUT, Snag.DENIED, Snag.TRANSIENT})
KINDS: dict[str, Kind] = {
    "command": Kind(
        command,
        start=REFUSED | {Snag.LOST},
        status=frozenset({Snag.DENIED, Snag.TRANSIENT, Snag.LOST}),
        stop=frozenset({Snag.DENIED, Snag.TRANSIENT, Snag.LOST}),
    ),
    "fake": Kind(
        fake, start=REFUSED | {Snag.LOST}, status=frozenset(), stop=frozenset(), limits=False
    ),
    "gce": Kind(
        "tests.backends.gce_world:powered",
        start=REFUSED | {Snag.LOST},
        status=frozenset({Snag.DENIED, Snag.TRANSIENT, Snag.LOST}),
        stop=frozenset({Snag.DENIED, Snag.TRANSIENT, Snag.LOST}),
    ),
    "colab": Kind(
        "tests.backends.test_colab:contract",
        start=frozenset({Snag.QUOTA, Snag.DENIED, Snag.TRANSIENT, Snag.LOST}),
        status=frozenset({Snag.DENIED, Snag.TRANSIENT}),
        stop=frozenset({Snag.DENIED, Snag.TRANSIENT, Snag.LOST}),
        limits=False,
    ),
    "libcloud": Kind(
        "tests.standins.ec2:contract",
        start=REFUSED | {Snag.LOST},
        status=frozenset({Snag.DENIED, Snag.TRANSIENT}),
        stop=frozenset({Snag.DENIED, Snag.TRANSIENT, Snag.LOST}),
        limits=False,
    ),
    "runpod": Kind(
        "tests.standins.runpod:contract",
        start=REFUSED | {Snag.LOST},
        status=frozenset({Snag.DENIED, Snag.TRANSIENT, Snag.LOST}),
        stop=frozenset({Snag.DENIED, Snag.TRANSIENT, Snag.LOST}),
        limits=False,
    ),
    "vast": Kind(
        "tests.standins.vast:contract",
        start=REFUSED | {Snag.LOST},
        status=frozenset({Snag.DENIED, Snag.TRANSIENT, Snag.LOST}),
        stop=frozenset({Snag.DENIED, Snag.TRANSIENT, Snag.LOST}),
        limits=False,
    ),
    "kaggle": Kind(
        "tests.standins.kaggle:contract",
        start=REFUSED | {Snag.LOST},
        status=frozenset({Snag.DENIED, Snag.TRANSIENT}),
        stop=frozenset({Snag.DENIED, Snag.TRANSIENT, Snag.LOST}),
    ),
}


# ── what holds ──────────────────────────────────────────────────────────────────────────────────


def world(name: str, folder: Path, case: Case = Case()) -> AbstractAsyncContextManager:
    make = KINDS[name].make
    if isinstance(make, str):
        module, _, function = make.partition(":")
        make = getattr(import_module(module), function)
    return make(folder, case)


def fates(ask: Ask, *but: Snag) -> pytest.MarkDecorator:
    """Every kind with each of the fates that it can have there, `but` these."""
    found = [
        pytest.param(name, fate, id=f"{name}-{fate.value}")
        for name, kind in KINDS.items()
        for fate in sorted(getattr(kind, ask.value))
        if fate not in but
    ]
    return pytest.mark.parametrize(("name", "fate"), found)


everywhere = pytest.mark.parametrize("name", KINDS)


def only(name: str, ask: Ask, fate: Snag) -> None:
    assert fate in getattr(KINDS[name], ask.value)


def sound(report):
    """Hold for every report."""
    assert report.detail.isprintable()
    assert report.detail or report.snag is Snag.NONE, report
    assert SECRET not in repr(report)
    assert report.retry_after_s is None or report.retry_after_s > 0
    return report


def test_every_kind_that_can_be_started_is_held_to_this():
    assert set(backends.POWERED) <= set(KINDS) <= set(backends.KINDS)
    assert all(backends.powered(name, None) for name in backends.POWERED)


@everywhere
def test_it_is_off_then_on_under_its_label_then_off_again(name, tmp_path):
    async def story():
        async with world(name, tmp_path) as (one, truth):
            off = sound(await one.status())
            assert (off.phase, off.launch, off.snag) == (PowerPhase.OFF, "", Snag.NONE)
            taken = sound(await one.start(Launch(LABEL, 3600.0)))
            assert taken.snag is Snag.NONE
            assert taken.phase in (PowerPhase.STARTING, PowerPhase.ON)
            assert await truth.runs() == [LABEL]
            await truth.settle()
            on = sound(await one.status())
            assert (on.phase, on.launch, on.snag) == (PowerPhase.ON, LABEL, Snag.NONE)
            for _ in range(2):
                going = sound(await one.stop(LABEL))
                assert going.snag is Snag.NONE
                assert going.phase in (PowerPhase.STOPPING, PowerPhase.OFF)
            await truth.settle()
            assert await truth.runs() == []
            assert sound(await one.stop(LABEL)).phase is PowerPhase.OFF
            off = sound(await one.status())
            assert (off.phase, off.launch, off.snag) == (PowerPhase.OFF, "", Snag.NONE)
            assert await truth.began() == 1

    asyncio.run(story())


@everywhere
def test_it_can_be_started_again_after_it_was_stopped(name, tmp_path):
    async def story():
        async with world(name, tmp_path) as (one, truth):
            for label in (LABEL, OTHER):
                assert (await one.start(Launch(label))).snag is Snag.NONE
                await truth.settle()
                assert await truth.runs() == [label]
                assert (await one.stop(label)).snag is Snag.NONE
                await truth.settle()
            assert await truth.runs() == []

    asyncio.run(story())


@everywhere
def test_a_second_start_under_the_same_label_starts_nothing(name, tmp_path):
    async def story():
        async with world(name, tmp_path) as (one, truth):
            for _ in range(2):
                taken = sound(await one.start(Launch(LABEL)))
                assert taken.snag is Snag.NONE
                assert taken.phase in (PowerPhase.STARTING, PowerPhase.ON)
            await truth.settle()
            assert sound(await one.start(Launch(LABEL))).snag is Snag.NONE
            assert await truth.runs() == [LABEL]
            assert await truth.began() == 1

    asyncio.run(story())


@fates(Ask.START, Snag.LOST)
def test_a_start_that_is_refused_did_not_happen_and_the_next_one_does(name, fate, tmp_path):
    async def story():
        async with world(name, tmp_path, Case(Ask.START, fate)) as (one, truth):
            assert sound(await one.start(Launch(LABEL))).snag is fate
            await truth.settle()
            assert await truth.runs() == []
            assert (await one.status()).phase is PowerPhase.OFF
            assert (await one.start(Launch(OTHER))).snag is Snag.NONE
            assert await truth.runs() == [OTHER]

    asyncio.run(story())


@everywhere
def test_a_start_whose_answer_is_lost_is_said_to_be_and_its_status_tells(name, tmp_path):
    only(name, Ask.START, Snag.LOST)

    async def story():
        async with world(name, tmp_path, Case(Ask.START, Snag.LOST)) as (one, truth):
            assert sound(await one.start(Launch(LABEL))).snag is Snag.LOST
            await truth.settle()
            assert await truth.runs() == [LABEL]
            seen = sound(await one.status())
            assert (seen.phase, seen.launch) == (PowerPhase.ON, LABEL)
            assert (await one.start(Launch(LABEL))).snag is Snag.NONE
            assert await truth.began() == 1

    asyncio.run(story())


@fates(Ask.STATUS)
def test_what_cannot_be_read_is_unknown_and_never_off(name, fate, tmp_path):
    async def story():
        async with world(name, tmp_path, Case(Ask.STATUS, fate)) as (one, _):
            seen = sound(await one.status())
            assert seen.phase is PowerPhase.UNKNOWN
            assert seen.snag is not Snag.NONE
            if fate is not Snag.LOST:
                assert seen.snag is fate
            assert (await one.status()).phase is PowerPhase.OFF

    asyncio.run(story())


@fates(Ask.STOP)
def test_a_stop_that_failed_says_so_and_the_next_one_ends_it(name, fate, tmp_path):
    async def story():
        async with world(name, tmp_path, Case(Ask.STOP, fate)) as (one, truth):
            assert (await one.start(Launch(LABEL))).snag is Snag.NONE
            await truth.settle()
            assert sound(await one.stop(LABEL)).snag is fate
            await truth.settle()
            assert await truth.runs() == ([] if fate is Snag.LOST else [LABEL])
            assert (await one.stop(LABEL)).snag is Snag.NONE
            await truth.settle()
            assert await truth.runs() == []
            assert (await one.stop(LABEL)).phase is PowerPhase.OFF

    asyncio.run(story())


@everywhere
def test_what_runs_under_another_label_is_told_and_left_alone(name, tmp_path):
    async def story():
        async with world(name, tmp_path) as (one, truth):
            await truth.put(FOREIGN)
            await truth.settle()
            seen = sound(await one.status())
            assert (seen.phase, seen.launch) == (PowerPhase.ON, FOREIGN)
            sound(await one.stop(LABEL))
            await truth.settle()
            assert await truth.runs() == [FOREIGN]
            assert (await one.status()).launch == FOREIGN

    asyncio.run(story())


@everywhere
def test_a_stop_without_a_label_ends_what_runs(name, tmp_path):
    async def story():
        async with world(name, tmp_path) as (one, truth):
            await one.start(Launch(LABEL))
            await truth.settle()
            assert (await one.stop("")).snag is Snag.NONE
            await truth.settle()
            assert await truth.runs() == []

    asyncio.run(story())


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.limits])
def test_its_provider_knows_when_to_end_it_by_itself(name, tmp_path):
    async def story():
        async with world(name, tmp_path) as (one, truth):
            await one.start(Launch(LABEL, 5400.0))
            longest_s = await truth.longest_s()
            assert longest_s is not None
            assert 5340.0 <= longest_s <= 5400.0

    asyncio.run(story())


@everywhere
def test_one_that_is_cancelled_leaves_a_truth_that_its_status_tells(name, tmp_path):
    async def story():
        async with world(name, tmp_path) as (one, truth):
            for turns in (1, 3, 10):
                task = asyncio.ensure_future(one.start(Launch(LABEL)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            assert (await one.start(Launch(LABEL))).snag is Snag.NONE
            await truth.settle()
            assert await truth.runs() == [LABEL]
            assert (await one.status()).launch == LABEL

    asyncio.run(story())
