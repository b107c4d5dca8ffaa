import asyncio

import pytest

from orchestrator.edge.migrate import migrate
from tests.e2e.kit import World


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """An empty database, made once."""
    path = tmp_path_factory.mktemp("fresh") / "aion.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture
def world(tmp_path, fresh):
    with World(tmp_path) as made:
        made.fresh = fresh
        yield made
