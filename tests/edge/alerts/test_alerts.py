import asyncio
import contextlib
import json
import os
import random  # noqa: TID251 - seeded, as a Random port
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import structlog
from aiosmtpd.smtp import SMTP

from orchestrator.core.events import Flagged, NoticesSent
from orchestrator.core.model import Notice, NoticeKind, Severity
from orchestrator.core.quiet import quiet_until
from orchestrator.edge.alerts import AlertSettings, Channel, Courier, compose
from orchestrator.edge.child import ChildFailed, run_child
from orchestrator.edge.texts import Style

TOKEN = "123456789:AAcanary-7c1d5e0b9f-never-shown_x"
EN = Style("en", UTC)


@dataclass
class Clock:
    """A clock that stands still until it is set."""

    now: float = 1_800_000_000.0

    def steady(self) -> float:
        return self.now

    wall = boot = steady


@dataclass
class Post:
    """A web server for hooks and for Telegram's Bot API: keeps what it gets, answers `status`."""

    status: int = 200
    hang: bool = False
    got: list[tuple[str, dict]] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode().lower().split("\r\n")
            length = next(int(x.split(":")[1]) for x in lines if x.startswith("content-length"))
            self.got.append(
                (head.decode().split()[1], json.loads(await reader.readexactly(length)))
            )
            if self.hang:
                await reader.read()
            body = json.dumps({"ok": self.status == 200, "description": "Unauthorized"}).encode()
            writer.write(
                f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(body)}\r\n"
                "Content-Type: application/json\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()


@asynccontextmanager
async def post(**how) -> AsyncIterator[Post]:
    server = Post(**how)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


class Box:
    """Keeps the mail it gets."""

    def __init__(self) -> None:
        self.mails: list[str] = []

    async def handle_DATA(self, server, session, envelope) -> str:
        self.mails.append(envelope.content.decode())
        return "250 OK"


@asynccontextmanager
async def mailbox() -> AsyncIterator[tuple[Box, Channel]]:
    box = Box()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(box, loop=loop), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"mailto://127.0.0.1:{port}/?from=aion@a.example&to=me@b.example&mode=insecure"
    try:
        yield box, Channel("mail", url)
    finally:
        server.close()


def hook(server: Post, name: str = "hook") -> Channel:
    return Channel(name, f"json://127.0.0.1:{server.port}/hook")


def telegram(server: Post) -> Channel:
    return Channel("telegram", f"tgram://{TOKEN}/42", f"http://127.0.0.1:{server.port}")


class World:
    """An outbox that forgets what was reported as sent, as the loop does, and its courier."""

    def __init__(
        self, *channels: Channel, children=run_child, heeds: bool = True, told=(), **how
    ) -> None:
        self.outbox: dict[str, Notice] = {}
        self.reports: list[NoticesSent | Flagged] = []
        self.held = False
        self.heeds = heeds
        self.clock = Clock()
        self.courier = Courier(
            AlertSettings(channels, **how),
            outbox=lambda: self.outbox,
            held=lambda: self.held,
            report=self.heard,
            children=children,
            clock=self.clock,
            random=random.Random(1),
            told=told,
            gather_s=0.05,
            recheck_s=0.05,
        )

    def heard(self, event: NoticesSent | Flagged) -> None:
        self.reports.append(event)
        if isinstance(event, NoticesSent) and self.heeds:
            for id_ in event.ids:
                self.outbox.pop(id_)

    def put(self, id_: str, severity=Severity.WARNING, **how) -> None:
        params = {"backend": id_, "reason": "refused"}
        notice = Notice(
            id_, NoticeKind.OPENED, "backend_down", id_, severity, self.clock.now, "i", params
        )
        self.outbox[id_] = replace(notice, **how)
        self.courier.poke()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.courier.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def sent(self) -> list[tuple[tuple[str, ...], str]]:
        return [(e.ids, e.channel) for e in self.reports if isinstance(e, NoticesSent)]

    @property
    def flags(self) -> list[tuple[str, bool]]:
        return [(e.subject, bool(e.detail)) for e in self.reports if isinstance(e, Flagged)]


async def until(holds, what: str, limit_s: float = 25.0) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while not holds():  # noqa: ASYNC110 - it waits for the world, which sets no event
                await asyncio.sleep(0.01)
    assert holds(), what


