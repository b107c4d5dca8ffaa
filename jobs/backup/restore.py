"""A dump brought back into a database: from a store or this machine, without anything else of ours.

The archive is downloaded, compared with its manifest, decrypted if need be, compared again, and
given to pg_restore. A database that holds tables already is only touched when its name is said.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from jobs.backup import source
from jobs.backup.archives import Archive, opened
from jobs.backup.catalogue import Found, pick, read
from jobs.backup.clients import Clients, environment, find
from jobs.backup.errors import BackupError, Corrupt, NotComplete, NotEmpty, SourceFailed, WrongKey
from jobs.backup.form import MANIFEST, MAX_MANIFEST, Manifest, Timeouts
from jobs.backup.ports import Tell, nobody
from jobs.backup.programs import check_room, program
from jobs.backup.stores.base import Store, hash_file
from jobs.backup.verify import fetch
from jobs.backup.words import gist
from orchestrator.childside import redact

MANAGED: Final = (
    "_realtime", "auth", "cron", "extensions", "graphql", "graphql_public", "net", "pgbouncer",
    "pgsodium", "pgsodium_masks", "realtime", "storage", "supabase_functions",
    "supabase_migrations", "vault",
)  # fmt: skip
"""Schemas that Supabase makes and owns: a new project has its own, and nobody else has any."""
_ASK_S: Final = 600.0
_TABLES: Final = (
    "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace"
    " where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')"
    " and n.nspname !~ '^(pg_|information_schema$)'"
    " and not n.nspname = any(%s) and not exists (select from pg_depend d where d.objid = c.oid"
    " and d.classid = 'pg_class'::regclass and d.deptype = 'e')"
)


@dataclass(frozen=True, slots=True)
class Into:
    """Where and how a dump is restored.

    `dsn`: the database, which is there already. `force`: its name, said again by whoever knows that
    it is not empty. `jobs`: more than one restores in parallel and so not in one transaction.
    `owners`: whether owners and grants are restored too. `skip`: schemas left out.
    """

    dsn: str
    identity: str = ""
    force: str = ""
    jobs: int = 1
    owners: bool = False
    skip: tuple[str, ...] = ()
    pg_bin: str = ""
    timeouts: Timeouts = field(default_factory=Timeouts)


def restore(
    store: Store, name: str, wanted: str, into: Into, spool: Path, *, tell: Tell = nobody
) -> Manifest:
    """Restore a dump of backup `name` from a store; return its manifest.

    `wanted`: its id or its sequence, "" for the newest good one. Raises `BackupError`.
    """
    into_empty(into)
    found = pick(read(store, name), wanted)
    with fetched(store, found, into.identity, spool, tell=tell) as (manifest, archive):
        tell("restore", 0, manifest.size)
        apply(archive, manifest, into, spool)
    return manifest


@contextmanager
def fetched(
    store: Store, found: Found, identity: str, spool: Path, *, tell: Tell = nobody
) -> Iterator[tuple[Manifest, Archive]]:
    """Download a dump and yield its manifest and archive, in the clear; both go afterwards."""
    manifest = found.manifest
    if manifest is None:
        raise BackupError(f"{found.id} cannot be used: {found.problem}")
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    need_key(manifest, identity)
    check_room(spool, manifest.size)
    with tempfile.TemporaryDirectory(dir=spool, prefix="restore-") as folder:
        local = fetch(store, manifest, Path(folder), tell)
        yield manifest, opened(local, manifest, identity, Path(folder))


@contextmanager
def local(folder: Path, identity: str, spool: Path) -> Iterator[tuple[Manifest, Archive]]:
    """Yield manifest and archive, in the clear, of a dump in a folder of this machine."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            manifest = Manifest.load(file.read(MAX_MANIFEST))
    except OSError:
        raise NotComplete(f"{folder} has no manifest: it is no whole dump") from None
    need_key(manifest, identity)
    archive = folder / manifest.archive
    if not archive.exists() or hash_file(archive, ("sha256",))["sha256"] != manifest.sha256:
        raise Corrupt(f"{archive} is not what its manifest says")
    with tempfile.TemporaryDirectory(dir=spool, prefix="restore-") as private:
        yield manifest, opened(archive, manifest, identity, Path(private))


def need_key(manifest: Manifest, identity: str) -> None:
    """Raise `WrongKey` if a dump is encrypted and no key is there to try."""
    if manifest.encrypted and not identity:
        raise WrongKey(
            f"{manifest.id} is encrypted for the key {manifest.encrypted.fingerprint}: "
            "its identity (AGE-SECRET-KEY-1…) is needed"
        )


def into_empty(into: Into) -> source.Server:
    """Ask the target what it is. Raises `NotEmpty` unless its name was said."""
    server = source.look(into.dsn, into.timeouts)
    with source.connect(into.dsn, into.timeouts) as connection:
        skip = list(MANAGED) if source.is_supabase(into.dsn) else []
        row = connection.execute(_TABLES, (skip,)).fetchone()
    assert row is not None
    if row[0] and into.force != server.database:
        wrong = f", not {into.force[:60]}" if into.force else ""
        raise NotEmpty(
            f"{server.database} holds {row[0]} tables, views or sequences already; "
            f"to restore into it nevertheless, give its name: --force {server.database}{wrong}"
        )
    return server


