"""`aion status`: who serves what, until when, what is next, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import Cell
from orchestrator.cli.times import ago, until

if TYPE_CHECKING:
    from orchestrator.cli.output import Output, Row

WATCH_S = 1.0
TROUBLED = 3
STATE_STYLES = {
    "serving": "good",
    "starting": "warn",
    "degraded": "warn",
    "paused": "warn",
    "isolated": "bad",
    "down": "bad",
}
HEALTH_STYLES = {"up": "good", "degraded": "warn", "warming": "warn", "starting": "warn"}
SEVERITY_STYLES = {"critical": "bad", "warning": "warn", "info": ""}


def status(
    ctx: typer.Context,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep showing it until Ctrl-C.")
    ] = False,
) -> int:
    """Show who serves what, until when, what is next, and open incidents.

    Exit 0 while every service is served as it should be, 3 when one is degraded or down.
    """
    given = ctx.obj
    output, client = given.output(), given.client()
    if watch:
        from orchestrator.cli.watching import keep_showing

        keep_showing(output, lambda: client.get("/api/status"), show, WATCH_S)
        return 0
    seen = client.get("/api/status")
    if output.json:
        output.data(seen)
    else:
        show(output, seen)
    return exit_code(seen)


def exit_code(seen: Mapping[str, Any]) -> int:
    """Say 0 or 3 as scripts need it: somebody serves each service, in full health, or not."""
    unserved = any(service["active"] is None for service in seen["services"])
    return TROUBLED if unserved or seen["state"] in {"degraded", "down", "isolated"} else 0


def show(output: Output, seen: Mapping[str, Any]) -> None:
    """Print a status answer for a person."""
    at = seen["as_of"]
    _headline(output, seen)
    output.line()
    output.table(
        ("service", "state", "served by", "for", "until", "next"),
        [_service(service, seen, at) for service in seen["services"]],
    )
    for service in seen["services"]:
        if service["state"] != "serving":
            would = f"; without that: {service['would']}" if service["would"] else ""
            output.line(Cell(f"{service['name']}: {service['reason']}{would}", "dim"))
    output.line()
    output.table(
        ("backend", "health", "for", "ends", "serves", "what is known"),
        [_backend(backend, at) for backend in seen["backends"]],
    )
    if seen["incidents"]:
        output.line()
        output.table(INCIDENT_COLUMNS, [incident(one, at) for one in seen["incidents"]])


def _headline(output: Output, seen: Mapping[str, Any]) -> None:
    at, state = seen["as_of"], seen["state"]
    running = ago(seen["started_at"], at)
    output.line(
        Cell(state, STATE_STYLES.get(state, "")),
        Cell(f"  aion {seen['version']}" + (f", up for {running}" if running else ""), "dim"),
    )
    if seen["shadow"]:
        output.line(Cell("shadow: it only says what it would do", "warn"))
    if paused := seen["paused"]:
        by = f" by {paused['by']}" if paused["by"] else ""
        end = until(paused["until"], at) or "resumed"
        output.line(Cell(f"paused{by} for {ago(paused['since'], at)}, until {end}", "warn"))
    if seen["isolated_since"]:
        since = ago(seen["isolated_since"], at)
        output.line(Cell(f"isolated for {since}: this machine has lost its network", "bad"))
    if waiting := seen["notices_waiting"]:
        what = "1 notice waits" if waiting == 1 else f"{waiting} notices wait"
        output.line(Cell(f"{what} to be sent", "warn"))


def _service(service: Mapping[str, Any], seen: Mapping[str, Any], at: str) -> Row:
    state = service["state"]
    ends = {
        backend["name"]: (backend["session"] or {}).get("ends_at") for backend in seen["backends"]
    }
    return (
        Cell(service["name"], "strong"),
        Cell(state, STATE_STYLES.get(state, "")),
        service["active"] or Cell("nobody", "bad"),
        ago(service["since"], at),
        until(ends.get(service["active"] or ""), at),
        _next(service, at),
    )


def _next(service: Mapping[str, Any], at: str) -> str:
    """Say what will happen, else who would be next."""
    if rotation := service["rotation"]:
        return f"moving to {rotation['new']} ({rotation['phase']})"
    if planned := service["planned"]:
        return f"{planned['to']} at {until(planned['at'], at)}"
    if pin := service["pin"]:
        hard = "hard-pinned" if pin["hard"] else "pinned"
        return f"{hard} to {pin['backend']} until {until(pin['until'], at)}"
    if service["active"] is None and service["retry_at"]:
        return f"again {until(service['retry_at'], at)}"
    return service["fallbacks"][0] if service["fallbacks"] else "no fallback"


def _backend(backend: Mapping[str, Any], at: str) -> Row:
    health = "drained" if backend["drained"] else backend["health"]
    if backend["suspect"]:
        health += ", in doubt"
    style = "warn" if backend["suspect"] else HEALTH_STYLES.get(health, "")
    return (
        Cell(backend["name"], "strong" if backend["serves"] else ""),
        Cell(health, "bad" if backend["health"] == "down" else style),
        ago(backend["since"], at),
        until((backend["session"] or {}).get("ends_at"), at),
        ", ".join(backend["serves"]),
        Cell(_known(backend), "dim"),
    )


def _known(backend: Mapping[str, Any]) -> str:
    """Say why it is as it is, and how the one that registered after it fares."""
    known = str(backend["barred"] or _power(backend) or backend["reason"])
    if pending := backend["pending"]:
        fares = pending["problem"] or pending["detail"] or "asked to prove itself"
        known += f"; no. {pending['generation']} registered: {fares}"
    return known


def _power(backend: Mapping[str, Any]) -> str:
    """Say that it is off, or on its way, if aion can start it."""
    power = backend.get("power")
    if power is None or power["phase"] in {"on", "unknown"}:
        return ""
    words = {"off": "off", "starting": "being started", "stopping": "being stopped"}
    why = power["detail"] or power["why"]
    return words[power["phase"]] + (f": {why}" if why else "")


INCIDENT_COLUMNS = ("incident", "severity", "open for", "state", "what")


def incident(one: Mapping[str, Any], at: str) -> Row:
    """Make an incident a row of `INCIDENT_COLUMNS`."""
    return (
        one["id"],
        Cell(one["severity"], SEVERITY_STYLES.get(one["severity"], "")),
        ago(one["opened_at"], at),
        _handled(one, at),
        one["text"],
    )


def _handled(one: Mapping[str, Any], at: str) -> str:
    if one["acked_at"]:
        return f"acknowledged by {one['acked_by']}" if one["acked_by"] else "acknowledged"
    muted = until(one["muted_until"], at)
    return f"muted until {muted}" if "(in " in muted else "open"
