"""Finds the daemon's address and the admin token without loading the whole settings.

The full settings cost a third of a second to load and check; a verb needs two values of them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError, NotAllowed

DEFAULT_LISTEN = "127.0.0.1:8765"
TOKEN_NAME = "admin_token"  # noqa: S105  # a credential's name, not its value


@dataclass(frozen=True, slots=True)
class Where:
    """The daemon's base URL and the admin token, with a hint for when that is refused."""

    url: str
    token: str | None
    token_hint: str


def find(config: Path | None, url: str | None, token_file: Path | None) -> Where:
    """Look where the daemon itself would look. Raises ConfigError, NotAllowed."""
    path = find_config(config)
    server = _server(path)
    listen = os.environ.get("AION_SERVER__LISTEN") or server.get("listen") or DEFAULT_LISTEN
    token, hint = _token(token_file, path, server)
    return Where(url or os.environ.get("AION_URL") or base_url(str(listen)), token, hint)


def find_config(config: Path | None) -> Path | None:
    """Return the configuration file the daemon would use, None if there is none."""
    if config is not None:
        return config
    if named := os.environ.get("AION_CONFIG"):
        return Path(named)
    usual = (Path("aion.toml"), Path("/etc/aion/aion.toml"))
    return next((path for path in usual if path.exists()), None)


def base_url(listen: str) -> str:
    """Return the address under which a daemon listening at `host:port` is reached from here."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if host in {"", "0.0.0.0", "*"}:  # noqa: S104
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(path: Path | None) -> Mapping[str, Any]:
    """Return the `[server]` table; what is wrong elsewhere in the file is not our business here."""
    if path is None:
        return {}
    try:
        server = tomllib.loads(path.read_text()).get("server", {})
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}; see aion config check") from error
    return server if isinstance(server, dict) else {}


def _token(
    token_file: Path | None, config: Path | None, server: Mapping[str, Any]
) -> tuple[str | None, str]:
    """Return the admin token, and what to do when it is refused or missing."""
    if token_file is not None:
        try:
            return token_file.read_text().strip(), f"it was read from {token_file}"
        except OSError as error:
            raise NotAllowed(f"cannot read {token_file}: {error.strerror}") from error
    reference = server.get("admin_token")
    name = reference.get("credential", TOKEN_NAME) if isinstance(reference, dict) else TOKEN_NAME
    hidden = []
    for path in _token_files(str(name), config, made=reference is None):
        try:
            return path.read_text().strip(), f"it was read from {path}"
        except PermissionError:
            hidden.append(path)
        except OSError:
            continue
    if value := os.environ.get(f"AION_CREDENTIAL_{re.sub('[^A-Z0-9]', '_', str(name).upper())}"):
        return value.strip(), "it was taken from the environment"
    if hidden:
        return None, f"{hidden[0]} is not yours to read: try with sudo, or give --token-file"
    return None, "none was found; give it with --token-file FILE (the daemon prints where it is)"


def _token_files(name: str, config: Path | None, *, made: bool) -> Iterator[Path]:
    """Yield where the token may be, in the daemon's own order; `made`: by the daemon itself."""
    if folder := os.environ.get("CREDENTIALS_DIRECTORY"):
        yield Path(folder) / name
    if config is not None:
        yield config.parent / "credentials" / name
    if made:
        state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        for place in (Path(state or "var"), Path("/var/lib/aion")):
            yield place / TOKEN_NAME


def operator() -> str:
    """Return who gives commands, for the audit: the login name, also behind sudo."""
    import getpass

    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return f"uid {os.getuid()}"
    return name if name.isascii() and name.isprintable() else f"uid {os.getuid()}"


def ourselves() -> str:
    """Say how to call us again: by the plain name only where that is found."""
    return "aion" if shutil.which("aion") else sys.argv[0]
