"""What the agent is told: by keyword, by option, by environment, in this order of precedence."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from .clock import seconds
from .errors import Refused

ENGINES = (
    *("openai", "ollama", "vllm", "llamacpp", "tgi", "textgen", "litellm", "lmstudio"),
    *("koboldcpp", "aion", "http", "tcp"),
)
TUNNELS = ("cloudflared", "ngrok", "none")
COMMA, WORDS = "comma", "words"  # how a list is written in one text
_GITHUB = "https://github.com"


def _told(default: Any, says: str, split: str = "") -> Any:
    return field(default=default, metadata={"says": says, "split": split})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the agent is told except secrets. A name's `_s` is not part of the option's."""

    aion: str = _told("", "address of the daemon, as https://aion.example.org")
    backend: str = _told("", "name of this backend in the daemon's configuration")
    engine: str = _told("ollama", f"what serves the model: {', '.join(ENGINES)}")
    models: tuple[str, ...] = _told((), "models to serve, separated by commas", COMMA)
    tunnel: str = _told("", "how the world gets in: cloudflared, ngrok, none (then --url)")
    url: str = _told("", "public address: of a named tunnel, an ngrok domain, or this machine")
    listen: str = _told("127.0.0.1", "address that the proxy listens at")
    port: int = _told(8766, "port of the proxy; 0: any")
    engine_url: str = _told("", "address of an engine that runs already; starts none")
    engine_port: int = _told(0, "port for the engine; 0: its usual one")
    engine_command: tuple[str, ...] = _told(
        (), "how to start the engine; {port} and {model} are filled in", WORDS
    )
    engine_args: tuple[str, ...] = _told((), "more arguments for the engine", WORDS)
    engine_dir: str = _told("", "folder to start the engine in")
    keep_alive: str = _told("-1", "how long Ollama keeps a model loaded; -1: for ever")
    install: bool = _told(True, "fetch Ollama, cloudflared or ngrok where it is missing")
    token_file: str = _told("", "file that holds the backend's token")
    state: str = _told("~/.aion-agent", "folder for the state, logs and installed programs")
    watch: str = _told("", "folder to watch for a file named restart, save, drain or stop")
    save_command: tuple[str, ...] = _told((), "command that saves what must not be lost", WORDS)
    save_from: tuple[str, ...] = _told((), "folders and files to copy with rclone", COMMA)
    save_to: str = _told("", "rclone remote they go to, as gdrive:aion/colab")
    save_every_s: float = _told(1800.0, "how often to save; 0: only at the end")
    save_margin_s: float = _told(300.0, "how long before the session's end to save once more")
    save_timeout_s: float = _told(600.0, "how long a save may take")
    origins: str = _told("*", "origin that browsers may ask from; *: any")
    paths: tuple[str, ...] = _told((), "more paths of the engine that clients may ask for", COMMA)
    max_body_mb: float = _told(20.0, "largest request body, in MB")
    max_streams: int = _told(64, "requests open at once; more are told to come back")
    idle_s: float = _told(600.0, "longest silence of the engine within an answer")
    engine_check_s: float = _told(5.0, "how often to look at the engine")
    load_timeout_s: float = _told(3600.0, "how long the engine may load before it is restarted")
    hang_s: float = _told(120.0, "how long a ready engine may fail before it is restarted")
    tunnel_check_s: float = _told(60.0, "how often to ask the own public address")
    tunnel_patience_s: float = _told(90.0, "how long a tunnel may fail before it is restarted")
    drain_s: float = _told(120.0, "how long open answers may take to end")
    linger_s: float = _told(30.0, "how long a superseded agent still takes requests")
    retry_most_s: float = _told(30.0, "longest wait between tries")
    doh: str = _told("https://1.1.1.1/dns-query", "DNS over HTTPS, for fresh names; empty: none")
    insecure: bool = _told(False, "let plain http to and from the daemon, in a network of your own")
    ollama_download: str = _told(
        "https://ollama.com/download/ollama-linux-{arch}.tar.zst", "where Ollama is fetched"
    )
    ollama_sha256: str = _told("", "what that file must hash to")
    cloudflared_download: str = _told(
        f"{_GITHUB}/cloudflare/cloudflared/releases/latest/download/cloudflared-linux-{{arch}}",
        "where cloudflared is fetched",
    )
    cloudflared_sha256: str = _told("", "what that file must hash to")
    ngrok_download: str = _told(
        "https://bin.equinox.io/c/bNyj1mQVY4c/ngrok-v3-stable-linux-{arch}.tgz",
        "where ngrok is fetched",
    )
    ngrok_sha256: str = _told("", "what that file must hash to")

    @property
    def local(self) -> str:
        """Where this machine reaches the proxy."""
        return "127.0.0.1" if self.listen in ("", "0.0.0.0", "::") else self.listen  # noqa: S104


