"""One dump: asked for, streamed, proved, hashed, described. It becomes visible all at once.

Everything is made in `work/ID` of the spool; the folder moves to `dumps/ID` when archive, sums and
manifest are complete and on the disk. What a crash leaves in `work` is no dump and is thrown away.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from jobs.backup import asking, source
from jobs.backup.clients import Clients, environment, find
from jobs.backup.errors import NotComplete, SourceFailed
from jobs.backup.form import MANIFEST, SUMS, DumpId, Manifest, Plan, Sealed, archive_name
from jobs.backup.packing import PACKED
from jobs.backup.pipeline import Streamed, stream
from jobs.backup.ports import Clock, Tell, nobody
from jobs.backup.programs import Bounds, check_room, program
from jobs.backup.stores.base import disagreement, hash_file
from jobs.backup.stores.landing import landing, sync_folder
from orchestrator.childside import redact

FIRST_GUESS: Final = 0.25
"""Part of a database's size its first dump may take; later ones are judged by the last."""
GROWTH: Final = 1.2


def make(
    plan: Plan, dump: DumpId, previous: Manifest | None, *, clock: Clock, tell: Tell = nobody
) -> Manifest:
    """Dump the plan's database as `dump`; return what is now in the spool under `dumps`.

    `previous`: the last good dump, by whose size this one is judged. Raises `SourceFailed`,
    `ToolMissing`, `NotComplete`, `NoRoom`, `WrongKey`; then nothing of it is left.
    """
    spool = Path(plan.spool)
    server, parts = asking.ask(plan.dsn, plan.timeouts)
    clients = find(server.num, tls=server.tls, pg_bin=plan.pg_bin)
    guess = previous.size * GROWTH if previous else server.size * FIRST_GUESS
    check_room(spool, int(guess) + plan.limits.min_free_bytes)
    work = spool / "work" / str(dump)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, mode=0o700)
    try:
        began = clock.steady()
        streamed = _stream(plan, server, parts, clients, work, clock, tell)
        dumped = clock.steady()
        manifest = _describe(plan, dump, previous, server, clients, streamed, clock.wall())
        reread(work / manifest.archive, manifest, tell)
        timings = {"dump_s": dumped - began, "reread_s": clock.steady() - dumped}
        manifest = replace(manifest, timings={k: round(v, 3) for k, v in timings.items()})
        publish(work, spool / "dumps" / str(dump), manifest)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _stream(
    plan: Plan,
    server: source.Server,
    parts: Mapping[str, str],
    clients: Clients,
    work: Path,
    clock: Clock,
    tell: Tell,
) -> Streamed:
    bounds = Bounds(plan.timeouts.dump_s, plan.timeouts.silence_s, plan.limits.min_free_bytes)
    level = around(plan, clients)
    name = archive_name(packed=bool(level), sealed=plan.encrypt is not None)
    hidden = source.secrets(plan.dsn, parts)
    with (
        source.doorway(parts, plan.timeouts, work, tls=server.tls) as env,
        landing(work / name) as out,
        program(arguments(plan, clients), env, work, stdin=subprocess.DEVNULL, stdout=-1) as dumper,
        program(
            [*_gently(), clients.path("pg_restore"), "--data-only", "--file=-"],
            environment(),
            work,
            stdin=-1,
            stdout=-1,
        ) as proof,
    ):
        return stream(
            dumper,
            proof,
            out,
            level=level,
            recipient=plan.encrypt.recipient if plan.encrypt else "",
            kinds=kinds(plan),
            bounds=bounds,
            clock=clock,
            progress=lambda done, total: tell("dump", done, total),
            redacted=lambda text: redact(text, hidden),
        )


def arguments(plan: Plan, clients: Clients) -> list[str]:
    """Return pg_dump's argument list; there is no secret in it.

    pg_dump sets the server's statement and lock timeouts to 0 itself, so a lock is bounded by its
    own option and statements by the deadline of the whole dump.
    """
    argv = [
        *_gently(),
        clients.path("pg_dump"),
        "--format=custom",
        f"--compress={compression(plan, clients)}",
        "--no-password",
        f"--lock-wait-timeout={int(plan.timeouts.lock_s * 1000)}",
    ]
    for option, names in (
        ("--schema", plan.include.schemas),
        ("--exclude-schema", plan.exclude.schemas),
    ):
        argv += [f"{option}={_quoted(name)}" for name in names]
    # Without its partitions a table would be there without its rows.
    whole = "-and-children" if clients.major >= 16 else ""  # noqa: PLR2004 - release notes of 16
    for option, names in (
        (f"--table{whole}", plan.include.tables),
        (f"--exclude-table{whole}", plan.exclude.tables),
    ):
        argv += [f"{option}={'.'.join(map(_quoted, name.split('.', 1)))}" for name in names]
    if plan.include.schemas or plan.include.tables:
        argv.append("--strict-names")  # a table that was renamed must not vanish from the backup
    return [*argv, f"--dbname=service={source.SERVICE}"]


