"""What can happen in a short run, and what can be tampered with to see that it is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orchestrator.core.events import Failover, Turn
from orchestrator.core.model import Fleet, ServiceState
from orchestrator.core.records import Plan, Record
from tests.simulation.phone import Phone
from tests.simulation.scripted import Act, Rig, every
from tests.simulation.world import Mode
from tests.simulation.zone import BYSTANDER, Ill, Zone

QUICK_S = 0.2
Steps = tuple[tuple[float, Act], ...]

# ── what can happen ─────────────────────────────────────────────────────────────────────────────


def become(name: str, mode: Mode) -> Act:
    return lambda rig: rig.world.become(name, mode)


def order(command: Any) -> Act:
    return lambda rig: rig.order(command)


def suffer(ill: Ill) -> Act:
    return lambda rig: rig.zone.suffer(ill)


def lose_network(lost: bool) -> Act:
    return lambda rig: rig.world.lose_network(lost)


def kill(rig: Rig) -> None:
    rig.kill()


def somebody_elses(rig: Rig) -> None:
    rig.zone.records["x"] = Record("x", "A", "203.0.113.99")


def starts(name: str, at: float = 5.0, **more: Any) -> tuple[float, Act]:
    """Have somebody start a notebook."""

    def act(rig: Rig) -> None:
        rig.human.start(name, **more)

    return at, act


def overtaken(comment: str) -> Act:
    return lambda rig: rig.zone.meddle(comment)


DIES: Steps = ((40.0, become("colab", Mode.REFUSE)),)
DIES_AND_LIVES: Steps = (*DIES, (90.0, become("colab", Mode.OK)))
MOVES: Steps = ((40.0, order(Failover("chat", "lab"))),)


# ── what can be tampered with ───────────────────────────────────────────────────────────────────


def fleet(rig: Rig) -> Fleet:
    assert rig.assembly is not None
    return rig.assembly.loop.fleet


def believe(rig: Rig, name: str, **values: Any) -> None:
    """Change what is believed of a backend, past the loop."""
    found = fleet(rig)
    found.backends[name] = replace(found.backends[name], **values)


def decide(rig: Rig, name: str, **values: Any) -> None:
    """Change what is decided of a service, past the loop."""
    found = fleet(rig)
    found.services[name] = replace(found.services[name], **values)


def keep(what: Act, *, since: float = 0.5) -> Act:
    """Do it over and over from then on, whenever the daemon is up."""

    def sabotage(rig: Rig) -> None:
        def again() -> None:
            if rig.assembly is not None:
                what(rig)

        rig.time.at(since, lambda: every(rig, QUICK_S, again))

    return sabotage


def once(at: float, what: Act) -> Act:
    return lambda rig: rig.time.at(at, lambda: what(rig))


def spoil(matches: Callable[[Turn], bool], change: Callable[[Rig, Turn], None]) -> Act:
    """Have each such turn changed before it is committed, so that this is what is decided."""

    def sabotage(rig: Rig) -> None:
        def before(turn: Turn) -> None:
            if matches(turn):
                change(rig, turn)

        rig.before_commit = before

    return sabotage


def amend(turn: Turn, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(turn, name, value)


def services(turn: Turn) -> dict[str, ServiceState]:
    assert isinstance(turn.services, dict)
    return turn.services


def has(action: str, subject: str, **data: str) -> Callable[[Turn], bool]:
    """Say whether a turn has such a line in its log."""
    return lambda turn: any(
        one.action == action and one.subject == subject and data.items() <= one.data.items()
        for one in turn.entries
    )


CHAT_MOVES_ON = has("assigned", "chat", old="colab")
COLAB_FALLS = has("health", "colab", new="down")


def move_anyway(rig: Rig, turn: Turn) -> None:
    state = services(turn).get("chat") or fleet(rig).services["chat"]
    services(turn)["chat"] = replace(state, active="kaggle", epoch=state.epoch + 1)


def forgets_to_write(matches: Callable[[Turn], bool], written: Callable[[Turn], Turn]) -> Act:
    """Have something else written of each such turn than is then applied."""

    def sabotage(rig: Rig) -> None:
        whole: dict[str, Any] = {}

        def before(turn: Turn) -> None:
            if matches(turn):
                whole.update(backends=turn.backends, services=turn.services)
                other = written(turn)
                amend(turn, backends=other.backends, services=other.services)

        def after(turn: Turn) -> None:
            amend(turn, **whole)
            whole.clear()

        rig.before_commit, rig.after_commit = before, after

    return sabotage


def publisher_sees(change: Callable[[Fleet], Fleet]) -> Act:
    """Show the part that keeps the DNS names another fleet than there is."""

    def act(rig: Rig) -> None:
        assert rig.assembly is not None
        publisher, loop = rig.assembly.publisher, rig.assembly.loop
        publisher._fleet = lambda: change(loop.fleet)
        publisher.poke()

    return act


def seen_running(found: Fleet) -> Fleet:
    return replace(found, world=replace(found.world, paused_since=None))


def seen_adopting(found: Fleet) -> Fleet:
    chat = found.services["chat"]
    adopting = replace(chat, publication=replace(chat.publication, adopt=True))
    return replace(found, services={**found.services, "chat": adopting})


class Deaf(Phone):
    """Takes messages and shows them to nobody."""

    def deliver(self, channel: str, body: str) -> list[str]:
        return []


class Defect(Phone):
    """Has a bug."""

    def deliver(self, channel: str, body: str) -> list[str]:
        raise RuntimeError("planted")


class Idle(Zone):
    """Says yes to every change and makes none but the first."""

    def change(self, by: str, plan: Plan) -> None:
        if not self.writes:
            super().change(by, plan)


class Rough(Zone):
    """Throws away what else stands there whenever it changes something."""

    def change(self, by: str, plan: Plan) -> None:
        self.records.pop(BYSTANDER.id, None)
        super().change(by, plan)


class Hiding(Zone):
    """Shows nothing that somebody else wrote."""

    def seen(self) -> tuple[Record, ...]:
        ours = [write.records for write in self.writes if write.by == "aion"]
        return (BYSTANDER, *(ours[-1] if ours else ()))


def with_phone(kind: type[Phone]) -> Act:
    def sabotage(rig: Rig) -> None:
        rig.phone = kind(rig.time, rig.trace)

    return sabotage


def with_zone(kind: type[Zone]) -> Act:
    def sabotage(rig: Rig) -> None:
        zone = kind(rig.time, rig.random, rig.trace)
        zone.records = rig.zone.records
        rig.zone = zone

    return sabotage
