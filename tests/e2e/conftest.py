import pytest

from tests.e2e.kit import World


@pytest.fixture
def world(tmp_path):
    with World(tmp_path) as made:
        yield made
