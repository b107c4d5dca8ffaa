"""Every promise that the simulator watches can be seen broken.

Each case is a run that keeps all promises, and the same run with one thing tampered with, in which
the monitor must name exactly the promise that this breaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.events import (
    ControlsAnswered,
    Drain,
    Entry,
    Pause,
    PinTo,
    Turn,
)
from orchestrator.core.model import Health, Incident, Notice, Severity
from orchestrator.core.specs import Target
from tests.simulation import monitor
from tests.simulation.cases import BOOK, Case, judge, sound, unsaid
from tests.simulation.sabotage import (
    CHAT_MOVES_ON,
    COLAB_FALLS,
    DIES,
    DIES_AND_LIVES,
    MOVES,
    Deaf,
    Defect,
    Hiding,
    Idle,
    Rough,
    Steps,
    amend,
    become,
    believe,
    decide,
    fleet,
    forgets_to_write,
    has,
    keep,
    kill,
    lose_network,
    move_anyway,
    once,
    order,
    overtaken,
    publisher_sees,
    seen_adopting,
    seen_running,
    services,
    somebody_elses,
    spoil,
    starts,
    suffer,
    with_phone,
    with_zone,
)
from tests.simulation.scripted import Rig
from tests.simulation.world import Mode
from tests.simulation.zone import Ill

# ── I1 ──────────────────────────────────────────────────────────────────────────────────────────


def never_blamed(rig: Rig) -> None:
    believe(rig, "colab", fails=0)


I1 = {
    "a dead one stays in discovery": Case(
        "I1", "colab is dead and shown", DIES, keep(never_blamed)
    ),
    "a dead one stays in DNS": Case(
        "I1", "colab is dead and the name points at it", DIES, with_zone(Idle)
    ),
}


# ── I2 ──────────────────────────────────────────────────────────────────────────────────────────


def pinned_to_lab(*at: float, for_s: float = 61.0) -> Steps:
    """Pins that end: going back after each is voluntary."""
    return tuple((start, order(PinTo("chat", "lab", for_s))) for start in at)


def falls(*at: float) -> Steps:
    deaths = ((start, become("colab", Mode.REFUSE)) for start in at)
    lives = ((start + 20.0, become("colab", Mode.OK)) for start in at)
    return tuple(sorted((*deaths, *lives), key=lambda step: step[0]))


def no_memory_of_moves(rig: Rig) -> None:
    decide(rig, "chat", moves=())


def impatient(rig: Rig) -> None:
    if fleet(rig).backends["colab"].ok_since is not None:
        believe(rig, "colab", ok_since=0.0)
    decide(rig, "chat", review_at=0.0)


def no_memory_of_falls(rig: Rig) -> None:
    believe(rig, "colab", falls=(), flap_level=0)


def never_challenged(rig: Rig) -> None:
    assert rig.assembly is not None
    rig.assembly.prover.challenge = lambda _name, _session: None  # type: ignore[method-assign]


def unheard(rig: Rig) -> None:
    rig.human.runs[-1].lose(True)


I2 = {
    "three within an hour": Case(
        "I2", "3 voluntary moves within an hour",
        pinned_to_lab(100.0, 200.0, 300.0), keep(no_memory_of_moves), seconds=400.0,
    ),
    "two within a minute": Case(
        "I2", "two voluntary moves within",
        (*pinned_to_lab(100.0), *pinned_to_lab(170.0, for_s=10.0)), keep(no_memory_of_moves),
    ),
    "too soon after it was ill": Case(
        "I2", "to colab, well for only", DIES_AND_LIVES, keep(impatient), seconds=150.0
    ),
    "too soon for one that flaps": Case(
        "I2", "to colab, well for only 9",
        falls(40.0, 100.0, 160.0), keep(no_memory_of_falls), seconds=280.0,
    ),
    "from one that can prove itself to a worse one": Case(
        "I2", ", which is worse than", (starts("book"), (80.0, unheard)),
        once(0.5, never_challenged), seconds=160.0, notebooks=(BOOK,),
    ),
}  # fmt: skip


# ── I3 ──────────────────────────────────────────────────────────────────────────────────────────


def nothing_to_send(rig: Rig) -> None:
    fleet(rig).outbox.clear()


def without_notices(_: Rig, turn: Turn) -> None:
    amend(turn, notices={})


def sent_again(rig: Rig) -> None:
    """Put a notice that was sent back into the outbox."""
    kept: dict[str, Notice] = {}

    def before(turn: Turn) -> None:
        kept.update({one.id: one for one in turn.notices.values() if one.sent_at is None})

    def poke() -> None:
        assert rig.assembly is not None
        rig.assembly._courier.poke()

    rig.before_commit = before
    rig.time.at(50.0, poke)  # it notes that what it sent has left the outbox
    rig.time.at(60.0, lambda: fleet(rig).outbox.update(kept))
    rig.time.at(60.0, poke)


def counts_anew(rig: Rig) -> None:
    found = fleet(rig)
    found.world = replace(found.world, incident_seq=0)


I3 = {
    "not told within five minutes": Case(
        "I3", "did not arrive for", MOVES, keep(nothing_to_send), seconds=360.0
    ),
    "a move that nobody is told of": Case(
        "I3", "a move to lab without a notice", MOVES, spoil(CHAT_MOVES_ON, without_notices)
    ),
    "counted as sent and never arrived": Case(
        "I3", "counts as sent and never arrived", MOVES, with_phone(Deaf)
    ),
    "told twice and never killed": Case("I3", "arrived 2 times, with 0 kills", MOVES, sent_again),
    "a number used again": Case(
        "I3", "the id 1:opened means",
        ((40.0, become("colab", Mode.REFUSE)), (80.0, order(Pause(60.0)))),
        once(70.0, counts_anew),
    ),
}  # fmt: skip


# ── I4 ──────────────────────────────────────────────────────────────────────────────────────────


def still_paused(rig: Rig, turn: Turn) -> None:
    world = fleet(rig).world
    assert turn.world is not None
    since, until = world.paused_since, world.paused_until
    amend(turn, world=replace(turn.world, paused_since=since, paused_until=until))


def nobody_looks(rig: Rig) -> None:
    decide(rig, "chat", review_at=None)


PAUSED: Steps = ((35.0, order(Pause(3600.0))),)


def runs_again(rig: Rig) -> None:
    found = fleet(rig)
    found.world = replace(found.world, paused_since=None)


def softened(rig: Rig) -> None:
    pin = fleet(rig).services["chat"].pin
    assert pin is not None
    decide(rig, "chat", pin=replace(pin, hard=False))


I4 = {
    "moved while paused": Case(
        "I4", "moved to kaggle while paused", (*PAUSED, *DIES), spoil(COLAB_FALLS, move_anyway)
    ),
    "written while paused": Case(
        "I4", "a write while paused or isolated",
        ((35.0, suffer(Ill.DOWN)), *MOVES, (45.0, order(Pause(3600.0))), (60.0, suffer(Ill.WELL))),
        once(50.0, publisher_sees(seen_running)),
    ),
    "a hard pin is left": Case(
        "I4", "pinned hard to colab, served by kaggle",
        ((35.0, order(PinTo("chat", "colab", hard=True))), *DIES), spoil(COLAB_FALLS, move_anyway),
    ),
    "a pin is over and stands": Case(
        "I4", "chat: a pin is over and stands",
        ((40.0, order(PinTo("chat", "colab", 60.0))),), keep(nobody_looks),
    ),
    "a pause is over and stands": Case(
        "I4", "a pause is over and stands",
        ((40.0, order(Pause(60.0))),), spoil(has("resumed", ""), still_paused),
    ),
    "a pause is dropped": Case("I4", "a pause was dropped", PAUSED, once(50.0, runs_again)),
    "a hard pin becomes a soft one": Case(
        "I4", "chat: the pin to colab was dropped",
        ((35.0, order(PinTo("chat", "colab", hard=True))),), once(50.0, softened),
    ),
    "a pin is forgotten over a restart": Case(
        "I4", "after a start",
        ((40.0, order(PinTo("chat", "colab"))), (60.0, kill)),
        forgets_to_write(has("pinned", "chat"), lambda turn: replace(turn, services={})),
    ),
    "a drain is forgotten over a restart": Case(
        "I4", "after a start",
        ((40.0, order(Drain("lab"))), (60.0, kill)),
        forgets_to_write(has("drained", "lab"), lambda turn: replace(turn, backends={})),
    ),
}  # fmt: skip


# ── I5 ──────────────────────────────────────────────────────────────────────────────────────────


def to_a_strange_place(rig: Rig, turn: Turn) -> None:
    state = services(turn)["chat"]
    strange = replace(state.publication, wanted=(Target("A", "198.51.100.7"),))
    services(turn)["chat"] = replace(state, publication=strange)


class Repeating:
    """A discovery endpoint that says for ever what it said first."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._said: dict[str, list[dict[str, Any]]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] not in self._said:
            said = self._said[scope["path"]] = []

            async def note(part: dict[str, Any]) -> None:
                said.append(part)

            await self._real(scope, receive, note)
        for part in self._said[scope["path"]]:
            await send(part)


