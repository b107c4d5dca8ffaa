"""What keep-alive pings say together with the backend they are for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from orchestrator.settings.policies import MONTH_S, policy
from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, dotted
from orchestrator.settings.reading import Reading
from orchestrator.settings.schema import Backend, KeepAlive
from orchestrator.settings.values import written

SHORTEST_S: Final = 60.0
DAY_S: Final = 86400.0
_KINDS: Final = ("static", "notebook")
# https://research.google.com/colaboratory/faq.html, https://www.kaggle.com/terms
_MANAGED: Final = {"colab": "Colab", "kaggle": "Kaggle"}


def check(reading: Reading) -> Iterator[Problem]:
    """Yield what is wrong with the pings of each backend."""
    for name, backend in reading.settings.backends.items():
        if backend.keepalive is not None:
            yield from _wrong(reading, name, backend, backend.keepalive)


def _wrong(reading: Reading, name: str, backend: Backend, wanted: KeepAlive) -> Iterator[Problem]:
    path: Path = ("backends", name, "keepalive")
    options = reading.options.get(name)
    host = _MANAGED.get(getattr(options, "platform", None) or backend.kind)
    if host:
        text = (
            f"a ping does not keep a runtime of {host} alive, and {host}'s terms forbid"
            " pretending to be at work; remove `keepalive`"
        )
        yield Problem(path, f"{dotted(path)}: {text}", on_key=True)
        return
    if backend.kind not in _KINDS:
        text = f"a backend of kind `{backend.kind}` does not fall asleep; remove `keepalive`"
        yield Problem(path, f"{dotted(path)}: {text}", on_key=True)
        return
    if wanted.every < SHORTEST_S:
        place = (*path, "every")
        yield Problem(place, f"{dotted(place)}: at least a minute apart")
    if wanted.url is None and str(getattr(options, "url", "")).startswith("tcp:"):
        text = "an address tcp:// cannot be asked for a page; set `url`"
        yield Problem(path, f"{dotted(path)}: {text}", on_key=True)


def notes(reading: Reading) -> Iterator[Problem]:
    """Yield what is right and will not do what one may expect."""
    for name, backend in reading.settings.backends.items():
        wanted = backend.keepalive
        if wanted is None or backend.kind not in _KINDS:
            continue
        path: Path = ("backends", name, "keepalive")
        url = getattr(reading.options.get(name), "url", None)
        month = int(MONTH_S * _share(wanted) / wanted.every)
        if wanted.budget is not None and month > wanted.budget:
            text = f"that is {month} requests a month; its budget of {wanted.budget} ends before"
            yield Problem((*path, "budget"), f"{dotted(path)}: {text}")
        probes_s = policy(reading.settings, backend, url).interval_s
        if url and wanted.url is None and probes_s <= wanted.every:
            text = (
                f"probes reach it every {written(probes_s)} anyway, so it does not fall asleep;"
                " `keepalive` is for a longer health.interval, or a `url` of its own"
            )
            yield Problem(path, f"{dotted(path)}: {text}", on_key=True)


def _share(wanted: KeepAlive) -> float:
    """Return the part of a day in which pings go out."""
    if wanted.between is None:
        return 1.0
    begin_s, end_s = (time.hour * 3600.0 + time.minute * 60.0 for time in wanted.between)
    return ((end_s - begin_s) % DAY_S) / DAY_S
