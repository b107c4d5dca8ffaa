"""Bugs planted in the rules that matter are caught by tests that were not written for them."""

from __future__ import annotations

import pytest

from tests.net.fish import FISH, NETS, Fish
from tests.net.net import ROOT, Boat, gone

EACH = pytest.mark.parametrize("fish", FISH, ids=lambda fish: fish.name)
HARMLESS = Fish(
    "harmless",
    "nothing",
    "orchestrator/core/durations.py",
    '"""Read `"250ms"` as 0.25.',
    '"""Take `"250ms"` for 0.25.',
    ("durations",),
)
UNIMPORTABLE = Fish(
    "unimportable",
    "nothing",
    "orchestrator/core/durations.py",
    "import re",
    "import regular_expressions as re",
    ("durations",),
)
ENDLESS = Fish(
    "endless",
    "nothing",
    "orchestrator/core/durations.py",
    "    found = _ONE.fullmatch(text)",
    "    while not (found := None): pass",
    ("durations",),
)


@EACH
def test_a_row_is_one_line_of_todays_tree_changed_into_another(fish):
    assert gone(fish) == ""
    before, after = fish.old.splitlines(), fish.new.splitlines()
    assert len(before) == len(after)
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1
    planted = (ROOT / fish.file).read_text().replace(fish.old, fish.new)
    compile(planted, fish.file, "exec")


def test_every_row_has_a_name_a_promise_and_nets_of_its_own():
    assert len(FISH) >= 20
    assert len({fish.name for fish in FISH}) == len(FISH)
    assert len({(fish.file, fish.old, fish.new) for fish in FISH}) == len(FISH)
    assert all(fish.promise and fish.where for fish in FISH)
    assert {net for fish in FISH for net in fish.where} == set(NETS)


@pytest.mark.timeout(120)
def test_only_a_test_that_fails_is_a_catch(tmp_path):
    boat = Boat(tmp_path)
    try:
        assert boat.cast("durations").passed
        assert boat.cast("durations", HARMLESS).passed
        unimportable = boat.cast("durations", UNIMPORTABLE)
        assert not unimportable.caught
        assert "regular_expressions" in unimportable.trouble
        endless = boat.cast("durations", ENDLESS, cpu_s=2)
        assert not endless.caught
        assert "not done within 2 s of CPU" in endless.trouble
        assert boat.cast("durations").passed, "the copy is as it was"
    finally:
        boat.close()


@pytest.mark.timeout(900)
@EACH
def test_it_is_caught(fish, haul):
    if gone(fish):
        pytest.fail(gone(fish))
    empty = [haul.empty[net] for net in fish.where]
    assert haul.catches(fish), f"{fish.promise}: {haul.casts[fish.name]}; without a fish: {empty}"
