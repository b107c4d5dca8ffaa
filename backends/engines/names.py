"""Compares the models a server lists with those it is configured to have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backends.engines.answers import NAME, OK, Finding, failed, plain
from orchestrator.core.model import Verdict

LISTED: Final = 20_000  # of a longer list the rest is not looked at; OpenRouter's has some 400
KEPT: Final = 500  # of them in an observation
SHOWN: Final = 5  # of them in a sentence


@dataclass(frozen=True, slots=True)
class Listed:
    """One model of a server's list.

    `also`: other names it answers to. `state`: "loading" or "failed" where the server says so,
    "idle" where it loads at the first request. `note` says more of it.
    """

    name: str
    also: tuple[str, ...] = ()
    state: str = ""
    note: str = ""


Same = Callable[[str, Listed], bool]


def exact(wanted: str, listed: Listed) -> bool:
    """Compare by the names as they are."""
    return wanted == listed.name or wanted in listed.also


def with_latest(wanted: str, listed: Listed) -> bool:
    """Compare as Ollama does: no tag means `:latest`, and case does not count."""
    return _tagged(wanted) == _tagged(listed.name)


def _tagged(name: str) -> str:
    return (name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest").lower()


def by_file(wanted: str, listed: Listed) -> bool:
    """Compare as for servers that name a model by its file: folder and `.gguf` do not count."""
    return exact(wanted, listed) or _file(wanted) in {_file(n) for n in (listed.name, *listed.also)}


def _file(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1].lower().removesuffix(".gguf")


def ids(body: Any) -> tuple[Listed, ...] | None:
    """Read OpenAI's form, `{"data": [{"id": …}]}`; None where it is not that."""
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list):
        return None
    found = (one.get("id") for one in data[:LISTED] if isinstance(one, dict))
    return tuple(Listed(name) for name in found if isinstance(name, str) and name)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a list says: `finding`, the list in harmless words, and our names of what it lacks."""

    finding: Finding
    models: tuple[str, ...]
    missing: tuple[str, ...]


def compare(listed: Sequence[Listed], models: Mapping[str, str], same: Same) -> Comparison:
    """Hold a server's list against `models` (our name → its name).

    None of them there, or all that are there failed to load: it does not work. All still loading:
    not yet. Some missing: it works, and the missing ones are named.
    """
    shown = tuple(plain(one.name, NAME) for one in listed[:KEPT])
    found = {
        ours: next((one for one in listed if same(theirs, one)), None)
        for ours, theirs in models.items()
    }
    missing = tuple(ours for ours, one in found.items() if one is None)
    there = [one for one in found.values() if one is not None]
    if not models:
        return Comparison(OK, shown, ())
    if not there:
        return Comparison(failed(_absent(models, shown, len(listed))), shown, missing)
    states = {one.state for one in there}
    first = there[0]
    if states == {"loading"}:
        finding = Finding(Verdict.LOADING, f"model `{plain(first.name, NAME)}` is loading")
    elif states == {"failed"}:
        note = f" ({first.note})" if first.note else ""
        finding = failed(f"model `{plain(first.name, NAME)}` failed to load{note}")
    elif states <= {"idle"} and first.note:
        finding = Finding(Verdict.OK, first.note)
    else:
        finding = OK
    return Comparison(finding, shown, missing)


def _absent(models: Mapping[str, str], shown: tuple[str, ...], total: int) -> str:
    wanted = ", ".join(f"`{plain(theirs, NAME)}`" for theirs in list(models.values())[:SHOWN])
    has = ", ".join(shown[:SHOWN]) or "none"
    more = f" and {total - SHOWN} more" if total > SHOWN else ""
    verb = "is" if len(models) == 1 else "are"
    noun = "model" if len(models) == 1 else "models"
    return f"{noun} {wanted} {verb} not there; it has: {has}{more}"
