"""Any sequence of events: the promises hold after every step, whatever happened."""

import copy

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.draft import pools
from orchestrator.core.events import (
    Acknowledge,
    AskControls,
    ControlsAnswered,
    DnsAttempting,
    DnsConfirmed,
    DnsTroubled,
    Drain,
    Event,
    Failover,
    Flagged,
    Mute,
    NoticesSent,
    Observed,
    Pause,
    PinTo,
    Reconcile,
    Reconfigured,
    Resume,
    Switchover,
    Tick,
    Traffic,
    Turn,
    Unpin,
)
from orchestrator.core.fleet import apply, step
from orchestrator.core.model import DnsTrouble, Health, Now, Observation, Source, Verdict
from orchestrator.core.specs import HealthPolicy, Target, Tier
from tests.core.worlds import DNS, World, backend, config

NAMES = "abc"
POLICY = HealthPolicy(canary_s=300)
CONFIGS = [
    config(
        backend("a", remote=True, health=POLICY, targets=(Target("A", "198.51.100.1"),)),
        backend("b", remote=True, health=POLICY, targets=(Target("CNAME", "b.example.net"),)),
        backend("c", tier=Tier.PAID, health=POLICY),
        dns=DNS,
        controls=4,
    ),
    config(backend("b", health=POLICY), backend("c", health=POLICY), dns=DNS),
    config(backend("c"), backend("a"), failback_after_s=5),
]
LIVE = (Health.UP, Health.DEGRADED)

names = st.sampled_from([*NAMES, "zz"])
observations = st.builds(
    lambda name, source, verdict: Observed(Observation(name, source, verdict, "x"), 0.0),
    names,
    st.sampled_from([Source.PROBE, Source.PROBE, Source.PROBE, Source.CANARY, Source.TRAFFIC]),
    st.sampled_from([Verdict.OK, Verdict.OK, Verdict.FAILED, *Verdict]),
)
commands = st.one_of(
    st.builds(Failover, st.just("chat"), st.none() | names),
    st.builds(PinTo, st.just("chat"), names, st.floats(1, 5000), st.booleans()),
    st.builds(Switchover, st.just("chat"), names, st.floats(0, 2e6)),
    st.just(Unpin("chat")),
    st.builds(Pause, st.none() | st.floats(1, 1000)),
    st.just(Resume()),
    st.builds(Drain, names, st.booleans()),
    st.builds(Acknowledge, st.sampled_from("123")),
    st.builds(Mute, st.sampled_from("123")),
)
results = st.one_of(
    st.builds(ControlsAnswered, st.integers(0, 4), st.just(4), st.just(0.0)),
    st.builds(
        DnsTroubled,
        st.just("chat"),
        st.sampled_from(list(DnsTrouble)),
        st.just("x"),
        epoch=st.integers(0, 99),
        outbid=st.booleans(),
    ),
    st.just("attempt"),
    st.just("confirm"),
    st.just("sent"),
    st.builds(Flagged, st.just("disk_full"), st.just("database"), st.sampled_from(["", "full"])),
    st.builds(Traffic, st.lists(names, max_size=2).map(tuple), st.none() | names),
    st.sampled_from(CONFIGS).map(Reconfigured),
)
waits = st.sampled_from([0.0, 0.0, 0.1, 1.0, 2.0, 4.0, 10.0, 61.0, 301.0, 3601.0])
steps = st.tuples(waits, st.one_of(observations, observations, commands, results, st.just("tick")))


def meant(world: World, event: Event | str) -> Event:
    """Make of a word the event that fits the world as it is; give failures the present time."""
    record = world.fleet.services["chat"].publication
    if event == "attempt":
        return DnsAttempting("chat", record.wanted, record.wanted_epoch)
    if event == "confirm":
        return DnsConfirmed("chat", record.wanted, record.wanted_epoch, ("r",))
    if event == "sent":
        return NoticesSent(tuple(world.fleet.outbox)[:2], "telegram")
    if event == "tick":
        return Tick(world.at)
    if isinstance(event, Observed):
        return Observed(event.observation, world.at)
    if isinstance(event, ControlsAnswered):
        return ControlsAnswered(event.failed, 4, world.at)
    assert not isinstance(event, str)
    return event


