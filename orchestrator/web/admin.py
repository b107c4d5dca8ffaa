"""The operator's API: `/api/…`. The gate in front of it has judged the token already."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request

from orchestrator.core import events, powering
from orchestrator.core.events import Answer, Command
from orchestrator.core.model import Fleet, Incident
from orchestrator.web import backing, bodies, metering, planning, views
from orchestrator.web.commands import Commands, told, who
from orchestrator.web.follow import follow
from orchestrator.web.parts import Parts
from orchestrator.web.problems import Problem, unknown
from orchestrator.web.streams import Streams
from orchestrator.web.viewing import View

PAGE = 1000  # most events in one answer

Nothing = Annotated[bodies.NoBody | None, Body()]


class Done(View):
    """A command was carried out; `text` says in one sentence what that means."""

    text: str


class Reloaded(View):
    """The configuration was read again; one line per change."""

    changes: list[str]


class Admin:
    """The routes, with what they read and whom they tell."""

    def __init__(self, parts: Parts, streams: Streams) -> None:
        self.parts = parts
        self.streams = streams
        self.commands = Commands(parts.loop, parts.store)

    @property
    def fleet(self) -> Fleet:
        return self.parts.loop.fleet

    def service(self, name: str) -> str:
        """Check a service's name; `Problem` 404 with the nearest one."""
        if name not in self.fleet.config.services:
            raise unknown("service", name, self.fleet.config.services)
        return name

    def backend(self, name: str) -> str:
        """Check a backend's name; `Problem` 404 with the nearest one."""
        if name not in self.fleet.config.backends:
            raise unknown("backend", name, self.fleet.config.backends)
        return name

    def incident(self, name: str) -> Incident:
        """Find an open incident by its id or key; `Problem` 404 with the nearest one."""
        for one in self.fleet.incidents.values():
            if name in (one.id, one.key):
                return one
        raise unknown("open incident", name, [one.id for one in self.fleet.incidents.values()])

    async def give(self, command: Command, request: Request, body: Any = None) -> Done:
        """Give a command; returns once it is committed."""
        answer = await self.commands.give(command, request, body)
        return Done(text=answer.text)


def router(admin: Admin) -> APIRouter:
    """Return all routes under `/api`."""
    routes = APIRouter(prefix="/api")
    _overview(routes, admin)
    metering.routes(routes, admin.parts.loop)
    backing.routes(routes, admin.parts)
    planning.add(routes, lambda: admin.fleet, admin.parts.loop.now)
    _log(routes, admin)
    _services(routes, admin)
    _backends(routes, admin)
    _daemon(routes, admin)
    return routes


def _overview(routes: APIRouter, admin: Admin) -> None:
    loop, tell = admin.parts.loop, admin.parts.tell

    @routes.get("/status", tags=["look"])
    async def status() -> views.StatusView:
        """Everything at a glance."""
        return views.status_view(admin.fleet, loop.now(), tell, admin.parts.version)

    @routes.get("/backends", tags=["look"])
    async def backends() -> list[views.BackendView]:
        """All backends, in the order of the configuration."""
        now = loop.now()
        return [views.backend_view(admin.fleet, one, now) for one in admin.fleet.config.backends]

    @routes.get("/backends/{name}", tags=["look"])
    async def backend(name: str) -> views.BackendView:
        """One backend."""
        return views.backend_view(admin.fleet, admin.backend(name), loop.now())

    @routes.get("/services", tags=["look"])
    async def services() -> list[views.ServiceView]:
        """All services, in the order of the configuration."""
        now = loop.now()
        return [views.service_view(admin.fleet, one, now) for one in admin.fleet.config.services]

    @routes.get("/services/{name}", tags=["look"])
    async def service(name: str) -> views.ServiceView:
        """One service."""
        return views.service_view(admin.fleet, admin.service(name), loop.now())

    @routes.get("/explain/{service}", tags=["look"])
    async def explain(service: str) -> views.ExplainView:
        """Why this one serves, and why not each of the others."""
        return views.explain_view(admin.fleet, admin.service(service), loop.now())


def _log(routes: APIRouter, admin: Admin) -> None:
    loop = admin.parts.loop

    @routes.get("/incidents", tags=["look"])
    async def incidents() -> list[views.IncidentView]:
        """All open incidents, oldest first."""
        return views.incident_views(admin.fleet, loop.now(), admin.parts.tell)

    @routes.get("/incidents/{id}", tags=["look"])
    async def incident(id: str) -> views.IncidentView:  # noqa: A002 - the contract's name
        """One open incident, by its id or key."""
        return views.incident_view(admin.incident(id), loop.now(), admin.parts.tell)

    @routes.get("/events", tags=["look"], response_model=list[views.EventView])
    async def log(
        after: Annotated[int, Query(ge=0, le=2**62)] = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE)] = 100,
        subject: Annotated[str | None, Query(max_length=200)] = None,
        follow_: Annotated[bool, Query(alias="follow")] = False,
    ) -> Any:
        """Return the event log, oldest first; `follow=true`: as a stream, one JSON object a line.

        `after` 0 gives the newest `limit` lines; otherwise those whose `seq` is greater. A stream
        goes on with what happens, with an empty line every 15 seconds.
        """
        if follow_:
            return follow(admin.parts.store, admin.streams, after, limit, subject)
        rows = await told(lambda: admin.parts.store.events(after, limit, subject))
        return [views.event_view(row) for row in rows]

    @routes.get("/jobs", tags=["look"])
    async def jobs() -> list[views.JobView]:
        """All scheduled jobs."""
        found = admin.parts.jobs.view() if admin.parts.jobs else ()
        return [views.job_view(job, loop.now()) for job in found]


