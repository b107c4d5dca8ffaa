from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from standin import TOKEN, Standin


@pytest.fixture
def daemon():
    with Standin() as standin:
        yield standin


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture
def at(daemon, token_file):
    """The words that lead `aion` to the stand-in."""
    return ("--url", daemon.url, "--token-file", str(token_file))
