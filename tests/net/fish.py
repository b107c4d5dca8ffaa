"""One-line bugs in the rules that matter. The ordinary suite has to catch every one of them.

`tests/net` plants each in a copy of the tree and runs tests there that were written to say what
holds, none of them for a fish. One that gets through is a bug of the suite: what is missing then is
a test of the promise, not of the fish. One whose old text is gone is a row to bring up to date.
"""

from __future__ import annotations

from dataclasses import dataclass

# A net is a part of the ordinary suite that is done within ten seconds.
NETS: dict[str, tuple[str, ...]] = {
    "rules": (  # all of tests/core but the two slowest, quick ones first
        "tests/core/test_choice.py",
        "tests/core/test_health.py",
        "tests/core/test_deadlines.py",
        "tests/core/test_starts.py",
        "tests/core/test_rotation.py",
        "tests/core/test_isolation.py",
        "tests/core/test_corners.py",
        "tests/core/test_notices.py",
        "tests/core/test_fleet.py",
        "tests/core/test_crowds.py",
    ),
    "planner": ("tests/core/test_planner.py",),
    "lookahead": ("tests/core/test_lookahead.py",),
    "records": ("tests/core/test_records.py",),
    "targets": ("tests/core/test_records.py", "-k", "unsafe or private"),
    "durations": ("tests/settings/test_load.py",),
    "loop": ("tests/loop",),
    "store": ("tests/edge/store/test_store.py", "tests/edge/store/test_disk.py"),
    "observations": ("tests/edge/store/test_observations.py",),
    "reconciler": ("tests/edge/dns/test_reconciler.py",),
    "dyndns2": ("tests/edge/dns/test_dyndns2.py",),
    "cloudflare": ("tests/edge/dns/test_cloudflare.py",),
    "alerts": ("tests/edge/alerts/test_alerts.py",),
    "clock": ("tests/edge/test_clock.py",),
    "jobs": ("tests/jobs",),
    "discovery": ("tests/web/test_discovery.py",),
    "guard": ("tests/web/test_guard.py",),
    "simulation": ("tests/simulation/test_short.py",),
    "power": ("tests/core/test_power.py",),
    "providers": ("tests/edge/test_power.py", "tests/backends/test_command.py"),
}


@dataclass(frozen=True, slots=True)
class Fish:
    """A bug: in `file`, the line holding `old` (once in that file) says `new` instead.

    `promise`: what holds no more. `where`: the nets it is cast at, by name; one must catch it.
    """

    name: str
    promise: str
    file: str
    old: str
    new: str
    where: tuple[str, ...]


HEALTH = "orchestrator/core/health.py"
CHOICE = "orchestrator/core/choice.py"
ASSIGNMENT = "orchestrator/core/assignment.py"
DEMAND = "orchestrator/core/demand.py"
PROVIDER = "orchestrator/core/provider.py"
POWER = "orchestrator/core/power.py"
COMMAND = "backends/command.py"
POWERS = "orchestrator/edge/power.py"
REVIEW = "orchestrator/core/review.py"
ROTATION = "orchestrator/core/rotation.py"
EVIDENCE = "orchestrator/core/evidence.py"
NOTICES = "orchestrator/core/notices.py"
RECORDS = "orchestrator/core/records.py"
PUBLISHING = "orchestrator/core/publishing.py"
COMMANDS = "orchestrator/core/commands.py"
CONFIGURING = "orchestrator/core/configuring.py"
DRAFT = "orchestrator/core/draft.py"
FLEET = "orchestrator/core/fleet.py"
TARGETS = "orchestrator/core/targets.py"
PLANNER = "orchestrator/core/planner.py"
FILLING = "orchestrator/core/filling.py"
PURSES = "orchestrator/core/purses.py"
LOOKAHEAD = "orchestrator/core/lookahead.py"
DURATIONS = "orchestrator/core/durations.py"
LOOP = "orchestrator/loop.py"
STORE = "orchestrator/edge/store.py"
QUERIES = "orchestrator/edge/queries.py"
PRUNING = "orchestrator/edge/pruning.py"
SQLITE = "orchestrator/edge/sqlite.py"
RECONCILER = "orchestrator/edge/dns/reconciler.py"
CLOUDFLARE = "orchestrator/edge/dns/cloudflare.py"
ALERTS = "orchestrator/edge/alerts.py"
PACER = "orchestrator/edge/pacer.py"
CLOCK = "orchestrator/edge/clock.py"
CONTROLS = "orchestrator/edge/controls.py"
RUNNER = "jobs/runner.py"
TRIGGERS = "jobs/triggers.py"
DISCOVERY = "orchestrator/web/discovery.py"
GUARD = "orchestrator/web/guard.py"

