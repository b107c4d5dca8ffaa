"""What keys and tokens say together: good ones, and each somebody's alone."""

from __future__ import annotations

from collections.abc import Iterator

from backends import registers
from orchestrator.settings import credentials
from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, dotted, named
from orchestrator.settings.reading import Reading


def check(reading: Reading) -> Iterator[Problem]:
    """Yield what is wrong with the clients' keys, and with tokens that two backends share."""
    for name in reading.settings.clients:
        place: Path = ("clients", name, "key")
        key = reading.secrets.get(place)
        if key is not None and credentials.weakness(key):
            credential = reading.credentials[dotted(place)]
            text = f"`{credential}` is too easily guessed (at least 32 characters)"
            fix = f"fix: openssl rand -hex 32 | aion secret set {credential} --from-file -"
            yield Problem(place, f"{dotted(place)}: {text}; {fix}")
    clients: list[Path] = [("clients", name, "key") for name in reading.settings.clients]
    yield from _shared(reading, clients, "client", "who it is could not be told")
    tokens: list[Path] = [
        ("backends", name, "token")
        for name, backend in reading.settings.backends.items()
        if registers(backend.kind, reading.options.get(name))
    ]
    yield from _shared(reading, tokens, "backend", "each registers with a token of its own")


def _shared(reading: Reading, places: list[Path], noun: str, why: str) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    for place in places:
        secret, name = reading.secrets.get(place), str(place[1])
        if secret is None:
            continue
        if (first := owners.setdefault(secret, name)) != name:
            text = f"the same as that of the {noun} `{named(first)}`; {why}"
            yield Problem(place, f"{dotted(place)}: {text}")
