"""What a single value may look like: durations, addresses, names, times of day.

Each type's check raises ValueError with the end of a sentence that begins with the key.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import zoneinfo
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from orchestrator.core.durations import UNITS_S, seconds
from orchestrator.settings.problems import nearest

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
CREDENTIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
WEEK = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_LONGEST_S = 3650 * 86400.0
_BYTES = {"kB": 1000, "MB": 1_000_000, "GB": 1_000_000_000}
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_LOCAL_SUFFIXES = (".local", ".lan", ".internal", ".home.arpa", ".localhost")
_SHARED = ipaddress.ip_network("100.64.0.0/10")  # carrier-grade NAT (RFC 6598), Tailscale too


def duration(text: object) -> float:
    """Read `"250ms"`, `"90s"`, `"15m"`, `"12h"` or `"7d"` as seconds."""
    try:
        found = seconds(text if isinstance(text, str) else "")
    except ValueError:
        raise ValueError(
            'expected a duration in quotes, such as "250ms", "90s", "15m", "12h", "7d"'
        ) from None
    if found > _LONGEST_S:
        raise ValueError("at most ten years")
    return found


def positive(text: object) -> float:
    """Read a duration that is more than nothing."""
    if not (found := duration(text)):
        raise ValueError("must be longer than zero")
    return found


def or_off(text: object) -> float | str:
    """Read a duration, or the word `off`."""
    if text == "off":
        return "off"
    try:
        return positive(text)
    except ValueError as error:
        raise ValueError(f'{error}; or "off"') from None


def chat(given: object) -> int | str:
    """Read a Telegram chat: a number, negative for groups, or `@channel`."""
    named = isinstance(given, str) and re.fullmatch(r"@[A-Za-z0-9_]{3,64}|-?[0-9]{1,20}", given)
    if named or (isinstance(given, int) and not isinstance(given, bool)):
        return given if isinstance(given, int) else str(given)
    raise ValueError('expected the chat\'s number, or "@channel"')


def written(length_s: float) -> str:
    """Write seconds as the shortest duration that `duration` reads back."""
    for unit in ("d", "h", "m", "s"):
        count = length_s / UNITS_S[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{round(length_s * 1000)}ms" if length_s < 1 else f"{length_s:g}s"


def timezone(text: object) -> str:
    """Check the name of a time zone."""
    name = _text(text)
    if name == "UTC":
        return name
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        hint = nearest(name, ()) or _zone_hint(name, known) if known else " (install tzdata)"
        raise ValueError(f'no such time zone, expected one like "Europe/Lisbon"{hint}') from None
    return name


def _zone_hint(name: str, known: set[str]) -> str:
    by_lower = {zone.lower(): zone for zone in known}
    hint = nearest(name, by_lower)
    for lower in re.findall(r"`(.+)`", hint):
        return hint.replace(lower, by_lower[lower])
    return ""


def window(text: object) -> tuple[dt.time, dt.time]:
    """Read `"23:30-07:30"`; the end may be on the next day."""
    match = re.fullmatch(
        r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", _text(text), re.ASCII
    )
    if match is None:
        raise ValueError('expected two times of day, such as "23:30-07:30"')
    hours = [int(part) for part in match.groups()]
    begin, end = dt.time(hours[0], hours[1]), dt.time(hours[2], hours[3])
    if begin == end:
        raise ValueError("begins and ends at the same time")
    return begin, end


def time_of_day(text: object) -> int:
    """Read `"08:00"` as minutes of the day; `"24:00"` is its end."""
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)|(24):(00)", _text(text), re.ASCII)
    if match is None:
        raise ValueError('expected a time of day in quotes, such as "08:00"')
    hours, minutes = (int(part) for part in match.groups() if part is not None)
    return hours * 60 + minutes


def days(given: object) -> tuple[int, ...]:
    """Read `"mon-fri"`, `"sat, sun"` or a list of such, as days of which Monday is 0."""
    parts = given if isinstance(given, list | tuple) else _text(given).split(",")
    found: set[int] = set()
    for part in parts:
        first, dash, last = (word.strip() for word in _text(part).partition("-"))
        begin = _day(first)
        end = _day(last) if dash else begin
        found |= {(begin + step) % 7 for step in range((end - begin) % 7 + 1)}
    if not found:
        raise ValueError("an empty list; leave it out for every day")
    return tuple(sorted(found))


def _day(word: str) -> int:
    for number, name in enumerate(WEEK):
        if word.lower() in {name, name[:3]}:
            return number
    hint = nearest(word.lower(), WEEK)
    raise ValueError(f'expected days, such as "mon-fri" or ["saturday", "sunday"]{hint}')


def listen(text: object) -> tuple[str, int]:
    """Read `"host:port"`; an IPv6 host stands in brackets. Port 0 takes any free one."""
    host, colon, port = _text(text).rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:  # noqa: PLR2004
        raise ValueError('expected "host:port", such as "127.0.0.1:8765"')
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed and _ip(str(host[1:-1])) is not None:
        return host[1:-1], int(port)
    if ":" in host:
        raise ValueError('an IPv6 address stands in brackets, such as "[::1]:8765"')
    return hostname(host), int(port)


def resolver(text: object) -> str:
    """Check a DNS server, `host` or `host:port`; the empty text is the system's."""
    if text == "":
        return ""
    if _ip(_text(text)) is None and ":" in str(text):
        return _listen_text(listen(text))
    return hostname(text)


