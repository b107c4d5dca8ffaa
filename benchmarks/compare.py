"""One run held against another: which row became worse by more than it varies by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.world import Row

BOUND = 1.25
BLIND = 1.0  # a row of this noise could become three times worse and nobody would hear of it


@dataclass(frozen=True, slots=True)
class Change:
    """A row against the committed one: so many `times` as much, of which `allowed` may be."""

    times: float
    allowed: float

    @property
    def worse(self) -> bool:
        return self.times > self.allowed

    def __str__(self) -> str:
        if self.worse:
            return f"{self.times:.2f} times WORSE (≤ {self.allowed:.2f})"
        return f"{self.times:.2f} times"


def compared(row: Row) -> float | None:
    """Give what of a row is compared: its ratio to its baseline, or its value; None: nothing."""
    return row.figures.get("ratio" if row.baseline else "value")


def change(new: Row, old: Row | None, bound: float = BOUND) -> Change | None:
    """Compare a row with the committed one; None where they can't be.

    Allowed is `bound`, or more where the committed row was seen to vary more by itself: its noise
    is the range of some runs, and twice that is beyond what one more run shows by chance.
    """
    if old is None or old.baseline != new.baseline:
        return None
    before, after = compared(old), compared(new)
    if before is None or after is None or before <= 0:
        return None
    return Change(after / before, max(bound, 1 + 2 * (old.noise or 0.0)))


def changes(
    new: Sequence[Row], old: Sequence[Row], bound: float = BOUND
) -> dict[str, Change | None]:
    """Compare each row with the committed one of its name."""
    before = {row.name: row for row in old}
    return {name: change(row, before.get(name), bound) for name, row in by_name(new).items()}


def gone(new: Sequence[Row], old: Sequence[Row]) -> list[str]:
    """Name the committed rows that a part measured now no longer gives."""
    parts, names = {row.part for row in new}, {row.name for row in new}
    return [row.name for row in old if row.part in parts and row.name not in names]


def blind(rows: Sequence[Row]) -> list[str]:
    """Name the rows that vary so much that comparing with them says nothing."""
    return [row.name for row in rows if row.noise is not None and row.noise > BLIND]


def by_name(rows: Sequence[Row]) -> Mapping[str, Row]:
    """Find rows by their names; raises `ValueError` if two have the same."""
    found = {row.name: row for row in rows}
    if len(found) < len(rows):
        names = [row.name for row in rows]
        raise ValueError(
            f"two rows of one name: {sorted({n for n in names if names.count(n) > 1})}"
        )
    return found


def merged(runs: Sequence[Sequence[Row]]) -> list[Row]:
    """Make one run of several: of each row the middle one, and by how much they differ.

    Of an even number the worse of the two in the middle. A bound missed once stays missed.
    """
    tables = [by_name(run) for run in runs]
    names = list(dict.fromkeys(name for table in tables for name in table))
    return [_middle([table[name] for table in tables if name in table]) for name in names]


def _middle(rows: Sequence[Row]) -> Row:
    missed = next((row for row in rows if row.ok is False), None)
    values = [value for row in rows if (value := compared(row)) is not None]
    if missed is not None or len(values) < len(rows):
        return missed or rows[0]
    rows = sorted(rows, key=lambda row: compared(row) or 0.0)
    least, most = min(values), max(values)
    noise = most / least - 1 if len(rows) > 1 and least > 0 else None
    return replace(rows[len(rows) // 2], noise=noise)


def refreshed(new: Sequence[Row], old: Sequence[Row]) -> list[Row]:
    """Give what to commit: the parts measured now, the others as they were.

    A row measured only once keeps the noise that was found before.
    """
    parts, before = {row.part for row in new}, {row.name: row for row in old}
    kept = [row for row in old if row.part not in parts]
    return kept + [
        replace(row, noise=before[row.name].noise)
        if row.noise is None and row.name in before
        else row
        for row in new
    ]
