"""age while bytes flow, both ways: for dumps, exports, syncs and aion's own state."""

from __future__ import annotations

from typing import Any, BinaryIO, Protocol

from jobs.backup.errors import Corrupt, WrongKey
from jobs.backup.stores.base import digests, first_line


class Sink(Protocol):
    """Takes bytes."""

    def write(self, piece: bytes, /) -> int: ...


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


class Noting:
    """Hashes what passes to `out`. `error`: what writing raised, which age would swallow."""

    def __init__(self, out: Sink) -> None:
        self.digest: Any = digests(("sha256",))["sha256"]
        self.error: Exception | None = None
        self._out = out

    def write(self, piece: bytes, /) -> int:
        """Hash a piece and hand it on. Raises what `out` raised, the first time and ever after."""
        if self.error is not None:  # age writes on, and `out` would say something else by now
            raise self.error
        try:
            self.digest.update(piece)
            self._out.write(piece)
        except Exception as error:
            self.error = error
            raise
        return len(piece)

    def flush(self) -> None:
        """Do nothing: `out` is its owner's to flush."""


def unseal(source: BinaryIO, sink: Taking, identity: str, what: str) -> None:
    """Decrypt all of `source` into `sink` with `identity`, age's private key.

    `what` names it in errors. Raises `WrongKey`, also without any key; `Corrupt` for what is
    damaged or cut short; and whatever `sink` raised. What was written until then is worth nothing.
    """
    import pyrage  # noqa: PLC0415 - only where something is encrypted

    if not identity.strip():
        raise WrongKey(f"{what} is encrypted: its identity (AGE-SECRET-KEY-1…) is needed")
    try:
        key = pyrage.x25519.Identity.from_str(identity.strip())
    except pyrage.IdentityError:
        raise WrongKey(
            f"what was given to open {what} is no age identity, AGE-SECRET-KEY-1…"
        ) from None
    try:
        pyrage.decrypt_io(source, sink, [key])
    except (pyrage.DecryptError, OSError) as error:  # the second: of a later piece, or of an end
        if sink.error is not None:
            raise sink.error from None
        if "No matching keys" in str(error):
            raise WrongKey(f"this identity does not open {what}") from None
        raise Corrupt(
            f"{what} cannot be decrypted, it is damaged or cut short: {first_line(str(error), 80)}"
        ) from None
