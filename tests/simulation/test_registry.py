"""Every promise about sessions that the simulator watches can be seen broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.events import Turn
from orchestrator.core.lives import Session
from orchestrator.core.model import BackendState
from orchestrator.core.registry import Heartbeat, Proved, RevokeTokens
from tests.simulation import plans, registry
from tests.simulation.cases import BOOK, Case, judge, sound, unsaid
from tests.simulation.human import digest
from tests.simulation.sabotage import (
    Steps,
    amend,
    become,
    believe,
    fleet,
    forgets_to_write,
    has,
    keep,
    kill,
    once,
    order,
    spoil,
    starts,
)
from tests.simulation.scripted import Act, Rig, short_run
from tests.simulation.world import Mode

SHORT = replace(BOOK, session_s=200.0)
ONE = (BOOK,)
TWICE = (starts("book"), starts("book", 100.0))
SECOND = has("promoted", "book", generation="2")
REGISTERED_AGAIN = has("registered", "book", generation="2")
SEED = digest(plans.token_of("book"))[:12]
REVOKED = (60.0, order(RevokeTokens(ids=(SEED,))))


def session_of(rig: Rig) -> Session:
    session = fleet(rig).backends["book"].session
    assert session is not None
    return session


def book_in(turn: Turn) -> BackendState:
    state = turn.backends["book"]
    assert state is not None
    return state


def put(turn: Turn, **values: Any) -> None:
    assert isinstance(turn.backends, dict)
    turn.backends["book"] = replace(book_in(turn), **values)


def with_session(**values: Any) -> Callable[[Rig, Turn], None]:
    """Have the session that is promoted be another than it is."""
    return lambda _, turn: put(turn, session=replace(book_in(turn).session, **values))


def with_state(**values: Any) -> Callable[[Rig, Turn], None]:
    return lambda _, turn: put(turn, **values)


def driver_of(rig: Rig, name: str) -> Any:
    assert rig.assembly is not None
    return rig.assembly.pacer._drivers[name]


# ── S1: an address is shown of whom it was proved to be ─────────────────────────────────────────


def proves_everything(rig: Rig) -> None:
    assert rig.assembly is not None

    async def look(backend: str, session: Any) -> Proved:
        return Proved(backend, session.id, ok=True)

    rig.assembly.prover._look = look  # type: ignore[method-assign]


def is_elsewhere(rig: Rig) -> None:
    url = "https://elsewhere.trycloudflare.com"
    believe(rig, "book", session=replace(session_of(rig), url=url))
    assert rig.discovery is not None
    rig.discovery._touch("chat")


S1 = {
    "promoted without a proof": Case(
        "S1", "promoted and never met the challenge at", (starts("book"),),
        once(0.5, proves_everything), also=("I10",), notebooks=ONE, seconds=60.0,
    ),
    "shown where nobody proved anything": Case(
        "S1", ", where nobody met the challenge", (starts("book"),),
        once(99.0, is_elsewhere), notebooks=ONE, seconds=104.0,
    ),
}  # fmt: skip


# ── S2: what is over is over ────────────────────────────────────────────────────────────────────


def without_past(_: Rig, turn: Turn) -> None:
    amend(turn, past=())


def without_an_end(rig: Rig) -> None:
    if fleet(rig).backends["book"].session is not None:
        believe(rig, "book", session=replace(session_of(rig), ends_at=None))


def revoked_in_name_only(_: Rig, turn: Turn) -> None:
    amend(turn, backends={}, past=())


def the_old_one_is_back(rig: Rig) -> None:
    """Remember the first session, and have it be the one that serves once it is over."""
    kept: list[Session] = []
    rig.time.at(90.0, lambda: kept.append(session_of(rig)))

    def back() -> None:
        believe(rig, "book", session=kept[0])
        rig.report(Heartbeat("book", kept[0].id, ready=True))

    rig.time.at(130.0, back)


def forgets_the_past(rig: Rig) -> None:
    """Store nothing of a session that is over."""
    whole: list[Any] = []

    def before(turn: Turn) -> None:
        whole[:] = turn.past
        amend(turn, past=())

    rig.before_commit, rig.after_commit = before, lambda turn: amend(turn, past=tuple(whole))


S2 = {
    "two at once": Case(
        "S2", "a session is gone and counts as live", TWICE, spoil(SECOND, without_past),
        notebooks=ONE, seconds=120.0,
    ),
    "one that was over serves again": Case(
        "S2", "a session that was over is back", TWICE, the_old_one_is_back,
        also=("S3", "S5"), notebooks=ONE, seconds=132.0,
    ),
    "its agent is not told": Case(
        "S2", "is over and its agent is told", TWICE, forgets_the_past,
        notebooks=ONE, seconds=140.0,
    ),
    "it goes on after its end": Case(
        "S2", "its session is over and stands", (starts("book"),), keep(without_an_end),
        notebooks=(SHORT,), seconds=230.0,
    ),
    "it goes on without a token": Case(
        "S2", "its token is revoked and its session stands", (starts("book"), REVOKED),
        spoil(has("token_revoked", "book"), revoked_in_name_only),
        notebooks=ONE, seconds=80.0,
    ),
}  # fmt: skip


# ── S3, intent: generations grow, and nothing is forgotten ──────────────────────────────────────


def without_book(turn: Turn) -> Turn:
    others = {name: state for name, state in turn.backends.items() if name != "book"}
    return replace(turn, backends=others)


def as_the_first(turn: Turn) -> Turn:
    return replace(turn, backends={"book": replace(book_in(turn), generation=0)})


S3 = {
    "a generation is given again": Case(
        "S3", ": from generation", TWICE, spoil(REGISTERED_AGAIN, with_state(generation=0)),
        notebooks=ONE, seconds=102.5,
    ),
    "a later one is followed": Case(
        "S3", "took over from a later one", TWICE, spoil(SECOND, with_session(generation=0)),
        notebooks=ONE, seconds=120.0,
    ),
    "generations are forgotten over a restart": Case(
        "S3", "after a start",
        (starts("book"), (90.0, become("book", Mode.LOADING)), (20.0, kill)),
        forgets_to_write(lambda turn: "book" in turn.backends, as_the_first),
        notebooks=ONE, seconds=30.0,
    ),
    "a session is forgotten over a restart": Case(
        "intent", "a session was forgotten over a start", (starts("book"), (20.0, kill)),
        forgets_to_write(lambda turn: "book" in turn.backends, without_book),
        also=("S2", "S3"), notebooks=ONE, seconds=30.0,
    ),
}  # fmt: skip


# ── S4, S5 ──────────────────────────────────────────────────────────────────────────────────────


def ever_young(rig: Rig) -> None:
    pending = fleet(rig).backends["book"].pending
    if pending is not None:
        believe(rig, "book", pending=replace(pending, registered_at=rig.steady()))


def counts_anew(rig: Rig) -> None:
    session = session_of(rig)
    believe(rig, "book", session=replace(session, seq=0))
    rig.report(Heartbeat("book", session.id, ready=True))


def believes_another(rig: Rig) -> None:
    session = session_of(rig)
    believe(rig, "book", session=replace(session, seq=session.seq - 1))
    rig.report(Heartbeat("book", session.id, ready=False, seq=session.seq))


S4 = {
    "pending for ever": Case(
        "S4", "pending for", (starts("book"), (5.1, become("book", Mode.ERROR))),
        keep(ever_young), notebooks=ONE, seconds=940.0,
    ),
    "an older heartbeat counts": Case(
        "S5", ": heartbeat", (starts("book"),), once(100.0, counts_anew),
        notebooks=ONE, seconds=101.0,
    ),
    "what it did not say is believed": Case(
        "S5", ", not what heartbeat said", (starts("book"),), once(100.0, believes_another),
        notebooks=ONE, seconds=101.0,
    ),
}  # fmt: skip


# ── S6: whose token is good is let in, and nobody else ──────────────────────────────────────────


def live_of(rig: Rig) -> Any:
    return rig.web["register"]._lock._live  # type: ignore[attr-defined]


def good_again(rig: Rig) -> None:
    tokens = fleet(rig).tokens
    tokens[SEED] = replace(tokens[SEED], revoked_at=None)
    live_of(rig)._read_tokens()


def knows_no_token(rig: Rig) -> None:
    live_of(rig)._tokens.clear()


def knows_no_session(rig: Rig) -> None:
    live_of(rig)._backends.clear()


S6 = {
    "a revoked token registers": Case(
        "S6", "registered with a revoked token", (starts("book"), REVOKED, starts("book", 80.0)),
        once(79.0, good_again), also=("S2",), notebooks=ONE, seconds=90.0,
    ),
    "a revoked token is good again": Case(
        "S6", "a revoked token is good again", (starts("book"), REVOKED), once(79.0, good_again),
        notebooks=ONE, seconds=90.0,
    ),
    "a good token is refused": Case(
        "S6", "has a good token and is told", (starts("book"),), once(4.0, knows_no_token),
        notebooks=ONE, seconds=20.0,
    ),
    "a live session is not known": Case(
        "S6", "is live and its agent is told", (starts("book"),), once(60.0, knows_no_session),
        notebooks=ONE, seconds=80.0,
    ),
}  # fmt: skip


# ── I10: no key reaches a host other than its own ───────────────────────────────────────────────


def with_another_key(rig: Rig) -> None:
    key = plans.key_of(plans.KEYED)
    driver_of(rig, "kaggle")._asks._headers["Authorization"] = f"Bearer {key}"


def with_a_gateway_key(rig: Rig) -> None:
    driver_of(rig, "kaggle")._asks._headers.update(driver_of(rig, "book")._asks._headers)


def without_a_key(rig: Rig) -> None:
    driver_of(rig, plans.KEYED)._asks._headers.clear()


def with_a_token(rig: Rig) -> None:
    driver_of(rig, "kaggle")._asks._headers["X-Debug"] = plans.token_of("book")


def unguarded(rig: Rig) -> None:
    assert rig.assembly is not None
    ports = rig.assembly._ports
    rig.assembly._ports = replace(ports, guarded=ports.http)


def asks_nobody_who_he_is(rig: Rig) -> None:
    assert rig.assembly is not None
    real = rig.assembly.prover._drivers

    class Trusting:
        def __init__(self, driver: Any) -> None:
            self.probe, self.canary = driver.probe, driver.canary

        async def identify(self, _nonce: str) -> str:
            return ""

    rig.assembly.prover._drivers = lambda name, session: Trusting(real(name, session))  # type: ignore[assignment]


def leaks(says: str, act: Act, *, at: float = 60.0, also: tuple[str, ...] = ()) -> Case:
    script = (starts("book"),)
    return Case("I10", says, script, once(at, act), notebooks=ONE, seconds=100.0, also=also)


I10 = {
    "another's key": leaks(", which is not its own host", with_another_key),
    "a session's key": leaks(", which is not its own host", with_a_gateway_key),
    "a key before the proof": leaks(
        "before it met the challenge", asks_nobody_who_he_is, at=0.5, also=("S1",)
    ),
    "its key is not sent": leaks("is asked without its key", without_a_key),
    "a token is sent": leaks("a token goes to", with_a_token),
    "past the guard": leaks("is reached by the wrong client", unguarded, at=0.5),
}

CASES = {**S1, **S2, **S3, **S4, **S6, **I10}


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_nobody_tampered_with_keeps_every_promise(name):
    assert sound(CASES[name]) == ()


@pytest.mark.parametrize("name", CASES)
def test_a_broken_promise_is_named_and_no_other(name):
    judge(CASES[name])


@pytest.mark.parametrize("forgets", [True, False])
def test_only_who_forgot_its_session_may_be_left_though_its_engine_is_well(forgets):
    seen: list[bool] = []
    agent: Steps = (
        (80.0, lambda rig: rig.human.runs[-1].kill_agent()),
        (84.0, lambda rig: rig.human.runs[-1].revive_agent(forgets=forgets)),
        (84.1, lambda rig: rig.human.runs[-1].lose(True)),
        (86.0, lambda rig: seen.append(rig.onlooker.registry.unprovable("book"))),
        (92.0, lambda rig: seen.append(rig.onlooker.registry.unprovable("book"))),
    )
    short_run(95.0, script=(starts("book"), *agent), notebooks=ONE)
    assert seen == [True, forgets], "and nobody can know of one that is back since two seconds"


def test_everything_that_the_registry_can_say_is_said_in_some_case():
    assert unsaid(registry, CASES.values(), at_least=20) == []
