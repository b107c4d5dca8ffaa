"""Brings notices from the outbox to the operator, in batches, through the first channel that works.

A notice counts as sent only after a channel took it; until then it stays in the outbox, which the
store keeps. So none is ever lost, and a crash between the two costs at most one repeat, which is
recognised by the notice's id at the end of its text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import time
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog

from backends.base import Children, Clock, Random
from orchestrator.core.events import Flagged, NoticesSent
from orchestrator.core.model import Notice, NoticeKind, Severity
from orchestrator.core.quiet import quiet_until
from orchestrator.edge import phrases
from orchestrator.edge.texts import Style, Text, render, severity, translate
from orchestrator.errors import ChildFailed, ConfigError

GATHER_S = 1.0  # one failover opens and moves several things: they belong in one message
GATHER_MORE_S = 5.0  # … and a thousand backends fall over a few seconds
CALM_S = 30.0  # between messages that are not critical, once several were sent within it
BURST = 3
FIRST_BACKOFF_S = 5.0
MAX_BACKOFF_S = 300.0
FAILURES_TOLD = 3
RECHECK_S = 5.0
RESEND_REPORT_S = 30.0
BATCH_NOTICES = 12  # told in full; further ones in a line each
BATCH_CHARS = 3_900  # Telegram takes 4,096
TITLE_CHARS = 200
CHANNEL_S = 30.0
CHILD_S = 20.0
NOTIFY = "orchestrator.edge.notify"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Channel:
    """One way to the operator: an Apprise URL. `api`: another Telegram Bot API server."""

    name: str
    url: str = field(repr=False)
    api: str = ""


def channel_row(channel: Channel) -> dict[str, str]:
    """Return a channel as `notify` takes it."""
    return {"name": channel.name, "url": channel.url, "api": channel.api}


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Who is told, how and when. `quiet`: start and end by the clock of `timezone`."""

    channels: tuple[Channel, ...] = ()
    language: str = "en"
    timezone: str = "UTC"
    quiet: tuple[time, time] | None = None
    public_url: str | None = None


@dataclass(slots=True)
class _Line:
    """How one channel fares."""

    fails: int = 0
    retry_at: float = 0.0
    told: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One message, ready to go. `ids`: the notices in it; those without room come in the next."""

    title: str
    body: str
    ids: tuple[str, ...]


def zone_of(name: str) -> ZoneInfo:
    """Return the time zone called `name`; raises `ConfigError`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(f"time zone `{name}` is not known here; fix: install tzdata") from error