def says_the_same(rig: Rig) -> None:
    rig.discovery = Repeating(rig.discovery)  # type: ignore[assignment]


def already_dead(rig: Rig, turn: Turn) -> None:
    """Have the one that is published next be known as dead."""
    assert isinstance(turn.backends, dict)
    turn.backends["lab"] = replace(fleet(rig).backends["lab"], health=Health.DOWN)


I5 = {
    "a strange place is published": Case(
        "I5", "198.51.100.7 is written, active is", MOVES, spoil(CHAT_MOVES_ON, to_a_strange_place),
        seconds=60.0,
    ),
    "a record made by hand is overwritten": Case(
        "I5", "a foreign record is overwritten", ((0.0, somebody_elses),),
        once(20.0, publisher_sees(seen_adopting)), seconds=120.0,
    ),
    "another instance's record is overwritten": Case(
        "I5", "the record of other is overwritten", ((40.0, overtaken("aion other epoch=9")),),
        once(20.0, publisher_sees(seen_adopting)),
    ),
    "what stands beside ours is thrown away": Case(
        "I5", "a record that is not ours was touched", MOVES, with_zone(Rough)
    ),
    "discovery says something else": Case(
        "I5", "discovery says colab, decided is lab", MOVES, once(20.0, says_the_same)
    ),
    "a dead one is published": Case(
        "I5", "lab is published and down", MOVES, spoil(CHAT_MOVES_ON, already_dead), seconds=41.0
    ),
}  # fmt: skip