def around(plan: Plan, clients: Clients) -> int:
    """Return the level of zstd around the archive, 0 where it is compressed inside or not at all.

    pg_dump's own compression, but for its zstd, takes most of the CPU of a dump.
    """
    return 0 if clients.zstd else plan.level


def compression(plan: Plan, clients: Clients) -> str:
    """Return what pg_dump compresses with, inside the archive: zstd where it can, else nothing.

    What is compressed inside pg_restore can read piece by piece, without unpacking all of it first.
    """
    return f"zstd:{plan.level}" if clients.zstd and plan.level else "0"


def _quoted(name: str) -> str:
    """Quote a name in a pattern of pg_dump's: nothing in it is a wildcard."""
    return '"' + name.replace('"', '""') + '"'


def _gently() -> list[str]:
    """Return what makes a program yield to others: the daemon serves meanwhile."""
    prefix = ["nice", "-n", "10"] if shutil.which("nice") else []
    return prefix + (["ionice", "-c", "2", "-n", "7"] if shutil.which("ionice") else [])


def kinds(plan: Plan) -> tuple[str, ...]:
    """SHA-256 always; MD5 too for stores that vouch for nothing better."""
    others = {copy.target.scheme for copy in plan.copies} & {"rclone", "gs"}
    return ("sha256", "md5") if others else ("sha256",)


def _describe(
    plan: Plan,
    dump: DumpId,
    previous: Manifest | None,
    server: source.Server,
    clients: Clients,
    streamed: Streamed,
    wall: float,
) -> Manifest:
    hashes = dict(streamed.hashes)
    sealed = Sealed(fingerprint(plan.encrypt.recipient)) if plan.encrypt else None
    suspicious = ""
    if previous and streamed.size < plan.limits.shrink * previous.size:
        part = 100 * streamed.size / previous.size
        suspicious = f"its size is {part:.0f} % of the last one's, {previous.id}"
    return Manifest(
        name=plan.name,
        id=str(dump),
        sequence=dump.sequence,
        created_at=datetime.fromtimestamp(wall, UTC),
        server_version=server.version,
        client_version=clients.version,
        database=server.database,
        size=streamed.size,
        sha256=hashes.pop("sha256"),
        plain_sha256=streamed.plain_sha256,
        compressed=f"zstd:{plan.level}" if plan.level else "0",
        packed=PACKED if around(plan, clients) else "",
        plain_size=streamed.plain_size,
        hashes=hashes,
        encrypted=sealed,
        tables=streamed.tables,
        suspicious=suspicious,
    )


def fingerprint(recipient: str) -> str:
    """Return what names a public key in a manifest: 16 digits of its SHA-256."""
    return hashlib.sha256(recipient.encode()).hexdigest()[:16]


def reread(archive: Path, manifest: Manifest, tell: Tell) -> None:
    """Read what is on the disk, not what the kernel remembers of it, and compare."""
    tell("reread", 0, manifest.size)
    handle = os.open(archive, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
    found = hash_file(archive, ("sha256",))
    if disagreement(found, {"sha256": manifest.sha256}) or archive.stat().st_size != manifest.size:
        raise NotComplete("the disk does not hold what was written to it")


def publish(work: Path, final: Path, manifest: Manifest) -> None:
    """Write sums and manifest, and let the dump appear."""
    with landing(work / SUMS) as file:
        file.write(f"{manifest.sha256}  {manifest.archive}\n".encode())
    with landing(work / MANIFEST) as file:
        file.write(manifest.dump())
    final.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        work.rename(final)
    except OSError as error:
        raise SourceFailed(f"the spool refused a dump: {os.strerror(error.errno or 0)}") from None
    sync_folder(final.parent)
