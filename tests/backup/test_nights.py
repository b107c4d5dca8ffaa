"""I11: once there was a good dump, there is one, whatever stores, clocks and power do."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.backup import run as running
from jobs.backup import verify
from tests.backup.nights import Lost, Nights

SEEDS, NIGHTS = range(1, 13), 20
FAULTS = {
    "a byte was wrong",
    "a crash",
    "a dump was suspicious",
    "a file was cut short",
    "a file was lost",
    "a store was down",
    "a store was flaky",
    "a store was full",
    "a store was lost",
    "an answer was lost",
    "the clock was wrong",
    "the database was away",
    "the machine was lost",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Nobody waits for a real disk."""
    shm = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="aion-nights-", dir=shm if shm.is_dir() else None))
    yield made
    shutil.rmtree(made)


def lived(folder: Path, seed: int, nights: int = NIGHTS) -> Nights:
    home = folder / str(seed)
    home.mkdir()
    found = Nights(home, seed)
    for _ in range(nights):
        found.night()
    return found


def test_after_every_step_of_many_nights_a_good_dump_is_left(folder: Path) -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        one = lived(folder, seed)
        assert one.existed
        seen += one.seen
    assert seen.keys() >= FAULTS, FAULTS - seen.keys()
    assert seen["a run went to its end"] > len(SEEDS) * NIGHTS / 3
    assert min(seen[name] for name in FAULTS) >= 5, seen


def _damaged_counts(real: Any) -> Any:
    return lambda seen: [replace(one, verified=True) for one in real(seen)]


def _suspicious_counts(real: Any) -> Any:
    return lambda seen: [replace(one, quarantined=False) for one in real(seen)]


def _everything_goes(_real: Any) -> Any:
    return lambda held, _policy, _needed: tuple(one.id for one in held)


def _forgets_the_spool(_real: Any) -> Any:
    return lambda self: shutil.rmtree(self.spool / "dumps", ignore_errors=True)


PLANTED = {
    "what is damaged counts as verified": (verify, "held", _damaged_counts),
    "what is suspicious counts": (verify, "held", _suspicious_counts),
    "a full store is emptied": (verify, "room_for", _everything_goes),
    "what waits in the spool is thrown away": (running._Run, "_tidy", _forgets_the_spool),
}


@pytest.fixture(params=PLANTED)
def planted(request: pytest.FixtureRequest) -> Iterator[str]:
    owner, attribute, change = PLANTED[request.param]
    real = getattr(owner, attribute)
    setattr(owner, attribute, change(real))
    yield request.param
    setattr(owner, attribute, real)


def test_a_run_that_throws_the_last_one_away_is_found_out(planted: str, folder: Path) -> None:
    with pytest.raises(Lost, match="I11"):
        for seed in range(1, 200):
            lived(folder, seed)
