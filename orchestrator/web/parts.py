"""What the web is given to work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.core.model import Incident
from orchestrator.web.carrier import WebSettings
from orchestrator.web.ports import Backups, JobsPort, LoopPort, Reload, StorePort
from orchestrator.web.views import Tell


def plainly(incident: Incident) -> str:
    """Say an incident by its kind and subject, for want of a text."""
    return f"{incident.kind.replace('_', ' ')}: {incident.subject}".rstrip(": ")


@dataclass(frozen=True, slots=True)
class Parts:
    """The rest of the daemon as the web sees it. `tell` says an incident in one sentence.

    `sent` is told how many bytes are sent.
    """

    settings: WebSettings
    loop: LoopPort
    store: StorePort
    jobs: JobsPort | None = None
    reload: Reload | None = None
    tell: Tell = plainly
    version: str = "0"
    sent: Callable[[int], None] | None = None
    backups: Backups | None = None
