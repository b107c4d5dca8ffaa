"""What the daemon says of itself: one line an event, on standard error.

Each event has a stable machine name and plain fields; nobody parses prose. JSON lines when a
machine reads, a short readable line on a terminal. Under systemd a line starts with `<N>`, its
syslog priority (sd-daemon(3)), which journald takes off again, so `journalctl -p warning` works and
the stored text is still JSON.

Names and texts come from backends, so what is written is made harmless here: control and
direction-changing characters are escaped, lengths and depth are capped, and known secrets are
replaced.

    log = structlog.get_logger()
    log.info("service_moved", service="chat", to="kaggle", why="colab is down")
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO, cast
from urllib.parse import quote

import structlog

VALUE_CHARS = 2_000
TRACE_CHARS = 6_000
LINE_CHARS = 16_000  # journald cuts a line at 48 KiB
FIELDS = 40
DEPTH = 4
SECRET_CHARS = 6  # a shorter secret would blot out ordinary words
HIDDEN = "[secret]"

# C0, DEL, C1, zero-width and bidirectional controls, line separators, lone surrogates, BOM.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]"
)
_PRIORITY = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class Log:
    """Where log lines go, and what must never be in them.

    `stream` gets the lines; `wall` gives Unix seconds. `terminal`: readable lines; `journal`: `<N>`
    before each line; `color`: only with `terminal`.
    """

    def __init__(
        self,
        stream: TextIO,
        wall: Callable[[], float],
        *,
        terminal: bool = False,
        journal: bool = False,
        color: bool = False,
    ) -> None:
        self._stream = stream
        self._wall = wall
        self._terminal = terminal
        self._journal = journal
        self._color = color
        self._secrets: re.Pattern[str] | None = None

    def hide(self, secrets: Iterable[str]) -> None:
        """Replace these values from now on wherever they turn up; call again after a reload."""
        forms = {form for secret in secrets for form in (secret, quote(secret, safe=""))}
        long_first = sorted((f for f in forms if len(f) >= SECRET_CHARS), key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, long_first))) if long_first else None

    def install(self, level: str = "info") -> None:
        """Make structlog and the standard library's logging write here, from `level` on."""
        threshold = logging.getLevelNamesMapping()[level.upper()]
        structlog.configure(
            processors=[structlog.contextvars.merge_contextvars, self._process],
            wrapper_class=structlog.make_filtering_bound_logger(threshold),
            logger_factory=structlog.ReturnLoggerFactory(),
            cache_logger_on_first_use=False,
        )
        # Libraries speak from warning on; what they say in between is not for the operator.
        logging.basicConfig(
            handlers=[_Bridge(self)], level=max(threshold, logging.WARNING), force=True
        )

    def write(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write one line. A stream that is gone is not our end: the line is lost."""
        at = datetime.fromtimestamp(self._wall(), UTC)
        rest = dict(fields)
        trace = self._hidden(rest.pop("trace", ""))
        clean = self._value(rest, DEPTH)
        if trace:  # of a long one the end says what happened
            clean["trace"] = trace if len(trace) <= TRACE_CHARS else "… " + trace[-TRACE_CHARS:]
        event = self._text(event, 200)
        line = (
            self._readable(at, level, event, clean)
            if self._terminal
            else self._json(at, level, event, clean)
        )
        prefix = f"<{_PRIORITY.get(level, 6)}>" if self._journal else ""
        try:
            self._stream.write(prefix + line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # closed, or nobody at the other end
            return

    def _process(self, _: Any, method: str, event: MutableMapping[str, Any]) -> str:
        """Act as structlog's last processor: write, and hand nothing on."""
        fields = dict(event)
        name = str(fields.pop("event", ""))
        fields |= _failure(fields.pop("exc_info", None))
        level = {"warn": "warning", "exception": "error", "fatal": "critical"}.get(method, method)
        self.write(level, name, fields)
        return ""

    def _json(self, at: datetime, level: str, event: str, fields: Mapping[str, Any]) -> str:
        head = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "event": event,
        }
        whole = {**head, **fields, **head}  # the head comes first, and no field can pose as it
        line = json.dumps(whole, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        if len(line) > LINE_CHARS:
            line = json.dumps({**head, "cut": len(line)}, ensure_ascii=False, separators=(",", ":"))
        return _escape(line)

    def _readable(self, at: datetime, level: str, event: str, fields: Mapping[str, Any]) -> str:
        trace = fields.get("trace")
        shown = "  ".join(f"{k}={_plain(v)}" for k, v in fields.items() if k != "trace")
        clock = at.astimezone().strftime("%H:%M:%S")
        line = _escape(f"{clock} {level:<8} {event}  {shown}".rstrip()[:LINE_CHARS])
        if isinstance(trace, str):
            line += "\n" + "\n".join(_escape(part) for part in trace.splitlines())
        if self._color and _PRIORITY.get(level, 6) <= _PRIORITY["warning"]:
            line = f"\x1b[{33 if level == 'warning' else 31}m{line}\x1b[0m"
        return line

    def _value(self, value: Any, depth: int) -> Any:
        """Bring a field's value down to bounded JSON."""
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if depth > 0 and isinstance(value, Mapping):
            some = list(value.items())[:FIELDS]
            return {self._text(k, 64): self._value(v, depth - 1) for k, v in some}
        if depth > 0 and isinstance(value, list | tuple | set | frozenset):
            return [self._value(v, depth - 1) for v in list(value)[:FIELDS]]
        return self._text(value, VALUE_CHARS)

    def _text(self, value: object, chars: int) -> str:
        text = self._hidden(value)  # before cutting, or half a secret would stay
        return text if len(text) <= chars else f"{text[:chars]}… ({len(text) - chars} more)"

    def _hidden(self, value: object) -> str:
        text = str(value)
        return text if self._secrets is None else self._secrets.sub(HIDDEN, text)


class _Bridge(logging.Handler):
    """What libraries say through `logging`, as events named `library`."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"logger": record.name, "text": record.getMessage(), **_failure(record.exc_info)}
        self._log.write(record.levelname.lower(), "library", fields)


def _failure(exc_info: object) -> dict[str, str]:
    """Turn an exception into fields: `error` in one line, `trace` with the way to it."""
    error: object = exc_info
    if exc_info is True:
        error = sys.exc_info()[1]
    elif isinstance(exc_info, tuple):
        error = cast("_ExcInfo", exc_info)[1]
    if not isinstance(error, BaseException):
        return {}
    trace = "".join(traceback.format_exception(error)).rstrip()
    return {"error": f"{type(error).__name__}: {error}", "trace": trace}


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[\s"=]', text) or not text else text


def _escape(text: str) -> str:
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
