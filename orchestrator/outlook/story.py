"""One mishap, second by second: every look that matters, every verdict, move, write and message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from orchestrator.core.boots import starting
from orchestrator.core.events import Turn
from orchestrator.core.health import ALIVE
from orchestrator.core.model import Fleet, Health, Notice, Observation, Source, Verdict
from orchestrator.outlook.lives import Habits
from orchestrator.outlook.machines import Machines
from orchestrator.outlook.play import Cover, Stint, Stints
from orchestrator.outlook.scene import Chance, Watcher, Way
from orchestrator.outlook.stage import SETTLED_S, Stage
from orchestrator.outlook.whatif import Act, Change

CALM_S = 3700.0  # before it begins, where no state was stored: the preferred serves by then
TAIL_S = 420.0  # after the last change: long enough for what is told only after five minutes
MOST_TAIL_S = 3 * 3600.0
AFTER_S = 60.0  # after what was waited for
UNSAID = ("incident_opened", "incident_closed")  # the messages tell of them


class Part(StrEnum):
    """What sort of line."""

    WORLD = "world"
    LOOK = "look"
    VERDICT = "verdict"
    MOVE = "move"
    NAME = "name"
    TOLD = "told"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happens, `t` seconds after the mishap began.

    `notice`: the message sent, or held by the quiet hours until that wall time.
    """

    t: float
    part: Part
    subject: str
    text: str
    notice: Notice | None = None
    held_until: float | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How one service fared: seconds uncovered, and who serves at the end."""

    service: str
    began_with: str | None
    ended_with: str | None
    uncovered_s: float


@dataclass(slots=True)
class Story:
    """What happened, in order, and how it ended `lasted_s` seconds after the mishap began.

    It began at steady time `began_at`, when the clock on the wall said `began_wall`.
    """

    began_at: float
    began_wall: float
    lasted_s: float = 0.0
    lines: list[Line] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a story begins: a fresh `fleet` for each telling, at steady time `at` and at `wall`.

    `down` are dead when it begins. `calm_s`: how long before it the fleet is started. `machines`:
    what aion starts and stops; they are on if they were by the state that is taken up.
    """

    fleet: Callable[[float], Fleet]
    at: float
    wall: float
    down: tuple[str, ...] = ()
    calm_s: float = CALM_S
    quiet_until: Callable[[float], float | None] = lambda _wall: None
    machines: Mapping[str, Habits] = field(default_factory=dict)


def tell(setting: Setting, acts: Sequence[Act], chance: Chance, *, dense: bool = True) -> Story:
    """Play a mishap and say what happens. `dense`: every look and tick, as it is."""
    before_s = SETTLED_S + setting.calm_s
    start = setting.at - before_s
    stage = Stage(
        setting.fleet(start),
        at=start,
        wall=setting.wall - before_s,
        chance=chance,
        dense=dense,
        quiet_until=setting.quiet_until,
    )
    for name in setting.down:
        stage.kill(name)
    machines = Machines(stage, setting.machines, lambda _: None, lambda: None)
    stage.begin()
    stage.advance(setting.at)
    teller = _Teller(stage, machines)
    stage.watchers.append(teller)
    for act in acts:
        stage.schedule(setting.at + act.after_s, partial(teller.act, act))
    stage.advance(setting.at + acts[-1].after_s)
    _let_end(stage, setting.at + acts[-1].after_s)
    return teller.story()


def _let_end(stage: Stage, last: float) -> None:
    """Go on until nothing more is to be expected by time alone, or three hours have passed."""
    until = last + TAIL_S
    while True:
        stage.advance(until)
        pending = [
            service.review_at
            for service in stage.fleet.services.values()
            if service.active is not None and service.review_at is not None
        ]
        starts = (one for one in stage.fleet.backends.values() if starting(one))
        pending += [stage.at + AFTER_S for _ in starts]
        pending = [at for at in pending if stage.at < at <= last + MOST_TAIL_S]
        if not pending:
            return
        until = min(pending) + AFTER_S


