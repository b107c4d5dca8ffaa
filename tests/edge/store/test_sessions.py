"""Sessions and tokens as they are stored: whole, never a secret itself, and over when they are."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from orchestrator.core.events import Turn
from orchestrator.core.lives import Do, Order, PastSession, Session, Token
from orchestrator.core.model import BackendState, Health, Now
from orchestrator.edge.rows import BACKEND
from orchestrator.edge.store import inline

NOW = Now(at=1_800_000_000.0, wall=1_800_000_001.5)
SECRET = hashlib.sha256(b"secret").hexdigest()
SESSION = Session(
    "s" * 32,
    NOW.at - 600,
    NOW.at,
    ends_at=NOW.at + 3600,
    generation=7,
    url="https://swift-fox.trycloudflare.com",
    secret=SECRET,
    token="0123456789ab",
    registered_at=NOW.at - 500,
    promoted_at=NOW.at - 400,
    tried_at=NOW.at - 410,
    seq=2**53,
    ready=False,
    state="draining",
    busy=3,
    detail="é “quoted”",
    models=("qwen3:8b", "ünï"),
    gpu="Tesla T4",
    gpu_memory_mb=15360,
    agent="0.3.0",
    orders=(Order(4, Do.SAVE, NOW.at - 1), Order(5, Do.STOP, NOW.at)),
    ordered=5,
)
PENDING = replace(SESSION, id="p" * 32, promoted_at=None, proving=True, loading_at=NOW.at - 3)
COLAB = BackendState("colab", Health.UP, session=SESSION, pending=PENDING, generation=8)


def past(number: int, backend: str = "colab", **changes) -> PastSession:
    made = PastSession(
        f"old{number}", backend, number, SECRET, "t", "https://a.test", 1.0, NOW.at + number, "left"
    )
    return replace(made, **changes)


def test_a_session_and_the_one_that_waits_are_there_after_a_restart(database, using):
    async def write(store, _):
        await store.commit(Turn(backends={"colab": COLAB}, durable=True), NOW)

    async def read(_, saved):
        return saved.backends["colab"]

    using(database, write, run=inline)
    found = using(database, read, run=inline)
    assert (found.session, found.pending) == (SESSION, PENDING)
    assert found.generation == 8
    assert isinstance(found.session.orders[0].do, Do)

    async def end(store, _):
        gone = replace(COLAB, session=None, pending=None)
        await store.commit(Turn(backends={"colab": gone}, past=(past(7),), durable=True), NOW)

    using(database, end, run=inline)
    found = using(database, read, run=inline)
    assert (found.session, found.pending, found.generation) == (None, None, 8)


def test_a_session_that_an_earlier_version_stored_with_more_facts_is_read():
    row = BACKEND.row(COLAB)
    row["session"] = row["session"].replace("{", '{"revoked": false, ', 1)
    assert '"revoked"' in row["session"]
    assert BACKEND.value(row).session == SESSION


def test_tokens_are_there_after_a_restart_revoked_or_not(database, using):
    valid = Token("0123456789ab", "colab", SECRET, NOW.at, "admin")
    revoked = Token("ba9876543210", "gone", "0" * 64, NOW.at, "configuration", NOW.at + 5)

    async def write(store, _):
        await store.commit(Turn(tokens={valid.id: valid}, durable=True), NOW)
        both = {valid.id: valid, revoked.id: revoked}
        await store.commit(Turn(tokens=both, durable=True), NOW)

    async def read(_, saved):
        return saved.tokens

    using(database, write, run=inline)
    assert using(database, read, run=inline) == {valid.id: valid, revoked.id: revoked}


def test_a_session_that_is_over_is_found_by_its_id_and_listed_latest_first(database, using):
    async def work(store, _):
        overs = (past(1), past(2, "kaggle"), past(3, why="it's over; “quoted”"))
        await store.commit(Turn(past=overs, durable=True), NOW)
        assert await store.past_session("old3") == overs[2]
        assert await store.past_session("old9") is None
        assert await store.past_session("old1' or '1'='1") is None
        assert await store.past_sessions() == list(reversed(overs))
        assert await store.past_sessions("colab", 1) == [overs[2]]
        again = replace(overs[0], why="twice", ended_at=NOW.at + 9)
        await store.commit(Turn(past=(again,), durable=True), NOW)
        assert await store.past_session("old1") == again

    using(database, work, run=inline)
