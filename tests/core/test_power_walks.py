"""Any sequence of mishaps: never two launches for one need, and nothing is left running."""

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.events import Drain, Pause, Resume
from orchestrator.core.lives import PowerPhase
from orchestrator.core.model import Verdict
from orchestrator.core.powering import Halt, Start, StartBackend
from orchestrator.core.specs import Tier
from tests.core.clouds import Cloud, power, put, vm
from tests.core.worlds import World, backend, config, restarted

moments = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 30, 120, 400])),
    st.tuples(st.just("die"), st.sampled_from("afvw")),
    st.tuples(st.just("well"), st.sampled_from("af")),
    st.tuples(st.just("fate"), st.sampled_from(["", "lost", "gone", "never", "stockout", "quota"])),
    st.tuples(st.just("mute"), st.booleans()),
    st.tuples(st.just("kill"), st.booleans()),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("drain"), st.sampled_from("afvw")),
    st.tuples(st.just("undrain"), st.sampled_from("afvw")),
    st.tuples(st.just("spend"), st.sampled_from("vw")),
    st.tuples(st.just("start"), st.sampled_from("vw")),
    st.tuples(st.just("halt"), st.sampled_from("vw")),
)


class Walk:
    """A world, a cloud, and what happens to them."""

    def __init__(self) -> None:
        fleet = config(backend("a"), backend("f"), vm("v"), vm("w", tier=Tier.PAID))
        self.world = World(fleet)
        self.cloud = Cloud(self.world)
        self.well = {"a", "f"}

    def step(self, word, what) -> None:
        give = self.world.give
        moves = {
            "wait": self.pass_,
            "die": self.die,
            "well": self.well.add,
            "fate": self.cloud.fates.append,
            "mute": lambda mute: setattr(self.cloud, "mute", mute),
            "pause": lambda on: give(Pause() if on else Resume()),
            "drain": lambda name: give(Drain(name)),
            "undrain": lambda name: give(Drain(name, drained=False)),
            "spend": lambda name: put(self.world, name, exhausted_until=self.world.at + 600.0),
            "kill": lambda carried_out: self.kill(carried_out=carried_out),
            "start": lambda name: give(Start(name)),
            "halt": lambda name: give(Halt(name)),
        }
        moves[word](what)
        self.cloud.serve()

    def die(self, name: str) -> None:
        self.well.discard(name)
        if name in self.cloud.machines:
            self.cloud.machines[name].dead = True

    def kill(self, *, carried_out: bool) -> None:
        """The daemon dies right after a commit: what it decided is carried out, or is not."""
        self.world.tick()
        if carried_out:
            self.watch()
        self.cloud.serve(dropped=not carried_out)
        machines, fates, mute = self.cloud.machines, self.cloud.fates, self.cloud.mute
        self.world = restarted(self.world)
        self.cloud = Cloud(self.world, machines=machines, fates=fates, mute=mute)

    def pass_(self, seconds: int) -> None:
        for _ in range(seconds):
            self.world.tick()
            self.watch()
            self.cloud.serve()
            for name in "af":
                self.world.sees(name, Verdict.OK if name in self.well else Verdict.FAILED)
            for name in self.cloud.machines:
                self.world.sees(name, Verdict.OK if self.cloud.up(name) else Verdict.FAILED)
            self.cloud.serve()

    def watch(self) -> None:
        """No start while it is not allowed. That there is no second one the cloud itself checks."""
        world = self.world
        for effect in world.turns[-1].effects:
            if not isinstance(effect, StartBackend):
                continue
            state = world.fleet.backends[effect.backend]
            assert world.fleet.world.paused_since is None
            assert not state.drained
            assert (state.exhausted_until or 0.0) <= world.at


@settings(max_examples=40, deadline=None)
@given(st.lists(moments, min_size=5, max_size=30))
def test_never_two_launches_for_one_need_and_nothing_is_left_running(moments):
    walk = Walk()
    walk.pass_(3)
    for word, what in moments:
        walk.step(word, what)
    world, cloud = walk.world, walk.cloud
    world.give(Resume())
    cloud.mute, cloud.fates = False, []
    for name in "afvw":
        world.give(Drain(name, drained=False))
    walk.well |= {"a", "f"}
    walk.pass_(1600)
    assert world.active == "a"
    assert not [name for name in "vw" if cloud.running(name)], "nobody needs them"
    assert [name for name in "vw" if power(world, name).phase is not PowerPhase.OFF] == []
