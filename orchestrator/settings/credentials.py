"""Where a secret named in the file is found, and the admin token that makes itself."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ConfigError
from orchestrator.settings.problems import looks_secret, shown
from orchestrator.settings.values import CREDENTIAL

ADMIN_TOKEN = "admin_token"  # noqa: S105  # a credential's name, not its value
LARGEST = 65_536
_TOKEN_LENGTH = 32
_TOKEN_VARIETY = 10


@dataclass(frozen=True, slots=True)
class Sources:
    """Where credentials are looked for, in this order.

    `systemd`: $CREDENTIALS_DIRECTORY; `folder`: `credentials` beside the file; then `environ`.
    """

    systemd: Path | None
    folder: Path
    environ: Mapping[str, str]

    @classmethod
    def of(cls, config: Path | None, environ: Mapping[str, str]) -> Sources:
        """Say where the credentials of a configuration file are."""
        given = environ.get("CREDENTIALS_DIRECTORY")
        folder = (config.parent if config else Path()).absolute() / "credentials"
        return cls(Path(given) if given else None, folder, environ)


def variable(name: str) -> str:
    """Name the environment variable that may hold a credential."""
    return "AION_CREDENTIAL_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def name_problem(name: str) -> str | None:
    """Say what is wrong with a credential's name, without repeating what may be the secret."""
    if looks_secret(name):
        return "this looks like the secret itself; a credential is given by a name of your choice"
    if not CREDENTIAL.fullmatch(name):
        return "a credential's name has 1 to 64 letters, digits, `.`, `_` and `-`"
    return None


def find(name: str, sources: Sources, *, lines: bool = False) -> str:
    """Return a secret; `lines`: it is a whole file, such as an rclone.conf.

    Raises ConfigError with what is wrong, which never holds the secret.
    """
    if problem := name_problem(name):
        raise ConfigError(problem)
    if sources.systemd and (sources.systemd / name).exists():
        return _clean(name, _read(sources.systemd / name, private=False), lines=lines)
    path = sources.folder / name
    if os.path.lexists(path):
        return _clean(name, _read(path, private=True), lines=lines)
    if (value := sources.environ.get(variable(name))) is not None:
        return _clean(name, value.encode(errors="surrogateescape"), lines=lines)
    raise ConfigError(f"credential `{name}` not found; fix: aion secret set {name}")


def where(name: str, sources: Sources) -> str | None:
    """Say where a credential comes from, None if it is nowhere."""
    if sources.systemd and (sources.systemd / name).exists():
        return str(sources.systemd / name)
    if os.path.lexists(sources.folder / name):
        return str(sources.folder / name)
    return variable(name) if variable(name) in sources.environ else None


def _read(path: Path, *, private: bool) -> bytes:
    place = shown(path, 200)
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ConfigError(f"{place} is not a file")
        if private and state.st_mode & 0o077:
            raise ConfigError(f"{place} can be read by others; fix: chmod 600 {place}")
        with path.open("rb") as file:
            value = file.read(LARGEST + 1)
    except OSError as error:
        said = (os.strerror(error.errno) if error.errno else "cannot be read").lower()
        fix = f"; fix: chown {_me()} {place}" if isinstance(error, PermissionError) else ""
        raise ConfigError(f"{place}: {said}{fix}") from error
    if len(value) > LARGEST:
        raise ConfigError(f"{place} is larger than {LARGEST // 1024} KB")
    return value


def _me() -> str:
    return str(os.geteuid())


def _clean(name: str, raw: bytes, *, lines: bool = False) -> str:
    try:
        value = raw.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"credential `{name}` is not text") from None
    value = value.removesuffix("\n").removesuffix("\r")
    if not value.strip():
        raise ConfigError(f"credential `{name}` is empty; fix: aion secret set {name}")
    if lines and not any(c < " " and c not in "\r\n\t" for c in value):
        return value
    if not value.isprintable() or value != value.strip():
        text = "holds blanks around it, more than one line, or control characters"
        raise ConfigError(f"credential `{name}` {text}; fix: aion secret set {name}")
    return value


def weakness(token: str) -> str | None:
    """Say why an admin token is too easily guessed, None if it is good."""
    if len(token) >= _TOKEN_LENGTH and len(set(token)) >= _TOKEN_VARIETY:
        return None
    return "is too easily guessed (at least 32 characters); fix: aion secret rotate"


def new_token() -> str:
    """Make a token of 256 bits."""
    return secrets.token_urlsafe(32)


def write(path: Path, value: str) -> None:
    """Put a secret into a file that only its owner can read, at once or not at all.

    Its folder is made if it is missing. Raises ConfigError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(value + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        said = (error.strerror or "cannot be written").lower()
        raise ConfigError(f"cannot write {shown(path, 200)}: {said}") from error


def ensure_admin_token(state_dir: Path) -> tuple[str, Path, bool]:
    """Return the daemon's own admin token, where it is kept, and whether it was made just now.

    For a configuration without `server.admin_token`. Raises ConfigError.
    """
    path = state_dir / ADMIN_TOKEN
    if os.path.lexists(path):
        token = _clean(ADMIN_TOKEN, _read(path, private=True))
        if bad := weakness(token):
            raise ConfigError(f"the admin token in {shown(path, 200)} {bad} {ADMIN_TOKEN}")
        return token, path, False
    token = new_token()
    write(path, token)
    return token, path, True
