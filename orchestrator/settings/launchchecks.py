"""What is started with its code in a provider's hands: it has to know where the daemon is."""

from __future__ import annotations

from collections.abc import Iterator

from backends import CARRIES
from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, dotted, named
from orchestrator.settings.reading import Reading
from orchestrator.settings.values import is_remote


def check(reading: Reading) -> Iterator[Problem]:
    """Yield what keeps such a backend from being started: its way back, its key, its kernel."""
    kernels: dict[str, str] = {}
    for name, backend in reading.settings.backends.items():
        path: Path = ("backends", name)
        options = reading.options.get(name)
        if backend.kind not in CARRIES or options is None:
            continue
        yield from _way_back(reading, (*path, "kind"), backend.kind, options)
        kernel: str = getattr(options, "kernel", "").lower()
        if kernel and (first := kernels.setdefault(kernel, name)) != name:
            text = f"the same as that of `{named(first)}`; each start writes it anew, so each"
            place = (*path, "kernel")
            yield Problem(place, f"{dotted(place)}: {text} backend has one of its own")
        secret = reading.secrets.get((*path, "key"))
        wrong = options.why_not_key(secret) if secret and hasattr(options, "why_not_key") else ""
        if wrong:
            place = (*path, "key")
            yield Problem(place, f"{dotted(place)}: {wrong}")


def _way_back(reading: Reading, place: Path, kind: str, options: object) -> Iterator[Problem]:
    url = reading.settings.server.public_url
    if url is None:
        text = "needs server.public_url: what it runs there has to know where this daemon is"
        yield Problem(place, f"{dotted(place)}: a `{kind}` {text}")
    elif not (is_remote(url) or getattr(options, "allow_private", False) or _is_here(options)):
        text = f"{kind.capitalize()} cannot reach server.public_url, which is a local address:"
        text += " set it to where the internet reaches this daemon"
        yield Problem(place, f"{dotted(place)}: {text}")


def _is_here(options: object) -> bool:
    """Say whether its provider's interface is on this machine or network, as its runs then are."""
    api = getattr(options, "api", "")
    return isinstance(api, str) and bool(api) and not is_remote(api)
