"""What hooks say together with the rest: the job, backend or service that each is about."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from jobs import backing
from jobs.schedule import SCHEDULE
from orchestrator.settings import credentials
from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, dotted, named, nearest
from orchestrator.settings.reading import Reading
from orchestrator.settings.schema import Hook

OF_BACKEND: Final = frozenset({"check", "drain", "undrain", "start", "stop"})
_TAKES: Final = {
    "backend": OF_BACKEND,
    "service": frozenset({"failover"}),
    "to": frozenset({"failover"}),
    "for": frozenset({"pause"}),
}


def check(reading: Reading) -> Iterator[Problem]:
    """Yield what is wrong with the hooks."""
    for name, hook in reading.settings.hooks.items():
        path: Path = ("hooks", name)
        if not reading.sound(path):
            continue
        if (hook.job is None) == (hook.do is None):
            text = "a hook is for exactly one thing: set either `job` or `do`"
            yield Problem(path, f"{dotted(path)}: {text}", on_key=True)
            continue
        yield from _keys(path, hook)
        yield from _names(reading, path, hook)
        yield from _token(reading, path)


def _keys(path: Path, hook: Hook) -> Iterator[Problem]:
    """Check that what the command needs is there, and nothing besides."""
    given = {"backend": hook.backend, "service": hook.service, "to": hook.to, "for": hook.for_}
    for key, value in given.items():
        takes = hook.do in _TAKES[key]
        if value is not None and not takes:
            what = f'job = "{named(hook.job)}"' if hook.job is not None else f'do = "{hook.do}"'
            text = f"`{key}` does not go with {what}"
            yield Problem((*path, key), f"{dotted(path)}: {text}", on_key=True)
        elif value is None and takes and key in ("backend", "service"):
            text = f'do = "{hook.do}" needs `{key}`'
            yield Problem((*path, "do"), f"{dotted(path)}: {text}")
    if hook.get and hook.do == "failover" and hook.to is None:
        text = "a GET may come twice, and each would move it on; set `to`, or leave `get` out"
        yield Problem((*path, "get"), f"{dotted(path)}: {text}")


def _names(reading: Reading, path: Path, hook: Hook) -> Iterator[Problem]:
    """Check that whom it names is there."""
    services: Collection[str] = reading.settings.services or {"default": None}
    backends = reading.declared
    jobs = [job.name for job in SCHEDULE]
    jobs += [backing.job_name(name) for name in reading.settings.backups]
    for key, noun, name, known in (
        ("job", "job", hook.job, jobs),
        ("backend", "backend", hook.backend, backends),
        ("service", "service", hook.service, services),
        ("to", "backend", hook.to, backends),
    ):
        if name is not None and name not in known:
            hint = nearest(name, known) or (f"; known are {', '.join(known)}" if known else "")
            text = f"no {noun} is called `{named(name)}`{hint}"
            yield Problem((*path, key), f"{dotted(path)}: {text}")


def _token(reading: Reading, path: Path) -> Iterator[Problem]:
    place = (*path, "token")
    token = reading.secrets.get(place)
    if token is not None and credentials.weakness(token):
        name = reading.credentials[dotted(place)]
        text = f"`{name}` is too easily guessed (at least 32 characters)"
        fix = f"fix: openssl rand -hex 32 | aion secret set {name} --from-file -"
        yield Problem(place, f"{dotted(place)}: {text}; {fix}")
