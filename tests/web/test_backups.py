"""`/api/backups`: how each stands, and having one made."""

from dataclasses import dataclass, replace
from datetime import datetime

from test_admin import of
from webkit import Site, run

from jobs.backing import BackupView
from jobs.backup.status import CopyStatus, Sample, Status
from orchestrator.core.events import Answer

HOUR = 3600.0
AT = {"step": "dump", "done": 5, "total": 10}


@dataclass
class Jobs:
    """Starts a job once."""

    started: tuple[str, ...] = ()

    def view(self):
        return ()

    def start_now(self, name: str, *, operator: bool = False) -> Answer:
        assert operator
        if name in self.started:
            return Answer(f"{name} is running already", "running")
        self.started += (name,)
        return Answer(f"{name} is started")


def standing(at: float) -> BackupView:
    copies = (CopyStatus("file:/a", True, free=7), CopyStatus("gs://b", False, "no answer"))
    status = Status(at - 9e6, at - HOUR, at - 30 * HOUR, "main-000001-x", 12, copies)
    return BackupView("main", status, 26 * HOUR, at + HOUR, problem="gs://b: no answer")


def test_a_backup_is_shown_with_its_copies_and_when_it_is_out_of_date():
    async def test(site: Site) -> None:
        (one,) = (await site.admin.get("/api/backups")).json()
        assert (one["name"], one["size"], one["stale"]) == ("main", 12, True)
        assert [copy["free"] for copy in one["copies"]] == [7, None]
        assert one["copies"][1]["detail"] == one["problem"].removeprefix("gs://b: ")
        assert one["success_at"] < one["stale_at"] < one["last_at"] < one["next_at"]
        assert one["drilled_at"] is None
        assert (await site.client.get("/api/backups")).status_code == 401

    async def rows():
        return (standing(rows.at),)

    async def timed(site: Site) -> None:
        rows.at = site.stand.now().wall
        await test(site)

    run(timed, parts={"backups": rows})


def test_how_far_a_run_is_and_when_a_place_is_full_is_shown():
    async def rows():
        one = standing(rows.at)
        samples = (Sample("file:/a", rows.at - 10 * 24 * HOUR, 27), Sample("file:/a", rows.at, 7))
        status = replace(one.status, samples=samples)
        return (replace(one, status=status, running=True, progress=AT),)

    async def test(site: Site) -> None:
        rows.at = site.stand.now().wall
        (one,) = (await site.admin.get("/api/backups")).json()
        assert one["progress"] == AT
        full = datetime.fromisoformat(one["copies"][0]["full_at"]).timestamp()
        assert abs(full - rows.at - 3.5 * 24 * HOUR) < 5
        assert one["copies"][1]["full_at"] is None

    run(test, parts={"backups": rows})


def test_prometheus_finds_each_backup_and_each_place():
    async def rows():
        return (standing(1_800_000_000.0),)

    async def test(site: Site) -> None:
        text = (await site.admin.get("/metrics")).text
        assert 'aion_backup_last_success_timestamp_seconds{backup="main"} 1.799892e+09' in text
        assert 'aion_backup_ok{backup="main"} 0.0' in text
        assert 'aion_backup_size_bytes{backup="main"} 12.0' in text
        assert 'aion_backup_copy_ok{backup="main",store="file:/a"} 1.0' in text
        assert 'aion_backup_copy_ok{backup="main",store="gs://b"} 0.0' in text
        assert 'aion_backup_store_free_bytes{backup="main",store="file:/a"} 7.0' in text
        assert 'aion_backup_store_free_bytes{backup="main",store="gs://b"}' not in text

    run(test, parts={"backups": rows})


def test_a_backup_is_begun_once_and_only_one_that_there_is():
    jobs = Jobs()

    async def rows():
        return (standing(1_800_000_000.0),)

    async def test(site: Site) -> None:
        first = await site.admin.post("/api/backups/main/run")
        assert (first.status_code, jobs.started) == (202, ("backup-main",))
        assert of(await site.admin.post("/api/backups/main/run")) == (409, "running")
        assert of(await site.admin.post("/api/backups/mian/run")) == (404, "unknown")
        assert (await site.client.post("/api/backups/main/run")).status_code == 401

    run(test, parts={"backups": rows, "jobs": jobs})