class Scripted:
    """A child runner that does as told: a list of failing channels, an exception, or nothing."""

    def __init__(self, *failing: str) -> None:
        self.failing = set(failing)
        self.calls: list[dict] = []
        self.error: Exception | None = None

    async def __call__(self, module, payload, *, timeout_s):
        self.calls.append(payload)
        if self.error:
            raise self.error
        results = []
        for channel in payload["channels"]:
            ok = channel["name"] not in self.failing
            results.append({"name": channel["name"], "ok": ok, "detail": "" if ok else "refused"})
            if ok and payload["mode"] == "first":
                break
        return {"results": results}


A, B = Channel("a", "json://a"), Channel("b", "json://b")


# ── real parts ──────────────────────────────────────────────────────────────────────────────────


def test_what_happens_together_comes_as_one_message_through_telegram():
    async def world():
        async with post() as api:
            it = World(telegram(api), public_url="https://aion.example.org")
            async with it.running():
                it.put("colab")
                it.put("kaggle<b>", Severity.CRITICAL)
                await until(lambda: it.sent, "nothing was sent")
        assert it.sent == [(("kaggle<b>", "colab"), "telegram")]
        [(path, message)] = api.got
        assert path == f"/bot{TOKEN}/sendMessage"
        assert message["chat_id"] == 42
        text = message["text"]
        assert "Critical: kaggle" in text
        assert "kaggle<b>" not in text
        assert "· colab" in text
        assert "https://aion.example.org" in text

    asyncio.run(world())


def test_when_telegram_is_down_the_mail_goes_out_and_no_secret_is_told():
    async def world():
        async with post(status=401) as api, mailbox() as (box, mail):
            it = World(telegram(api), mail)
            with structlog.testing.capture_logs() as lines:
                async with it.running():
                    it.put("colab")
                    await until(lambda: it.sent, "nothing was sent")
            assert it.sent == [(("colab",), "mail")]
            assert len(box.mails) == 1
            assert "colab is down" in box.mails[0]
            assert TOKEN.partition(":")[2] not in repr(lines) + repr(it.reports) + box.mails[0]
            [line] = [line for line in lines if line["event"] == "channel_failed"]
            assert line["channel"] == "telegram"
            assert "Unauthorized" in line["detail"]
            assert TOKEN not in repr(it.courier._settings)

    asyncio.run(world())


def test_what_concerns_everybody_goes_through_every_channel():
    async def world():
        async with post() as one, post() as two, mailbox() as (box, mail):
            it = World(hook(one, "one"), hook(two, "two"), mail)
            async with it.running():
                it.put("colab", Severity.CRITICAL, everywhere=True)
                await until(lambda: it.sent, "nothing was sent")
            assert it.sent == [(("colab",), "one,two,mail")]
            assert (len(one.got), len(two.got), len(box.mails)) == (1, 1, 1)

    asyncio.run(world())


def test_a_channel_whose_answer_is_lost_makes_no_other_repeat_what_concerns_everybody():
    async def dies_with_the_second(module, payload, *, timeout_s):
        names = [channel["name"] for channel in payload["channels"]]
        sent.extend(names)
        if "b" in names:
            raise ChildFailed("it ended without an answer")
        return {"results": [{"name": name, "ok": True, "detail": ""} for name in names]}

    async def world():
        it = World(A, B, children=dies_with_the_second)
        async with it.running():
            it.put("loud", Severity.CRITICAL, everywhere=True)
            await until(lambda: it.sent, "nothing was sent")
        assert it.sent == [(("loud",), "a")]
        assert not it.outbox

    sent: list[str] = []
    asyncio.run(world())
    assert sent == ["a", "b"]


