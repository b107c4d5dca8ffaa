"""Encryption while bytes flow: what goes wrong at either end is told as what it is."""

import contextlib
import hashlib
import io

import pyrage
import pytest
import zstandard

from jobs.backup import parts
from jobs.backup.errors import Corrupt, NoRoom, SourceFailed, WrongKey
from jobs.backup.sealing import Noting, seal, unseal
from tests.backup.test_dump import small_disk


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


def sealed(key, data=b"rows" * 100_000):
    out = Taking()
    seal(Giving(data), out, str(key.to_public()))
    return out.getvalue()


def test_what_is_opened_is_what_was_sealed_and_hashed(key):
    out = Taking()
    sink = Noting(out)
    unseal(io.BytesIO(sealed(key)), sink, f" {key}\n", "it")
    assert out.getvalue() == b"rows" * 100_000
    assert sink.digest.hexdigest() == hashlib.sha256(out.getvalue()).hexdigest()


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ("", "dump 7 is encrypted: its identity"),
        ("AGE-SECRET-KEY-1NONSENSE", "no age identity"),
        (str(pyrage.x25519.Identity.generate()), "does not open dump 7"),
    ],
)
def test_a_key_that_is_missing_wrong_or_none_is_told_of(key, identity, said):
    with pytest.raises(WrongKey, match=said):
        unseal(io.BytesIO(sealed(key)), Noting(Taking()), identity, "dump 7")


@pytest.mark.parametrize("where", ["nothing", "header", "cut", "flipped", "short by one"])
def test_what_is_damaged_is_said_to_be_damaged_wherever_that_is(key, where):
    whole = sealed(key)
    middle = len(whole) // 2
    data = {
        "nothing": b"",
        "header": whole[:20],
        "cut": whole[:middle],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "short by one": whole[:-1],
    }[where]
    with pytest.raises(Corrupt, match="dump 7 cannot be decrypted"):
        unseal(io.BytesIO(data), Noting(Taking()), str(key), "dump 7")


@pytest.mark.parametrize("failure", [NoRoom("full"), BrokenPipeError(32, "Broken pipe")])
def test_who_takes_no_more_is_told_of_as_itself_when_opening(key, failure):
    class Full(io.BytesIO):
        def write(self, piece, /):
            raise failure

    with pytest.raises(type(failure)):
        unseal(io.BytesIO(sealed(key)), Noting(Full()), str(key), "it")


def test_a_full_disk_under_an_export_is_said_to_be_full(key, tmp_path):
    """age makes of the system's error a text without its number."""
    data = zstandard.compress(b"".join(b"%d\n" % n for n in range(400_000)))
    with small_disk(tmp_path / "small", 1_200_000):
        path = tmp_path / "small" / "000000001-0123456789ab.jsonl.zst.age"
        path.write_bytes(sealed(key, data))
        filler = tmp_path / "small" / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(1_200_000))
        with pytest.raises(NoRoom, match="No space left"), parts.opened(path, str(key)):
            pass
        assert {one.name for one in path.parent.iterdir()} == {path.name, "filler"}
