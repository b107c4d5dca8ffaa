"""Secrets: where they are found, and how they stay unsaid."""

from __future__ import annotations

import getpass
import importlib
import os
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import Refused
from .place import where
from .settings import Settings

TOKEN = "AION_TOKEN"  # noqa: S105 - the name of one
ENGINE_KEY = "AION_ENGINE_KEY"
NGROK = "NGROK_AUTHTOKEN"
CLOUDFLARED = "TUNNEL_TOKEN"
HUGGING_FACE = "HF_TOKEN"
SHORTEST = 6  # shorter ones would blacken half of every line


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The secrets of one run; an empty one is not there. Never shown."""

    token: str = field(repr=False)
    engine: str = field(default="", repr=False)
    ngrok: str = field(default="", repr=False)
    cloudflared: str = field(default="", repr=False)
    hugging_face: str = field(default="", repr=False)


class Redactor:
    """Takes secrets out of whatever is said."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def add(self, secret: str) -> None:
        """Never let this be said."""
        if len(secret) >= SHORTEST:
            self._secrets.add(secret)

    def clean(self, text: str, most: int = 400) -> str:
        """Make a text one harmless line of at most `most` characters."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "•••")
        text = re.sub(r"(?i)\b(bearer |(?:token|key|secret|password)[=:] ?)\S{8,}", r"\1•••", text)
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= most else text[: most - 1] + "…"


def from_colab(name: str) -> str:
    """Ask Colab's secrets. They can be asked only in the main thread of the notebook's kernel."""
    if where() != "colab" or threading.current_thread() is not _main():
        return ""
    try:
        userdata: Any = importlib.import_module("google.colab.userdata")
        return str(userdata.get(name) or "")
    except Exception as error:  # noqa: BLE001 - its exceptions are its own: not there, not allowed
        if type(error).__name__ == "NotebookAccessError":
            raise Refused(f"Colab: let this notebook see the secret {name} (key symbol)") from None
        return ""


def from_kaggle(name: str) -> str:
    """Ask Kaggle's secrets."""
    if "KAGGLE_KERNEL_RUN_TYPE" not in os.environ:
        return ""
    try:
        secrets: Any = importlib.import_module("kaggle_secrets")
        return str(secrets.UserSecretsClient().get_secret(name) or "")
    except Exception:  # noqa: BLE001 - its exceptions are its own: not there, not attached
        return ""


def _main() -> threading.Thread:
    return threading.main_thread()


def found(name: str, env_too: str = "") -> str:
    """Look for a secret: environment, Colab, Kaggle. Empty if it is nowhere."""
    for one in (name, env_too):
        if one and os.environ.get(one):
            return os.environ[one].strip()
    return (from_colab(name) or from_kaggle(name)).strip()


def _read(path: str) -> str:
    try:
        return Path(path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"token_file: {path} cannot be read ({type(error).__name__})") from None


def _asked(backend: str) -> str:
    """Ask whoever sits there; empty if nobody does."""
    try:
        return getpass.getpass(f"Token of backend {backend}: ").strip()
    except Exception:  # noqa: BLE001 - no terminal; notebooks that run by themselves raise their own
        return ""


def prompting() -> bool:
    """Say whether somebody may sit there who can be asked."""
    return sys.stdin is not None and (sys.stdin.isatty() or "ipykernel" in sys.modules)


def gather(
    settings: Settings,
    token: str = "",
    ask: Callable[[str], str] | None = None,
) -> Keys:
    """Find all secrets that these settings need. Raises Refused if there is no token."""
    token = token or (_read(settings.token_file) if settings.token_file else found(TOKEN))
    if not token and (ask or prompting()):
        token = (ask or _asked)(settings.backend)
    if not token:
        raise Refused(
            f"no token: put the backend's token (aion token new {settings.backend}) "
            f"into the secret {TOKEN}"
        )
    hub = settings.engine in ("vllm", "tgi", "llamacpp", "textgen") and not settings.engine_url
    return Keys(
        token=token,
        engine=found(ENGINE_KEY),
        ngrok=found(NGROK) if settings.tunnel == "ngrok" else "",
        cloudflared=_named(settings),
        hugging_face=found(HUGGING_FACE) if hub else "",
    )


def _named(settings: Settings) -> str:
    """Find the token of a named tunnel, which has an address of its own."""
    if settings.tunnel != "cloudflared" or not settings.url:
        return ""
    if token := found(CLOUDFLARED, "CLOUDFLARED_TOKEN"):
        return token
    raise Refused(f"a named tunnel needs its token in the secret {CLOUDFLARED}")


def environment(*dropped: str, **more: str) -> dict[str, str]:
    """Give the environment for a child: ours, without our secrets, and with `more`."""
    secret = {NGROK, CLOUDFLARED, "CLOUDFLARED_TOKEN", *dropped}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in secret and not name.startswith("AION_")
    }
    return kept | more
