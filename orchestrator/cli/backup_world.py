"""The world of the story `backup`: a shop's database, two places for copies, and the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from orchestrator.cli.sandbox import MODEL, Sandbox
from orchestrator.cli.world import INTERVALS
from orchestrator.errors import AionError

BACKEND, SHOP = "alpha", "shop"
DATABASE_S = 60.0
VERB_S = 60.0
STOP_DATABASE_S = 20.0
_SHOP = """
create table customer (id int primary key, name text not null);
create table message (id int primary key, customer int references customer, text text);
insert into customer select n, 'customer ' || n from generate_series(1, 500) n;
insert into message select n, 1 + n % 500, md5(n::text) from generate_series(1, 20000) n;
"""
_COUNTS = "select 'customer', count(*) from customer union select 'message', count(*) from message"


class BackupWorld(Sandbox):
    """A backend, a PostgreSQL server and the daemon. The copies outlive the daemon's machine."""

    def __init__(self) -> None:
        super().__init__()
        self._dsn = ""
        self._engine = 0
        self._recipient = ""
        self._back = asyncio.Event()
        self._back.set()

    async def parts(self) -> None:
        """Start the backend and the database, fill that, and make a key."""
        import pyrage

        self._engine, _ = await asyncio.gather(self.engine(BACKEND), self._start_database())
        identity = pyrage.x25519.Identity.generate()
        self._recipient = str(identity.to_public())
        self.identity.touch(mode=0o600)
        self.identity.write_text(f"{identity}\n")
        await asyncio.to_thread(self._fill)

    async def _start_database(self) -> None:
        place = self.folder / "database"
        place.mkdir()
        child = await self.spawn("database", "-m", "orchestrator.cli.demo_database", str(place))
        assert child.stdout is not None
        try:
            line = await asyncio.wait_for(child.stdout.readline(), DATABASE_S)
            said = json.loads(line)
        except (TimeoutError, ValueError) as error:
            raise AionError(f"the demo's database did not start: {self.log('database')}") from error
        if "problem" in said:
            raise AionError(str(said["problem"]))
        self._dsn = str(said["dsn"])

    def _fill(self) -> None:
        import psycopg

        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(f"create database {SHOP}")
            connection.execute("create database restored")
        with psycopg.connect(self.dsn(SHOP)) as connection:
            connection.execute(_SHOP.encode())
        self.keep("pg_dsn", self.dsn(SHOP))
        self.keep("restored_dsn", self.dsn("restored"))

    def dsn(self, database: str) -> str:
        """Return the DSN of one of the server's databases."""
        return self._dsn.replace("dbname=postgres", f"dbname={database}")

    def rows(self, database: str) -> dict[str, int]:
        """Count the rows of each table."""
        import psycopg

        with psycopg.connect(self.dsn(database)) as connection:
            found = connection.execute(_COUNTS).fetchall()
        return {str(name): int(count) for name, count in found}

    @property
    def identity(self) -> Path:
        """The file of the age identity, which nobody would keep on that machine."""
        return self.folder / "identity.txt"

    @property
    def copies(self) -> tuple[Path, Path]:
        """The two places of copies."""
        return self.folder / "drive", self.folder / "bucket"

    def configuration(self) -> str:
        """Return the demo's aion.toml."""
        places = ", ".join(f'"file:{path}"' for path in self.copies)
        intervals = "\n".join(f'{name} = "{value}"' for name, value in INTERVALS.items())
        return f"""\
[server]
listen = "127.0.0.1:{self.port}"
admin_token = {{ credential = "admin_token" }}

[health]
{intervals}
controls = []

[backends.{BACKEND}]
kind = "static"
engine = "openai"
url = "http://127.0.0.1:{self._engine}"
models = ["{MODEL}"]

[services.chat]

[backups.{SHOP}]
schedule = "0 3 * * *"
dsn = {{ credential = "pg_dsn" }}
copies = [{places}]
encrypt = {{ recipient = "{self._recipient}" }}
"""

    def introduction(self) -> str:
        """Say what was made shorter than usual."""
        return "folders of this machine stand for Google Drive and a bucket; nothing leaves it"

    def environment(self) -> Mapping[str, str]:
        """Return what children get; the state is where a rebuild puts it."""
        state = self.folder / "var"
        state.mkdir(exist_ok=True)
        return {**super().environment(), "STATE_DIRECTORY": str(state)}

    async def aion(self, *words: str) -> tuple[int, str, str]:
        """Run a verb as an operator would; gives its exit status and what it printed."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator.cli", "--config", str(self.config), *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(self.environment()),
            start_new_session=True,
        )
        try:
            out, err = await asyncio.wait_for(child.communicate(), VERB_S)
        except BaseException:
            child.kill()
            await child.wait()
            raise
        return child.returncode or 0, out.decode(), err.decode()

    async def lose(self) -> None:
        """End the daemon as a power cut would, and everything its machine held."""
        self._back.clear()
        await self.kill("daemon")
        self.config.unlink()
        for folder in ("credentials", "var", "state"):
            shutil.rmtree(self.folder / folder, ignore_errors=True)

    async def serve_again(self) -> None:
        """Start the daemon on what is there now."""
        await self._start_daemon()
        self._back.set()

    async def _remove(self) -> None:
        """Let the server stop first: killed, it would be left running, for it is not our child."""
        if (database := self.running.get("database")) is not None and database.returncode is None:
            database.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(database.wait(), STOP_DATABASE_S)
        await super()._remove()

    async def ended(self, name: str) -> int:
        """Wait until a part ends; the daemon's end counts only if the story did not want it."""
        while True:
            status = await super().ended(name)
            if name != "daemon" or self._back.is_set():
                return status
            await self._back.wait()
