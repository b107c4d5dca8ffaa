"""Sessions: registered, proved, promoted, superseded, lost, revoked; and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.events import (
    Challenge,
    Pause,
    ProbeSoon,
    Prove,
    Reconfigured,
    Resume,
    Rewire,
)
from orchestrator.core.lives import Do, PastSession
from orchestrator.core.model import Health, NoticeKind, Severity, Verdict
from orchestrator.core.registry import (
    Challenged,
    Heartbeat,
    Left,
    MintToken,
    Proved,
    Register,
    RevokeTokens,
    Tell,
)
from orchestrator.core.sessions import HELD, LOADING_S, PENDING_S, PROVING
from tests.core.worlds import World, backend, config, restarted

SEED = "5eed" * 16
HOUR = 3600.0


def fleet(**more):
    """A notebook that is preferred, and one that is always there."""
    colab = backend(
        "colab",
        registers=True,
        kind="notebook",
        url=None,
        session_s=12 * HOUR,
        restart_url="https://notebook.test/1",
        **more,
    )
    return config(colab, backend("lab", priority=200), seeds={"colab": SEED})


class Notebooks(World):
    """A world to register in; it remembers every session that is over."""

    number = 0

    def registers(self, ident=None, *, age_s=0.0, token=SEED[:12], **more):
        self.number += 1
        ident = ident or f"s{self.number}"
        url = more.pop("url", f"https://{ident}.tunnel.test")
        self.answer = self.give(
            Register("colab", ident, f"{ident}-secret", token, url, age_s, **more)
        ).answer
        return ident

    def proves(self, ident, *, ok=True, **more):
        return self.give(Proved("colab", ident, ok, **more))

    def serves(self, ident=None, **more):
        """Register and be promoted."""
        ident = self.registers(ident, **more)
        self.proves(ident)
        self.tick()
        return ident

    def beats(self, ident, ready=True, **more):
        return self.give(Heartbeat("colab", ident, ready, **more))

    def beating(self, ident, seconds, *, answers=True):
        """Let time pass with heartbeats and probes."""
        for second in range(int(seconds)):
            self.tick()
            if second % 10 == 0:
                self.beats(ident)
            if answers:
                self.sees("colab")
            self.sees("lab")

    @property
    def colab(self):
        return self.fleet.backends["colab"]

    @property
    def past(self) -> dict[str, PastSession]:
        return {one.id: one for turn in self.turns for one in turn.past}

    @property
    def open(self):
        return set(self.fleet.incidents)


def world(**more) -> Notebooks:
    made = Notebooks(fleet(**more))
    made.up("lab")
    made.tick(40)
    assert made.active == "lab"
    return made


# ── registering and proving ─────────────────────────────────────────────────────────────────────


def test_who_registered_serves_once_it_has_proved_itself_and_not_before():
    at = world()
    ident = at.registers()
    assert at.answer.problem is None
    assert (at.colab.health, at.colab.session) == (Health.STARTING, None)
    assert at.effects[-1:] == [Prove("colab")]
    at.beats(ident)
    at.tick(30)
    assert at.active == "lab"
    at.forget()
    at.proves(ident)
    assert (at.colab.health, at.colab.session.id, at.colab.pending) == (Health.UP, ident, None)
    assert Rewire("colab") in at.effects
    assert at.colab.session.promoted_at == at.at


def test_a_proof_that_fails_is_tried_again_ever_more_seldom_and_says_why():
    at = world()
    ident = at.registers()
    at.proves(ident, ok=False, detail="connection refused")
    tries = [at.at]
    for _ in range(300):
        at.forget()
        at.tick()
        if Prove("colab") in at.effects:
            tries.append(at.at)
            at.proves(ident, ok=False, detail="connection refused")
            assert at.colab.pending.problem == "connection refused"
            assert at.entries == [], "said once"
    gaps = [after - before for before, after in pairwise(tries)]
    assert gaps[0] <= 3
    assert max(gaps) <= 16
    assert gaps == sorted(gaps)


def test_a_proof_whose_answer_was_lost_is_asked_for_again():
    at = world()
    at.registers()
    at.forget()
    at.tick(89)
    assert Prove("colab") not in at.effects
    at.tick(2)
    assert Prove("colab") in at.effects


def test_an_agents_first_word_that_all_works_has_it_proved_at_once():
    at = world()
    for first in (True, False):
        ident = at.registers()
        if not first:
            at.beats(ident, ready=False, seq=1, loading=True)
        at.forget()
        at.beats(ident, seq=2)
        assert Prove("colab") in at.effects
        at.forget()
        at.beats(ident, seq=3)
        assert at.effects == []


def test_a_proof_of_a_session_that_is_no_longer_pending_promotes_nobody():
    at = world()
    first = at.registers()
    second = at.registers()
    at.proves(first)
    assert at.colab.session is None
    at.proves(second)
    at.proves("nobody")
    assert at.colab.session.id == second


def test_a_registration_that_never_proves_itself_is_forgotten_after_a_quarter_of_an_hour():
    at = world()
    ident = at.registers()
    at.proves(ident, ok=False, detail="no agent of aion answers there")
    at.tick(PENDING_S - 1)
    assert at.colab.pending is not None
    at.tick(2)
    assert (at.colab.pending, at.colab.health) == (None, Health.DOWN)
    assert "no agent of aion answers there" in at.past[ident].why


def test_one_that_still_loads_is_given_an_hour_and_a_quarter_but_not_for_ever():
    at = world()
    ident = at.registers()
    for _ in range(int(LOADING_S) // 60 + 5):
        at.tick(60)
        at.beats(ident, ready=False, loading=True)
        at.proves(ident, ok=False, detail="loading")
        assert at.colab.pending is not None
    at.tick(PENDING_S)
    assert at.colab.pending is None


@pytest.mark.parametrize("token", ["", "unknown"])
def test_a_token_that_is_not_the_backends_registers_nobody(token):
    at = world()
    at.registers(token=token)
    assert at.answer.problem == "conflict"
    assert at.colab.pending is None


def test_what_does_not_register_by_its_kind_is_refused():
    at = world()
    answer = at.give(Register("lab", "s", "x", SEED[:12], "https://x.test")).answer
    assert answer.problem == "conflict"
    assert at.give(Register("none", "s", "x", SEED[:12], "https://x.test")).answer.problem
    assert at.give(MintToken("t", "lab", "x")).answer.problem == "conflict"


# ── one life after the other ────────────────────────────────────────────────────────────────────


def test_of_two_notebooks_with_one_token_the_newer_takes_over_when_it_has_proved_itself():
    at = world()
    old = at.serves()
    at.beating(old, 400)
    assert at.active == "colab"
    new = at.registers()
    assert (at.colab.session.id, at.colab.health) == (old, Health.UP)
    at.beating(old, 20)
    assert at.active == "colab"
    at.proves(new)
    assert (at.colab.session.id, at.colab.session.generation) == (new, 2)
    assert at.past[old].why == "generation 2 took over"
    assert at.past[old].secret == f"{old}-secret"
    assert at.active == "colab", "the service has not moved"


def test_what_a_superseded_agent_says_is_no_longer_heard():
    at = world()
    old = at.serves()
    new = at.serves()
    before = at.colab
    at.beats(old, ready=False, detail="I am dying")
    at.give(Left("colab", old))
    at.give(Challenged("colab", old, ok=False))
    assert at.colab is before
    at.give(Left("colab", new))
    assert at.colab.session is None


def test_a_newer_registration_takes_the_place_of_a_pending_one():
    at = world()
    first, second = at.registers(), at.registers()
    assert at.colab.pending.id == second
    assert at.past[first].why == "a newer one registered"
    assert at.colab.generation == 2


def test_the_end_of_a_session_counts_from_the_runs_own_beginning():
    at = world()
    at.registers(age_s=2 * HOUR)
    assert at.colab.pending.ends_at == at.at + 10 * HOUR
    assert at.colab.pending.started_at == at.at - 2 * HOUR
    at.registers(age_s=12 * HOUR - 30)
    assert at.answer.problem == "conflict"
    assert "start a new one" in at.answer.text
    at.registers(age_s=-500)
    assert at.colab.pending.ends_at == at.at + 12 * HOUR


def test_a_session_ends_at_its_time_and_the_next_one_may_be_waiting():
    at = world()
    ident = at.serves(age_s=11 * HOUR)
    at.beating(ident, HOUR - 10)
    new = at.registers()
    at.beating(ident, 20)
    assert at.colab.session is None
    assert at.past[ident].why == "its time is over"
    assert (at.colab.pending.id, at.colab.health) == (new, Health.STARTING)
    at.proves(new)
    assert at.colab.health is Health.UP


# ── silence ─────────────────────────────────────────────────────────────────────────────────────


def test_a_silent_agent_that_meets_its_challenge_serves_on():
    at = world()
    at.serves()
    at.tick(400)
    at.sees("colab")
    ident = at.serves()
    at.beating(ident, 400)
    assert at.active == "colab"
    for _ in range(300):
        at.forget()
        at.tick()
        at.sees("colab")
        at.sees("lab")
        if Challenge("colab") in at.effects:
            at.give(Challenged("colab", ident, ok=True))
        assert at.active == "colab"


def test_a_silent_agent_that_does_not_is_left_as_soon_as_its_lease_lapses():
    at = world()
    ident = at.serves()
    at.beating(ident, 400)
    assert at.active == "colab"
    asked_at = left_at = None
    for second in range(100):
        at.forget()
        at.tick()
        at.sees("colab")
        at.sees("lab")
        if asked_at is None and Challenge("colab") in at.effects:
            asked_at = second
        if left_at is None and at.active == "lab":
            left_at = second
    assert asked_at is not None
    assert left_at is not None
    assert asked_at < 50, "before its lease lapses, so that the answer is there when it does"
    assert 50 <= left_at <= 61


def test_a_lively_agent_with_a_hung_tunnel_falls_by_the_probes():
    at = world()
    ident = at.serves()
    at.beating(ident, 400)
    for _ in range(3):
        at.beats(ident)
        at.sees("colab", Verdict.FAILED)
        at.tick()
    assert (at.colab.health, at.active) == (Health.DOWN, "lab")
    at.beats(ident)
    assert at.colab.health is Health.DOWN, "its agent's word alone raises nobody"
    assert ProbeSoon("colab") in at.effects


def test_an_agent_that_says_that_its_engine_is_dead_is_believed():
    at = world()
    ident = at.serves()
    at.beating(ident, 400)
    for number in range(3):
        at.beats(ident, ready=False, seq=number + 1, detail="out of memory")
        at.tick()
    assert (at.colab.health, at.active) == (Health.DOWN, "lab")
    assert at.colab.reason == "out of memory"


def test_heartbeats_that_come_late_or_twice_are_not_counted():
    at = world()
    ident = at.serves()
    at.beats(ident, seq=5, busy=2)
    at.tick(10)
    for seq in (5, 4, 1):
        at.beats(ident, ready=False, seq=seq, busy=9)
    assert (at.colab.session.seq, at.colab.session.busy, at.colab.session.ready) == (5, 2, True)
    assert at.colab.session.beat_at == at.at - 10
    at.beats(ident, seq=6)
    assert at.colab.session.beat_at == at.at


def test_a_dead_and_silent_session_is_forgotten_in_the_end():
    at = world()
    ident = at.serves()
    at.beating(ident, 30)
    for _ in range(3):
        at.sees("colab", Verdict.FAILED)
    at.tick(900)
    assert at.colab.session is not None
    at.tick(90)
    assert at.colab.session is None
    assert "nothing was heard of it" in at.past[ident].why


def test_a_probe_of_a_session_that_is_over_speaks_for_nobody():
    at = world()
    ident = at.serves()
    at.give(Left("colab", ident))
    before = at.colab
    for verdict in (Verdict.OK, Verdict.OK, Verdict.FAILED):
        at.sees("colab", verdict)
    assert at.colab is before


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────


def test_revoking_a_token_ends_what_was_opened_with_it_at_once_and_nothing_else():
    at = world()
    at.give(MintToken("second", "colab", "other"))
    serving = at.serves(token="second")
    pending = at.registers()
    assert at.give(RevokeTokens(("second",))).answer.problem is None
    assert at.colab.session is None
    assert at.colab.pending.id == pending
    assert at.past[serving].why == "its token was revoked"
    at.registers(token="second")
    assert at.answer.problem == "conflict"
    at.give(RevokeTokens(backend="colab"))
    assert at.colab.pending is None
    assert at.give(RevokeTokens(backend="colab")).answer.problem == "unknown"


def test_a_revoked_seed_stays_revoked_over_restarts_and_reloads():
    at = world()
    at.give(RevokeTokens(backend="colab"))
    at.give(Reconfigured(at.fleet.config))
    again = Notebooks(at.fleet.config, at.at + 5, tokens=at.fleet.tokens)
    for one in (at, again):
        one.registers()
        assert one.answer.problem == "conflict"
    other = replace(at.fleet.config, seeds={"colab": "0" * 64})
    at.give(Reconfigured(other))
    at.registers(token="0" * 12)
    assert at.answer.problem is None


# ── what the agent is told ──────────────────────────────────────────────────────────────────────


def test_an_order_waits_until_it_is_done_and_the_same_one_is_not_given_twice():
    at = world()
    assert at.give(Tell("colab", Do.SAVE)).answer.problem == "conflict"
    ident = at.serves()
    at.give(Tell("colab", Do.SAVE))
    at.give(Tell("colab", Do.SAVE))
    assert [order.do for order in at.colab.session.orders] == [Do.SAVE]
    at.beats(ident, seq=1, done=((1, True), (77, True)))
    assert at.colab.session.orders == ()
    at.give(Tell("colab", Do.SAVE))
    assert at.colab.session.orders[0].id == 2


# ── restarts and reloads ────────────────────────────────────────────────────────────────────────


def after(at: Notebooks, seconds: float = 5.0) -> Notebooks:
    """Start again from what is stored."""
    world = restarted(at, seconds)
    again = Notebooks(
        world.fleet.config,
        at.at + seconds,
        backends=at.fleet.backends,
        services=at.fleet.services,
        incidents=at.fleet.incidents,
        tokens=at.fleet.tokens,
    )
    again.number = at.number
    return again


def test_a_restart_keeps_the_session_and_proves_the_pending_one_again():
    at = world()
    ident = at.serves()
    at.beats(ident, seq=9)
    new = at.registers()
    again = after(at, 500)
    assert again.colab.session.id == ident
    assert again.colab.session.beat_at == again.at
    again.tick()
    assert Prove("colab") in again.effects
    again.sees("colab")
    assert again.colab.health is Health.UP
    again.proves(new)
    assert again.colab.session.generation == 2


def test_a_session_opened_with_a_token_that_the_file_no_longer_has_still_ends_with_a_revocation():
    at = world()
    ident = at.serves()
    stored = {key: token for turn in at.turns for key, token in turn.tokens.items()}
    again = Notebooks(
        replace(fleet(), seeds={"colab": "0the" * 16}),
        at.at + 5,
        backends=at.fleet.backends,
        tokens=stored,
    )
    assert again.colab.session.id == ident
    again.give(RevokeTokens(backend="colab"))
    assert again.colab.session is None


def test_a_restart_says_that_the_pending_one_has_registered():
    at = world()
    at.registers()
    again = after(at)
    assert (again.colab.health, again.colab.reason) == (Health.STARTING, PROVING)


def test_a_pending_registration_does_not_grow_young_by_restarts():
    at = world()
    at.registers()
    for _ in range(7):  # 14 minutes
        at.tick(120)
        at = after(at)
    assert at.colab.pending is not None
    at.tick(120)
    assert at.colab.pending is None


def test_one_that_waited_while_nobody_was_there_has_two_minutes_to_prove_itself():
    at = world()
    new = at.registers()
    again = after(at, 5 * PENDING_S)
    again.tick(100)
    assert Prove("colab") in {effect for turn in again.turns for effect in turn.effects}
    again.proves(new)
    assert again.colab.session.generation == 1
    late = after(at, 5 * PENDING_S)
    late.tick(121)
    assert late.colab.pending is None


def test_a_restart_without_a_session_is_down_and_nobody_is_waited_for():
    again = after(world())
    assert again.colab.health is Health.DOWN
    assert "colab" not in again.fleet.unseen
    again.up("lab")
    again.tick()
    assert again.fleet.world.settled
    assert again.active == "lab"


def test_a_backend_that_registers_no_more_or_is_gone_has_its_session_ended():
    changed = fleet()
    static = backend("colab", url="http://colab.test")
    for new in (
        replace(changed, backends={**changed.backends, "colab": static}),
        config(backend("lab", priority=200)),
    ):
        at = world()
        serving = at.serves()
        pending = at.registers()
        at.give(Reconfigured(new))
        assert set(at.past) == {serving, pending}
        state = at.fleet.backends.get("colab")
        assert state is None or (state.session, state.pending) == (None, None)


def test_while_aion_only_observes_a_living_session_is_not_replaced_and_the_new_one_waits():
    at = world()
    old = at.serves()
    at.give(Pause(None, "me"))
    new = at.registers()
    for _ in range(60):
        at.beating(old, 30)
        at.proves(new)
    assert (at.colab.session.id, at.colab.pending.problem) == (old, HELD)
    at.give(Resume())
    at.proves(new)
    assert at.colab.session.id == new


# ── what the operator hears ─────────────────────────────────────────────────────────────────────


def test_a_notebook_that_nobody_started_is_not_broken():
    at = world()
    at.tick(600)
    assert "backend_down:colab" not in at.open
    ident = at.serves()
    at.beating(ident, 30)
    at.give(Left("colab", ident))
    at.tick(30)
    assert "backend_down:colab" not in at.open


def test_a_session_that_was_lost_stays_told_until_another_one_serves():
    at = world()
    ident = at.serves()
    at.beating(ident, 30)
    for _ in range(3):
        at.sees("colab", Verdict.FAILED)
    at.tick()
    assert "backend_down:colab" in at.open
    for _ in range(1000):
        at.tick()
        at.sees("lab")
    assert at.colab.session is None
    assert "backend_down:colab" in at.open
    new = at.registers()
    at.tick()
    assert "backend_down:colab" in at.open
    at.proves(new)
    at.tick()
    assert "backend_down:colab" not in at.open


def test_a_restart_that_was_asked_for_is_not_over_before_it_has_proved_itself():
    at = world()
    at.down("lab")
    at.tick(5)
    assert at.fleet.incidents["restart_needed:chat"].params["url"] == "https://notebook.test/1"
    ident = at.registers()
    at.tick(20)
    assert "restart_needed:chat" in at.open
    at.proves(ident)
    at.tick(5)
    assert "restart_needed:chat" not in at.open


def test_a_takeover_of_a_living_session_from_elsewhere_is_told():
    at = world()
    at.serves(url="https://mine.tunnel.test")
    at.serves(url="https://THEIRS.tunnel.test")
    (told,) = (one for one in at.notices if one.topic == "taken_over")
    assert (told.kind, told.severity, told.subject) == (NoticeKind.MOVED, Severity.INFO, "colab")
    assert told.params["host"] == "theirs.tunnel.test"
    assert told.params["old"] == "mine.tunnel.test"
    at.forget()
    at.serves(url="https://theirs.tunnel.test")
    at.give(Left("colab", at.colab.session.id))
    at.serves(url="https://third.tunnel.test")
    assert [one for one in at.notices if one.topic == "taken_over"] == []


def test_the_end_of_a_session_is_warned_of_with_where_to_start_another():
    at = world(warn_before_s=1800.0)
    ident = at.serves(age_s=11 * HOUR)
    at.beating(ident, 1790)
    assert "session_ending:colab" not in at.open
    at.beating(ident, 30)
    assert at.fleet.incidents["session_ending:colab"].params["url"] == "https://notebook.test/1"
    at.serves()
    at.tick(10)
    assert "session_ending:colab" not in at.open


# ── whatever happens ────────────────────────────────────────────────────────────────────────────

STEPS = st.one_of(
    st.tuples(st.just("register"), st.sampled_from(["seed", "second"]), st.integers(0, 13)),
    st.tuples(st.just("prove"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("beat"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("leave"), st.integers(0, 3)),
    st.tuples(st.just("revoke"), st.sampled_from(["seed", "second"])),
    st.tuples(st.just("probe"), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 30, 200, 1000])),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("restart"), st.integers(1, 100)),
)


class Walk:
    """A notebook to which anything happens; after each step what must hold does."""

    def __init__(self) -> None:
        self.at = world()
        self.at.give(MintToken("second", "colab", "other"))
        self.ids: list[str] = []
        self.over: dict[str, PastSession] = {}
        self.generation = 0

    def take(self, step) -> None:
        getattr(self, step[0])(*step[1:])
        self.holds()

    def _some(self, back: int) -> str:
        return self.ids[-1 - back] if back < len(self.ids) else "nobody"

    def register(self, token: str, hours: int) -> None:
        before = self.at.colab.generation
        ident = self.at.registers(token=SEED[:12] if token == "seed" else token, age_s=hours * HOUR)
        if self.at.answer.problem is None:
            self.ids.append(ident)
        assert (self.at.colab.generation > before) == (self.at.answer.problem is None)

    def prove(self, back: int, ok: bool) -> None:
        self.at.proves(self._some(back), ok=ok)

    def beat(self, back: int, ready: bool) -> None:
        self.at.beats(self._some(back), ready=ready)

    def leave(self, back: int) -> None:
        self.at.give(Left("colab", self._some(back)))

    def revoke(self, token: str) -> None:
        self.at.give(RevokeTokens((SEED[:12] if token == "seed" else token,)))
        for session in (self.at.colab.session, self.at.colab.pending):
            assert session is None or self.at.fleet.tokens[session.token].revoked_at is None

    def probe(self, ok: bool) -> None:
        self.at.sees("colab", Verdict.OK if ok else Verdict.FAILED)
        self.at.sees("lab")

    def pause(self, on: bool) -> None:
        self.at.give(Pause(None, "me") if on else Resume())

    def restart(self, seconds: int) -> None:
        self.over |= self.at.past
        self.at = after(self.at, float(seconds))
        self.at.up("lab")

    def wait(self, seconds: int) -> None:
        self.at.tick(seconds)

    def holds(self) -> None:
        state, over = self.at.colab, {**self.over, **self.at.past}
        lives = [one for one in (state.session, state.pending) if one is not None]
        for ident in self.ids:
            places = [one.id for one in lives].count(ident) + (ident in over)
            assert places == 1, f"{ident} is either alive or over, once"
        assert state.generation >= self.generation
        self.generation = state.generation
        assert all(one.generation <= state.generation for one in lives)
        if len(lives) == 2:
            assert state.session.generation < state.pending.generation
        if state.session is None:
            assert state.health in (Health.DOWN, Health.STARTING)
            assert (state.health is Health.STARTING) == (state.pending is not None)
        for session in lives:
            assert session.ends_at > self.at.at - 1000
            assert self.at.fleet.tokens[session.token].revoked_at is None


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=40))
def test_whatever_happens_a_session_lives_once_and_is_over_once(steps):
    walk = Walk()
    for step in steps:
        walk.take(step)
