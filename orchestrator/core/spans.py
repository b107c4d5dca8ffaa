"""Stretches of time as pairs (from, until): joined, cut out of each other, clipped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Span = tuple[float, float]


def joined(spans: Iterable[Span]) -> list[Span]:
    """Sort spans and join those that touch; empty ones vanish."""
    found: list[Span] = []
    for begins, ends in sorted(spans):
        if ends <= begins:
            continue
        if found and begins <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], ends))
        else:
            found.append((begins, ends))
    return found


def without(spans: Sequence[Span], cut: Sequence[Span]) -> list[Span]:
    """Give what is left of `spans` where none of `cut` is; both sorted and disjoint."""
    found: list[Span] = []
    at = 0
    for begins, ends in spans:
        while at < len(cut) and cut[at][1] <= begins:
            at += 1
        here = at
        while here < len(cut) and cut[here][0] < ends:
            if cut[here][0] > begins:
                found.append((begins, cut[here][0]))
            begins = max(begins, cut[here][1])  # noqa: PLW2901 - what is left of it
            here += 1
        if begins < ends:
            found.append((begins, ends))
    return found


def total_s(spans: Iterable[Span]) -> float:
    """Say how long spans are together."""
    return sum(ends - begins for begins, ends in spans)
