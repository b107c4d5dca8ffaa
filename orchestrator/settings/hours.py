"""Hours in which a backend should be on: what is wrong with them, and what they come to."""

from __future__ import annotations

from collections.abc import Iterator

from backends import powered
from orchestrator.core.onhours import DAY_MIN, EVERY_DAY, OnHours
from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, dotted
from orchestrator.settings.reading import Reading
from orchestrator.settings.schema import Backend


def check(reading: Reading) -> Iterator[Problem]:
    """Yield what is wrong with the hours of each backend."""
    for name, backend in reading.settings.backends.items():
        path: Path = ("backends", name)
        if reading.sound(path) and powered(backend.kind, reading.options.get(name)):
            yield from _wrong(path, backend)


def _wrong(path: Path, backend: Backend) -> Iterator[Problem]:
    given = {
        "on_from": backend.on_from is not None,
        "on_until": backend.on_until is not None,
        "on_days": backend.on_days is not None,
    }
    if not any(given.values()):
        return
    for key, other in (("on_from", "on_until"), ("on_until", "on_from"), ("on_days", "on_from")):
        if given[key] and not given[other]:
            place = (*path, key)
            yield Problem(place, f"{dotted(place)}: these hours need `{other}` as well")
            return
    begins, ends = backend.on_from, backend.on_until
    if begins in {ends, DAY_MIN}:
        text = 'begins and ends at the same time; the whole day is "00:00" to "24:00"'
        place = (*path, "on_from")
        yield Problem(place, f"{dotted(place)}: {text}")
    if backend.start != "auto":
        text = 'at these hours aion starts it by itself, so it needs start = "auto"'
        place = (*path, "on_from")
        yield Problem(place, f"{dotted(place)}: {text}")


def of(backend: Backend) -> OnHours | None:
    """Give the hours as the core knows them; None without any."""
    if backend.on_from is None or backend.on_until is None:
        return None
    return OnHours(backend.on_from, backend.on_until, backend.on_days or EVERY_DAY)