FISH = (
    # ── what is believed ────────────────────────────────────────────────────────────────────────
    Fish(
        "falls one short",
        "`fall` failures in a row take a backend down, not fewer",
        HEALTH,
        "if state.fails < policy.fall or state.health is Health.DOWN:",
        "if state.fails < policy.fall - 1 or state.health is Health.DOWN:",
        ("rules",),
    ),
    Fish(
        "rises one short",
        "`rise` successes in a row bring it up, not fewer",
        HEALTH,
        "if oks < policy.rise:",
        "if oks < policy.rise - 1:",
        ("rules",),
    ),
    Fish(
        "traffic completes the fall",
        "passive evidence alone takes nobody down",
        HEALTH,
        "fails = min(state.fails + 1, max(policy.fall - 1, state.fails))",
        "fails = min(state.fails + 1, policy.fall)",
        ("rules",),
    ),
    Fish(
        "traffic counts every time",
        "a failure seen by the gateway counts once per fast interval",
        HEALTH,
        "if last is not None and at - last < policy.fast_interval_s:",
        "if last is not None and at - last < 0:",
        ("rules",),
    ),
    Fish(
        "one canary degrades",
        "one failed canary may be a poisoned prompt: two in a row degrade",
        HEALTH,
        "CANARY_FALL = 2  #",
        "CANARY_FALL = 1  #",
        ("rules",),
    ),
    Fish(
        "Retry-After at most a minute",
        "429 is a cool-down until Retry-After, however long",
        HEALTH,
        "wait_s = max(seen.retry_after_s or COOL_DOWN_S, policy.fast_interval_s)",
        "wait_s = min(seen.retry_after_s or COOL_DOWN_S, COOL_DOWN_S)",
        ("rules",),
    ),
    Fish(
        "jitter's sign",
        "with jitter too, nobody is asked before the cool-down is over",
        HEALTH,
        "(state.cooldown_until - at) / (1 - JITTER)",
        "(state.cooldown_until - at) / (1 + JITTER)",
        ("rules",),
    ),
    Fish(
        "flapping never begins",
        "three falls within an hour double the failback wait",
        HEALTH,
        "level = min(level + 1, DEEPEST)",
        "level = min(level * 2, DEEPEST)",
        ("rules",),
    ),
    Fish(
        "doubling is multiplying",
        "the failback wait doubles with each further fall",
        HEALTH,
        "wait_s = failback_after_s * 2.0 ** flap_level(state, at)",
        "wait_s = failback_after_s * 2.0 * flap_level(state, at)",
        ("rules",),
    ),
    Fish(
        "calm counts from the first fall",
        "flapping decays with calm, which begins at the last fall",
        HEALTH,
        "return max(0, state.flap_level - int((at - state.falls[-1]) // HOUR_S))",
        "return max(0, state.flap_level - int((at - state.falls[0]) // HOUR_S))",
        ("rules",),
    ),
    Fish(
        "the deadline itself is in time",
        "at its end a session is over",
        HEALTH,
        "(session.ends_at is not None and at >= session.ends_at)",
        "(session.ends_at is not None and at > session.ends_at)",
        ("rules",),
    ),
    Fish(
        "a lapsed lease is late",
        "a lapsed lease is out or suspect, as the challenge says",
        HEALTH,
        "if silent_s < session.lease_s:",
        "if silent_s < session.lease_s + session.late_s:",
        ("rules",),
    ),
    # ── is it us? ───────────────────────────────────────────────────────────────────────────────
    Fish(
        "isolated by one control",
        "isolation is declared when two or more controls fail",
        EVIDENCE,
        "event.failed >= min(CONTROLS_FALL, event.total)",
        "event.failed >= min(1, event.total)",
        ("rules",),
    ),
    Fish(
        "isolated although somebody answers",
        "isolation needs that nothing remote succeeded in the last interval",
        EVIDENCE,
        "if last is not None and draft.at - last < draft.config.interval_s * LATELY:",
        "if last is not None and draft.at - last < draft.config.interval_s / LATELY:",
        ("rules",),
    ),
    Fish(
        "isolation freezes the LAN too",
        "loopback and LAN verdicts never freeze",
        DRAFT,
        "return spec.remote and self.world.isolated_since is not None",
        "return self.world.isolated_since is not None",
        ("rules",),
    ),
    Fish(
        "once online, always online",
        "no remote verdict before it is known that the fault is not ours, since it began",
        EVIDENCE,
        "online_at >= began_at - FRESH_EVIDENCE_S",
        "online_at >= began_at - FRESH_EVIDENCE_S * 60",
        ("rules", "simulation"),
    ),
    Fish(
        "online a second too late",
        "what remote ones answered during a failure is proof enough that it is not us",
        EVIDENCE,
        "online_at >= began_at - FRESH_EVIDENCE_S",
        "online_at >= began_at + FRESH_EVIDENCE_S",
        ("rules",),
    ),
    Fish(
        "a poisoned prompt blames both",
        "a request that fails on two backends blames neither",
        EVIDENCE,
        "if len(set(event.failed)) == 1:",
        "if len(set(event.failed)) >= 1:",
        ("rules",),
    ),
    Fish(
        "leases run while we are deaf",
        "lease time runs only while we listen",
        EVIDENCE,
        "deaf = draft.world.isolated_since is not None or draft.world.inbound_lost_since is not None",
        "deaf = draft.world.isolated_since is not None and draft.world.inbound_lost_since is not None",
        ("rules",),
    ),
    Fish(
        "a revoked session renews its lease",
        "never a revoked session",
        EVIDENCE,
        "if session is None or session.id != event.session or session.revoked:",
        "if session is None or (session.id != event.session and session.revoked):",
        ("rules",),
    ),
    Fish(
        "a restart grants no lease",
        "a restart grants stored sessions one lease",
        CONFIGURING,
        "session=replace(session, beat_at=at, challenged_at=None) if session else None,",
        "session=replace(session, challenged_at=None) if session else None,",
        ("rules",),
    ),
    Fish(
        "a clock set back goes unseen",
        "a gap between the clocks, either way, is doubt about everything",
        FLEET,
        "if abs(jump_s) > GAP_S:",
        "if jump_s > GAP_S:",
        ("rules",),
    ),
    Fish(
        "a gap costs the leases",
        "time in which we slept is not counted against a lease",
        FLEET,
        "later = replace(state.session, beat_at=state.session.beat_at + gap_s)",
        "later = replace(state.session, beat_at=state.session.beat_at - gap_s)",
        ("rules",),
    ),
    Fish(
        "what timed out while we slept counts",
        "a gap is doubt, not evidence: what began before it says nothing bad",
        EVIDENCE,
        "gap_at is not None and event.started_at < gap_at:",
        "gap_at is not None and event.started_at > gap_at:",
        ("rules", "simulation"),
    ),
    Fish(
        "asked while asked",
        "one question to the controls at a time, until its answer must be lost",
        FLEET,
        "if asked_at is not None and draft.at - asked_at > LOST_ANSWER_S:",
        "if asked_at is not None and draft.at - asked_at < LOST_ANSWER_S:",
        ("rules",),
    ),
    # ── who serves ──────────────────────────────────────────────────────────────────────────────
    Fish(
        "failback before it is well",
        "a voluntary move needs `failback_after` of unbroken health",
        CHOICE,
        'due = (one.ok_since if one.ok_since is not None else float("inf")) + one.wait_s',
        "due = (one.ok_since if one.ok_since is not None else 0.0) + one.wait_s",
        ("rules", "simulation"),
    ),
    Fish(
        "three moves an hour",
        "at most two voluntary moves an hour",
        CHOICE,
        "if len(moves) >= MOVES_AN_HOUR and not exempt:",
        "if len(moves) > MOVES_AN_HOUR and not exempt:",
        ("rules",),
    ),
    Fish(
        "apart from the first move",
        "voluntary moves are 60 s apart",
        CHOICE,
        "due = max(due, moves[-1] + APART_S)",
        "due = max(due, moves[0] + APART_S)",
        ("rules",),
    ),
    Fish(
        "every move to the free is exempt",
        "only moves from paid to free are exempt from the limit",
        CHOICE,
        "exempt = incumbent.tier is Tier.PAID and one.tier is Tier.FREE",
        "exempt = incumbent.tier is Tier.PAID or one.tier is Tier.FREE",
        ("rules",),
    ),
    Fish(
        "a flapping one is held back",
        "the only live one is never held back",
        CHOICE,
        "next((one for one in able if not one.flapping), able[0])",
        "next((one for one in able if not one.flapping), None)",
        ("rules",),
    ),
    Fish(
        "a suspect is left",
        "a suspect keeps serving",
        CHOICE,
        "return incumbent.health is Health.DEGRADED",
        "return incumbent.rank is Rank.RESERVE",
        ("rules",),
    ),
    Fish(
        "the record's epoch again",
        "next epoch = max(stored, the record's) + 1",
        ASSIGNMENT,
        "return max(state.epoch, record.wanted_epoch, record.confirmed_epoch) + 1",
        "return max(state.epoch + 1, record.wanted_epoch, record.confirmed_epoch)",
        ("rules",),
    ),
    Fish(
        "nobody at the name",
        "everything down: the name points at the gateway",
        ASSIGNMENT,
        "return (spec.targets if spec is not None else ()) or service.dns.gateway",
        "return spec.targets if spec is not None else ()",
        ("rules", "simulation"),
    ),
    Fish(
        "an old service's epochs again",
        "epochs of a service that was removed are not used again",
        CONFIGURING,
        "floor = max(draft.world.epoch_floor, draft.service(name).epoch)",
        "floor = min(draft.world.epoch_floor, draft.service(name).epoch)",
        ("rules",),
    ),
    Fish(
        "left only at its end",
        "who serves has its deadline further away than its drain margin",
        ASSIGNMENT,
        "ending=ends_at is not None and ends_at - draft.at <= margin_s(spec, service),",
        "ending=ends_at is not None and ends_at - draft.at <= 0.0,",
        ("rules",),
    ),
    Fish(
        "a name is forgotten",
        "what is wanted of a name is never nothing",
        ASSIGNMENT,
        "wanted = targets(draft, service, to) or state.publication.wanted",
        "wanted = targets(draft, service, to)",
        ("rules",),
    ),
    # ── what the operator said ──────────────────────────────────────────────────────────────────
    Fish(
        "a hard pin for ever",
        "pins end by themselves, hard ones too",
        REVIEW,
        "if state.pin is not None and at >= state.pin.until:",
        "if state.pin is not None and not state.pin.hard and at >= state.pin.until:",
        ("rules", "simulation"),
    ),
    Fish(
        "nobody looks when the pin ends",
        "when a pin ends, the best one serves again without new evidence",
        REVIEW,
        "times.append(state.pin.until)",
        "times.append(state.pin.until + HOUR_S)",
        ("rules",),
    ),
    Fish(
        "a pause without an end is none",
        "a pause observes only: nothing is published",
        DRAFT,
        "return self.config.shadow or self.world.paused_since is not None",
        "return self.config.shadow or self.world.paused_until is not None",
        ("rules",),
    ),
    Fish(
        "a failover does not hold",
        "a manual failover stands for an hour",
        COMMANDS,
        "held = replace(state, hold_until=draft.at + HOLD_S, pin=_unless(state.pin, to.name))",
        "held = replace(state, hold_until=draft.at, pin=_unless(state.pin, to.name))",
        ("rules",),
    ),
    Fish(
        "proven by an old canary",
        "a planned move waits for a canary of its own",
        ROTATION,
        "proven = state.canary_at is not None and state.canary_at >= turn.since",
        "proven = state.canary_at is not None",
        ("rules",),
    ),
    Fish(
        "verified since it began",
        "the public name answers well for 60 s on end before resolvers are waited for",
        ROTATION,
        "if turn.good_since is not None and draft.at - turn.good_since >= verify_s:",
        "if turn.good_since is not None and draft.at - turn.since >= verify_s:",
        ("rules",),
    ),
    Fish(
        "the new one is stopped",
        "after the drain the old one is stopped",
        ROTATION,
        "draft.do(Stop(turn.old))",
        "draft.do(Stop(turn.new))",
        ("rules",),
    ),
    # ── what the operator hears ─────────────────────────────────────────────────────────────────
    Fish(
        "a notice's id again",
        "each notice has an id of its own",
        NOTICES,
        'id=f"{incident.id}:{turn}",',
        'id=f"{incident.key}:{turn}",',
        ("rules",),
    ),
    Fish(
        "incidents are numbered anew at a start",
        "ids of incidents, and so of notices, are not used again",
        CONFIGURING,
        "incident_seq=world.incident_seq,",
        "incident_seq=0,",
        ("rules", "simulation"),
    ),
    Fish(
        "a restart closes what is open",
        "nothing is over before everything was looked at once",
        NOTICES,
        "elif wrong is None and found is not None and draft.world.settled:",
        "elif wrong is None and found is not None:",
        ("rules",),
    ),
    Fish(
        "reminded every second",
        "an open incident is said again every `remind_every`",
        NOTICES,
        "elif draft.at - incident.noticed_at >= policy.remind_s:",
        "elif draft.at - incident.opened_at >= policy.remind_s:",
        ("rules",),
    ),
    Fish(
        "sent although nobody took it",
        "a notice counts as sent only after a channel took it",
        ALERTS,
        "        if worked:",
        "        if results:",
        ("alerts",),
    ),
    Fish(
        "critical waits for the morning",
        "critical rings in quiet hours",
        ALERTS,
        "            return critical",
        "            return []",
        ("alerts",),
    ),
    Fish(
        "sent into the void",
        "while isolated, notices queue",
        ALERTS,
        "if self._held() or now < self._next_try():",
        "if now < self._next_try():",
        ("alerts",),
    ),
    Fish(
        "what concerns everybody goes to one",
        "escalated: to every channel",
        ALERTS,
        'await self._send(everywhere, self._settings.channels, "every")',
        'await self._send(everywhere, self._settings.channels, "first")',
        ("alerts",),
    ),
    # ── what is published ───────────────────────────────────────────────────────────────────────
    Fish(
        "a stranger beside ours is overwritten",
        "nothing that is not ours is ever touched",
        RECORDS,
        "if got.foreign and not pub.adopt:",
        "if got.foreign and not got.ours and not pub.adopt:",
        ("records",),
    ),
    Fish(
        "an equal epoch is not outbid",
        "next epoch = max(stored, the record's) + 1",
        RECORDS,
        "if ahead and ahead >= pub.wanted_epoch:",
        "if ahead and ahead > pub.wanted_epoch:",
        ("records",),
    ),
    Fish(
        "outbid by as much",
        "next epoch = max(stored, the record's) + 1",
        PUBLISHING,
        "epoch = max(state.epoch, event.epoch) + 1",
        "epoch = max(state.epoch + 1, event.epoch)",
        ("rules",),
    ),
    Fish(
        "put back once more",
        "drift is corrected at most 3 times in 24 h",
        RECORDS,
        "len(recent) < MAX_CORRECTIONS:",
        "len(recent) <= MAX_CORRECTIONS:",
        ("records",),
    ),
    Fish(
        "a private address in a 6to4 wrapping",
        "only global unicast is published, whatever it is wrapped in",
        TARGETS,
        "inner = (address.ipv4_mapped, address.sixtofour, *(address.teredo or ()), nat64)",
        "inner = (address.ipv4_mapped, *(address.teredo or ()), nat64)",
        ("targets",),
    ),
    Fish(
        "confirmed before read back",
        "a record is confirmed once it was read back",
        RECONCILER,
        "return 0.0  # read it back",
        "return await self._confirm(plan, pub)",
        ("reconciler",),
    ),
    Fish(
        "written although frozen meanwhile",
        "nothing is published while isolated or paused",
        RECONCILER,
        "        if service is None or frozen:\n            return 0.0",
        "        if service is None:\n            return 0.0",
        ("reconciler",),
    ),
    Fish(
        "one read is enough",
        "what somebody else changed is looked at twice",
        RECONCILER,
        "if theirs and self._suspected != plan.reason:",
        "if theirs and not plan.reason:",
        ("reconciler",),
    ),
    Fish(
        "retry-after at most 30 s",
        "the provider's retry-after is honoured, however long",
        RECONCILER,
        "delay = error.retry_after_s",
        "delay = min(error.retry_after_s, self._pace.retry_max_s)",
        ("reconciler",),
    ),
    Fish(
        "backs off by the same",
        "failures back off to at most 30 s",
        RECONCILER,
        "        self._failures += 1",
        "        self._failures = 1",
        ("reconciler",),
    ),
    Fish(
        "sent again after a lost answer",
        "a write whose answer was lost is not repeated before it was read",
        RECONCILER,
        "if self._provider.rewrites or isinstance(error, NotSent | Throttled | NotAllowed):",
        "if self._provider.rewrites or isinstance(error, AionError):",
        ("dyndns2",),
    ),
    Fish(
        "the SDK retries",
        "the SDK never repeats a request by itself",
        CLOUDFLARE,
        "max_retries=0,",
        "max_retries=2,",
        ("cloudflare",),
    ),
    Fish(
        "unsuccessful is successful",
        "HTTP 200 with `success: false` is a failure, not an empty answer",
        CLOUDFLARE,
        'if not isinstance(envelope, dict) or envelope.get("success") is not True:',
        "if not isinstance(envelope, dict):",
        ("cloudflare",),
    ),
    Fish(
        "names that end alike",
        "nothing else in the zone is ever touched",
        CLOUDFLARE,
        'if str(row.get("name", "")).lower() == wanted]',
        'if str(row.get("name", "")).lower().endswith(wanted)]',
        ("cloudflare",),
    ),
    # ── what survives ───────────────────────────────────────────────────────────────────────────
    Fish(
        "applied before it is stored",
        "intent is committed before it counts",
        LOOP,
        "            turn = step(self.fleet, event, now)",
        "            apply(self.fleet, turn := step(self.fleet, event, now))",
        ("loop",),
    ),
    Fish(
        "a result is dropped",
        "results are never dropped, even if they cannot be stored now",
        LOOP,
        "RESULTS = (DnsConfirmed, DnsTroubled, NoticesSent, Flagged)",
        "RESULTS = (DnsConfirmed, DnsTroubled, Flagged)",
        ("loop",),
    ),
    Fish(
        "a repeated command is done again",
        "commands are idempotent by key",
        QUERIES,
        '"key": clean(audit.key) if audit.key is not None else None,',
        '"key": None,',
        ("loop",),
    ),
    Fish(
        "the outbox outside the transaction",
        "one transaction holds assignment, epoch and outbox",
        QUERIES,
        "upsert(connection, rows.NOTICE.table, [rows.NOTICE.row(n) for n in turn.notices.values()])",
        'connection.exec_driver_sql("COMMIT"); upsert(connection, rows.NOTICE.table, [rows.NOTICE.row(n) for n in turn.notices.values()])',
        ("store",),
    ),
    Fish(
        "time goes back",
        "steady time never goes back, across restarts",
        QUERIES,
        "written = case((WORLD.c.written_at < at, at), else_=WORLD.c.written_at)",
        "written = case((WORLD.c.written_at > at, at), else_=WORLD.c.written_at)",
        ("store",),
    ),
    Fish(
        "a full disk stops transitions",
        "with a full disk what is decided is still stored, from the ballast",
        STORE,
        "await self._intend(lambda connection: queries.save_turn(connection, turn, now, audit))",
        "await self._do(lambda connection: queries.save_turn(connection, turn, now, audit))",
        ("store",),
    ),
    Fish(
        "unsynced",
        "a committed transition survives a power cut",
        SQLITE,
        'cursor.execute("PRAGMA synchronous=FULL")',
        'cursor.execute("PRAGMA synchronous=NORMAL")',
        ("store",),
    ),
    Fish(
        "old and unsent is let go of",
        "a notice is never lost",
        PRUNING,
        "_before(c, notice, notice.c.sent_at, at - NOTICES_S)",
        "_before(c, notice, notice.c.created_at, at - NOTICES_S)",
        ("store",),
    ),
    Fish(
        "statistics end with a failed write",
        "what could not be written is written the next time",
        STORE,
        "            rolling.put_back(batch)",
        "            pass",
        ("observations",),
    ),
    # ── when ────────────────────────────────────────────────────────────────────────────────────
    Fish(
        "jitter only upwards",
        "intervals have ±10 % jitter",
        PACER,
        "self._random.uniform(1 - JITTER, 1 + JITTER)",
        "self._random.uniform(1, 1 + JITTER)",
        ("loop",),
    ),
    Fish(
        "intervals on the wall clock",
        "intervals and leases run on the monotonic clock",
        CLOCK,
        "return self._monotonic() + self._offset",
        "return self.wall()",
        ("clock",),
    ),
    Fish(
        "one control is enough to break off",
        "all controls but one are heard before it is decided whether it is us",
        CONTROLS,
        "if answered and answered >= len(urls) - 1:",
        "if answered:",
        ("loop",),
    ),
    Fish(
        "weeks begin on Monday",
        "cron's weekdays are counted from Sunday = 0",
        TRIGGERS,
        '_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")',
        '_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")',
        ("jobs",),
    ),
    Fish(
        "the repeated hour is skipped by all",
        "cron follows the configured time zone through daylight saving",
        TRIGGERS,
        'once=not hour.startswith("*")',
        "once=True",
        ("jobs",),
    ),
    Fish(
        "crashes add up",
        "two crashes in a row quarantine a job, not two in a year",
        RUNNER,
        "entry.crashes = entry.crashes + 1 if problem.startswith(CRASHED) else 0",
        "entry.crashes += problem.startswith(CRASHED)",
        ("jobs",),
    ),
    Fish(
        "made up for just before it is due",
        "a missed job is not made up for if its next run is less than 2 h away",
        RUNNER,
        "if after is None or after - wall >= NOT_IF_NEXT_WITHIN_S:",
        "if after is None or after >= NOT_IF_NEXT_WITHIN_S:",
        ("jobs",),
    ),
    Fish(
        "the first of several units",
        "a duration that is not understood is refused",
        DURATIONS,
        "found = _ONE.fullmatch(text)",
        "found = _ONE.match(text)",
        ("durations",),
    ),
    # ── looking ahead ───────────────────────────────────────────────────────────────────────────
    Fish(
        "asked in one's sleep",
        "a human is only asked in operator hours",
        PLANNER,
        "    hours = awake(config.operator_hours,",
        "    hours = awake(None,",
        ("planner",),
    ),
    Fish(
        "two runs of one machine",
        "a machine's next run begins when the one before it is over",
        FILLING,
        "        earliest = max(self.runs[-1].ends_at, cover.free_at) if self.runs else cover.free_at",
        "        earliest = cover.free_at",
        ("planner",),
    ),
    Fish(
        "hours planned twice",
        "nothing is planned beyond what a meter holds",
        PURSES,
        "                    period.left = max(0.0, period.left - on_s * rate)",
        "                    period.left = max(0.0, period.left - on_s * rate / 2)",
        ("planner",),
    ),
    Fish(
        "sleep counted as slowness",
        "the time to a restart is that of operator hours",
        LOOKAHEAD,
        "    took_s = _awake_s(draft, min(one.opened_at for one in asked))",
        "    took_s = draft.at - min(one.opened_at for one in asked)",
        ("lookahead",),
    ),
    Fish(
        "asked for twice over",
        "what a bigger incident explains is not told",
        LOOKAHEAD,
        "        if not _explained(draft, name, ask):",
        "        if ask:",
        ("lookahead",),
    ),
    # ── what clients see ────────────────────────────────────────────────────────────────────────
    Fish(
        "the list of services is stale",
        "discovery says who serves now",
        DISCOVERY,
        '        self._paths.pop("/discovery", None)',
        "        pass",
        ("discovery",),
    ),
    Fish(
        "a byte a second for ever",
        "a request has a time of its own, counted from its first byte",
        GUARD,
        "        if self._deadline is None:\n            body",
        "        if not self._disarm():\n            body",
        ("guard",),
    ),
    Fish(
        "each piece within the limit",
        "a body has a limit, however it comes",
        GUARD,
        "        if self._received > self.limits.body:",
        "        if len(body) > self.limits.body:",
        ("guard",),
    ),
    Fish(
        "chunked among others",
        "what can be read in two ways is refused",
        GUARD,
        'if value.strip().lower() != b"chunked" or version == "1.0":',
        'if b"chunked" not in value.strip().lower() or version == "1.0":',
        ("guard",),
    ),
    # ── who is started and stopped ──────────────────────────────────────────────────────────────
    Fish(
        "started unseen",
        "nothing is started before its provider said, in this life, how it is",
        DEMAND,
        "if power.phase is not PowerPhase.OFF or not power.answered or power.confirmed_at is None:",
        "if power.phase is not PowerPhase.OFF or not power.answered:",
        ("power",),
    ),
    Fish(
        "the dearest first",
        "of those that may be started the cheapest is",
        DEMAND,
        "first = min(able, key=lambda name:",
        "first = max(able, key=lambda name:",
        ("power",),
    ),
    Fish(
        "idle while it serves",
        "one that is assigned is never stopped for idleness",
        DEMAND,
        "if state.active == name or (state.pin",
        "if state.active is None or (state.pin",
        ("power",),
    ),
    Fish(
        "yesterday's reading",
        "a reading begun before the start says nothing of it",
        PROVIDER,
        "if known.asked_at is not None and event.began_at < known.asked_at:",
        "if known.asked_at is not None and event.began_at < 0.0:",
        ("power",),
    ),
    Fish(
        "lost is refused",
        "a launch whose answer was lost is not repeated before its status was read",
        PROVIDER,
        "    elif report.snag is Snag.LOST:",
        "    elif report.snag is Snag.NONE:",
        ("power",),
    ),
    Fish(
        "waits grow by adding",
        "a start that fails again waits twice as long",
        POWER,
        "BACKOFF_S * 2.0 ** min(failures - 1, 10)",
        "BACKOFF_S * 2.0 * min(failures, 10)",
        ("power",),
    ),
    Fish(
        "no time for the name",
        "with a name to keep, a session is about to end as long before as a move takes",
        ASSIGNMENT,
        "    return max(spec.drain_margin_s, turn",
        "    return min(spec.drain_margin_s, turn",
        ("power",),
    ),
    Fish(
        "unread is off",
        "a status that cannot be read is not taken for off",
        COMMAND,
        "if status == 0 or (reads and status in STATES):",
        "if status == 0 or reads:",
        ("providers",),
    ),
    Fish(
        "two at once",
        "of one backend only one thing is under way at a time",
        POWERS,
        "busy = name in self._tasks",
        "busy = name not in self._drivers",
        ("providers",),
    ),
)
