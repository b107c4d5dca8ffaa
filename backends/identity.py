"""How an agent proves that it holds its session's token, and the key it admits us with.

Both are made from the token's SHA-256, which is all that is stored of it. Version 1:

- `GET /.aion/identity?nonce=HEX` is answered, to anyone, with `{"version": 1, "session": ID,
  "proof": HEX}`; the proof is HMAC-SHA256 over nonce, session and the host the agent registered.
  The host is part of it, so that nobody can pass the question on to an agent at another address.
- The gateway key, HMAC-SHA256 over the session alone, goes as `Authorization: Bearer …` with what
  the daemon and its gateway ask of the engine behind the agent. It says nothing of the token.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final
from urllib.parse import urlsplit

PATH: Final = "/.aion/identity"
VERSION: Final = 1


def secret_of(token: str) -> str:
    """Give what is stored of a session's token: its SHA-256, hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def host_of(url: str) -> str:
    """Give the host as proofs name it: in lower case, with the port if the URL has one."""
    return urlsplit(url).netloc.lower()


def proof(secret: str, nonce: str, session: str, host: str) -> str:
    """Answer a challenge: hexadecimal. `secret`: see `secret_of`; `host`: see `host_of`."""
    return _signed(secret, f"aion-identity-1\n{nonce}\n{session}\n{host}")


def proves(given: str, secret: str, nonce: str, session: str, host: str) -> bool:
    """Say whether `given` answers the challenge; takes as long whatever it is."""
    wanted = proof(secret, nonce, session, host)
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def gateway_key(secret: str, session: str) -> str:
    """Give the key with which the daemon and its gateway come to the agent."""
    return _signed(secret, f"aion-gateway-1\n{session}")


def _signed(secret: str, message: str) -> str:
    return hmac.new(bytes.fromhex(secret), message.encode(), hashlib.sha256).hexdigest()
