"""Encryption by age while bytes flow: one way for dumps, exports, syncs and aion's own state."""

from __future__ import annotations

from typing import Protocol

from jobs.backup.errors import WrongKey


class End(Protocol):
    """Where bytes come from or go to. `error`: what it raised, which age would swallow."""

    error: Exception | None


class Giving(End, Protocol):
    """Where the plain bytes come from."""

    def read(self, most: int = -1, /) -> bytes: ...


class Taking(End, Protocol):
    """Where the encrypted bytes go."""

    def write(self, piece: bytes, /) -> int: ...


def seal(source: Giving, sink: Taking, recipient: str) -> None:
    """Encrypt all of `source` into `sink` for `recipient`, age's public key.

    Raises `WrongKey` for what is none, and whatever `source` or `sink` raised.
    """
    import pyrage  # noqa: PLC0415 - only where something is encrypted

    try:
        pyrage.encrypt_io(source, sink, [pyrage.x25519.Recipient.from_str(recipient)])
    except pyrage.RecipientError:
        raise WrongKey("the recipient is no age public key (age1…)") from None
    except pyrage.EncryptError:
        for own in (source.error, sink.error):
            if own is not None:
                raise own from None
        raise
