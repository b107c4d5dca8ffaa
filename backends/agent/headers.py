"""Headers on their way through the proxy: what goes on, and what stays."""

from __future__ import annotations

from collections.abc import Mapping

# RFC 9110 7.6.1: they are of one connection.
HOP = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "proxy-authenticate"),
        *("proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
    )
)
# Whose they are is not the engine's matter; Ollama refuses origins and hosts that it does not know.
TO_ENGINE = HOP | frozenset(
    (
        *("host", "authorization", "cookie", "x-api-key", "api-key", "origin", "referer"),
        *("expect", "forwarded", "via", "x-real-ip", "true-client-ip", "content-length"),
    )
)
TO_ENGINE_STARTS = ("x-forwarded-", "cf-", "cdn-", "sec-", "access-control-", "ngrok-")
# Cookies of an engine would be of the tunnel's host; the door says who may ask from a browser.
TO_CLIENT = HOP | frozenset(("set-cookie", "server", "date", "alt-svc", "content-length"))
TO_CLIENT_STARTS = ("access-control-",)


def named_by(connection: list[str]) -> frozenset[str]:
    """Give the headers that `Connection` names: they, too, are of one connection."""
    return frozenset(name.strip().lower() for line in connection for name in line.split(","))


def passing(
    pairs: list[tuple[str, str]], dropped: frozenset[str], starts: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Give the headers that go on."""
    named = named_by([value for name, value in pairs if name.lower() == "connection"])
    return [
        (name, value)
        for name, value in pairs
        if (low := name.lower()) not in dropped and low not in named and not low.startswith(starts)
    ]


def cors(origins: str, asked: Mapping[str, str]) -> dict[str, str]:
    """Give what lets browsers read the answer. Keys come in a header, never in a cookie."""
    found = {"Access-Control-Allow-Origin": origins}
    if origins != "*":
        found["Vary"] = "Origin"
    wanted = asked.get("Access-Control-Request-Headers")
    if asked.get("Access-Control-Request-Method"):
        found["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
        found["Access-Control-Allow-Headers"] = wanted or "authorization, content-type"
        found["Access-Control-Max-Age"] = "600"
    else:
        found["Access-Control-Expose-Headers"] = "*"
    return found