# ── I7 ──────────────────────────────────────────────────────────────────────────────────────────


def condemn_lab(rig: Rig, turn: Turn) -> None:
    told = Entry("health", "lab", "lab is down", {"old": "up", "new": "down"})
    amend(turn, entries=(*turn.entries, told))


def controls_fine(rig: Rig) -> None:
    if rig.world.network_lost:
        rig.report(ControlsAnswered(0, 4, rig.steady()))


I7 = {
    "a verdict while isolated": Case(
        "I7", "lab is called down while isolated",
        ((40.0, lose_network(True)), (70.0, order(Drain("lab"))), (90.0, lose_network(False))),
        spoil(has("drained", "lab"), condemn_lab), seconds=120.0,
    ),
    "the fault was ours": Case(
        "I7", "is called down, and the fault was ours",
        ((100.0, lose_network(True)), (140.0, lose_network(False))), keep(controls_fine),
        seconds=180.0,
    ),
}  # fmt: skip


# ── I8 ──────────────────────────────────────────────────────────────────────────────────────────

AT_LAST = ("converged", "finished")
AFTER_CALM = ("best_serve", "finished")


def lab_is_out(rig: Rig) -> None:
    believe(rig, "lab", health=Health.DOWN, oks=0)


def nobody_serves(rig: Rig) -> None:
    state = fleet(rig).services["chat"]
    believe(rig, state.active or "", health=Health.UNKNOWN)


def isolated(rig: Rig) -> None:
    found = fleet(rig)
    found.world = replace(found.world, isolated_since=rig.steady())


def never_back(rig: Rig) -> None:
    rig.outage_s = lambda: 1e6


def held(rig: Rig) -> None:
    decide(rig, "chat", hold_until=rig.steady() + 7600.0)


def never_proved(rig: Rig) -> None:
    assert rig.assembly is not None
    rig.assembly.prover.prove = lambda _name, _session: None  # type: ignore[method-assign]


def never_closed(rig: Rig) -> None:
    left = Incident("99", "job_stuck:", "job_stuck", "", Severity.WARNING, rig.steady())
    fleet(rig).incidents[left.key] = left


