"""What runs at a provider and is not the launch we know of: an older one of ours, or another's."""

from orchestrator.core.demand import label_start
from orchestrator.core.events import Tick
from orchestrator.core.ledger import BOOKED_S
from orchestrator.core.lives import PowerPhase
from orchestrator.core.meters import MeterSpec, MeterState, ProviderSaid, Unit, used
from orchestrator.core.powering import Halt, Start
from tests.core.clouds import Cloud, power, vm
from tests.core.worlds import World, backend, config

THEIRS = "aion-other-v-1"


def world_of(*backends, **more):
    world = World(config(*backends, **more))
    return world, Cloud(world)


def told(world, action):
    return [entry.text for entry in world.entries if entry.action == action]


def test_an_older_launch_that_runs_in_place_of_the_one_being_stopped_is_found_and_ended():
    world, cloud = world_of(backend("a"), vm("v", auto_start=False))
    cloud.lives(10, up="a")
    cloud.fates = ["gone"]  # nobody knows whether it was started; it was not
    world.give(Start("v"))
    cloud.serve()
    older = f"{label_start(world.fleet.config.instance, 'v')}7"
    cloud.machines["v"].launch = older
    world.give(Halt("v"))
    cloud.lives(60, up="a")
    assert told(world, "power_found") == [f"v runs {older}, which is ours and was not known"]
    assert not cloud.running("v")
    assert power(world, "v").phase is PowerPhase.OFF


def test_what_somebody_else_started_is_not_stopped_by_an_order_and_the_operator_hears_why():
    world, cloud = world_of(backend("a"), vm("v", auto_start=False))
    cloud.machines["v"].launch = THEIRS
    cloud.lives(20, up="a")
    answer = world.give(Halt("v")).answer
    assert answer is not None
    assert THEIRS in answer.text
    cloud.lives(60, up="a")
    assert cloud.stops == []
    cloud.machines["v"].launch = ""
    cloud.lives(400, up="a")
    assert power(world, "v").phase is PowerPhase.OFF
    assert world.give(Start("v")).answer.problem is None


def test_a_stop_that_was_ordered_ends_when_somebody_else_runs_something_there():
    world, cloud = world_of(backend("a"), vm("v", auto_start=False))
    cloud.lives(10, up="a")
    world.give(Start("v"))
    cloud.lives(60, up="a")
    world.give(Halt("v"))  # and before the provider is asked theirs has taken its place
    cloud.serve(dropped=True)
    cloud.machines["v"].launch = THEIRS
    cloud.lives(400, up="a")
    assert cloud.machines["v"].launch == THEIRS
    assert power(world, "v").phase is PowerPhase.ON
    assert power(world, "v").launch == ""


def test_what_is_said_of_money_is_believed_to_be_less_only_after_a_day():
    """Bills are up to a day old: what was spent since is not in them yet."""
    rent = MeterSpec("v:usd", Unit.USD, 10.0, backend="v", rate_per_hour=1.0)
    world, _ = world_of(backend("a"), vm("v", auto_start=False), meters={"v:usd": rent})
    world.fleet.meters["v:usd"] = MeterState("v:usd")
    world.give(ProviderSaid("v:usd", 9.0))

    def believed() -> float:
        return used(world.fleet.meters["v:usd"], world.now.wall)

    began = world.at
    while world.at - began < BOOKED_S - 600:
        world.give(ProviderSaid("v:usd", 2.0))
        assert believed() == 9.0
        world.at += 600
        world.give(Tick(world.at))
    world.at += 1200
    world.give(ProviderSaid("v:usd", 2.0))
    assert believed() == 2.0
