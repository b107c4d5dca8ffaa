"""Backups as jobs: what a run comes to, what is told of it, and what is looked at each week."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from jobs import backing
from jobs.backup.form import Copy, Drill, Plan
from jobs.backup.status import Status, told
from jobs.backup.targets import Target
from jobs.base import BackupSettings, BackupTools, Tools
from orchestrator.core.events import Flagged
from orchestrator.core.model import Now
from orchestrator.errors import ChildFailed

NOON = 1_800_014_400.0
DAY = 86_400.0
STORE = "file:/mnt/a"
DUMP = "main-000007-20270115T030000Z"
COPY = {"dump": DUMP, "store": STORE, "ok": True, "detail": "", "attempts": 1, "retry": False}
WELL = {
    "ok": True,
    "dump": {"id": DUMP, "size": 1234, "suspicious": ""},
    "failure": "",
    "copies": [COPY],
    "checks": [],
    "problems": [],
    "rooms": [{"store": STORE, "total": 10, "used": 3, "free": 7}],
}
DRILLED = {"ok": True, "dump": DUMP, "problems": []}
SEEN = {"ok": True, "found": [], "problems": []}


@dataclass
class World:
    """One backup whose child answers what it is told to."""

    spool: Path
    answers: dict = field(default_factory=lambda: {"run": WELL, "rehash": SEEN, "drill": DRILLED})
    wall: float = NOON
    asked: list[str] = field(default_factory=list)
    flags: list[Flagged] = field(default_factory=list)
    drills: bool = True
    board: dict = field(default_factory=dict)
    seen: backing.BackupView | None = None

    @property
    def settings(self) -> BackupSettings:
        copies = (Copy(Target.parse(STORE)),)
        plan = Plan("main", "postgresql://h/d", copies, str(self.spool), drill=Drill(7 * DAY))
        return BackupSettings(plan, "0 3 * * *", 26 * 3600.0, drills=self.drills)

    async def child(self, module: str, payload: dict, *, timeout_s: float, news) -> dict:
        assert module == "jobs.backup.child"
        assert timeout_s > 0
        assert Plan.from_json(payload["plan"]) == self.settings.plan
        self.asked.append(payload["do"])
        news({"step": "dump", "done": 5, "total": 10})
        (self.seen,) = await backing.view((self.settings,), (), self.board)
        answer = self.answers[payload["do"]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def tools(self) -> Tools:
        kit = BackupTools((self.settings,), self.child, self.flags.append, self.board)
        return Tools(
            now=lambda: Now(self.wall, self.wall), timezone="UTC", store=None, name_ok=None, backups=kit
        )  # fmt: skip

    def run(self) -> str:
        return asyncio.run(backing.run(self.settings, self.tools))

    @property
    def status(self) -> Status:
        return Status.load(self.spool)

    @property
    def open(self) -> dict[str, str]:
        last = {flag.kind: flag.detail for flag in self.flags}
        return {kind: detail for kind, detail in last.items() if detail}


@pytest.fixture
def it(tmp_path):
    return World(tmp_path / "spool")


def test_a_run_that_went_well_is_kept_and_looked_at_whole_each_week(it):
    assert it.run() == f"{DUMP}, 1234 bytes"
    assert it.asked == ["run", "rehash", "drill"]
    assert (it.status.success_at, it.status.size, it.status.copies[0].free) == (NOON, 1234, 7)
    it.asked.clear()
    for _ in range(6):
        it.wall += DAY
        it.run()
    assert it.asked == ["run"] * 6
    it.wall += DAY - 60  # never to the second
    it.run()
    assert it.asked[6:] == ["run", "rehash", "drill"]
    assert not it.open


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ok": False, "failure": "the database: refused", "dump": None}, "the database: refused"),
        ({"copies": [{**COPY, "ok": False, "detail": "full"}], "ok": False}, f"{STORE}: full"),
        ({"checks": [{"dump": "d", "store": STORE, "ok": False, "detail": "gone"}]}, "d in"),
        ({"problems": [{"store": STORE, "detail": "no answer"}], "ok": False}, "no answer"),
        ({"dump": {"id": DUMP, "size": 1, "suspicious": "it is small"}}, "it is small"),
        ({"ok": False}, "does not say why"),
    ],
)
def test_what_went_wrong_is_an_incident_until_the_next_that_goes_well(it, change, said):
    it.answers["run"] = {**WELL, **change}
    with pytest.raises(backing.BackupFailed, match=said):
        it.run()
    assert said in it.open["backup_failed"]
    assert it.status.success_at == 0
    assert said in it.status.problem
    it.answers["run"] = WELL
    it.run()
    assert not it.open


def test_a_successor_found_in_a_store_is_told_of_by_a_flag_of_its_own(it):
    it.answers["run"] = {**WELL, "ok": False, "failure": "rebuilt", "dump": None, "replaced": True}
    with pytest.raises(backing.BackupReplaced):
        it.run()
    assert set(it.open) == {"backup_failed", "replaced"}
    it.answers["run"] = WELL
    it.run()
    assert not it.open


def test_how_far_a_run_is_can_be_seen_while_it_lasts_and_not_after(it):
    it.run()
    assert it.seen is not None
    assert it.seen.progress == {"step": "dump", "done": 5, "total": 10}
    assert it.board == {}
    it.answers["run"] = ChildFailed("jobs.backup.child was killed by signal 9")
    with pytest.raises(backing.BackupFailed):
        it.run()
    assert it.board == {}


def test_a_place_that_will_be_full_before_long_is_told_until_it_has_room_again(it):
    free = 20_000
    for _ in range(6):
        it.answers["run"] = {
            **WELL,
            "rooms": [{"store": STORE, "total": None, "used": None, "free": free}],
        }
        it.run()
        it.wall += DAY
        free -= 1_500
    assert it.open == {"backup_filling": f"{STORE} is full in 8 days"}
    it.answers["run"] = {
        **WELL,
        "rooms": [{"store": STORE, "total": None, "used": None, "free": 90_000}],
    }
    it.run()
    assert not it.open


def test_a_child_that_died_is_a_failure_and_a_busy_one_is_not(it):
    it.answers["run"] = ChildFailed("jobs.backup.child was killed by signal 9")
    with pytest.raises(backing.BackupFailed):
        it.run()
    assert "signal 9" in it.open["backup_failed"]
    it.flags.clear()
    it.answers["run"] = {"ok": False, "kind": "Busy", "detail": "another run"}
    before = it.status
    with pytest.raises(backing.BackupBusy):
        it.run()
    assert not it.flags
    assert it.status == before


def test_a_drill_that_fails_is_tried_again_the_next_night_and_told(it):
    it.answers["drill"] = {**DRILLED, "ok": False, "problems": ["public.t: 3 rows, not 4"]}
    with pytest.raises(backing.BackupFailed, match=r"drill: public\.t: 3 rows"):
        it.run()
    assert it.status.success_at == NOON  # the dump and its copies are well
    it.wall += DAY
    it.answers["drill"] = DRILLED
    it.asked.clear()
    it.run()
    assert it.asked == ["run", "drill"]
    assert not it.open


def test_what_never_succeeded_is_out_of_date_counted_from_when_it_was_first_known(it):
    assert asyncio.run(backing.look(it.tools)) == "up to date"
    it.wall += 26 * 3600 + 1
    assert asyncio.run(backing.look(it.tools)) == "out of date: main"
    assert it.open == {"backup_stale": "it never succeeded"}
    it.run()
    assert not it.open
    it.wall += 27 * 3600
    asyncio.run(backing.look(it.tools))
    assert "its last success was on 2027-01-16" in it.open["backup_stale"]
    backing.forget((it.settings,), (), it.flags.append)
    assert not it.open


def test_a_spoilt_record_of_what_ran_is_as_none(it):
    it.run()
    (it.spool / "status.json").write_text('{"first_at": "x"')
    assert it.status == Status()
    it.run()
    assert it.status.success_at == NOON


def test_many_problems_are_told_in_a_few_lines():
    found = [{"store": f"s{n}", "detail": "d" * 900} for n in range(9)]
    text = told({"ok": False, "problems": found})
    assert text.endswith("and 4 more")
    assert len(text) < 1700


def test_nothing_is_scheduled_where_nothing_is_configured(it):
    tools = it.tools
    assert [job.name for job in backing.jobs(tools)] == ["backup-main", "backups"]
    assert backing.jobs(replace(tools, backups=BackupTools((), it.child, it.flags.append))) == ()
    assert backing.jobs(replace(tools, backups=None)) == ()
