"""Who may come in, and how this agent proves who it is. Pure functions of text and bytes."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

NONCE = re.compile(r"[0-9a-fA-F]{16,128}")

# What clients may ask of an engine. The rest (deleting and pulling models, loading adapters, slots,
# metrics) is the daemon's: an engine believes whoever reaches it.
ANYONE = (
    *("/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"),
    *("/v1/responses", "/v1/messages", "/v1/audio", "/v1/images", "/v1/rerank", "/v1/score"),
    *("/v1/moderations", "/health", "/version"),
    *("/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/tags", "/api/show"),
    *("/api/version", "/api/ps"),  # Ollama
    *("/completion", "/completions", "/embedding", "/embeddings", "/tokenize", "/detokenize"),
    *("/rerank", "/infill", "/apply-template"),  # llama.cpp
    *("/generate", "/generate_stream", "/info"),  # TGI; AION's service
    *("/api/v1/generate", "/api/v1/model", "/api/extra/generate", "/api/extra/version"),  # Kobold
)


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in: as the daemon said at the registration and says with each heartbeat.

    `gateway` are SHA-256 of the keys of those who speak for the daemon, the newest session's first.
    """

    access: str = "gateway"
    clients: tuple[str, ...] = ()
    gateway: tuple[str, ...] = field(default=(), repr=False)


def secret_of(token: str) -> bytes:
    """Derive what both sides know of a session: the daemon keeps only this of the token."""
    return hashlib.sha256(token.encode()).digest()


def proof(token: str, nonce: str, session: str, url: str) -> str:
    """Answer the identity challenge for the address `url`."""
    host = urlsplit(url).netloc.lower()
    said = f"aion-identity-1\n{nonce}\n{session}\n{host}"
    return hmac.new(secret_of(token), said.encode(), hashlib.sha256).hexdigest()


def gateway_key(token: str, session: str) -> str:
    """Derive the key that the daemon's gateway and probes come with."""
    said = f"aion-gateway-1\n{session}"
    return hmac.new(secret_of(token), said.encode(), hashlib.sha256).hexdigest()


def digest(key: str) -> str:
    """Hash a key as the daemon does."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def bearer(header: str) -> str:
    """Read the key of an `Authorization` header; empty if there is none."""
    scheme, _, key = header.strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _among(hashed: str, known: Iterable[str]) -> bool:
    """Compare with every one, so that the time taken says nothing."""
    hits = [hmac.compare_digest(hashed.encode(), one.lower().encode()) for one in known]
    return any(hits)


def admitted(door: Door, authorization: str, path: str, more: tuple[str, ...] = ()) -> str:
    """Say why a request may not come in, with the status before it; empty if it may.

    `more`: paths that clients may ask for besides the usual ones.
    """
    key = bearer(authorization)
    hashed = digest(key)
    if key and _among(hashed, door.gateway):
        return ""
    client = bool(key) and _among(hashed, door.clients)
    if door.access == "gateway":
        return "401 only the orchestrator may use this address"
    if door.access != "open" and not client:
        return "401 a client key is needed" if not key else "401 this key is not known"
    return "" if ordinary(path, more) else "403 only the orchestrator may ask for this"


def ordinary(path: str, more: tuple[str, ...] = ()) -> bool:
    """Say whether a path is one that clients may ask for, however it is written."""
    plain = unquote(path)
    odd = "\\" in plain or "%" in plain or "//" in plain or "\0" in plain
    if odd or any(part in (".", "..") for part in plain.split("/")):
        return False
    return any(plain == one or plain.startswith(f"{one}/") for one in (*ANYONE, *more))