def _services(routes: APIRouter, admin: Admin) -> None:
    path = "/services/{name}"

    @routes.post(f"{path}/failover", tags=["command"])
    async def failover(
        name: str, request: Request, body: bodies.FailoverBody | None = None
    ) -> Done:
        """Move a service now: to `to`, else to the best other one."""
        to = admin.backend(body.to) if body and body.to else None
        return await admin.give(events.Failover(admin.service(name), to), request, body)

    @routes.post(f"{path}/switchover", tags=["command"])
    async def switchover(name: str, request: Request, body: bodies.SwitchoverBody) -> Done:
        """Move a service at a time, make-before-break."""
        now = admin.parts.loop.now()
        at = now.at + body.at.timestamp() - now.wall
        if at < now.at - 60.0:
            raise Problem(422, "past", "`at` lies in the past")
        to = admin.backend(body.to)
        return await admin.give(events.Switchover(admin.service(name), to, at), request, body)

    @routes.post(f"{path}/pin", tags=["command"])
    async def pin(name: str, request: Request, body: bodies.PinBody) -> Done:
        """Prefer one backend for a while; `hard`: whatever happens."""
        to = admin.backend(body.backend)
        command = events.PinTo(admin.service(name), to, body.for_, body.hard)
        return await admin.give(command, request, body)

    @routes.post(f"{path}/unpin", tags=["command"])
    async def unpin(name: str, request: Request, body: Nothing = None) -> Done:
        """End a pin."""
        return await admin.give(events.Unpin(admin.service(name)), request, body)

    @routes.post(f"{path}/dns/sync", tags=["command"])
    async def sync(name: str, request: Request, body: Nothing = None) -> Done:
        """Take over whatever stands at the service's DNS name."""
        if admin.fleet.config.services[admin.service(name)].dns is None:
            raise Problem(409, "conflict", f"{name} has no DNS name")
        return await admin.give(events.SyncDns(name), request, body)


def _backends(routes: APIRouter, admin: Admin) -> None:
    path = "/backends/{name}"

    @routes.post(f"{path}/drain", tags=["command"])
    async def drain(name: str, request: Request, body: Nothing = None) -> Done:
        """Take a backend out of rotation."""
        return await admin.give(events.Drain(admin.backend(name)), request, body)

    @routes.post(f"{path}/undrain", tags=["command"])
    async def undrain(name: str, request: Request, body: Nothing = None) -> Done:
        """Put a backend back into rotation."""
        command = events.Drain(admin.backend(name), drained=False)
        return await admin.give(command, request, body)

    @routes.post(f"{path}/check", tags=["command"])
    async def check(name: str, request: Request, body: Nothing = None) -> Done:
        """Probe a backend now, and ask it for a one-token completion where that is allowed."""
        return await admin.give(events.Check(admin.backend(name)), request, body)

    @routes.post(f"{path}/start", tags=["command"])
    async def start(name: str, request: Request, body: Nothing = None) -> Done:
        """Start a backend, where its kind can be."""
        return await admin.give(powering.Start(admin.backend(name)), request, body)

    @routes.post(f"{path}/stop", tags=["command"])
    async def stop(name: str, request: Request, body: Nothing = None) -> Done:
        """Stop a backend: by its provider, else by its agent."""
        return await admin.give(powering.Halt(admin.backend(name)), request, body)


def _daemon(routes: APIRouter, admin: Admin) -> None:
    @routes.post("/pause", tags=["command"])
    async def pause(request: Request, body: bodies.PauseBody | None = None) -> Done:
        """Observe only: nothing is published, started or stopped."""
        command = events.Pause(body.for_ if body else None, who(request))
        return await admin.give(command, request, body)

    @routes.post("/resume", tags=["command"])
    async def resume(request: Request, body: Nothing = None) -> Done:
        """End a pause."""
        return await admin.give(events.Resume(), request, body)

    @routes.post("/reload", tags=["command"])
    async def reload(body: Nothing = None) -> Reloaded:  # noqa: ARG001 - nothing may be in it
        """Read the configuration again; a file with problems is refused and changes nothing."""
        if admin.parts.reload is None:
            raise Problem(409, "conflict", "this daemon has no configuration file")
        return Reloaded(changes=list(await told(admin.parts.reload)))

    @routes.post("/jobs/{name}/run", tags=["command"])
    async def run(name: str, body: Nothing = None, *, wait: bool = True) -> Done:  # noqa: ARG001
        """Run a job now; `wait=false` answers once it is begun, and `/api/jobs` when it ends."""
        jobs = admin.parts.jobs
        known = [job.name for job in jobs.view()] if jobs else []
        if jobs is None or name not in known:
            raise unknown("job", name, known)
        answer: Answer = (
            await told(lambda: jobs.run_now(name)) if wait else jobs.start_now(name, operator=True)
        )
        if answer.problem is not None:
            raise Problem(409, answer.problem, answer.text)
        return Done(text=answer.text)

    @routes.post("/incidents/{id}/ack", tags=["command"])
    async def ack(id: str, request: Request, body: Nothing = None) -> Done:  # noqa: A002
        """Say that you know: no more reminders."""
        return await admin.give(
            events.Acknowledge(admin.incident(id).id, who(request)), request, body
        )

    @routes.post("/incidents/{id}/mute", tags=["command"])
    async def mute(
        id: str,  # noqa: A002
        request: Request,
        body: bodies.MuteBody | None = None,
    ) -> Done:
        """Be silent about an incident for a while."""
        for_s = body.for_ if body else 14400.0
        command = events.Mute(admin.incident(id).id, for_s, who(request))
        return await admin.give(command, request, body)
