"""What agents are told to do: they hear of it with every heartbeat until they have done it."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.draft import Draft
from orchestrator.core.events import Answer
from orchestrator.core.lives import Do, Order
from orchestrator.core.refusal import Refused, known
from orchestrator.core.registry import Tell

ORDERS = 8  # told to one agent and not yet done


def tell(draft: Draft, command: Tell) -> None:
    """Have a backend's agent do something; it hears of it with its next heartbeat."""
    known(draft, command.backend, "backend")
    state = draft.backend(command.backend)
    if state.session is None:
        raise Refused(f"`{command.backend}` has no session, so there is no agent to tell")
    if not order(draft, command.backend, command.do):
        draft.answer = Answer(f"its agent is told already to {command.do.value}")
        return
    draft.answer = Answer(f"{command.backend} will {command.do.value} at its next heartbeat")


def order(draft: Draft, name: str, do: Do) -> bool:
    """Add an order for a session's agent; False if the same one still waits, or too many do."""
    state = draft.backend(name)
    session = state.session
    if session is None or len(session.orders) >= ORDERS:
        return False
    if any(waiting.do is do for waiting in session.orders):
        return False
    number = session.ordered + 1
    orders = (*session.orders, Order(number, do, draft.at))
    draft.put_backend(
        replace(state, session=replace(session, orders=orders, ordered=number)), durable=True
    )
    draft.note("agent_told", name, f"{name}: its agent is told to {do.value}")
    return True
