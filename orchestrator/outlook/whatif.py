"""What if …: a mishap in a few words, read into what happens when.

colab dies now
colab and kaggle hang for 10m
the network is lost for 5m
cloudflare is down for 1h, then kaggle dies
colab flaps
colab dies; after 10m colab comes back
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from orchestrator.core.durations import UNITS_S
from orchestrator.outlook.scene import Way

THEN_S = 60.0  # "then": so long after what was said before began, or was over
FLAP_DOWN_S, FLAP_UP_S, FLAPS = 120.0, 480.0, 4  # four falls in half an hour
LONGEST_S = 7 * 86400.0
UNDERSTOOD = (
    "understood are: NAME dies, hangs, flaps or comes back; the network is lost; cloudflare is"
    ' down; with "for 10m", "after 5m", "and", and several joined by ", then"'
)


class Change(StrEnum):
    """What happens to whom. A NETWORK or DNS change has no name: it is ours, or the provider's."""

    KILL = "kill"
    REVIVE = "revive"
    CUT = "cut"
    JOIN = "join"
    DNS_DOWN = "dns_down"
    DNS_UP = "dns_up"


@dataclass(frozen=True, slots=True)
class Act:
    """One change, so many seconds after the beginning."""

    after_s: float
    change: Change
    name: str = ""
    way: Way = Way.REFUSES


class Unclear(ValueError):
    """What was asked is not understood; the message is one line that says what is."""


_WORDS = {
    "dies": (
        *("dies", "die", "died", "dead", "down", "gone", "killed", "crashes", "crash"),
        *("fails", "fail", "stops", "stop", "ends", "end"),
    ),
    "hangs": ("hangs", "hang", "freezes", "freeze", "stuck", "unreachable"),
    "flaps": ("flaps", "flap", "flapping"),
    "lost": ("lost", "cut", "offline", "disappears", "drops"),
    "back": ("back", "up", "returns", "return", "revives", "revive", "recovers", "recover"),
}
_VERBS = {word: verb for verb, words in _WORDS.items() for word in words}
_FILLERS = frozenset(
    (
        *("the", "our", "own", "a", "an", "is", "are", "goes", "go", "gets", "get", "comes"),
        *("come", "now", "off", "and", "both", "backend", "backends", "api", "again"),
        "then",
    )
)
_NETWORK = frozenset({"network", "internet", "connection", "line"})
_DNS = frozenset({"cloudflare", "dns", "dyndns", "dyndns2"})
_ALL = frozenset({"everything", "everybody", "everyone", "all"})
_UNITS = {
    **dict.fromkeys(("seconds", "second", "secs", "sec"), "s"),
    **dict.fromkeys(("minutes", "minute", "mins", "min"), "m"),
    **dict.fromkeys(("hours", "hour"), "h"),
    **dict.fromkeys(("days", "day"), "d"),
}
_LENGTH = r"((?:[0-9]+(?:\.[0-9]+)?\s*(?:[a-z]+)\s*)+?)(?=\s|$)"
_PIECE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)")
_JOINTS = re.compile(r"\s*;\s*(?:then\b)?\s*|\s*,?\s+then\s+")


def parse(text: str, backends: Sequence[str]) -> tuple[Act, ...]:
    """Read a mishap. Raises Unclear."""
    clauses = [clause for clause in _JOINTS.split(text.strip().lower()) if clause.strip(" ,.")]
    if not clauses:
        raise Unclear(f"nothing was said; {UNDERSTOOD}")
    acts: list[Act] = []
    before = 0.0
    for number, clause in enumerate(clauses):
        over = 0.0
        for part in _parts(clause, backends):
            rest, after_s = _taken(part, "after", "in")
            rest, for_s = _taken(rest, "for")
            usual_s = THEN_S if number else 0.0
            at = before + (usual_s if after_s is None else after_s)
            found = _clause(rest, part, at, for_s, backends)
            over = (
                max(over, *(act.after_s for act in found)) if for_s is not None else max(over, at)
            )
            acts += found
        before = over
    if max(act.after_s for act in acts) > LONGEST_S:
        raise Unclear("what happens must be over within seven days")
    return tuple(sorted(acts, key=lambda act: act.after_s))