def hostname(text: object) -> str:
    """Check a DNS name or an IP address; give it in lower case without a final dot."""
    name = _text(text).removesuffix(".").lower()
    if _ip(name) is not None:
        return name
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):  # noqa: PLR2004
        raise ValueError("not a host name")
    if re.fullmatch(r"[\d.]+", name):
        raise ValueError("not an IP address")
    return name


def address(version: int) -> Callable[[object], list[str]]:
    """Make a check for one IP address, or a list of them."""

    def check(given: object) -> list[str]:
        found = given if isinstance(given, list) else [given]
        for each in found:
            ip = _ip(each) if isinstance(each, str) else None
            if ip is None or ip.version != version:
                raise ValueError(f"expected an IPv{version} address in quotes")
        if not found or len(set(found)) < len(found):
            raise ValueError("an empty list" if not found else "the same address twice")
        return [str(_ip(str(each))) for each in found]

    return check


def url(text: object) -> str:
    """Check an http:// or https:// address without a user name, query or fragment."""
    return _web(text, query=False)


def link(text: object) -> str:
    """Check an http:// or https:// address that a human opens."""
    return _web(text, query=True)


def _web(text: object, *, query: bool) -> str:
    given = _text(text)
    if re.search(r"[\x00-\x20\x7f-\x9f\\]", given):
        raise ValueError("an address holds no blanks or control characters")
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        raise ValueError("not a valid address (look at the host and the port)") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("expected an address that begins with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address holds no user name or password; use a credential")
    if port == 0:
        raise ValueError("port 0 cannot be reached")
    if not query and (parts.query or parts.fragment):
        raise ValueError("an address here has no `?` or `#` part")
    hostname(parts.hostname)
    return given


def place(text: object) -> str:
    """Check where copies of a backup go: see `jobs.backup.targets`."""
    from jobs.backup.errors import BadTarget  # noqa: PLC0415 - only where there are backups
    from jobs.backup.targets import Target  # noqa: PLC0415 - as above

    try:
        return Target.parse(_text(text)).url
    except BadTarget as error:
        raise ValueError(str(error)) from None


def recipient(text: object) -> str:
    """Check the form of an age public key."""
    if re.fullmatch(r"age1[02-9ac-hj-np-z]{58}", _text(text)) is None:
        raise ValueError('expected the public key of age, "age1…" of 62 letters; see age-keygen')
    return str(text)


