"""The systemd unit as text: the template of `systemd/`, filled in for one installation."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import AionError, ConfigError

TEMPLATE = Path(__file__).parents[2] / "systemd" / "aion.service"
NAME = "aion.service"

# ProtectHome=, PrivateTmp= and PrivateDevices= hide these from the service.
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp", "/dev")  # noqa: S108
_PLAIN = re.compile(r"[A-Za-z0-9._/@+-]+")  # anything else would need systemd's quoting
_CREDENTIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Installation:
    """What the unit must say: where the program and its configuration are, and which secrets."""

    program: Path
    config: Path
    credentials: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the credentials' files are."""
        return self.config.parent / "credentials"


def render(installation: Installation, template: str | None = None) -> str:
    """Return the unit's text. Raises ConfigError for a path or name that can't stand in one."""
    for path in (installation.program, installation.config):
        if not path.is_absolute() or not _PLAIN.fullmatch(str(path)):
            raise ConfigError(f"{path} cannot stand in a unit: use an absolute path without spaces")
    text = template if template is not None else _template()
    start = f"ExecStart={installation.program} serve --config {installation.config}"
    text, found = re.subn(r"(?m)^ExecStart=.*$", start, text)
    if found != 1:
        raise AionError("the unit's template has no single ExecStart= line")
    lines = [f"LoadCredential={n}:{installation.folder / n}" for n in installation.credentials]
    text = re.sub(r"(?m)^# LoadCredential=.*$", "\n".join(lines) or "# (none configured)", text)
    return re.sub(r"(?m)^Documentation=.*\n", "", text)


def credentials(data: object) -> tuple[str, ...]:
    """Return the names of all credentials that a configuration's tables refer to, sorted.

    Raises ConfigError for a name that could be a path.
    """
    names = set(_references(data))
    for name in names:
        if not _CREDENTIAL.fullmatch(name):
            raise ConfigError(f"{name!r} is not a credential's name; see aion config check")
    return tuple(sorted(names))


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration's tables, unchecked. Raises ConfigError."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; aion init writes a configuration") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}; see aion config check") from error


def hidden(*paths: Path) -> Path | None:
    """Return the first of these paths that the sandbox hides from the service, if any."""
    return next((p for p in paths if any(p.is_relative_to(place) for place in HIDDEN)), None)


def _references(data: object) -> Iterator[str]:
    if isinstance(data, dict):
        name = data.get("credential")
        if isinstance(name, str) and len(data) == 1:
            yield name
            return
        for value in data.values():
            yield from _references(value)
    elif isinstance(data, list):
        for value in data:
            yield from _references(value)


def _template() -> str:
    try:
        return TEMPLATE.read_text()
    except OSError as error:
        raise AionError(
            f"cannot read {TEMPLATE}: {error.strerror}; run aion from its source folder's .venv"
        ) from error