I8 = {
    "one that is well is called down": Case(
        "I8", "lab is well and called down", (), keep(lab_is_out), last=AT_LAST
    ),
    "somebody unfit serves": Case(
        "I8", "chat is served by colab", (), once(239.0, nobody_serves), last=AT_LAST
    ),
    "it thinks that it is cut off": Case(
        "I8", "it still thinks that its network is lost", (), once(239.0, isolated), last=AT_LAST
    ),
    "it does not come back": Case(
        "I8", "the daemon is not up", ((60.0, kill),), never_back, last=("converged",)
    ),
    "the record was never written": Case(
        "I8", "the record is {('A', '203.0.113.10')}", MOVES, with_zone(Idle), last=AT_LAST
    ),
    "the favourite does not serve": Case(
        "I8", "after hours of calm kaggle, not colab", DIES_AND_LIVES,
        once(85.0, held), seconds=300.0, last=AFTER_CALM,
    ),
    "a favourite that flapped hours ago does not serve": Case(
        "I8", "after hours of calm kaggle, not colab", falls(40.0, 100.0, 160.0),
        once(190.0, held), seconds=7500.0, last=AFTER_CALM,
    ),
    "a notebook that lives does not serve": Case(
        "I8", "lives with a good token and does not serve", (starts("book"),),
        once(0.5, never_proved), last=AT_LAST, notebooks=(BOOK,),
    ),
    "an incident stays open": Case(
        "I8", "after hours of calm the incident job_stuck: is open", DIES_AND_LIVES,
        once(100.0, never_closed), seconds=300.0, last=AFTER_CALM,
    ),
}  # fmt: skip


# ── I9 ──────────────────────────────────────────────────────────────────────────────────────────


def with_epoch(epoch: int) -> Callable[[Rig, Turn], None]:
    def change(_: Rig, turn: Turn) -> None:
        services(turn)["chat"] = replace(services(turn)["chat"], epoch=epoch)

    return change


def with_the_epoch_before(turn: Turn) -> Turn:
    older = replace(services(turn)["chat"], epoch=1, active="colab")
    return replace(turn, services={"chat": older})


def with_another_active(turn: Turn) -> Turn:
    return replace(turn, services={"chat": replace(services(turn)["chat"], active="kaggle")})


MOVES_AND_DIES: Steps = (*MOVES, (40.9, kill))

I9 = {
    "an epoch goes back": Case(
        "I9", "epoch went from 1 to 0", MOVES, spoil(CHAT_MOVES_ON, with_epoch(0)), seconds=41.0
    ),
    "a move without a new epoch": Case(
        "I9", "moved to lab without a new epoch", MOVES, spoil(CHAT_MOVES_ON, with_epoch(1)),
        seconds=41.0,
    ),
    "an older epoch is written over a newer": Case(
        "I9", "epoch 2 is written over 1000", ((35.0, overtaken("aion sim epoch=1000")), *MOVES),
        with_zone(Hiding), seconds=60.0,
    ),
    "an epoch is forgotten over a restart": Case(
        "I9", "epoch 2 before, 1 after a start", ((39.0, suffer(Ill.HANG)), *MOVES_AND_DIES),
        forgets_to_write(CHAT_MOVES_ON, with_the_epoch_before), seconds=50.0,
    ),
    "who serves is forgotten over a restart": Case(
        "intent", "lab was committed, found kaggle",
        ((39.0, suffer(Ill.HANG)), *MOVES_AND_DIES),
        forgets_to_write(CHAT_MOVES_ON, with_another_active), seconds=50.0,
    ),
}  # fmt: skip


# ── defects ─────────────────────────────────────────────────────────────────────────────────────


def listens_badly(rig: Rig) -> None:
    def listener(_: Turn) -> None:
        raise RuntimeError("planted")

    assert rig.assembly is not None
    rig.assembly.loop.subscribe(listener)


INTERNAL = {
    "a part ends": Case(
        "internal", "the part `courier` ended", (), with_phone(Defect), seconds=60.0
    ),
    "a defect is only logged": Case(
        "internal", "callback_failed", MOVES, once(20.0, listens_badly), seconds=60.0
    ),
}

CASES = {**I1, **I2, **I3, **I4, **I5, **I7, **I8, **I9, **INTERNAL}


# ── the tests ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_nobody_tampered_with_keeps_every_promise(name):
    assert sound(CASES[name]) == ()


@pytest.mark.parametrize("name", CASES)
def test_a_broken_promise_is_named_and_no_other(name):
    judge(CASES[name])


def test_everything_that_the_monitor_can_say_is_said_in_some_case():
    assert unsaid(monitor, CASES.values(), at_least=20) == []