class Courier:
    """Sends what is in the outbox.

    `outbox` gives the unsent notices by id; `held` says that nothing may be sent now (our own
    network is lost); `report` takes `NoticesSent` and `Flagged`; `told` are the channels that were
    flagged as down by an earlier run.
    """

    def __init__(
        self,
        settings: AlertSettings,
        *,
        outbox: Callable[[], Mapping[str, Notice]],
        held: Callable[[], bool],
        report: Callable[[NoticesSent | Flagged], None],
        children: Children,
        clock: Clock,
        random: Random,
        told: Iterable[str] = (),
        gather_s: float = GATHER_S,
        recheck_s: float = RECHECK_S,
    ) -> None:
        self._outbox, self._held, self._report = outbox, held, report
        self._children, self._clock, self._random = children, clock, random
        self._gather_s, self._recheck_s = gather_s, recheck_s
        self._woken = asyncio.Event()
        self._told: dict[str, tuple[str, float]] = {}  # sent, not yet out of the outbox
        self._sent_at: list[float] = []
        self._lines = {name: _Line(told=True) for name in told}
        self.configure(settings)

    def configure(self, settings: AlertSettings) -> None:
        """Take new settings; channels that stay keep their history, flags of others end."""
        self._zone = zone_of(settings.timezone)
        self._settings = settings
        names = {channel.name for channel in settings.channels}
        for name in [name for name in self._lines if name not in names]:
            if self._lines.pop(name).told:
                self._report(Flagged("alerts_down", name, ""))
        for name in names:
            self._lines.setdefault(name, _Line())
        self.poke()

    def poke(self) -> None:
        """Say that there is something to send, or that sending has become possible."""
        self._woken.set()

    async def run(self) -> None:
        """Send until cancelled; a child under way is then killed."""
        while True:
            wait_s = self._wait_s()
            try:
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            if self._due():
                await self._gather()
                await self._deliver(self._due())

    # ── what is due, and when ───────────────────────────────────────────────────────────────────

    def _pending(self) -> list[Notice]:
        """Return what is to be sent, most urgent first; repeat reports that went unheard."""
        outbox, now = self._outbox(), self._clock.steady()
        for id_ in [id_ for id_ in self._told if id_ not in outbox]:
            del self._told[id_]
        for id_, (channel, at) in self._told.items():
            if now - at >= RESEND_REPORT_S:
                self._told[id_] = (channel, now)
                self._report(NoticesSent((id_,), channel))
        fresh = [notice for notice in outbox.values() if notice.id not in self._told]
        return sorted(fresh, key=_urgency)

    def _due(self) -> list[Notice]:
        pending = self._pending()
        if not self._settings.channels:
            return pending
        now = self._clock.steady()
        if self._held() or now < self._next_try():
            return []
        critical = [notice for notice in pending if notice.severity is Severity.CRITICAL]
        quiet = quiet_until(self._clock.wall(), self._settings.quiet, self._zone)
        if quiet is not None or now < self._calm_until():
            return critical
        return pending

    def _next_try(self) -> float:
        return min(self._lines[channel.name].retry_at for channel in self._settings.channels)

    def _calm_until(self) -> float:
        """Until when only what is critical goes out; long past when there is nothing to calm."""
        now = self._clock.steady()
        self._sent_at = [at for at in self._sent_at if now - at < CALM_S]
        return self._sent_at[0] + CALM_S if len(self._sent_at) >= BURST else 0.0

    def _wait_s(self) -> float | None:
        """Return how long nothing can be due without a poke; None: as long as it likes."""
        if not self._outbox():
            return None
        now = self._clock.steady()
        waits = [self._recheck_s]
        if self._settings.channels:
            waits += [at - now for at in (self._next_try(), self._calm_until()) if at > now]
        return max(0.01, min(waits))

    async def _gather(self) -> None:
        """Let what belongs together arrive: a moment, longer while it keeps coming."""
        count, waited = len(self._pending()), 0.0
        while waited < GATHER_MORE_S:
            await asyncio.sleep(self._gather_s)
            waited += self._gather_s
            before, count = count, len(self._pending())
            if count <= before:
                return

    # ── sending ─────────────────────────────────────────────────────────────────────────────────

    async def _deliver(self, due: Sequence[Notice]) -> None:
        everywhere = [notice for notice in due if notice.everywhere]
        others = [notice for notice in due if not notice.everywhere]
        if not self._settings.channels:
            for notice in due:
                text = self._render(notice)
                log.warning("notice", id=notice.id, title=text.title, text=text.body)
            self._sent([notice.id for notice in due], "log")
            return
        ready = self._ready()
        if everywhere:
            await self._send(everywhere, self._settings.channels, "every")
            # What just failed on all of them may be their answers alone: the others go out too.
            ready = self._ready() or ready
        if others and ready:
            if all(notice.severity is not Severity.CRITICAL for notice in others):
                # One that is thought down proves itself with a message that can wait a little.
                ready.sort(key=lambda channel: not self._lines[channel.name].told)
            await self._send(others, ready, "first")

    def _ready(self) -> list[Channel]:
        now = self._clock.steady()
        return [each for each in self._settings.channels if self._lines[each.name].retry_at <= now]

    async def _send(self, notices: list[Notice], channels: Sequence[Channel], mode: str) -> None:
        message = compose(notices, self._settings, self._style())
        results: dict[str, Any] = {}
        # Each of "every" by a child of its own: an answer that is lost undoes no other's, and
        # nobody is told again and again by the channels that work.
        for group in [[each] for each in channels] if mode == "every" else [channels]:
            results |= await self._asked(message, group, mode)
        for channel in channels:
            if channel.name in results:
                row = results[channel.name]
                self._note(channel.name, row["ok"] is True, str(row.get("detail", "")))
        worked = [channel.name for channel in channels if results.get(channel.name, {}).get("ok")]
        if worked:
            self._sent_at.append(self._clock.steady())
            self._sent(message.ids, ",".join(worked))
        else:
            self._flag_all()

    async def _asked(
        self, message: Message, channels: Sequence[Channel], mode: str
    ) -> dict[str, Any]:
        """Have a child send it; return the answers by channel."""
        payload: dict[str, Any] = {
            "mode": mode,
            "title": message.title,
            "body": message.body,
            "channels": [channel_row(channel) for channel in channels],
        }
        try:
            timeout_s = CHILD_S + CHANNEL_S * len(channels)
            answer = await self._children(NOTIFY, payload, timeout_s=timeout_s)
            return {row["name"]: row for row in answer["results"]}
        except (ChildFailed, KeyError, TypeError) as error:
            failed = {"ok": False, "detail": f"the sending process failed: {error}"}
            return {channel.name: failed for channel in channels}

    def _sent(self, ids: Sequence[str], channel: str) -> None:
        now = self._clock.steady()
        self._told.update((id_, (channel, now)) for id_ in ids)
        self._report(NoticesSent(tuple(ids), channel))

    def _note(self, name: str, ok: bool, detail: str) -> None:
        """Remember how a channel fared; a lasting failure is flagged, and its end."""
        line = self._lines.setdefault(name, _Line())
        if ok:
            if line.told:
                self._report(Flagged("alerts_down", name, ""))
            self._lines[name] = _Line()
            return
        line.fails += 1
        backoff = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(line.fails - 1, 10))
        line.retry_at = self._clock.steady() + backoff * self._random.uniform(0.75, 1.0)
        log.warning("channel_failed", channel=name, detail=detail, fails=line.fails)
        if line.fails >= FAILURES_TOLD:
            self._flag(name, detail)

    def _flag(self, name: str, detail: str) -> None:
        line = self._lines[name]
        if not line.told:
            line.told = True
            self._report(Flagged("alerts_down", name, detail or "it does not take messages"))

    def _flag_all(self) -> None:
        """No channel took it: nobody would hear a third failure, so it is flagged at once."""
        lines = self._lines
        if all(lines[channel.name].fails for channel in self._settings.channels):
            for channel in self._settings.channels:
                self._flag(channel.name, "no channel takes messages")

    def _style(self) -> Style:
        offset = self._clock.wall() - self._clock.steady()
        return Style(self._settings.language, self._zone, offset)

    def _render(self, notice: Notice) -> Text:
        return render(notice, self._style())


