"""aion's own state as a dump: whole while the daemon writes, sealed or without secrets, unpacked."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import random  # noqa: TID251 - seeded, so the same each time
import sqlite3
import tarfile
import threading
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest
import zstandard

from jobs.backup import itself
from jobs.backup.catalogue import pick, read
from jobs.backup.child import main
from jobs.backup.errors import Corrupt, NotComplete, WrongKey
from jobs.backup.form import STATE, Copy, Encryption, Itself, Limits, Plan
from jobs.backup.run import run
from jobs.backup.stores.file import FileStore
from jobs.backup.targets import Target
from jobs.backup.unpack import fetched, unpack
from orchestrator.core.publishing import SUCCESSOR
from orchestrator.core.records import ERA
from orchestrator.edge.rebirth import revive
from tests.backup.plans import HandClock, aion_database
from tests.backup.test_dump import small_disk
from tests.backup.test_run import ports

NUMBERS = itertools.count()
CANARY = "canary-9d2e41c7"
KEY = pyrage.x25519.Identity.generate()
SEALED = Encryption(str(KEY.to_public()))


@pytest.fixture
def database(tmp_path) -> Path:
    return aion_database(tmp_path / "home" / "aion.db")


@pytest.fixture
def plan(database, tmp_path) -> Plan:
    config, token = database.with_name("aion.toml"), database.with_name("admin_token")
    config.write_text('[backends.lab]\nkind = "static"\nengine = "ollama"\nurl = "http://h:1"\n')
    token.write_text(f"{CANARY}-token\n")
    return Plan(
        name=STATE,
        dsn="",
        copies=(Copy(Target.parse(f"file:{tmp_path / 'store'}")),),
        spool=str(tmp_path / "spool"),
        limits=Limits(min_free_bytes=1 << 20, attempts=2),
        itself=Itself(
            str(database), str(config), str(token), credentials={"pg": f"{CANARY}-pg", "tg": CANARY}
        ),
    )


def place(tmp_path) -> FileStore:
    return FileStore(Target.parse(f"file:{tmp_path / 'store'}"))


def opened(tmp_path, identity="", wanted=""):
    """Fetch and unpack a state; gives its index and its folder."""
    store, to = place(tmp_path), tmp_path / f"unpacked{next(NUMBERS)}"
    to.mkdir()
    found = pick(read(store, STATE), wanted)
    with fetched(store, found, identity, tmp_path) as (_, archive):
        return unpack(archive, to), to


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def packed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


# ── what goes, and what does not ────────────────────────────────────────────────────────────────


def test_a_state_is_a_dump_like_any_other_and_comes_back_as_it_was(plan, database, tmp_path):
    for number in (1, 2):
        report = run(plan, ports(HandClock()))
        assert report.ok, report
        assert report.dump.sequence == number
        assert (report.dump.state.instance, report.dump.state.era) == ("home", 0)
    index, to = opened(tmp_path)
    assert (to / "aion.toml").read_text() == database.with_name("aion.toml").read_text()
    assert {part.name for part in index.parts} == {"aion.toml", "aion.db"}
    with closing(sqlite3.connect(to / "aion.db")) as copy:
        assert copy.execute("select instance from world").fetchone() == ("home",)
    assert (to / "aion.db").stat().st_mode & 0o777 == 0o600
    assert list((Path(plan.spool) / "dumps").iterdir()) == []


def test_without_a_recipient_no_credential_leaves_the_machine(plan, tmp_path):
    assert run(plan, ports(HandClock())).ok
    _, to = opened(tmp_path)
    assert CANARY.encode() not in everything(to) + everything(tmp_path / "store")


def test_with_a_recipient_credentials_go_and_only_its_identity_opens_them(plan, tmp_path):
    report = run(replace(plan, encrypt=SEALED), ports(HandClock()))
    assert report.ok
    assert report.dump.state.credentials == 3
    assert CANARY.encode() not in everything(tmp_path / "store") + everything(Path(plan.spool))
    assert CANARY not in json.dumps(report.to_json())
    _, to = opened(tmp_path, str(KEY))
    assert (to / "credentials" / "pg").read_text() == f"{CANARY}-pg"
    assert (to / "admin_token").read_text() == f"{CANARY}-token\n"
    for wrong in ("", str(pyrage.x25519.Identity.generate()), "AGE-SECRET-KEY-1NONSENSE"):
        with pytest.raises(WrongKey):
            opened(tmp_path, wrong)


def test_the_copy_is_of_one_moment_while_the_daemon_writes(plan, database, tmp_path):
    with closing(sqlite3.connect(database)) as one, one:
        one.execute("create table pair (a int, b int)")
    ends = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(database, timeout=30)) as writer:
            n = 0
            while not ends.is_set():
                n += 1
                with writer:
                    writer.execute("insert into pair values (?, ?)", (n, n))
                    writer.execute("update pair set b = b + 1")
                    writer.execute("update pair set a = a + 1")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):
            assert run(plan, ports(HandClock())).ok
            _, to = opened(tmp_path)
            with closing(sqlite3.connect(to / "aion.db")) as copy:
                assert copy.execute("select count(*) from pair where a != b").fetchone() == (0,)
    finally:
        ends.set()
        thread.join()


def _tear(path: Path) -> None:
    """Fill the middle with pages that are none, past the header."""
    data = bytearray(path.read_bytes())
    for page in range(3, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as one, one:
        one.execute("create table other (x)")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "it has never served here"),
        (lambda path: path.write_bytes(b"no database" * 999), "cannot be copied"),
        (_tear, "no sound database"),
        (_empty, "no sound database"),
        (lambda path: path.with_name("aion.toml").unlink(), "cannot read"),
    ],
)
def test_what_cannot_be_backed_up_whole_is_no_dump_and_leaves_nothing(
    plan, database, tmp_path, spoil, said
):
    spoil(database)
    report = run(plan, ports(HandClock()))
    assert said in report.failure
    assert report.dump is None
    assert not (tmp_path / "store").exists() or place(tmp_path).list(STATE) == []
    assert list((Path(plan.spool) / "work").iterdir()) == []


def test_a_full_disk_is_said_before_anything_is_written(plan):
    short = replace(plan, limits=replace(plan.limits, min_free_bytes=1 << 60))
    assert "are needed" in run(short, ports(HandClock())).failure


@pytest.mark.parametrize("size", [20_000, 500_000, 3_000_000])
def test_a_disk_that_fills_leaves_no_dump_and_the_database_as_it_is(plan, database, tmp_path, size):
    with closing(sqlite3.connect(database)) as one, one:
        one.execute("create table more as select randomblob(1500000) as b")
    held = itself.look(database)
    with small_disk(tmp_path / "little", size):
        spool = str(tmp_path / "little" / "spool")
        little = replace(plan, spool=spool, limits=replace(plan.limits, min_free_bytes=0))
        report = run(little, ports(HandClock()))
        assert report.dump is None
        assert report.failure
        assert not (Path(spool) / "dumps").exists()
        assert list(Path(spool).glob("work/*")) == []
    assert itself.look(database) == held


def test_what_a_run_that_was_killed_left_is_thrown_away_by_the_next(plan, tmp_path):
    left = Path(plan.spool) / "work" / f"{STATE}-000001-20261121T030000Z"
    left.mkdir(parents=True)
    (left / "aion.db").write_text(CANARY)
    report = run(plan, ports(HandClock()))
    assert report.ok
    assert CANARY.encode() not in everything(Path(plan.spool)) + everything(tmp_path / "store")


def test_a_state_of_another_instance_is_kept_in_quarantine(plan, tmp_path):
    assert run(plan, ports(HandClock())).ok
    other = replace(plan, itself=replace(plan.itself, instance="stranger"))
    report = run(other, ports(HandClock()))
    assert "it is of stranger" in report.dump.suspicious
    index, _ = opened(tmp_path)
    assert index.state.instance == "home"


def test_an_old_machine_stops_where_its_rebuilt_self_has_backed_up(plan, database, tmp_path):
    assert run(plan, ports(HandClock())).ok
    _, to = opened(tmp_path)
    first = revive(to / "aion.db", "rebuilt", 1_800_000_000.0)
    assert first % ERA == 0
    new = replace(plan, itself=replace(plan.itself, database=str(to / "aion.db")))
    assert run(replace(new, spool=str(tmp_path / "new")), ports(HandClock())).dump.state.era > 0
    report = run(plan, ports(HandClock()))
    assert "was rebuilt: this one is the old one" in report.failure
    assert [one.id.sequence for one in read(place(tmp_path), STATE)] == [2, 1]


def test_a_successors_pause_ends_with_a_rebuild_and_an_operators_goes_on(database):
    for by, after in ((SUCCESSOR, ""), ("ana", "ana")):
        with closing(sqlite3.connect(database)) as one, one:
            one.execute("update world set paused_since = 1.0, paused_by = ?", (by,))
        assert itself.look(database).paused == by
        revive(database, "x", 2e9)
        assert itself.look(database).paused == after


def test_eras_only_grow_whatever_the_clock_says(database):
    eras = [revive(database, "x", wall) for wall in (2e9, 1e9, 0.0, -5e9, 2.1e9)]
    assert eras == sorted(set(eras))
    assert {one % ERA for one in eras} == {0}


def test_a_drill_brings_a_state_back_and_compares_it(plan, tmp_path):
    sealed = replace(plan, encrypt=Encryption(str(KEY.to_public()), str(KEY)))
    assert run(sealed, ports(HandClock())).ok
    answer = main({"do": "drill", "plan": sealed.to_json()})
    assert (answer["ok"], list(answer["problems"])) == (True, [])
    assert answer["rows"] > 0
    (manifest,) = (tmp_path / "store").glob("*/manifest.json")
    value = json.loads(manifest.read_text())
    value["tables"][0]["rows"] += 1
    manifest.write_text(json.dumps(value))
    answer = main({"do": "drill", "plan": sealed.to_json()})
    assert list(answer["problems"]) == ["the tables and rows in it are not those that were copied"]
    assert (
        "identity"
        in main({"do": "drill", "plan": replace(plan, encrypt=SEALED).to_json()})["detail"]
    )


# ── an archive that anybody may have made ───────────────────────────────────────────────────────


@pytest.fixture
def archive(plan, tmp_path) -> bytes:
    assert run(plan, ports(HandClock())).ok
    (path,) = (tmp_path / "store").glob("*/archive.tar.zst")
    return path.read_bytes()


def taken(tmp_path, data: bytes):
    """Unpack bytes into a folder of its own, in a place where nothing else may appear."""
    outside = tmp_path / f"outside{next(NUMBERS)}"
    to = outside / "to"
    to.mkdir(parents=True)
    path = tmp_path / "hostile"
    path.write_bytes(data)
    try:
        return unpack(path, to)
    finally:
        assert [one.name for one in outside.iterdir()] == ["to"]
        known = {"aion.toml", "aion.db", "admin_token", "credentials"}
        assert {one.name for one in to.iterdir()} <= known
        assert not any(one.is_symlink() for one in to.rglob("*"))


def test_no_flipped_bit_and_no_truncation_changes_what_is_unpacked(archive, tmp_path):
    whole = taken(tmp_path, archive)
    chance = random.Random(7)
    for _ in range(150):
        data = bytearray(archive)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        with suppress(NotComplete):  # some bits of a frame's header say nothing of its content
            assert taken(tmp_path, bytes(data)) == whole
        with pytest.raises(NotComplete):
            taken(tmp_path, archive[: chance.randrange(len(archive))])


def entry(name: str, data: bytes = b"", **more) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def part(name: str, data: bytes, **more) -> dict:
    return {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **more}


def index(*parts: dict) -> bytes:
    value = {"aion": "1", "state": {"instance": "x"}, "parts": list(parts)}
    return entry("index.json", json.dumps(value).encode())


DB = entry("aion.db", b"db")
GOOD = index(part("aion.db", b"db"))
END = bytes(1024)
HOSTILE = {
    "nothing": b"",
    "no index": DB + END,
    "an index that is no JSON": entry("index.json", b"[") + DB + END,
    "an index of nothing": entry("index.json", b"{}") + DB + END,
    "an index without a database": index(part("aion.toml", b"")) + entry("aion.toml") + END,
    "parts twice": index(part("aion.db", b"db"), part("aion.db", b"db")) + DB + END,
    "a path upwards": index(part("aion.db", b"db"), part("../evil", b"x"))
    + DB
    + entry("../evil", b"x")
    + END,
    "a credential upwards": index(part("aion.db", b"db"), part("credentials/../../evil", b"x"))
    + DB
    + entry("credentials/../../evil", b"x")
    + END,
    "from the root": index(part("aion.db", b"db"), part("/tmp/evil", b"x"))
    + DB
    + entry("/tmp/evil", b"x")
    + END,
    "a hidden credential": GOOD + DB + entry("credentials/.evil", b"x") + END,
    "a link": GOOD + entry("aion.db", type=tarfile.SYMTYPE, linkname="/etc/passwd") + END,
    "a hard link": GOOD + entry("aion.db", type=tarfile.LNKTYPE, linkname="/etc/passwd") + END,
    "a folder": GOOD + entry("credentials/x", type=tarfile.DIRTYPE) + DB + END,
    "a device": GOOD + entry("aion.db", type=tarfile.CHRTYPE) + END,
    "a long name": GOOD + entry("x", b"y" * 600, type=tarfile.GNUTYPE_LONGNAME) + DB + END,
    "a pax header": GOOD + entry("x", b"20 path=../../evil\n", type=tarfile.XHDTYPE) + DB + END,
    "what the index lacks": GOOD + DB + entry("aion.toml", b"x") + END,
    "twice the same": GOOD + DB + DB + END,
    "another size": index(part("aion.db", b"db", size=3)) + DB + END,
    "another hash": index(part("aion.db", b"xx")) + DB + END,
    "less than the index": index(part("aion.db", b"db"), part("aion.toml", b"")) + DB + END,
    "no end": GOOD + DB,
    "an endless file": GOOD + entry("aion.db")[:124] + b"77777777777\0" + DB[136:] + END,
    "a bomb": entry("index.json")[:124] + b"00777777777\0" + bytes(376) + bytes(8_000_000),
    "more after the end": GOOD + DB + END + bytes(100_000),
    "not a tar": b"hello" * 1000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_was_not_made_by_aion_is_refused_in_one_line_and_writes_nothing_elsewhere(
    tmp_path, name
):
    with pytest.raises(NotComplete) as refused:
        taken(tmp_path, packed(HOSTILE[name]))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_the_well_formed_sibling_of_all_these_is_taken(tmp_path):
    assert taken(tmp_path, packed(GOOD + DB + END)).state.instance == "x"


def test_a_window_that_would_take_all_memory_is_refused(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=False)
    out = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(
        out, closefd=False
    ) as to:
        to.write(GOOD + DB + END)
    with pytest.raises(NotComplete):
        taken(tmp_path, out.getvalue())


def test_a_copy_that_is_not_what_its_manifest_says_is_refused(plan, archive, tmp_path):
    (path,) = (tmp_path / "store").glob("*/archive.tar.zst")
    path.write_bytes(archive[:-1] + bytes([archive[-1] ^ 1]))
    with pytest.raises(Corrupt):
        opened(tmp_path)
