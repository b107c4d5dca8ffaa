"""`aion backend`: look at backends, and take them out of rotation or put them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from orchestrator.cli.options import Yes
from orchestrator.cli.output import Cell
from orchestrator.cli.services import tell
from orchestrator.cli.session import known
from orchestrator.cli.status import HEALTH_STYLES
from orchestrator.cli.times import ago, until
from orchestrator.core.durations import spoken

if TYPE_CHECKING:
    from orchestrator.cli.options import Given
    from orchestrator.cli.output import Output, Row

app = typer.Typer()
Name = Annotated[str, typer.Argument()]


@app.callback()
def backend() -> None:
    """Look at backends, check them, take them out of rotation or put them back."""


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List every configured backend."""
    output, client = ctx.obj.output(), ctx.obj.client()
    seen = client.get("/api/status")
    if output.json:
        output.data(seen["backends"])
        return
    output.table(
        ("backend", "kind", "engine", "prio", "tier", "health", "serves", "address"),
        [_row(one) for one in seen["backends"]],
    )


def _row(one: Mapping[str, Any]) -> Row:
    return (
        Cell(one["name"], "strong" if one["serves"] else ""),
        one["kind"],
        one["engine"],
        str(one["priority"]),
        one["tier"],
        _health(one),
        ", ".join(one["serves"]),
        one["url"] or "",
    )


def _health(one: Mapping[str, Any]) -> Cell:
    text = one["health"] + (", in doubt" if one["suspect"] else "")
    text += ", drained" if one["drained"] else ""
    return Cell(text, HEALTH_STYLES.get(text, "bad" if one["health"] == "down" else "warn"))


@app.command()
def show(ctx: typer.Context, name: Name) -> None:
    """Show what is known of one backend, and why."""
    output, client = ctx.obj.output(), ctx.obj.client()
    one = client.get(_path(name))
    if output.json:
        output.data(one)
    else:
        _show(output, one, client.get("/api/status")["as_of"])


def _show(output: Output, one: Mapping[str, Any], at: str) -> None:
    session = one["session"] or {}
    output.fields(
        {
            "backend": Cell(one["name"], "strong"),
            "health": _health(one),
            "for": ago(one["since"], at),
            "why": one["reason"],
            "can serve": "yes" if one["able"] else f"no: {one['barred'] or one['health']}",
            "serves": ", ".join(one["serves"]),
            "in the pool of": ", ".join(one["services"]),
            "kind": f"{one['kind']}, engine {one['engine']}, tier {one['tier']}",
            "priority": str(one["priority"]),
            "address": one["url"] or "",
            "models": ", ".join(one["models"]),
            "missing models": Cell(", ".join(one["missing_models"]), "bad"),
            "last completion": _since(one["canary_at"], at),
            "falls in the last hour": str(one["falls_last_hour"] or ""),
            "asked us to wait until": until(one["cooldown_until"], at),
            "used up until": until(one["exhausted_until"], at),
            "session began": _since(session.get("started_at"), at),
            "session ends": until(session.get("ends_at"), at),
            "its agent": _agent(session, at),
            "on": (session.get("gpu") or {}).get("name", ""),
            "next session": _agent(one["pending"] or {}, at),
            **_power(one.get("power"), at),
            "restart it at": one["restart_url"] or "",
            "started by hand within": _spoken(one.get("hand_start_s")),
        }
    )


def _agent(session: Mapping[str, Any], at: str) -> str:
    """Say what an agent says, and since when it has not."""
    if not session:
        return ""
    words = [session["state"], *known(session), f"heard {ago(session['beat_at'], at)} ago"]
    return f"no. {session['generation']}: " + "; ".join(word for word in words if word)


def _spoken(seconds: float | None) -> str:
    return "" if seconds is None else spoken(seconds)


def _power(power: Mapping[str, Any] | None, at: str) -> dict[str, str]:
    """Say whether it is on, and what aion does about that."""
    if power is None:
        return {}
    for_ = ago(power["since"], at)
    failures = f"{power['failures']}, again {until(power['retry_at'], at)}"
    return {
        "power": power["phase"] + (f" for {for_}" if for_ else ""),
        "launch": power["launch"],
        "because": power["why"],
        "would be started": power["would"],
        "starts": "automatically" if power["auto"] else "when told to",
        "by its hours": _by_hours(power, at),
        "takes about": f"{power['boot_s']:.0f} s",
        "failed starts": failures if power["failures"] else "",
        "its provider says": power["detail"],
        "without work for": ago(power["idle_since"], at) if power["idle_since"] else "",
    }


def _by_hours(power: Mapping[str, Any], at: str) -> str:
    if power["on_until"]:
        return f"on until {until(power['on_until'], at)}"
    return f"on from {until(power['on_from'], at)}" if power["on_from"] else ""


def _since(text: str | None, at: str) -> str:
    return f"{ago(text, at)} ago" if text else ""


@app.command()
def check(ctx: typer.Context, name: Name) -> None:
    """Probe a backend now, and ask it for a completion where that is allowed."""
    tell(ctx.obj, ctx.obj.client().post(f"{_path(name)}/check"))


@app.command()
def drain(ctx: typer.Context, name: Name, *, yes: Yes = False) -> None:
    """Take a backend out of rotation; what it serves moves to another."""
    _order(ctx.obj, name, "drain", "serves nobody until it is undrained", yes=yes)


@app.command()
def undrain(ctx: typer.Context, name: Name, *, yes: Yes = False) -> None:
    """Put a backend back into rotation."""
    _order(ctx.obj, name, "undrain", "may serve again", yes=yes)


@app.command()
def start(ctx: typer.Context, name: Name, *, yes: Yes = False) -> None:
    """Start a backend, where its kind can be started."""
    _order(ctx.obj, name, "start", "is started, which may cost quota or money", yes=yes)


@app.command()
def stop(ctx: typer.Context, name: Name, *, yes: Yes = False) -> None:
    """Stop a backend, where its kind can be stopped."""
    _order(ctx.obj, name, "stop", "is stopped; what runs there is lost", yes=yes)


@app.command()
def restart(ctx: typer.Context, name: Name, *, yes: Yes = False) -> None:
    """Have a backend's agent restart its engine, at its next heartbeat."""
    _order(ctx.obj, name, "restart", "restarts its engine, and answers nothing meanwhile", yes=yes)


@app.command()
def save(ctx: typer.Context, name: Name) -> None:
    """Have a backend's agent save what it was told to keep, at its next heartbeat."""
    tell(ctx.obj, ctx.obj.client().post(f"{_path(name)}/save"))


def _order(given: Given, name: str, verb: str, consequence: str, *, yes: bool) -> None:
    client = given.client()
    seen = client.get(_path(name))
    serving = f" (it serves {', '.join(seen['serves'])} now)" if seen["serves"] else ""
    given.ask(f"{name}{serving} {consequence}", yes=yes)
    tell(given, client.post(f"{_path(name)}/{verb}"))


def _path(name: str) -> str:
    return f"/api/backends/{quote(name, safe='')}"