def promises(world: World, before: World, turn: Turn) -> None:
    fleet, old = world.fleet, before.fleet
    service, was = fleet.services["chat"], old.services["chat"]
    assert fleet.config.services.keys() == fleet.services.keys()
    assert fleet.config.backends.keys() == fleet.backends.keys()
    assert fleet.pools == pools(fleet.config)
    assert service.epoch >= was.epoch, "epochs grow"
    if service.active != was.active:
        assert service.epoch > was.epoch, "an assignment has an epoch of its own"
        assert turn.durable, "what is published was committed"
        paused = fleet.world.paused_since is not None and old.world.paused_since is not None
        assert not paused, "while paused nothing moves"
    if service.publication.wanted != was.publication.wanted:
        assert Reconcile("chat") in turn.effects or turn.config is not None
        assert service.publication.wanted_epoch > was.publication.wanted_epoch
        possible = {DNS.gateway, *(spec.targets for spec in fleet.config.backends.values())}
        assert service.publication.wanted in possible, "only configured targets are published"
    _dead_never_serve(world)
    for key, incident in fleet.incidents.items():
        assert key == incident.key
        assert incident.closed_at is None
    ids = [incident.id for incident in fleet.incidents.values()]
    assert len(ids) == len(set(ids))
    lost = set(old.outbox) - set(fleet.outbox) - set(turn.notices)
    assert not lost, "no notice is lost"
    if old.world.isolated_since is not None and fleet.world.isolated_since is not None:
        for name, state in fleet.backends.items():
            spec = fleet.config.backends[name]
            if spec.remote and name in old.backends and old.config is fleet.config:
                better = state.health in LIVE or state.health is Health.UNKNOWN
                assert state.health is old.backends[name].health or better, "no verdict if isolated"
    if fleet.world.asked_at is not None and old.world.asked_at is None:
        assert AskControls() in turn.effects


def _dead_never_serve(world: World) -> None:
    fleet = world.fleet
    service = fleet.services["chat"]
    hard = service.pin is not None and service.pin.hard
    if service.active is None or hard or fleet.world.paused_since is not None:
        return
    state = fleet.backends.get(service.active)
    assert state is not None, "one that is not configured any more never serves"
    if state.health in (Health.DOWN, Health.WARMING):
        others = [fleet.backends[name] for name in fleet.config.services["chat"].backends]
        able = [
            other
            for other in others
            if other.health is Health.UP
            and not other.denied
            and not other.drained
            and (other.cooldown_until or 0) <= world.at
        ]
        assert not able, "a dead one never serves while a live one exists"


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CONFIGS), st.lists(steps, min_size=20, max_size=120))
def test_the_promises_hold_after_every_step(start, walk):
    world = World(start)
    world.up(*start.backends)
    for wait_s, event in walk:
        world.at += wait_s
        before = copy.copy(world)
        before.fleet = copy.copy(world.fleet)
        for table in ("backends", "services", "incidents", "outbox", "flags"):
            setattr(before.fleet, table, dict(getattr(world.fleet, table)))
        turn = world.give(meant(world, event))
        promises(world, before, turn)


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, min_size=5, max_size=60))
def test_a_step_is_a_function_of_its_arguments(walk):
    one, two = World(CONFIGS[0]), World(CONFIGS[0])
    for wait_s, event in walk:
        one.at += wait_s
        two.at += wait_s
        given_event = meant(one, event)
        assert one.give(given_event) == two.give(given_event)
    assert one.fleet == two.fleet


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, min_size=5, max_size=60))
def test_a_turn_that_is_not_applied_leaves_no_trace(walk):
    """A commit that failed: the same event later gives the same turn."""
    world = World(CONFIGS[0])
    for wait_s, event in walk:
        world.at += wait_s
        now = Now(world.at, world.at)
        made = meant(world, event)
        first = step(world.fleet, made, now)
        second = step(world.fleet, made, now)
        assert first == second
        apply(world.fleet, second)


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, min_size=10, max_size=80))
def test_after_any_trouble_everybody_up_again_means_the_best_serves_again(walk):
    world = World(CONFIGS[0])
    for wait_s, event in walk:
        world.at += wait_s
        world.give(meant(world, event))
    world.give(Reconfigured(CONFIGS[0]))
    world.give(Resume())
    world.give(Unpin("chat"))
    for name in NAMES:
        world.give(Drain(name, drained=False))
    world.give(ControlsAnswered(0, 4, world.at))
    world.tick(5)
    world.at += 6 * 3600  # flapping is forgotten, holds and cool-downs end
    for _ in range(4):
        for name in NAMES:
            world.sees(name)
            world.sees(name, source=Source.CANARY)
        world.tick(1)
    for _ in range(2):
        world.at += 7200
        for _ in range(4):
            for name in NAMES:
                world.sees(name)
                world.sees(name, source=Source.CANARY)
            world.tick(2)
    for _ in range(10):
        world.at += 4
        world.lives(90, up=NAMES)
    assert world.active == "a", world.fleet.services["chat"]
    assert not world.fleet.incidents.keys() - {
        "disk_full:database",
        "dns_foreign:chat",
        "dns_drift:chat",
        "dns_newer:chat",
        "dns_unreachable:chat",
        "dns_refused:chat",
    }
