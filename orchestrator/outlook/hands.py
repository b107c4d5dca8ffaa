"""What stands for the edge on a stage: the controls, the DNS provider, the messages.

How long each takes is an assumption, said beside it; what is done and when follows `edge.dns`,
`edge.controls` and `edge.alerts`.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core.events import (
    ControlsAnswered,
    DnsAttempting,
    DnsConfirmed,
    DnsTroubled,
    NameChecked,
    NoticesSent,
)
from orchestrator.core.model import DnsTrouble, Notice, Publication, Severity
from orchestrator.outlook.scene import Scene

CONTROLS_S = 0.2  # until the controls have answered
CONTROLS_LOST_S = 3.0  # edge.controls: as long as one is waited for
GATHER_S = 1.0  # edge.alerts: what belongs together goes in one message
READ_S = 0.3  # to read a record
WRITE_S = 0.4  # to write it
ATTEMPT_S = 3.8  # edge.dns: no single attempt takes longer
RETRY_S, RETRY_MAX_S = 0.5, 30.0  # edge.dns: doubles from the one to the other
WATCH_S = 60.0  # edge.dns: between looks at a name that is as it should be


class Hands:
    """Carries out what the rules ask of the world.

    `quiet_until(wall)` says until when only what is critical rings, None when it is not quiet.
    """

    def __init__(self, stage: Scene, quiet_until: Callable[[float], float | None]) -> None:
        self._stage = stage
        self._quiet_until = quiet_until
        self._delivering = False
        self._names: dict[str, int] = {}  # service → the number of its latest plan to look
        self._failures: dict[str, int] = {}

    def begin(self) -> None:
        """Look at every name, and see what there is to send."""
        for service in self._stage.fleet.config.services:
            self.reconcile(service)
        self.deliver()

    # ── is it us? ───────────────────────────────────────────────────────────────────────────────

    def ask_controls(self) -> None:
        """Try the controls, all at once."""
        stage, began_at = self._stage, self._stage.at
        total = stage.fleet.config.controls
        failed = total if stage.cut_off else 0
        self._did("", f"the {total} controls are asked: is it us?")

        def answer() -> None:
            self._did(
                "", f"{failed} of {total} controls do not answer" if failed else "they answer"
            )
            stage.give(ControlsAnswered(failed, total, began_at))

        stage.schedule(began_at + (CONTROLS_LOST_S if failed else CONTROLS_S), answer)

    def check_name(self, service: str) -> None:
        """Ask for the service through its public name."""
        state = self._stage.fleet.services[service]
        ok = state.active is not None and state.active not in self._stage.dead
        answer = NameChecked(service, ok and not self._stage.cut_off)
        self._stage.schedule(self._stage.at + READ_S, lambda: self._stage.give(answer))

    # ── messages ────────────────────────────────────────────────────────────────────────────────

    def deliver(self) -> None:
        """Send what is in the outbox, after a moment in which more may come.

        Not where time jumps: there the outbox fills, and messages are read off the turns.
        """
        if self._stage.dense and self._stage.fleet.outbox and not self._delivering:
            self._delivering = True
            self._stage.schedule(self._stage.at + GATHER_S, self._send)

    def _send(self) -> None:
        stage = self._stage
        self._delivering = False
        if stage.fleet.world.isolated_since is not None:
            return  # once the network is back
        quiet = self._quiet_until(stage.wall)
        due = [one for one in stage.fleet.outbox.values() if quiet is None or _rings(one)]
        waiting = len(stage.fleet.outbox) - len(due)
        if quiet is not None and waiting:
            stage.schedule(stage.at + quiet - stage.wall, self.deliver)
            held = tuple(one for one in stage.fleet.outbox.values() if not _rings(one))
            for watcher in stage.watchers:
                watcher.held(held, quiet)
        if not due:
            return
        for watcher in stage.watchers:
            watcher.told(tuple(due))
        stage.give(NoticesSent(tuple(one.id for one in due), "operator"))

    # ── the stable name ─────────────────────────────────────────────────────────────────────────

    def reconcile(self, service: str, after_s: float = 0.0) -> None:
        """Compare a service's record with what is wanted; only the latest call counts."""
        if self._stage.fleet.config.services[service].dns is None:
            return
        number = self._names[service] = self._names.get(service, 0) + 1
        self._later(service, number, after_s, lambda: self._read(service, number))

    def _later(self, service: str, number: int, after_s: float, do: Callable[[], None]) -> None:
        def still() -> None:
            if self._names[service] == number:
                do()

        self._stage.schedule(self._stage.at + after_s, still)

    def _publication(self, service: str) -> Publication:
        return self._stage.fleet.services[service].publication

    def _read(self, service: str, number: int) -> None:
        world = self._stage.fleet.world
        if world.isolated_since is not None or world.paused_since is not None:
            return
        if self._stage.dns_down or self._stage.cut_off:
            self._later(service, number, ATTEMPT_S, lambda: self._failed(service))
        else:
            self._later(service, number, READ_S, lambda: self._found(service, number))

    def _found(self, service: str, number: int) -> None:
        pub = self._publication(service)
        self._failures.pop(service, None)
        if not pub.wanted:
            return
        if pub.wanted != pub.confirmed or pub.wanted_epoch != pub.confirmed_epoch:
            self._stage.give(DnsAttempting(service, pub.wanted, pub.wanted_epoch))
            self._did(service, f"{self._name(service)} is written: {_said(pub)}")
            self._later(service, number, WRITE_S + READ_S, lambda: self._written(service, pub))
            return
        if pub.trouble is not None:
            self._stage.give(DnsConfirmed(service, pub.wanted, pub.wanted_epoch, pub.record_ids))
        self.reconcile(service, WATCH_S)

    def _written(self, service: str, pub: Publication) -> None:
        if self._stage.dns_down or self._stage.cut_off:
            self._failed(service)
            return
        self._stage.give(DnsConfirmed(service, pub.wanted, pub.wanted_epoch, ("record",)))
        self.reconcile(service, WATCH_S)

    def _failed(self, service: str) -> None:
        fails = self._failures[service] = self._failures.get(service, 0) + 1
        most_s = min(RETRY_S * 2.0 ** min(fails - 1, 20), RETRY_MAX_S)
        delay_s = most_s * self._stage.chance.uniform(0.5, 1.0)
        detail = f"the DNS provider did not answer within {ATTEMPT_S} s"
        frozen = self._stage.fleet.world.isolated_since is not None
        if self._publication(service).trouble is None and not frozen:
            trouble = DnsTrouble.UNREACHABLE
            event = DnsTroubled(service, trouble, detail, self._stage.at + delay_s)
            self._stage.give(event)
        if fails == 1:
            self._did(service, f"{self._name(service)}: {detail}; tried again until it does")
        self.reconcile(service, delay_s)

    def _name(self, service: str) -> str:
        dns = self._stage.fleet.config.services[service].dns
        return dns.name if dns is not None else service

    def _did(self, subject: str, text: str) -> None:
        for watcher in self._stage.watchers:
            watcher.did(subject, text)


def _rings(notice: Notice) -> bool:
    return notice.severity is Severity.CRITICAL


def _said(pub: Publication) -> str:
    there = ", ".join(f"{target.type} {target.content}" for target in pub.wanted)
    return f"{there} (epoch {pub.wanted_epoch})"
