"""The kinds of backend, imported on first use: name → module with `Options` and `Driver`."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from backends.base import Checks, Driver, Options, Plan, Ports, Registered

KINDS: Final[dict[str, str]] = {
    "static": "backends.static",
    "api": "backends.api",
    "notebook": "backends.notebook",
    "kaggle": "backends.kaggle",
    "command": "backends.command",
    "gce": "backends.gce",
    "runpod": "backends.runpod",
    "vast": "backends.vast",
    "libcloud": "backends.libcloud",
    "colab": "backends.colab",
    "fake": "backends.fake",
}

ENGINES: Final[tuple[str, ...]] = (
    "openai",
    "ollama",
    "vllm",
    "llamacpp",
    "tgi",
    "textgen",
    "litellm",
    "lmstudio",
    "koboldcpp",
    "aion",
    "http",
    "tcp",
)
"""Names of the engines, without importing what they are (`backends.engines`, `backends.static`)."""

REGISTERS: Final[frozenset[str]] = frozenset({"notebook", "kaggle", "colab"})
"""Kinds whose address arrives with a session."""

POWERED: Final[frozenset[str]] = frozenset(
    {"colab", "command", "gce", "kaggle", "libcloud", "runpod", "vast"}
)
"""Kinds whose drivers do what `backends.base.Powered` says."""

CARRIES: Final[frozenset[str]] = frozenset({"colab", "kaggle"})
"""Kinds whose launches carry where the daemon is reached, and a token of their own."""

CANARYLESS: Final[frozenset[str]] = frozenset({"http", "tcp"})
"""Engines of which no completion can be asked: no canary is to be planned for them."""


def registers(kind: str, options: object) -> bool:
    """Say whether a backend's address arrives with a session."""
    return kind in REGISTERS or bool(getattr(options, "registers", False))


def powered(kind: str, options: object) -> bool:
    """Say whether aion can start and stop a backend."""
    return kind in POWERED or bool(getattr(options, "power", None))


def kind(name: str) -> ModuleType:
    """Import the module of a kind. Raises KeyError for a name that is not in KINDS."""
    return import_module(KINDS[name])


def options(name: str) -> type[Options]:
    """Give the class that a kind's own keys are validated with."""
    found: type[Options] = kind(name).Options
    return found


def checks(name: str) -> Checks | None:
    """Give what a kind has `aion doctor` look at, None where it has nothing of its own."""
    found: Checks | None = getattr(kind(name), "checks", None)
    return found


def driver(plan: Plan, ports: Ports) -> Driver:
    """Make the driver of a configured backend."""
    made: Any = kind(plan.backend.kind).Driver(plan, ports)
    found: Driver = made
    return found


def registered(plan: Plan, ports: Ports) -> Registered:
    """Make the driver of a backend whose address came with `plan.session`."""
    made: Any = kind(plan.backend.kind).Driver(plan, ports)
    found: Registered = made
    return found
