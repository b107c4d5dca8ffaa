"""`aion backup`, by the command itself, against real databases and stores, without a daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
import pyrage
import pytest

from tests.backup.conftest import BINS, PASSWORD
from tests.cli.terminal import OnTerminal
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
ROWS = 2000
MAKE = (
    "create table message (id int primary key, text text);"
    f"insert into message select n, repeat(md5(n::text), 9) from generate_series(1, {ROWS}) n"
)


@dataclass
class Box:
    """A machine with a configuration, two stores and no daemon."""

    folder: Path
    dsn: str
    stores: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stores = [self.folder / "a", self.folder / "b"]
        secrets = self.folder / "credentials"
        secrets.mkdir(mode=0o700)
        path = secrets / "pg_dsn"
        path.touch(mode=0o600)
        path.write_text(self.dsn)
        self.port = free_port()
        self.config = self.folder / "aion.toml"
        copies = ", ".join(f'"file:{store}"' for store in self.stores)
        self.config.write_text(
            f'[server]\nlisten = "127.0.0.1:{self.port}"\n'
            '[backends.lab]\nkind = "static"\nengine = "ollama"\nurl = "http://127.0.0.1:9"\n'
            '[backups.main]\nschedule = "0 3 * * *"\ndsn = { credential = "pg_dsn" }\n'
            f'copies = [{copies}]\npg_bin = "{BINS[16]}"\n'
        )

    def aion(self, *words: str, config: bool = True, **env: str) -> subprocess.CompletedProcess:
        given = ["--config", str(self.config)] if config else []
        return subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "backup", *words, *given],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            stdin=subprocess.DEVNULL,
            cwd=self.folder if config else "/",
            env={
                "PATH": f"{BINS[16]}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "HOME": str(self.folder),
                "STATE_DIRECTORY": str(self.folder / "state"),
                **env,
            },
        )

    def data(self, *words: str, **more) -> dict:
        done = self.aion(*words, "--json", **more)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def spoil(self, store: Path, dump: str) -> None:
        path = store / dump / "archive.dump.zst"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)


@pytest.fixture
def box(pg16, tmp_path):
    return Box(tmp_path, pg16.new(MAKE))


@pytest.fixture
def made(box):
    done = box.aion("run", "main", "-y")
    assert done.returncode == 0, done.stderr
    box.dump = box.data("list", "main")["dumps"][0]["dump"]
    return box


def no_password(dsn: str) -> str:
    return dsn.replace(":" + quote(PASSWORD, safe=""), "")


def count(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        return connection.execute("select count(*) from message").fetchone()[0]


def test_one_spoiled_copy_is_found_and_the_other_is_restored(made, pg16):
    assert made.aion("verify").returncode == 0
    made.spoil(made.stores[0], made.dump)
    done = made.aion("verify", "--json")
    assert done.returncode == 1
    found = {one["store"]: one["ok"] for one in json.loads(done.stdout)["found"]}
    assert found == {f"file:{made.stores[0]}": False, f"file:{made.stores[1]}": True}
    empty = pg16.new()
    done = made.aion("restore", "main", "--to", no_password(empty), "-y", PGPASSWORD=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert f"file:{made.stores[1]}" in done.stdout
    assert f"file:{made.stores[0]}: " in done.stderr
    assert count(empty) == count(made.dsn) == ROWS


def test_a_store_alone_is_enough_to_restore_from(made, pg16):
    empty = pg16.new()
    given = {"config": False, "PGPASSWORD": PASSWORD, "HOME": "/nonexistent"}
    store = f"file:{made.stores[1]}"
    made.config.unlink()
    assert [one["dump"] for one in made.data("list", "--from", store, **given)["dumps"]] == [
        made.dump
    ]
    for more in ((), ("--download",)):
        assert made.data("verify", "--from", store, *more, **given)["ok"]
    answer = made.data("restore", "--from", store, "--to", no_password(empty), "-y", **given)
    assert (answer["dump"], answer["tables"], answer["rows"]) == (made.dump, 1, ROWS)
    assert count(empty) == ROWS


def test_a_place_that_holds_nothing_is_no_list_that_went_well(box):
    store = f"file:{box.folder}/gone"
    done = box.aion("list", "--from", store, config=False, HOME="/nonexistent")
    assert done.returncode == 1
    assert f"{store}: there is no dump; is it written as in `copies`, and mounted?" in done.stderr
    assert box.aion("list").returncode == 0, "nothing was dumped yet"


def test_a_password_in_an_argument_is_refused_and_not_repeated(made, pg16):
    done = made.aion("restore", "main", "--to", pg16.new(), "-y")
    assert done.returncode == 2
    assert "PGPASSWORD" in done.stderr
    assert PASSWORD not in done.stderr + done.stdout
    assert quote(PASSWORD, safe="") not in done.stderr + done.stdout


def test_a_database_that_holds_something_is_restored_into_only_by_its_name(made, pg16):
    full = pg16.new("create table mine (id int)", name="precious")
    words = ("restore", "main", "--to", no_password(full), "-y")
    done = made.aion(*words, PGPASSWORD=PASSWORD)
    assert done.returncode == 1
    assert "--force precious" in done.stderr
    assert made.aion(*words, "--force", "precious", PGPASSWORD=PASSWORD).returncode == 0
    assert count(full) == ROWS


def test_nothing_is_done_where_nobody_can_be_asked(made, pg16):
    empty = pg16.new()
    done = made.aion("restore", "main", "--to", no_password(empty), PGPASSWORD=PASSWORD)
    assert done.returncode == 2
    assert "nobody can be asked" in done.stderr
    assert pg16.run("select count(*) from pg_tables where schemaname = 'public'", empty.rpartition("/")[2]) == [(0,)]  # fmt: skip
    assert made.aion("run", "main").returncode == 2
    assert len(made.data("list")["dumps"]) == 2


def test_a_target_may_be_a_credential_that_holds_the_whole_dsn(made, pg16):
    empty = pg16.new()
    done = made.aion("restore", "main", "--to", "target", "-y", AION_CREDENTIAL_TARGET=empty)
    assert done.returncode == 0, done.stderr
    assert count(empty) == ROWS


def test_a_drill_restores_elsewhere_and_says_how_many_rows(made):
    answer = made.data("drill", "main")
    assert (answer["ok"], answer["tables"], answer["rows"]) == (True, 1, ROWS)


def test_a_dump_much_smaller_than_the_last_waits_until_it_is_accepted(made, pg16):
    with psycopg.connect(made.dsn, autocommit=True) as connection:
        connection.execute("delete from message where id > 5")
    done = made.aion("run", "main", "-y")
    assert done.returncode == 1
    assert "quarantine" in done.stdout
    newest = made.data("list")["dumps"][0]
    assert newest["quarantined"]
    assert made.aion("accept", "main", newest["dump"], "-y").returncode == 0
    assert not any(one["quarantined"] for one in made.data("list")["dumps"])


def test_what_would_expire_is_shown_and_nothing_goes(made):
    done = made.aion("run", "main", "--dry-run")
    assert done.returncode == 0
    assert "nothing would go" in done.stderr
    assert made.aion("list", "nobody").returncode == 5


def test_on_a_terminal_the_password_is_asked_for_the_target_is_named_and_progress_is_seen(
    made, pg16
):
    empty = pg16.new()
    words = ("backup", "restore", "main", "--to", no_password(empty), "--config", str(made.config))
    env = {"STATE_DIRECTORY": str(made.folder / "state"), "PYTHONPATH": str(ROOT)}
    shell = OnTerminal(*words, columns=160, **env)
    shell.until("password of the database")
    shell.type(PASSWORD + "\n")
    asked = shell.until("Go on? [y/N]")
    assert f"{made.dump} from file:{made.stores[0]} goes into {empty.rpartition('/')[2]}" in asked
    shell.type("y\n")
    done = shell.end()
    assert done.code == 0, done.out
    assert f"get file:{made.stores[0]}" in done.out
    assert f"1 tables, {ROWS} rows" in done.out
    assert PASSWORD not in done.out
    assert count(empty) == ROWS


def test_a_sealed_dump_in_an_rclone_remote_needs_its_identity_and_nothing_else(box, pg16):
    key = pyrage.x25519.Identity.generate()
    conf = box.folder / "rclone.conf"
    conf.write_text(f"[far]\ntype = alias\nremote = {box.folder}/far\n")
    text = box.config.read_text().replace(f'"file:{box.stores[0]}"', '"rclone:far:kept"')
    sealed = f'encrypt = {{ recipient = "{key.to_public()}" }}\nrclone_config_path = "{conf}"\n'
    box.config.write_text(text + sealed)
    done = box.aion("run", "main", "-y")
    assert done.returncode == 0, done.stderr
    assert list(box.folder.glob("far/kept/main-*/archive.dump.zst.age"))
    empty = pg16.new()
    words = ("restore", "--from", "rclone:far:kept", "--to", no_password(empty), "-y")
    alone = {"config": False, "PGPASSWORD": PASSWORD, "HOME": "/nonexistent"}
    done = box.aion(*words, "--rclone-config", str(conf), **alone)
    assert done.returncode == 1
    assert "identity" in done.stderr
    assert count_tables(empty) == 0
    identity = box.folder / "identity"
    identity.write_text(f"# made today\n{key}\n")
    done = box.aion(
        *words, "--rclone-config", str(conf), "--identity", str(identity), "--json", **alone
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == ROWS == count(empty)
    assert str(key) not in done.stdout + done.stderr


def count_tables(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "select count(*) from pg_tables where schemaname = 'public'"
        ).fetchone()[0]


# ── more than the database ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def more(box):
    """The machine with an export of its messages, and a folder that is synced."""
    source, place = box.folder / "vectors", box.folder / "place"
    source.mkdir()
    (source / "a.bin").write_bytes(b"one")
    (source / "b.bin").write_bytes(b"two")
    with box.config.open("a") as config:
        config.write(
            'drill = "off"\n[[backups.main.export]]\nname = "chat"\nkey = "id"\n'
            'query = "select id, text from message"\n'
            '[backups.files]\nschedule = "0 4 * * *"\nitself = false\n'
            f'[[backups.files.sync]]\nname = "vectors"\nfrom = "file:{source}"\nto = ["file:{place}"]\n'
        )
    return box


def test_rows_and_files_come_back_with_and_without_a_configuration(more, tmp_path):
    done = more.aion("run", "main", "-y")
    assert done.returncode == 0, done.stderr
    assert f"export chat: {ROWS} rows in part 1" in done.stdout
    done = more.aion("run", "files", "-y")
    assert (done.returncode, done.stdout) == (0, "files: sync vectors: 2 files copied\n"), (
        done.stderr
    )
    listed = more.data("list", "main")
    assert [(one["parts"], one["rows"], one["last"]) for one in listed["exports"]] == [(1, ROWS, str(ROWS))] * 2  # fmt: skip
    assert more.data("list", "files")["syncs"][0]["files"] == 2
    assert "vectors" in more.aion("list").stdout
    assert more.aion("verify", "main", "--download").returncode == 0
    assert more.aion("verify", "files", "--download").returncode == 0
    done = more.aion("rows", "main", "chat")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["id"] for line in lines] == list(range(1, ROWS + 1))
    given = (
        "rows",
        "main",
        "chat",
        "--from",
        f"file:{more.stores[1]}",
        "--to",
        str(tmp_path / "x"),
    )
    assert more.aion(*given, config=False).returncode == 0
    assert (tmp_path / "x").read_text() == done.stdout
    for words, config in ((("--at", "2999-01-01"), True), (("--from", f"file:{more.folder}/place"), False)):  # fmt: skip
        to = tmp_path / f"to{config}"
        done = more.aion("fetch", "files", "vectors", "--to", str(to), *words, config=config)
        assert done.returncode == 0, done.stderr
        assert (to / "b.bin").read_bytes() == b"two"
    done = more.aion(
        "fetch", "files", "vectors", "--to", str(tmp_path / "no"), "--at", "2001-01-01"
    )
    assert (done.returncode, "nothing so old" in done.stderr) == (1, True)


def test_a_source_that_lost_its_files_is_told_of_and_accepted_by_name(more):
    assert more.aion("run", "files", "-y").returncode == 0
    for name in ("a", "b"):
        (more.folder / f"vectors/{name}.bin").rename(more.folder / f"vectors/{name}.locked")
    done = more.aion("run", "files", "-y")
    assert done.returncode == 1
    assert "sync vectors: 2 of 2 files are gone" in done.stdout
    assert more.aion("accept", "files", "vectors", "-y").returncode == 0
    assert more.aion("run", "files", "-y").returncode == 0
    assert (more.folder / "place/current/a.locked").exists()
