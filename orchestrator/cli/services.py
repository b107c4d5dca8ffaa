"""What verbs that steer share: which service is meant, and telling what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from orchestrator.cli.output import clean
from orchestrator.errors import Declined

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.options import Given


def one_service(client: Client, name: str | None) -> Mapping[str, Any]:
    """Return the named service, or the only one. Raises Declined when several could be meant."""
    if name is not None:
        found: Mapping[str, Any] = client.get(f"/api/services/{quote(name, safe='')}")
        return found
    services: list[Mapping[str, Any]] = client.get("/api/services")
    if len(services) != 1:
        names = ", ".join(clean(one["name"]) for one in services) or "none"
        raise Declined(f"say which service: {names}")
    return services[0]


def tell(given: Given, answer: Any) -> None:
    """Print a command's answer: its sentence, or with --json all of it."""
    output = given.output()
    if output.json:
        output.data(answer)
    elif not output.quiet:
        output.line(str(answer["text"]) if answer else "done")