def option_of(name: str) -> str:
    """Give the option's name of a setting: without its unit."""
    return name.removesuffix("_s")


NAMES = {option_of(one.name): one.name for one in fields(Settings)}


def made(given: Mapping[str, Any], env: Mapping[str, str] | None = None) -> Settings:
    """Make the settings of what was given and of `AION_…` in the environment. Raises Refused."""
    env = os.environ if env is None else env
    for name in given:
        if option_of(name) not in NAMES:
            near = get_close_matches(name, NAMES, 1)
            raise Refused(f"no option “{name}”" + (f"; did you mean {near[0]}?" if near else ""))
    told = {NAMES[option_of(name)]: value for name, value in given.items() if value is not None}
    values = {}
    for one in fields(Settings):
        option = option_of(one.name)
        value = told.get(one.name, env.get(f"AION_{option.upper()}"))
        if value is not None:
            values[one.name] = _typed(option, value, one.default, one.metadata["split"])
    return _checked(Settings(**values))


def _typed(option: str, value: Any, default: Any, split: str) -> Any:
    """Read one value, text or not, as what its setting is."""
    if isinstance(default, tuple):
        return _listed(option, value, split)
    if isinstance(default, bool):
        if isinstance(value, str):
            return value.strip().lower() in ("1", "true", "yes", "on")
        return bool(value)
    if isinstance(default, float):
        if option.endswith("_mb"):
            return _number(option, value)
        return seconds(value, option) if isinstance(value, str) else _number(option, value)
    return int(_number(option, value)) if isinstance(default, int) else str(value).strip()


def _listed(option: str, value: Any, split: str) -> tuple[str, ...]:
    if not isinstance(value, str):
        return tuple(str(one) for one in value)
    if split == COMMA:
        return tuple(one.strip() for one in value.split(",") if one.strip())
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise Refused(f"{option}: {error}") from None


def _number(option: str, value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise Refused(f"{option}: “{value}” is no number") from None
    if found < 0 or found != found:  # noqa: PLR0124 - NaN is not itself
        raise Refused(f"{option}: {value} makes no sense")
    return found


def loopback(host: str | None) -> bool:
    """Say whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _address(name: str, value: str, *, plain: bool) -> str:
    """Check an address; `plain`: http may do elsewhere than on this machine."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused(f"{name}: “{value}” is no address; write it as https://host")
    if parts.username or parts.query or parts.fragment:
        raise Refused(f"{name}: an address with nothing but host, port and path, please")
    if parts.scheme == "http" and not plain and not loopback(parts.hostname):
        raise Refused(f"{name}: https, please: what goes there is secret ({value})")
    return value.rstrip("/")


def _checked(found: Settings) -> Settings:
    """Hold the settings against each other. Raises Refused."""
    if not found.aion:
        raise Refused("aion: where is the daemon? as aion=https://aion.example.org")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", found.backend):
        raise Refused("backend: the name of this backend in the daemon's configuration")
    if found.engine not in ENGINES:
        near = get_close_matches(found.engine, ENGINES, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(ENGINES)}"
        raise Refused(f"engine: no engine “{found.engine}”; {hint}")
    if (found.save_from and not found.save_to) or (found.save_to and not found.save_from):
        raise Refused("save_from and save_to go together")
    values = {one.name: getattr(found, one.name) for one in fields(Settings)}
    values["aion"] = _address("aion", found.aion, plain=found.insecure)
    values["tunnel"] = found.tunnel or ("none" if found.url else "cloudflared")
    if values["tunnel"] not in TUNNELS:
        raise Refused(f"tunnel: “{found.tunnel}” is none of {', '.join(TUNNELS)}")
    if found.url:
        values["url"] = _address("url", found.url, plain=found.insecure)
        if urlsplit(found.url).path.strip("/"):
            raise Refused("url: an address without a path, please")
    elif values["tunnel"] == "none":
        raise Refused("tunnel none: then url says where the world finds this machine")
    if found.engine_url:
        values["engine_url"] = _address("engine_url", found.engine_url, plain=True)
    return Settings(**values)