def apply(archive: Archive, manifest: Manifest, into: Into, spool: Path) -> None:
    """Give an archive to pg_restore. Raises `SourceFailed` with what it said.

    In one transaction everything is restored or nothing; in parallel a failure stops it midway.
    What cannot be opened into a file for want of room is restored in one transaction.
    """
    server = source.look(into.dsn, into.timeouts)
    # pg_restore must read what pg_dump of the client's version wrote.
    written = int(manifest.client_version.partition(".")[0] or 0) * 10_000
    clients = find(max(server.num, written), tls=server.tls, pg_bin=into.pg_bin)
    hidden = source.secrets(into.dsn)
    with tempfile.TemporaryDirectory(dir=spool, prefix="pg-") as private:
        listing = Path(private, "list")
        text = _listing(clients, archive, into)
        listing.write_text(text, encoding="utf-8", errors="surrogateescape")
        _house(manifest, text, into)
        with (
            source.door(into.dsn, into.timeouts, Path(private), tls=server.tls) as env,
            archive.given() as (named, stdin),
        ):
            jobs = into.jobs if archive.seekable else 1
            argv = [*_arguments(clients, into, listing, jobs), *named]
            with program(argv, env, Path(private), stdin=stdin) as one:
                if wrong := one.wait(into.timeouts.dump_s):
                    left = "nothing of it" if jobs <= 1 else "what was done until then"
                    text = f"pg_restore {wrong}; {left} is in the database"
                    raise SourceFailed(redact(text, hidden))


def _house(manifest: Manifest, listing: str, into: Into) -> None:
    """Make the schemas of tables that were dumped by their names, and so without them."""
    from psycopg import Error, sql  # noqa: PLC0415 - heavy, and only where it is used

    wanted = {one.schema for one in manifest.tables} - {"", "public", *into.skip}
    wanted = {one for one in wanted if f" SCHEMA - {' '.join(one.splitlines())} " not in listing}
    if not wanted:
        return
    with source.connect(into.dsn, into.timeouts) as connection:
        there = {row[0] for row in connection.execute("select nspname from pg_namespace")}
        for name in sorted(wanted - there):
            with contextlib.suppress(Error, UnicodeError):  # pg_restore will say what is missing
                connection.execute(sql.SQL("create schema {}").format(sql.Identifier(name)))


def _arguments(clients: Clients, into: Into, listing: Path, jobs: int) -> list[str]:
    argv = [clients.path("pg_restore"), "--exit-on-error", "--no-password", f"--use-list={listing}"]
    argv += [f"--exclude-schema={name}" for name in into.skip]
    argv += ["--single-transaction"] if jobs <= 1 else [f"--jobs={jobs}"]
    if not into.owners:
        argv += ["--no-owner", "--no-acl"]
    return [*argv, f"--dbname=service={source.SERVICE}"]


def _listing(clients: Clients, archive: Archive, into: Into) -> str:
    """Return the archive's list of contents without what the target must or can not be given.

    Skipped schemas; and extensions that are not to be had there.
    """
    with source.connect(into.dsn, into.timeouts) as connection:
        rows = connection.execute("select name from pg_available_extensions").fetchall()
    known = {row[0] for row in rows}
    return "\n".join(_wanted(contents(clients, archive), set(into.skip), known)) + "\n"


def contents(clients: Clients, archive: Archive) -> list[str]:
    """Return the lines of an archive's list of contents. Raises `NotComplete`."""
    out = ask(clients, archive, "--list")
    return out.decode("utf-8", "surrogateescape").splitlines()


def ask(clients: Clients, archive: Archive, *options: str) -> bytes:
    """Return what pg_restore writes of an archive, without a database. Raises `NotComplete`."""
    with archive.given() as (named, stdin):
        argv = [clients.path("pg_restore"), *options, *named]
        done = subprocess.run(
            argv, stdin=stdin, capture_output=True, check=False, env=environment(), timeout=_ASK_S
        )
    if done.returncode:
        raise NotComplete(
            f"the archive cannot be read: {gist(done.stderr.decode(errors='replace'))}"
        )
    return done.stdout


def _wanted(lines: Iterable[str], skip: set[str], known: set[str]) -> Iterator[str]:
    """Yield the entries to restore; each is `ID; OID OID KIND SCHEMA NAME OWNER`."""
    for line in lines:
        if line.startswith(";"):
            continue
        entry = " ".join(line.split(" ")[3:])
        extension = re.match(r"(COMMENT - )?EXTENSION (?:- )?(\S+)", entry)
        # Who may not make an extension may not comment on it either.
        if extension and (extension[1] or extension[2] not in known):
            continue
        schema = re.match(r"(?:(?:ACL|COMMENT) - )?SCHEMA (?:- )?(\S+)", entry)
        if not (schema and schema[1] in skip):
            yield line