def _parts(clause: str, backends: Sequence[str]) -> list[str]:
    """Cut a clause at each "and" that has a verb on both sides: what happens at once."""
    names = {name.lower() for name in backends}
    parts: list[str] = []
    for piece in re.split(r"\s+and\s+", clause):
        told = bool(parts) and any(
            word in _VERBS and word not in names for word in re.split(r"[\s,]+", parts[-1])
        )
        if parts and not told:
            parts[-1] += f" and {piece}"
        else:
            parts.append(piece)
    return parts


def _taken(clause: str, *words: str) -> tuple[str, float | None]:
    """Take `for 10m` out of a clause: what remains, and the seconds."""
    found = re.search(rf"\b(?:{'|'.join(words)})\s+{_LENGTH}", clause)
    if found is None:
        if lone := re.search(rf"\b({'|'.join(words)})\b", clause):
            raise Unclear(f"`{lone[1]}` needs a duration, such as `{lone[1]} 10m` or `1h30m`")
        return clause, None
    total = 0.0
    for number, word in _PIECE.findall(found[1]):
        unit = _UNITS.get(word, word)
        if unit not in UNITS_S:
            raise Unclear(f"`{found[1].strip()}` is not a duration; write 90s, 10m or 1h30m")
        total += float(number) * UNITS_S[unit]
    return clause[: found.start()] + " " + clause[found.end() :], total


def _clause(
    rest: str, clause: str, at: float, for_s: float | None, backends: Sequence[str]
) -> list[Act]:
    names = {name.lower(): name for name in backends}
    words = [word.strip(".,") for word in re.split(r"[\s,]+", rest) if word.strip(".,")]
    verbs = [_VERBS[word] for word in words if word in _VERBS and word not in names]
    if not verbs and words and words[-1] in _VERBS:  # a backend is called as this verb is
        verbs = [_VERBS[words.pop()]]
    others = [w for w in words if w in names or (w not in _VERBS and w not in _FILLERS)]
    if not verbs:
        lost = next((word for word in others if word not in names), "")
        near = _near(lost, [*_VERBS, *names])
        raise Unclear(f"`{clause.strip()}`: what happens{near or '?'} {UNDERSTOOD}")
    acts: list[Act] = []
    for word in others:
        if word in names or word in _ALL:
            for name in [names[word]] if word in names else backends:
                acts += _to_backend(verbs[0], name, at, for_s)
        elif word in _NETWORK or word in _DNS:
            acts += _to_us(verbs[0], word in _NETWORK, clause, at, for_s)
        else:
            near = _near(word, list(names)) or f"; there are {', '.join(backends)}"
            raise Unclear(f"there is no backend `{word}`{near}")
    if not acts:
        raise Unclear(f"`{clause.strip()}`: to whom? There are {', '.join(backends)}")
    return acts


def _to_backend(verb: str, name: str, at: float, for_s: float | None) -> list[Act]:
    if verb == "back":
        return [Act(at, Change.REVIVE, name)]
    if verb == "flaps":
        period_s = FLAP_DOWN_S + FLAP_UP_S
        times = FLAPS if for_s is None else max(1, round(for_s / period_s))
        starts = [at + turn * period_s for turn in range(times)]
        downs = [Act(start, Change.KILL, name) for start in starts]
        return downs + [Act(start + FLAP_DOWN_S, Change.REVIVE, name) for start in starts]
    way = Way.HANGS if verb == "hangs" else Way.REFUSES
    back = [] if for_s is None else [Act(at + for_s, Change.REVIVE, name)]
    return [Act(at, Change.KILL, name, way), *back]


def _to_us(verb: str, network: bool, clause: str, at: float, for_s: float | None) -> list[Act]:
    """Take away our own network or the DNS provider, or give it back."""
    away, back = (Change.CUT, Change.JOIN) if network else (Change.DNS_DOWN, Change.DNS_UP)
    if verb == "flaps":
        raise Unclear(f"`{clause.strip()}`: only backends flap; {UNDERSTOOD}")
    if verb == "back":
        return [Act(at, back)]
    return [Act(at, away)] + ([] if for_s is None else [Act(at + for_s, back)])


def _near(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, 1)
    return f"; did you mean `{near[0]}`?" if near else ""
