"""What the operator asks for of backends that aion starts and stops."""

from __future__ import annotations

from orchestrator.core import demand, metering
from orchestrator.core.boots import boot_s
from orchestrator.core.draft import Draft
from orchestrator.core.durations import spoken
from orchestrator.core.events import Answer
from orchestrator.core.lives import Do, PowerPhase
from orchestrator.core.orders import tell
from orchestrator.core.power import RUNS, of, put
from orchestrator.core.powering import Halt, Start
from orchestrator.core.refusal import Refused, known
from orchestrator.core.registry import Tell
from orchestrator.core.specs import Backend
from orchestrator.core.starting import launch
from orchestrator.core.stopping import stop

HELD_S = 3600.0  # what the operator stopped is not started automatically within the hour


def _powered(draft: Draft, name: str) -> Backend:
    known(draft, name, "backend")
    spec = draft.config.backends[name]
    if not spec.powered:
        raise Refused(f"{name} is of kind `{spec.kind}`, which aion cannot start or stop")
    if draft.config.shadow:
        raise Refused("this daemon only observes (--shadow)")
    if draft.world.paused_since is not None:
        raise Refused("aion is paused; `aion resume` first")
    if draft.isolated_from(spec):
        raise Refused("aion has lost its network, so nothing is started or stopped")
    return spec


def start(draft: Draft, command: Start) -> None:
    """Start a backend because the operator says so."""
    name = command.backend
    spec = _powered(draft, name)
    state = draft.backend(name)
    power = of(state)
    if demand.exhausted(state, draft.at):
        raise Refused(f"the quota of {name} is spent")
    if power.phase is PowerPhase.STOPPING:
        raise Refused(f"{name} is being stopped; start it once it is off")
    if not power.answered and power.phase in RUNS:
        put(draft, name, look_at=draft.at)
        raise Refused(f"what became of its last start ({power.launch}) is not known yet")
    if power.phase in RUNS:
        draft.answer = Answer(f"{name} is {power.phase.value} already")
        return
    if key := metering.short_of(draft, name):
        raise Refused(f"too little is left of {key} for a start, which takes some ahead")
    put(draft, name, failures=0, retry_at=None)
    launch(draft, name, "the operator said so")
    about = spoken(boot_s(state))
    idle = spec.idle_stop_s
    ends = f"; it is stopped after {spoken(idle)} without work" if idle is not None else ""
    draft.answer = Answer(f"{name} is being started, which takes about {about}{ends}")


def halt(draft: Draft, command: Halt) -> None:
    """Stop a backend because the operator says so; it is not started again within the hour.

    One that we cannot stop is told to by its agent, if it has one.
    """
    name = command.backend
    known(draft, name, "backend")
    spec = draft.config.backends[name]
    if spec.registers and not spec.powered:
        tell(draft, Tell(name, Do.STOP))
        return
    spec = _powered(draft, name)
    power = of(draft.backend(name))
    if power.theirs:
        raise Refused(f"{name} runs {power.theirs}, which somebody else started: it is left alone")
    if power.phase is PowerPhase.OFF:
        draft.answer = Answer(f"{name} is off already")
        return
    if power.phase is PowerPhase.STOPPING:
        draft.answer = Answer(f"{name} is being stopped already")
        return
    put(draft, name, durable=True, retry_at=draft.at + HELD_S)
    stop(draft, name, "the operator said so")
    later = "; it is not started automatically within the hour" if spec.auto_start else ""
    draft.answer = Answer(f"{name} is being stopped{later}")