def rate(text: object) -> int:
    """Read `"500kB"` or `"2MB"`, bytes a second."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(kB|MB|GB)", _text(text))
    if found is None or not (made := int(float(found[1]) * _BYTES[found[2]])):
        raise ValueError('expected bytes a second in quotes, such as "500kB" or "2MB"')
    return made


def rate_text(bytes_s: int) -> str:
    """Write bytes a second as `rate` reads them back."""
    unit = next((u for u in ("GB", "MB") if bytes_s % _BYTES[u] == 0), "kB")
    return f"{bytes_s / _BYTES[unit]:.3f}".rstrip("0").rstrip(".") + unit


def is_remote(address: str) -> bool:
    """Tell whether reaching a URL or host takes more than our own machine or local network."""
    host = (split(address).hostname if "://" in address else address) or ""
    ip = _ip(host)
    if ip is not None:
        near = ip.is_private or ip.is_loopback or ip.is_link_local
        return not (near or (ip.version == 4 and ip in _SHARED))  # noqa: PLR2004
    name = host.removesuffix(".").lower()
    return "." in name and not name.endswith(_LOCAL_SUFFIXES)


def split(address: str) -> SplitResult:
    """Take an address that was checked apart."""
    return urlsplit(address)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text in quotes")  # noqa: TRY004  # pydantic wants a ValueError
    return value


def models(given: object) -> dict[str, str]:
    """Read a list of model names, or a table of ours = theirs."""
    if isinstance(given, list):
        pairs = [(name, name) for name in given]
    elif isinstance(given, dict):
        pairs = list(given.items())
    else:
        raise ValueError('expected a list of names, or a table { "our name" = "theirs" }')  # noqa: TRY004
    for pair in pairs:
        for name in pair:
            if not isinstance(name, str) or not 0 < len(name) <= 200:  # noqa: PLR2004
                raise ValueError("a model's name is text of 1 to 200 characters")
            if not name.isprintable():
                raise ValueError("a model's name holds no control characters")
    if len({ours for ours, _ in pairs}) < len(pairs):
        raise ValueError("the same model twice")
    return dict(pairs)


def _checked(
    check: Callable[[object], Any],
    schema: dict[str, Any],
    write: Callable[[Any], Any] = lambda value: value,
) -> tuple[Any, ...]:
    """Say how a value is read, what editors are told, and how it is written in the file."""

    def run(value: object) -> Any:
        try:
            return check(value)
        except ValueError as error:
            # Given as an argument: pydantic would read braces in the text as placeholders.
            raise PydanticCustomError("value", "{said}", {"said": str(error)}) from None

    return BeforeValidator(run), WithJsonSchema(schema), PlainSerializer(write)


def _window_text(times: tuple[dt.time, dt.time]) -> str:
    return "-".join(f"{time:%H:%M}" for time in times)


def _time_text(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _days_text(found: tuple[int, ...]) -> list[str]:
    return [WEEK[day] for day in found]


def _listen_text(where: tuple[str, int]) -> str:
    host, port = where
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_TEXT = {"type": "string"}
_LENGTH = {"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h|d)$"}
_LIST = {"type": "array", "items": _TEXT}
_PAIRS = {"type": "object", "additionalProperties": _TEXT}

Duration = Annotated[float, *_checked(duration, _LENGTH, written)]
Interval = Annotated[float, *_checked(positive, _LENGTH, written)]
Period = Annotated[
    float | str,
    *_checked(
        or_off,
        {"anyOf": [_LENGTH, {"const": "off"}]},
        lambda value: value if value == "off" else written(value),
    ),
]
TimeZone = Annotated[str, *_checked(timezone, _TEXT)]
Window = Annotated[tuple[dt.time, dt.time], *_checked(window, _TEXT, _window_text)]
TimeOfDay = Annotated[int, *_checked(time_of_day, _TEXT, _time_text)]
Days = Annotated[tuple[int, ...], *_checked(days, {"anyOf": [_TEXT, _LIST]}, _days_text)]
Chat = Annotated[int | str, *_checked(chat, {"type": ["integer", "string"]})]
Rate = Annotated[int, *_checked(rate, _TEXT, rate_text)]
Listen = Annotated[tuple[str, int], *_checked(listen, _TEXT, _listen_text)]
Host = Annotated[str, *_checked(hostname, _TEXT)]
Resolver = Annotated[str, *_checked(resolver, _TEXT)]
Url = Annotated[str, *_checked(url, _TEXT)]
Place = Annotated[str, *_checked(place, _TEXT)]
Recipient = Annotated[str, *_checked(recipient, _TEXT)]
Link = Annotated[str, *_checked(link, _TEXT)]
IPv4 = Annotated[list[str], *_checked(address(4), {"anyOf": [_TEXT, _LIST]})]
IPv6 = Annotated[list[str], *_checked(address(6), {"anyOf": [_TEXT, _LIST]})]
Models = Annotated[dict[str, str], *_checked(models, {"anyOf": [_LIST, _PAIRS]})]