class _Teller(Watcher):
    """Writes down what is worth a line."""

    def __init__(self, stage: Stage, machines: Machines) -> None:
        self._stage, self._began = stage, stage.at
        self._story = Story(stage.at, stage.wall)
        self._uncovered_s = dict.fromkeys(stage.fleet.services, 0.0)
        self._held: set[str] = set()
        self._said: set[tuple[str, str]] = set()
        self._actives = {name: state.active for name, state in stage.fleet.services.items()}
        specs = stage.fleet.config.backends
        self._stints = Stints(
            stage,
            self._stint,
            lambda name: specs[name].restart_url is not None,
            machines.booting,
        )
        self._stints.mark()

    def story(self) -> Story:
        """Give what was written, and how it ended."""
        self._stints.end()
        self._story.lasted_s = self._stage.at - self._began
        for name, state in self._stage.fleet.services.items():
            began_with, uncovered_s = self._actives[name], self._uncovered_s[name]
            self._story.endings.append(Ending(name, began_with, state.active, uncovered_s))
        return self._story

    def _stint(self, stint: Stint) -> None:
        if stint.cover is not Cover.SERVED:
            self._uncovered_s[stint.service] += stint.ended - stint.began

    def _write(
        self,
        part: Part,
        subject: str,
        text: str,
        notice: Notice | None = None,
        held_until: float | None = None,
    ) -> None:
        line = Line(self._stage.at - self._began, part, subject, text, notice, held_until)
        self._story.lines.append(line)

    # ── what happens ────────────────────────────────────────────────────────────────────────────

    def act(self, act: Act) -> None:
        """Have one change happen."""
        stage, name = self._stage, act.name
        self._said.clear()
        if act.change is Change.KILL:
            already = " already" if name in stage.dead else ""
            stage.kill(name, act.way)
            how = "connections are refused" if act.way is Way.REFUSES else "it answers nothing"
            self._write(Part.WORLD, name, f"{name} {_DEATHS[act.way]}{already}: {how}")
        elif act.change is Change.REVIVE:
            stage.revive(name)
            self._write(Part.WORLD, name, f"{name} is back")
        elif act.change in (Change.CUT, Change.JOIN):
            stage.cut(act.change is Change.CUT)
            self._write(Part.WORLD, "", f"our own network is {_OURS[act.change]}")
        else:
            stage.dns(act.change is Change.DNS_DOWN)
            self._write(Part.WORLD, "", f"the DNS provider's API {_OURS[act.change]}")
        self._stints.mark()

    def probed(self, seen: Observation) -> None:
        """Write down a look that goes against what is believed."""
        fleet = self._stage.fleet
        state, spec = fleet.backends[seen.backend], fleet.config.backends[seen.backend]
        name = seen.backend
        if seen.verdict is Verdict.FAILED and spec.remote and fleet.world.isolated_since:
            return
        if seen.source is not Source.PROBE:
            if seen.verdict is Verdict.FAILED:
                self._write(Part.LOOK, name, f"a completion asked of {name} fails: {seen.detail}")
            return
        if seen.verdict is Verdict.FAILED:
            if state.health is Health.DOWN or state.fails >= spec.health.fall:
                return
            counted = f"({state.fails + 1} of {spec.health.fall})"
            self._write(Part.LOOK, name, f"a probe of {name} fails: {seen.detail} {counted}")
        elif state.health not in ALIVE:
            counted = f"({min(state.oks + 1, spec.health.rise)} of {spec.health.rise})"
            self._write(Part.LOOK, name, f"{name} answers {counted}")
        elif state.doubt or state.fails:
            self._write(Part.LOOK, name, f"{name} answers well again")

    def turned(self, turn: Turn) -> None:
        """Write down what a turn says for itself."""
        if turn.backends:
            self._stints.mark()
        for entry in turn.entries:
            if entry.action in UNSAID:
                continue
            text = entry.text
            if entry.action == "assigned":
                who = entry.data["new"] or "nobody"
                text += f"; discovery says {who} (epoch {entry.data['epoch']})"
                self._stints.mark()
            self._write(_PARTS.get(entry.action, Part.NOTE), entry.subject, text)

    def told(self, notices: Sequence[Notice]) -> None:
        """Write down what the operator reads."""
        for notice in self._ours(notices):
            self._write(Part.TOLD, notice.subject, f"{notice.kind} {notice.topic}", notice)

    def _ours(self, notices: Sequence[Notice]) -> list[Notice]:
        """Leave out what was to be told before it began."""
        return [notice for notice in notices if notice.created_at >= self._began]

    def held(self, notices: Sequence[Notice], until: float) -> None:
        """Write down what the operator will read after the quiet hours."""
        for notice in self._ours(notices):
            if notice.id not in self._held:
                self._held.add(notice.id)
                text = f"{notice.kind} {notice.topic}, held"
                self._write(Part.TOLD, notice.subject, text, notice, until)

    def did(self, subject: str, text: str) -> None:
        """Write down what was done, once for each change in the world."""
        if (subject, text) in self._said:
            return
        self._said.add((subject, text))
        self._write(Part.NAME if subject else Part.NOTE, subject, text)


_DEATHS = {Way.REFUSES: "is dead", Way.HANGS: "hangs"}
_OURS = {
    Change.CUT: "lost",
    Change.JOIN: "back",
    Change.DNS_DOWN: "stops answering",
    Change.DNS_UP: "answers again",
}
_PARTS = {
    "health": Part.VERDICT,
    "isolated": Part.VERDICT,
    "reconnected": Part.VERDICT,
    "assigned": Part.MOVE,
    "would_move": Part.MOVE,
    "published": Part.NAME,
    "dns_trouble": Part.NAME,
}
