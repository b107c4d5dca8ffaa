"""zstd around a whole archive, where pg_dump has none inside: both ways, in bounded memory."""

from __future__ import annotations

from typing import IO, Final, cast

import zstandard

from jobs.backup.errors import Corrupt, NotComplete
from jobs.backup.sealing import Sink

PACKED: Final = "zstd"
"""What a manifest says of an archive that ends in `.zst`."""
_PIECE: Final = 64 * 1024
_WINDOW: Final = 1 << 27  # as much as `zstd -d` takes without being told to


class Packer:
    """Compresses; what came of it is unpacked again at once, for `proof` to see.

    So the proof reads what a restore will read, and not what was there before compression.
    """

    def __init__(self, level: int, proof: Sink) -> None:
        self._packer = zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()
        self._unpacker = _unpacking(proof)

    def pack(self, piece: bytes | memoryview) -> bytes:
        """Return what is to be stored next, b"" if there is nothing yet; b"" in: the end."""
        packed = self._packer.compress(piece) if piece else self._packer.flush()
        try:
            if packed:
                self._unpacker.write(packed)
        except zstandard.ZstdError:
            raise NotComplete("what was compressed cannot be decompressed") from None
        return packed


class Unpacker:
    """Decompresses into `out` what is written to it, a bounded piece at a time."""

    def __init__(self, out: Sink) -> None:
        self._unpacker = _unpacking(out)

    def write(self, packed: bytes) -> int:
        """Decompress a piece. Raises `Corrupt`, and what `out` raises."""
        try:
            self._unpacker.write(packed)
        except zstandard.ZstdError:
            raise Corrupt("what is stored cannot be decompressed") from None
        return len(packed)

    def flush(self) -> None:
        """Do nothing: `out` is its owner's to flush."""


def _unpacking(out: Sink) -> zstandard.ZstdDecompressionWriter:
    made = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    whole = cast("IO[bytes]", out)  # only `write` is used
    return made.stream_writer(whole, write_size=_PIECE, closefd=False)
