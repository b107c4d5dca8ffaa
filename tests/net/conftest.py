"""One cast for all tests that ask what came of it, and the table of it at the end."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.net.fish import FISH
from tests.net.net import Haul, fish_out, table

TABLE = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def haul(request: pytest.FixtureRequest) -> Haul:
    """What the nets caught of the fish that somebody asks for."""
    items = [item for item in request.session.items if "haul" in item.fixturenames]
    names = {item.callspec.params["fish"].name for item in items}
    chosen = [fish for fish in FISH if fish.name in names]
    with tempfile.TemporaryDirectory(prefix="net-") as folder:
        made = fish_out(chosen, Path(folder))
    request.config.stash[TABLE] = table(chosen, made)
    return made


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    lines = config.stash.get(TABLE, [])
    if lines:
        terminalreporter.section("which test caught which bug")
    for line in lines:
        terminalreporter.write_line(line)