def _urgency(notice: Notice) -> tuple[bool, float, str]:
    return (notice.severity is not Severity.CRITICAL, notice.created_at, notice.id)


def compose(notices: Sequence[Notice], settings: AlertSettings, style: Style) -> Message:
    """Make one message of `notices`, which come most urgent first. Bounded; never raises."""
    first = _headline(notices[0], style)
    title = first
    if len(notices) > 1:
        rest = len(notices) - 1
        title = translate(phrases.BATCH_TITLE, style.language, title=first, count=rest)
    signature = f"aion · {settings.public_url}" if settings.public_url else "aion"
    blocks: list[str] = []
    room = BATCH_CHARS - TITLE_CHARS - len(signature) - 100
    for number, notice in enumerate(notices):
        alone, brief = len(notices) == 1, number >= BATCH_NOTICES
        block = _block(notice, style, alone=alone, brief=brief)[: BATCH_CHARS // 2]
        room -= len(block) + 2
        if room < 0 and blocks:
            break
        blocks.append(block)
    ids = tuple(notice.id for notice in notices[: len(blocks)])
    if left := len(notices) - len(blocks):
        blocks.append(translate(phrases.BATCH_REST, style.language, count=left))
    return Message(title[:TITLE_CHARS], "\n\n".join((*blocks, signature)), ids)


def _headline(notice: Notice, style: Style) -> str:
    title = render(notice, style).title
    ending = notice.kind in {NoticeKind.CLOSED, NoticeKind.ACKNOWLEDGED}
    if notice.severity is Severity.INFO or ending:
        return title
    return f"{severity(notice.severity, style.language)}: {title}"


def _block(notice: Notice, style: Style, *, alone: bool, brief: bool) -> str:
    if brief:
        return f"• {_headline(notice, style)} · {notice.id}"
    text = render(notice, style)
    when = style.moment(notice.created_at, notice.created_at)
    head = "" if alone else f"• {_headline(notice, style)}"
    return "\n".join(filter(None, (head, text.body, f"{when} · {notice.id}")))
