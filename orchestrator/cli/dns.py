"""`aion dns`: what stands at a service's stable name, and putting it right."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from orchestrator.cli.options import Yes
from orchestrator.cli.output import Cell
from orchestrator.cli.services import one_service, tell
from orchestrator.errors import AionError, ConfigError, Declined

if TYPE_CHECKING:
    from orchestrator.cli.options import Given
    from orchestrator.cli.output import Output
    from orchestrator.core.model import Publication
    from orchestrator.core.records import Plan, Record
    from orchestrator.edge.dns.base import DnsSettings

app = typer.Typer()
Name = Annotated[str | None, typer.Argument(help="May be left out if there is one.")]


@app.callback()
def dns() -> None:
    """Look at the stable name's record, or have it put right."""


@app.command()
def show(ctx: typer.Context, service: Name = None) -> int:
    """Read what stands at the name now, and say what would change. Exit 3 if it is not as wanted.

    Reads the provider with the credentials of the configuration; writes nothing.
    """
    given: Given = ctx.obj
    seen = _published(given, service)
    found, plan = asyncio.run(_look(_settings(given, seen["name"]), seen["dns"]))
    output = given.output()
    if output.json:
        output.data({"service": seen["name"], "dns": seen["dns"], **_as_json(found, plan)})
    else:
        _print(output, seen, found, plan)
    return 0 if seen["dns"]["in_sync"] and not plan.changes else 3


@app.command()
def sync(
    ctx: typer.Context,
    service: Name = None,
    *,
    apply: Annotated[
        bool, typer.Option("--apply", help="Take over what stands there, whoever made it.")
    ] = False,
    yes: Yes = False,
) -> int:
    """Show what would change at the name; with --apply have the daemon do it.

    --apply adopts an A, AAAA or CNAME that somebody else made or changed there. Records of other
    types and at other names are never touched.
    """
    given: Given = ctx.obj
    seen = _published(given, service)
    found, plan = asyncio.run(_look(_settings(given, seen["name"]), seen["dns"]))
    output = given.output()
    if not apply:
        if output.json:
            output.data({"service": seen["name"], "dns": seen["dns"], **_as_json(found, plan)})
        else:
            _print(output, seen, found, plan)
        if plan.changes:
            output.say("nothing was changed; `aion dns sync --apply` does it")
        return 1 if plan.verdict.value == "refused" else 0
    if plan.verdict.value == "refused":
        raise AionError(f"not done: {plan.reason}")
    what = "; ".join(_said(change) for change in _as_json(found, plan)["changes"])
    given.ask(f"{seen['dns']['name']}: {what or 'nothing stands in the way'}", yes=yes)
    tell(given, given.client().post(f"/api/services/{quote(seen['name'], safe='')}/dns/sync"))
    return 0


def _published(given: Given, service: str | None) -> Mapping[str, Any]:
    seen = one_service(given.client(), service)
    if not seen["dns"]:
        raise Declined(f"{seen['name']} has no DNS name; [services.{seen['name']}.dns] gives one")
    return seen


def _settings(given: Given, service: str) -> DnsSettings:
    import os

    from orchestrator.cli.where import find_config
    from orchestrator.settings import load

    path = find_config(given.config)
    for settings in load(path, environ=dict(os.environ)).dns:
        if settings.service == service:
            if settings.instance:
                return settings
            return replace(settings, instance=given.client().get("/api/status")["instance"])
    raise ConfigError(f"{path or 'the configuration here'} has no [services.{service}.dns]")


async def _look(settings: DnsSettings, seen: Mapping[str, Any]) -> tuple[Sequence[Record], Plan]:
    """Read the name and plan what adopting it would change."""
    from orchestrator.core.records import above, plan
    from orchestrator.edge.dns import open_provider
    from orchestrator.edge.dns.base import place_of

    provider = open_provider(settings)
    try:
        async with asyncio.timeout(15):
            found = await provider.read(settings.name)
    except TimeoutError as error:
        raise AionError("the DNS provider did not answer within 15 s") from error
    finally:
        await provider.close()
    place = place_of(settings, marks=provider.marks)
    wanted = _publication(seen)
    planned = plan(found, wanted, place, 0.0)
    if planned.outbid and planned.epoch is not None:
        epoch = above(wanted.wanted_epoch, planned.epoch)
        planned = plan(found, replace(wanted, wanted_epoch=epoch), place, 0.0)
    return found, planned


def _publication(seen: Mapping[str, Any]) -> Publication:
    from orchestrator.core.model import Publication
    from orchestrator.core.specs import Target

    def targets(name: str) -> tuple[Target, ...]:
        return tuple(Target(one["type"], one["content"]) for one in seen[name])

    return Publication(
        wanted=targets("wanted"),
        wanted_epoch=seen["wanted_epoch"],
        confirmed=targets("confirmed"),
        confirmed_epoch=seen["confirmed_epoch"],
        adopt=True,
    )


def _as_json(found: Sequence[Record], plan: Plan) -> dict[str, Any]:
    changes = [
        {
            "action": change.action.value,
            "before": asdict(change.before) if change.before else None,
            "after": asdict(change.after) if change.after else None,
        }
        for change in plan.changes
    ]
    return {
        "records": [asdict(record) for record in found],
        "plan": {"verdict": plan.verdict.value, "reason": plan.reason},
        "changes": changes,
    }


def _print(output: Output, seen: Mapping[str, Any], found: Sequence[Record], plan: Plan) -> None:
    dns = seen["dns"]
    wanted = ", ".join(f"{one['type']} {one['content']}" for one in dns["wanted"])
    state = "as wanted" if dns["in_sync"] else dns["trouble"] or "on its way"
    output.fields(
        {
            "name": Cell(dns["name"], "strong"),
            "service": seen["name"],
            "wanted": f"{wanted or 'nothing yet'}, epoch {dns['wanted_epoch']}",
            "state": Cell(state, "good" if dns["in_sync"] else "bad"),
            "detail": dns["detail"],
        }
    )
    rows = [
        (one.type, one.content, "yes" if one.proxied else "", _ttl(one.ttl), one.comment)
        for one in found
    ]
    output.table(("type", "content", "proxied", "ttl", "comment"), rows)
    if not found:
        output.line("nothing stands at the name")
    for change in _as_json(found, plan)["changes"]:
        output.line(Cell(f"would {_said(change)}", "warn"))
    if plan.verdict.value == "refused":
        output.line(Cell(f"refused: {plan.reason}", "bad"))


def _ttl(ttl: int) -> str:
    return "auto" if ttl == 1 else f"{ttl} s"


def _said(change: Mapping[str, Any]) -> str:
    before, after = change["before"], change["after"]
    shown = {
        side: f"{one['type']} {one['content']}"
        + (" proxied" if one["proxied"] else "")
        + (f" ({one['comment']})" if one["comment"] else "")
        for side, one in (("before", before), ("after", after))
        if one
    }
    if before and after:
        return f"change {shown['before']} to {shown['after']}"
    return f"delete {shown['before']}" if before else f"create {shown['after']}"
