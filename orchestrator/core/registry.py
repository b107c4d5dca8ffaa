"""What backends that register say, and what is asked of their agents: events and commands."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.core.lives import Do


@dataclass(frozen=True, slots=True)
class Register:
    """A backend's agent says where it is, for as long as it lives.

    `session` and `secret` (SHA-256 of the session's token) were made for it; `token` is the id of
    the token it came with, or of the one that its session `holder` was opened with: who holds a
    session that lives may register anew with that one's own token. `age_s`: how long its run has
    lasted already, by its own clock.
    """

    backend: str
    session: str
    secret: str = field(repr=False)
    token: str
    url: str
    age_s: float = 0.0
    models: tuple[str, ...] = ()
    gpu: str = ""
    gpu_memory_mb: int | None = None
    agent: str = ""
    holder: str = ""


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell a backend's agent to do something."""

    backend: str
    do: Do


@dataclass(frozen=True, slots=True)
class MintToken:
    """Let a backend register with a new token, of which `secret` is the SHA-256."""

    id: str
    backend: str
    secret: str = field(repr=False)
    by: str = ""


@dataclass(frozen=True, slots=True)
class MintLaunchToken:
    """Let what is being started under `launch` register with a token that only it carries."""

    id: str
    backend: str
    secret: str = field(repr=False)
    launch: str


@dataclass(frozen=True, slots=True)
class RevokeTokens:
    """End tokens, and the sessions opened with them: those named, else all of `backend`."""

    ids: tuple[str, ...] = ()
    backend: str = ""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A session's agent spoke: `ready` says whether engine and tunnel work.

    `seq` grows with each of its heartbeats; 0 is one without a number. `loading`: not ready because
    the model is still being loaded. `done`: orders it carried out, with whether it could.
    """

    backend: str
    session: str
    ready: bool
    detail: str = ""
    ends_at: float | None = None
    seq: int = 0
    state: str = ""
    loading: bool = False
    busy: int = 0
    done: tuple[tuple[int, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Proved:
    """A session that registered was asked for its identity, its engine and a completion.

    `detail`: why it is not good enough, if it is not. `models` and `missing` as in Observation.
    """

    backend: str
    session: str
    ok: bool
    detail: str = ""
    models: tuple[str, ...] | None = None
    missing: tuple[str, ...] = ()
    canary: bool = False  # a completion was asked for, and came


@dataclass(frozen=True, slots=True)
class Challenged:
    """A session whose lease lapsed was asked to prove itself; `ok` says whether it could."""

    backend: str
    session: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Left:
    """A session ends: its agent said so, or `why` says what else ended it."""

    backend: str
    session: str
    why: str = "its agent left"


RegistryCommand = Register | Tell | MintToken | RevokeTokens
RegistryEvent = Heartbeat | Proved | Challenged | Left | MintLaunchToken