def _notifiers() -> list[int]:
    """Return our own children that send messages."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and b"edge.notify" in (entry / "cmdline").read_bytes():
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == os.getpid():
                    found.append(int(entry.name))
    return found


def test_an_escalation_that_nobody_confirms_does_not_hold_up_the_others():
    async def world():
        children = Scripted("a", "b")
        it = World(A, B, children=children)
        async with it.running():
            it.put("loud", Severity.CRITICAL, everywhere=True)
            it.put("quiet")
            await until(lambda: len(children.calls) >= 3, "the other one was not even tried")
        assert [call["mode"] for call in children.calls[:3]] == ["every", "every", "first"]
        assert "quiet" in children.calls[2]["title"]
        assert set(it.outbox) == {"loud", "quiet"}, "what nobody confirmed is kept"

    asyncio.run(world())


def test_a_sender_killed_halfway_loses_nothing_and_holds_no_secret_in_sight():
    pids: list[int] = []

    async def tracked(module, payload, *, timeout_s):
        before = set(_notifiers())
        task = asyncio.ensure_future(run_child(module, payload, timeout_s=timeout_s))
        await until(lambda: set(_notifiers()) - before, "no child")
        pids.extend(set(_notifiers()) - before)
        return await task

    async def world():
        async with post(hang=True) as api:
            it = World(telegram(api), children=tracked)
            async with it.running():
                it.put("colab")
                await until(lambda: api.got, "the child never reached the server")
                proc = Path(f"/proc/{pids[-1]}")
                seen = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
                assert TOKEN.encode() not in seen
                os.kill(pids[-1], signal.SIGKILL)
                await until(lambda: it.flags, "the failure went unnoticed")
                assert it.outbox
                assert not it.sent
                api.hang = False
                it.clock.now += 400
                it.courier.poke()
                await until(lambda: it.sent, "it was not sent again")
            assert it.flags == [("telegram", True), ("telegram", False)]
            assert len(api.got) == 2

    asyncio.run(world())


# ── order, batches, loss ────────────────────────────────────────────────────────────────────────


def test_without_channels_notices_go_to_the_log():
    async def world():
        it = World()
        with structlog.testing.capture_logs() as lines:
            async with it.running():
                it.put("colab")
                await until(lambda: it.sent, "nothing happened")
        assert it.sent == [(("colab",), "log")]
        assert lines[0]["title"] == "colab is down"

    asyncio.run(world())


def test_a_notice_is_sent_once_even_if_the_loop_is_slow_to_hear_it():
    async def world():
        children = Scripted()
        it = World(A, children=children, heeds=False)
        async with it.running():
            it.put("colab")
            await until(lambda: it.sent, "nothing was sent")
            it.clock.now += 31
            await until(lambda: len(it.sent) == 2, "the report was not repeated")
        assert len(children.calls) == 1

    asyncio.run(world())


def test_nothing_is_sent_while_our_own_network_is_lost():
    async def world():
        children = Scripted()
        it = World(A, children=children)
        it.held = True
        async with it.running():
            it.put("colab", Severity.CRITICAL)
            assert not it.courier._due()
            it.held = False
            await until(lambda: it.sent, "it was forgotten")

    asyncio.run(world())


def test_all_channels_down_is_flagged_once_and_its_end_too():
    async def world():
        children = Scripted("a", "b")
        it = World(A, B, children=children)
        async with it.running():
            it.put("colab")
            for round_ in range(1, 5):
                await until(lambda n=round_: len(children.calls) >= n, "not tried again")
                it.clock.now += 400
            assert it.flags == [("a", True), ("b", True)]
            children.failing.clear()
            it.clock.now += 400
            await until(lambda: it.sent, "not sent after recovery")
            it.put("kaggle")
            await until(lambda: len(it.flags) == 4, "the end was not flagged")
        assert it.flags[2:] == [("a", False), ("b", False)]

    asyncio.run(world())


def test_a_channel_flagged_by_an_earlier_run_is_tried_first_and_cleared():
    async def world():
        children = Scripted()
        it = World(A, B, children=children, told=("b", "gone"))
        assert it.flags == [("gone", False)]
        async with it.running():
            it.put("colab")
            await until(lambda: it.sent, "nothing was sent")
        assert it.sent == [(("colab",), "b")]
        assert it.flags[1:] == [("b", False)]

    asyncio.run(world())


def test_a_failing_channel_backs_off_to_five_minutes_at_most():
    it_waits = []

    async def world():
        children = Scripted("a")
        it = World(A, children=children)
        it.put("colab")
        for _ in range(12):
            await it.courier._deliver(list(it.outbox.values()))
            wait = it.courier._lines["a"].retry_at - it.clock.now
            it_waits.append(wait)
            it.clock.now += wait

    asyncio.run(world())
    assert it_waits[0] <= 5.0
    assert all(wait <= 300.0 for wait in it_waits)
    assert it_waits[-1] > 200.0


def test_a_storm_is_one_bounded_message_with_the_critical_first():
    notices = [
        Notice(f"n{i}", NoticeKind.OPENED, "backend_down", f"b{i}", Severity.WARNING, float(i),
               None, {"backend": f"b{i}", "reason": "x" * 290})
        for i in range(1000)
    ]  # fmt: skip
    message = compose(notices, AlertSettings(), EN)
    assert message.title == "Warning: b0 is down, and 999 more"
    assert len(message.title) + len(message.body) <= 4000
    shown = message.body.count("•")
    assert 1 <= shown <= 20
    assert f"… and {1000 - shown} more" in message.body
    assert re.findall(r" · (n\d+)$", message.body, re.MULTILINE) == list(message.ids)


def test_everything_of_a_storm_arrives_in_as_many_messages_as_it_takes():
    """What had no room in one message is not lost: it comes with the next."""

    async def world():
        it = World(A, children=Scripted())
        for i in range(200):
            it.put(f"b{i}")
        bodies = []
        while it.outbox:
            await it.courier._deliver(it.courier._pending())
            bodies.append(it.sent[-1][0])
        told = [id_ for ids in bodies for id_ in ids]
        assert sorted(told) == sorted(f"b{i}" for i in range(200))
        assert 2 <= len(bodies) <= 6

    asyncio.run(world())


def test_after_several_messages_what_can_wait_is_gathered_and_the_critical_is_not():
    async def world():
        children = Scripted()
        it = World(A, children=children)
        async with it.running():
            for i in range(3):
                it.put(f"b{i}")
                await until(lambda n=i: len(it.sent) == n + 1, "not sent")
            it.put("later")
            it.put("now", Severity.CRITICAL)
            await until(lambda: len(it.sent) == 4, "the critical waited")
            assert it.sent[3] == (("now",), "a")
            it.clock.now += 60
            await until(lambda: len(it.sent) == 5, "the other was forgotten")

    asyncio.run(world())


# ── quiet hours ─────────────────────────────────────────────────────────────────────────────────

LISBON = ZoneInfo("Europe/Lisbon")
NIGHT = (time(23, 30), time(7, 30))


def _at(*when: int, fold: int = 0) -> float:
    return datetime(*when, tzinfo=LISBON, fold=fold).timestamp()


def test_quiet_hours_hold_what_can_wait_and_let_the_critical_ring():
    async def world():
        children = Scripted()
        it = World(A, children=children, quiet=NIGHT, timezone="Europe/Lisbon")
        it.clock.now = _at(2026, 7, 1, 23, 45)
        async with it.running():
            it.put("colab")
            it.put("chat", Severity.CRITICAL)
            await until(lambda: it.sent, "the critical did not ring")
            assert it.sent == [(("chat",), "a")]
            it.clock.now = _at(2026, 7, 2, 7, 29)
            assert not it.courier._due()
            it.clock.now = _at(2026, 7, 2, 7, 30)
            await until(lambda: len(it.sent) == 2, "it was forgotten")

    asyncio.run(world())


@pytest.mark.parametrize("day", [(2026, 7, 1), (2026, 10, 24), (2027, 3, 27), (2026, 12, 31)])
def test_quiet_hours_follow_the_operators_clock_through_the_year(day):
    after = (datetime(*day, tzinfo=UTC) + timedelta(days=1)).timetuple()[:3]
    end = _at(*after, 7, 30)
    for minute in range(24 * 60):
        at = _at(*day, 12, 0) + minute * 60
        local = datetime.fromtimestamp(at, LISBON).time()
        quiet = local >= NIGHT[0] or local < NIGHT[1]
        assert quiet_until(at, NIGHT, LISBON) == (end if quiet else None)


def test_an_hour_that_is_repeated_does_not_begin_the_quiet_again():
    window = (time(23, 0), time(1, 30))  # on 25 October 2026 it is 1:30 twice
    assert quiet_until(_at(2026, 10, 25, 1, 10), window, LISBON) == _at(2026, 10, 25, 1, 30)
    assert quiet_until(_at(2026, 10, 25, 1, 10, fold=1), window, LISBON) is None


def test_no_window_or_an_empty_one_is_never_quiet():
    assert quiet_until(0.0, None, UTC) is None
    assert quiet_until(0.0, (time(8), time(8)), UTC) is None
