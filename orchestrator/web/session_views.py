"""What `/api` shows of sessions and tokens: never a secret, nor what is kept of one."""

from __future__ import annotations

from orchestrator.core.lives import PastSession, Session, Token
from orchestrator.core.model import BackendState, Fleet, Now
from orchestrator.core.tokens import good
from orchestrator.web.standing import rfc3339
from orchestrator.web.viewing import Time, View


class GpuView(View):
    """What computes there."""

    name: str
    memory_mb: int | None


class OrderView(View):
    """Something its agent was told and has not done yet: drain, save, restart, stop."""

    id: int
    do: str
    at: Time | None


class SessionView(View):
    """One life of a backend that comes and goes.

    `state` is what its agent says, `detail` its words; `busy`: streams open there. `promoted_at`:
    when it had proved itself; null while it is pending, and then `problem` says why it has not.
    """

    id: str
    backend: str
    generation: int
    url: str
    state: str
    detail: str
    busy: int
    models: list[str]
    gpu: GpuView | None
    agent: str
    started_at: Time | None
    registered_at: Time | None
    promoted_at: Time | None
    beat_at: Time | None
    ends_at: Time | None
    problem: str
    orders: list[OrderView]


class PastView(View):
    """A session that is over, and why."""

    id: str
    backend: str
    generation: int
    url: str
    started_at: Time | None
    ended_at: Time | None
    why: str


class SessionsView(View):
    """Who is registered. `live` serve or could, `pending` have not proved themselves yet."""

    live: list[SessionView]
    pending: list[SessionView]
    past: list[PastView]


class TokenView(View):
    """A token that lets a backend register; `by`: who made it.

    `launch`: the start that alone it is good for, "" for any; `spent_at`: when its session first
    served. `valid`: it would open a session now.
    """

    id: str
    backend: str
    created_at: Time | None
    by: str
    revoked_at: Time | None
    launch: str = ""
    spent_at: Time | None = None
    valid: bool = True


class MadeToken(View):
    """A new token. `token` is shown this once and not kept."""

    id: str
    backend: str
    token: str
    text: str


def session_view(backend: str, session: Session, now: Now) -> SessionView:
    """Show a live session."""
    gpu = GpuView(name=session.gpu, memory_mb=session.gpu_memory_mb)
    return SessionView(
        id=session.id,
        backend=backend,
        generation=session.generation,
        url=session.url,
        state=session.state,
        detail=session.detail,
        busy=session.busy,
        models=list(session.models),
        gpu=gpu if gpu.name or gpu.memory_mb is not None else None,
        agent=session.agent,
        started_at=rfc3339(session.started_at, now),
        registered_at=rfc3339(session.registered_at or None, now),
        promoted_at=rfc3339(session.promoted_at, now),
        beat_at=rfc3339(session.beat_at, now),
        ends_at=rfc3339(session.ends_at, now),
        problem=session.problem,
        orders=[
            OrderView(id=order.id, do=order.do.value, at=rfc3339(order.at, now))
            for order in session.orders
        ],
    )


def past_view(past: PastSession, now: Now) -> PastView:
    """Show a session that is over."""
    return PastView(
        id=past.id,
        backend=past.backend,
        generation=past.generation,
        url=past.url,
        started_at=rfc3339(past.started_at, now),
        ended_at=rfc3339(past.ended_at, now),
        why=past.why,
    )


def sessions_view(fleet: Fleet, past: list[PastSession], now: Now) -> SessionsView:
    """Show all sessions, in the order of the configuration; those that are over latest first."""
    states = [fleet.backends[name] for name in fleet.config.backends if name in fleet.backends]
    return SessionsView(
        live=[session_view(one.name, one.session, now) for one in states if one.session],
        pending=[session_view(one.name, one.pending, now) for one in states if one.pending],
        past=[past_view(one, now) for one in past],
    )


def token_view(token: Token, state: BackendState | None, now: Now) -> TokenView:
    """Show a token of a backend, whose state this is."""
    return TokenView(
        id=token.id,
        backend=token.backend,
        created_at=rfc3339(token.created_at, now),
        by=token.by,
        revoked_at=rfc3339(token.revoked_at, now),
        launch=token.launch,
        spent_at=rfc3339(token.spent_at, now),
        valid=good(token, state, now.at),
    )
