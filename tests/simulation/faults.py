"""What goes wrong, when, and for how long: drawn from the seed, ended all at once.

Each kind of fault has a rate of its own in each seed: never, seldom or often. Faulty phases
alternate with calm ones; at the end of a faulty phase everything that is wrong ceases, and soon
after the daemon must have found its way back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from backends.base import Random
from orchestrator.core.demand import label_start
from orchestrator.core.events import (
    Acknowledge,
    Command,
    Drain,
    Failover,
    Mute,
    Pause,
    PinTo,
    Resume,
    Switchover,
    SyncDns,
    Traffic,
    Unpin,
)
from orchestrator.core.lives import Do
from orchestrator.core.powering import Halt, Start
from orchestrator.core.registry import Tell
from tests.simulation import plans
from tests.simulation.human import Human
from tests.simulation.machine import Machine
from tests.simulation.notebooks import Notebook
from tests.simulation.phone import Line
from tests.simulation.provider import THEIRS, Temper
from tests.simulation.virtual import EPOCH
from tests.simulation.world import Mode
from tests.simulation.zone import Ill

HOUR_S = 3600.0
MODES = tuple(mode for mode in Mode if mode is not Mode.OK)
BOUNDARIES = (
    "commit",
    "committed",
    "http",
    "dns read",
    "dns was read",
    "dns write",
    "dns was written",
    "send",
    "sent",
)
SERVICES = ("chat", "embed")


@dataclass(frozen=True)
class Kind:
    """One kind of fault: how often an hour where it is frequent, how long it lasts on average."""

    name: str
    an_hour: float
    lasts_s: float
    begin: Callable[[Faults, float], None]
    rented: bool = False  # only where something is


class Faults:
    """The bad luck of one seed, on one machine."""

    def __init__(self, machine: Machine, human: Human, random: Random) -> None:
        self.m, self.human, self.random = machine, human, random
        rents = plans.RENTED in machine.world.names
        self.kinds = [kind for kind in KINDS if rents or not kind.rented]
        self.rates = {kind.name: self._rate(kind) for kind in self.kinds}
        self.struck: Counter[str] = Counter()
        self._until = 0.0
        self._phase = 0

    def _rate(self, kind: Kind) -> float:
        return kind.an_hour * self.pick((0.0, 0.4, 1.5, 3.0))

    def pick(self, of: tuple) -> object:
        return of[int(self.random.random() * len(of))]

    def lasting(self, mean_s: float) -> float:
        """Draw a duration: mostly short, sometimes long."""
        return mean_s * (0.05 + 3.0 * self.random.random() ** 3)

    # ── phases ──────────────────────────────────────────────────────────────────────────────────

    def rage(self, until: float) -> None:
        """Begin a faulty phase that lasts until then."""
        self.m.trace.tell("world", f"bad luck until {until / HOUR_S:.2f} h")
        self._until = until
        self._phase += 1
        self.m.cloud.unlucky = True
        for kind in self.kinds:
            if self.rates[kind.name]:
                self._plan(kind, self._phase)
        self.m.time.at(until, self.cease)

    def _plan(self, kind: Kind, phase: int) -> None:
        gap_s = HOUR_S / self.rates[kind.name] * 2.0 * self.random.random()
        if self.m.time.true + gap_s < self._until:
            self.m.time.after(gap_s, lambda: self._strike(kind, phase))

    def _strike(self, kind: Kind, phase: int) -> None:
        if phase != self._phase or self.m.time.true >= self._until:
            return
        self.struck[kind.name] += 1
        self._plan(kind, phase)  # first: what begins now may kill the process
        kind.begin(self, min(self.lasting(kind.lasts_s), self.left_s))

    @property
    def left_s(self) -> float:
        """Seconds until this phase ends."""
        return self._until - self.m.time.true

    def ends(self, after_s: float, what: Callable[[], None]) -> None:
        """Undo a fault then, unless its phase was over before."""
        phase = self._phase
        self.m.time.after(after_s, lambda: what() if phase == self._phase else None)

    def cease(self) -> None:
        """End everything that is wrong, and take back what the operator ordered."""
        m = self.m
        self._phase += 1
        m.trace.tell("world", "all faults cease")
        m.kill_in = None
        m.world.deaf = m.cloud.unlucky = False
        if m.cloud.temper is not Temper.WELL:
            m.cloud.become(Temper.WELL)
        for place in (*m.world.places.values(), *m.world.tunnels.values()):
            place.mode = Mode.OK
        m.world.judge()
        if m.world.network_lost:
            m.world.lose_network(False)
        for operator in sorted(m.world.lost_operators):
            m.world.lose_operator(operator, False)
        if m.zone.ill is not Ill.WELL:
            m.zone.suffer(Ill.WELL)
        for channel in m.phone.lines:
            m.phone.set(channel, Line.WORKS)
        if m.disk.full:
            m.fill_disk(False)
        self.human.tidy()
        m.time.after(1.0, self._take_back)

    def _take_back(self) -> None:
        m = self.m
        m.order(Resume())
        for service in SERVICES:
            m.order(Unpin(service))
        for name in m.world.names:
            m.order(Drain(name, drained=False))
        if m.zone.others_at is not None:
            m.zone.others_at = None
            m.order(SyncDns("chat"))


# ── kinds ───────────────────────────────────────────────────────────────────────────────────────


def _backend_ill(faults: Faults, lasts_s: float) -> None:
    name = faults.pick(faults.m.world.names)
    world = faults.m.world
    world.become(name, faults.pick(MODES))
    faults.ends(lasts_s, lambda: world.become(name, Mode.OK))


def _backend_dies(faults: Faults, lasts_s: float) -> None:
    """The one that serves dies: that is what it is all about."""
    name = faults.m.serving(faults.pick(SERVICES)) or faults.pick(faults.m.world.names)
    world = faults.m.world
    world.become(name, faults.pick((Mode.REFUSE, Mode.HANG, Mode.RESET, Mode.ERROR)))
    faults.ends(lasts_s, lambda: world.become(name, Mode.OK))


def _backend_flaps(faults: Faults, lasts_s: float) -> None:
    name = faults.pick(faults.m.world.names)
    world, mode = faults.m.world, faults.pick((Mode.REFUSE, Mode.HANG, Mode.ERROR))
    period_s = 5.0 + 60.0 * faults.random.random()
    at, ill = 0.0, True
    while at < lasts_s:
        faults.ends(at, lambda ill=ill: world.become(name, mode if ill else Mode.OK))
        at, ill = at + period_s * (0.5 + faults.random.random()), not ill
    faults.ends(lasts_s, lambda: world.become(name, Mode.OK))


def _network_lost(faults: Faults, lasts_s: float) -> None:
    world = faults.m.world
    if not world.network_lost:
        world.lose_network(True)
        faults.ends(lasts_s, lambda: world.lose_network(False) if world.network_lost else None)


def _operator_lost(faults: Faults, lasts_s: float) -> None:
    world = faults.m.world
    if not world.lost_operators:
        operator = faults.pick(("cloud", "third", "fourth"))
        world.lose_operator(operator, True)
        faults.ends(lasts_s, lambda: world.lose_operator(operator, False))


def _poison(faults: Faults, _lasts_s: float) -> None:
    """A request that fails wherever it goes; beside it, one that works where it can."""
    places, names = faults.m.world.places, faults.m.world.names
    for _ in range(4):
        faults.m.report(Traffic((names[0], names[1]), None, "HTTP 500"))
    serving = faults.m.serving("chat")
    if serving in places and places[serving].good_since is not None:
        faults.m.report(Traffic((), serving))


def _dns_ill(faults: Faults, lasts_s: float) -> None:
    zone = faults.m.zone
    if zone.ill is Ill.WELL:
        ill = faults.pick(tuple(ill for ill in Ill if ill is not Ill.WELL))
        if ill is Ill.DOWN and faults.random.random() < 0.2:
            lasts_s = 24 * HOUR_S  # to the end of the phase
        zone.suffer(ill, retry_after_s=faults.pick((5, 60, 300, 1200)))
        faults.ends(lasts_s, lambda: zone.suffer(Ill.WELL))


def _meddled(faults: Faults, _lasts_s: float) -> None:
    """Somebody else changes our record: by hand, or another instance that is ahead of us."""
    zone = faults.m.zone
    theirs = f"aion other epoch={1000 + len(zone.writes)}"
    zone.meddle(faults.pick((None, "", "by hand", theirs)))


def _channel_ill(faults: Faults, lasts_s: float) -> None:
    phone, channel = faults.m.phone, faults.pick(("first", "second", "both"))
    line = faults.pick((Line.REFUSES, Line.HANGS, Line.LOSES_ANSWERS))
    for name in phone.lines if channel == "both" else (channel,):
        phone.set(name, line)
        faults.ends(lasts_s, lambda name=name: phone.set(name, Line.WORKS))


def _killed(faults: Faults, _lasts_s: float) -> None:
    where = faults.pick((*BOUNDARIES, "anywhere", "stopped"))
    if where == "anywhere":
        faults.m.kill()
    elif where == "stopped":
        faults.m.stop()
    else:
        faults.m.kill_in = where


def _suspended(faults: Faults, _lasts_s: float) -> None:
    seconds = faults.pick((6.0, 30.0, 90.0, 90.0, 900.0))
    faults.m.suspend(min(seconds, faults.left_s))


def _clock_stepped(faults: Faults, lasts_s: float) -> None:
    machine = faults.m
    machine.step_wall_clock(faults.pick((-6 * HOUR_S, -HOUR_S, -60.0, 60.0, HOUR_S, 6 * HOUR_S)))
    faults.ends(lasts_s, lambda: machine.step_wall_clock(0.0))


def _disk_full(faults: Faults, lasts_s: float) -> None:
    machine = faults.m
    if not machine.disk.full:
        machine.fill_disk(True)
        faults.ends(lasts_s, lambda: machine.fill_disk(False) if machine.disk.full else None)


def _ordered(faults: Faults, _lasts_s: float) -> None:
    """The operator does something, sensible or not."""
    names, at = faults.m.world.names, faults.m.steady()
    service, name = faults.pick(SERVICES), faults.pick(names)
    minutes = 60.0 * (1 + int(30 * faults.random.random()))
    commands: tuple[Command, ...] = (
        Failover(service),
        Failover(service, name),
        Switchover(service, name, at + faults.pick((0.0, 120.0))),
        PinTo(service, name, minutes),
        PinTo(service, name, minutes, hard=True),
        Unpin(service),
        Pause(minutes, "the operator"),
        Resume(),
        Drain(name, drained=True),
        Drain(name, drained=False),
        Acknowledge(str(1 + int(20 * faults.random.random())), "the operator"),
        Mute(str(1 + int(20 * faults.random.random())), minutes, "the operator"),
        SyncDns("chat"),
        Tell(name, faults.pick((Do.SAVE, Do.RESTART, Do.STOP))),
    )
    faults.m.order(faults.pick(commands))


# ── notebooks ───────────────────────────────────────────────────────────────────────────────────


def _some_run(faults: Faults) -> Notebook | None:
    """Pick a notebook that runs, if there is one."""
    running = [run for run in faults.human.runs if run.ended is None]
    return faults.pick(tuple(running)) if running else None


def _notebook_killed(faults: Faults, _lasts_s: float) -> None:
    run = _some_run(faults)
    if run is not None:
        run.end("killed")


def _agent_dies(faults: Faults, lasts_s: float) -> None:
    run = _some_run(faults)
    if run is not None:
        run.kill_agent()
        forgets = faults.random.random() < 0.3
        faults.ends(lasts_s, lambda: run.revive_agent(forgets=forgets))


def _agent_unheard(faults: Faults, lasts_s: float) -> None:
    run = _some_run(faults)
    if run is not None and not run.lost:
        run.lose(True)
        faults.ends(lasts_s, lambda: run.lose(False))


def _inbound_lost(faults: Faults, lasts_s: float) -> None:
    world = faults.m.world
    if not world.deaf:
        world.trace.tell("world", "nobody reaches us")
        world.deaf = True
        faults.ends(lasts_s, lambda: setattr(world, "deaf", False))


def _tunnel_moves(faults: Faults, _lasts_s: float) -> None:
    run = _some_run(faults)
    if run is not None:
        run.move()


def _started_again(faults: Faults, _lasts_s: float) -> None:
    """Somebody starts a notebook, whether it runs or not: at times with a token of old."""
    human = faults.human
    if human.plans:
        name = faults.pick(tuple(human.plans))
        stale = faults.random.random() < 0.3
        human.start(name, token=human.tokens[name][0 if stale else -1])


def _thief(faults: Faults, _lasts_s: float) -> None:
    """Somebody else starts one with a token that he found; the operator may notice, and when."""
    human = faults.human
    if not human.plans:
        return
    name = faults.pick(tuple(human.plans))
    human.start(name, token=faults.pick(tuple(human.tokens[name])), rightful=False)
    faults.ends(30.0 + 600.0 * faults.random.random(), lambda: human.change_token(name))


def _away(faults: Faults, _lasts_s: float) -> None:
    """The whole machine is away for an hour."""
    away_s = min(HOUR_S, faults.left_s)
    faults.m.away_until = faults.m.time.true + away_s
    faults.m.kill()


def _away_while_billing(faults: Faults, _lasts_s: float) -> None:
    """We are away for hours, and what we had started goes on."""
    if faults.m.cloud.running:
        faults.m.cloud.seen["we were away"] += 1
        faults.m.away_until = faults.m.time.true + min(4 * HOUR_S, faults.left_s)
        faults.m.kill()


# ── what is rented ──────────────────────────────────────────────────────────────────────────────


def _provider_ill(faults: Faults, lasts_s: float) -> None:
    cloud = faults.m.cloud
    cloud.become(faults.pick(tuple(one for one in Temper if one is not Temper.WELL)))
    if faults.random.random() < 0.25:
        lasts_s = faults.left_s  # for hours, in a long phase
    faults.ends(lasts_s, lambda: cloud.become(Temper.WELL))


def _taken_away(faults: Faults, _lasts_s: float) -> None:
    """Its provider wants a machine back, or somebody deletes it by hand."""
    cloud, why = faults.m.cloud, faults.pick(("taken away", "deleted by hand"))
    for one in cloud.running:
        cloud.seen[why] += 1
        cloud.end(one, f"it was {why}")


def _orphaned(faults: Faults, _lasts_s: float) -> None:
    """We go on from an older database, and what had been started since is not in it."""
    cloud, m = faults.m.cloud, faults.m
    if not cloud.running:
        number = int(EPOCH + m.time.true - 600.0 * (1.0 + faults.random.random()))
        label = f"{label_start('sim', plans.RENTED)}{number}"
        cloud.turn_up(label, lasts_s=HOUR_S * (0.5 + 2.0 * faults.random.random()))
        cloud.seen["an orphan"] += 1
        m.kill()


def _shared(faults: Faults, _lasts_s: float) -> None:
    """Another orchestrator uses the same account."""
    cloud = faults.m.cloud
    cloud.turn_up(f"{THEIRS}{1 + len(cloud.machines)}", lasts_s=HOUR_S * faults.random.random())
    cloud.seen["another's"] += 1


def _power_ordered(faults: Faults, _lasts_s: float) -> None:
    faults.m.order(faults.pick((Start(plans.RENTED), Halt(plans.RENTED))))


def _provider_kills(faults: Faults, _lasts_s: float) -> None:
    faults.m.kill_in = faults.pick(("provider", "provider did"))


KINDS = (
    Kind("a backend is ill", 6.0, 600.0, _backend_ill),
    Kind("the one that serves dies", 3.0, 900.0, _backend_dies),
    Kind("a backend flaps", 0.7, 900.0, _backend_flaps),
    Kind("our network is lost", 1.0, 240.0, _network_lost),
    Kind("an operator is lost", 0.7, 600.0, _operator_lost),
    Kind("a poisoned request", 4.0, 0.0, _poison),
    Kind("the DNS API is ill", 2.0, 600.0, _dns_ill),
    Kind("somebody meddles with the record", 0.4, 0.0, _meddled),
    Kind("a channel is ill", 1.5, 600.0, _channel_ill),
    Kind("the process is killed", 4.0, 0.0, _killed),
    Kind("the machine sleeps", 0.7, 0.0, _suspended),
    Kind("the wall clock steps", 0.7, 1200.0, _clock_stepped),
    Kind("the disk is full", 0.5, 400.0, _disk_full),
    Kind("the operator acts", 3.0, 0.0, _ordered),
    Kind("a notebook is killed", 0.7, 0.0, _notebook_killed),
    Kind("an agent dies", 1.0, 300.0, _agent_dies),
    Kind("an agent is not heard", 1.5, 300.0, _agent_unheard),
    Kind("nobody reaches us", 0.7, 300.0, _inbound_lost),
    Kind("a tunnel moves", 0.7, 0.0, _tunnel_moves),
    Kind("a notebook is started again", 0.7, 0.0, _started_again),
    Kind("a thief", 0.3, 0.0, _thief),
    Kind("we are away for an hour", 0.1, 0.0, _away),
    Kind("the provider is ill", 2.0, 600.0, _provider_ill, rented=True),
    Kind("a machine is taken away", 1.0, 0.0, _taken_away, rented=True),
    Kind("the operator starts or stops one", 1.5, 0.0, _power_ordered, rented=True),
    Kind("killed at the provider's door", 1.5, 0.0, _provider_kills, rented=True),
    Kind("an orphan", 0.5, 0.0, _orphaned, rented=True),
    Kind("somebody else's machine", 0.5, 0.0, _shared, rented=True),
    Kind("we are away while it bills", 0.4, 0.0, _away_while_billing, rented=True),
)
