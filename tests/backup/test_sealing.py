"""Encryption while bytes flow: what goes wrong at either end is told as what it is."""

import io

import pyrage
import pytest

from jobs.backup.errors import NoRoom, SourceFailed, WrongKey
from jobs.backup.sealing import seal


class Giving(io.BytesIO):
    """Gives its bytes, or fails, and remembers why."""

    def __init__(self, data: bytes, fails: Exception | None = None) -> None:
        super().__init__(data)
        self.error: Exception | None = None
        self._fails = fails

    def read(self, most: int | None = -1, /) -> bytes:
        if self._fails is not None:
            self.error = self._fails
            raise self._fails
        return super().read(most)


class Taking(io.BytesIO):
    """Takes bytes until it has no room, and remembers that."""

    def __init__(self, room: int = 10**9) -> None:
        super().__init__()
        self.error: Exception | None = None
        self._room = room

    def write(self, piece, /) -> int:
        if self.tell() + len(piece) > self._room:
            self.error = NoRoom("the disk is full")
            raise self.error
        return super().write(piece)


@pytest.fixture(scope="module")
def key():
    return pyrage.x25519.Identity.generate()


def test_what_was_sealed_is_opened_by_its_key(key):
    out = Taking()
    seal(Giving(b"rows" * 100_000), out, str(key.to_public()))
    assert pyrage.decrypt(out.getvalue(), [key]) == b"rows" * 100_000


def test_a_full_disk_and_a_source_that_fails_are_told_as_themselves(key):
    with pytest.raises(NoRoom):
        seal(Giving(b"rows" * 100_000), Taking(room=100_000), str(key.to_public()))
    with pytest.raises(SourceFailed):
        seal(Giving(b"", SourceFailed("it went away")), Taking(), str(key.to_public()))


def test_what_is_no_key_is_said_to_be_none():
    with pytest.raises(WrongKey):
        seal(Giving(b""), Taking(), "age1nonsense")
