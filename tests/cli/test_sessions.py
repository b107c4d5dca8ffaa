"""What verbs show of sessions and tokens, and do about them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from standin import AT, SECRET
from terminal import aion

from orchestrator.core.lives import Do, Order, PastSession, Session, Token

URL = "https://swift-fox.trycloudflare.com"


@pytest.fixture
def notebook(daemon):
    """Make `colab` one that registers, with a session, a pending one, a past one and two tokens."""
    fleet = daemon.fleet
    spec = replace(fleet.config.backends["colab"], kind="notebook", registers=True, url=None)
    backends = {**fleet.config.backends, "colab": spec}
    fleet.config = replace(fleet.config, backends=backends)
    session = Session(
        "s" * 32,
        AT - 7200,
        beat_at=AT - 9,
        ends_at=AT + 3600,
        generation=7,
        url=URL,
        secret="kept",
        registered_at=AT - 7100,
        promoted_at=AT - 7000,
        state="ready",
        busy=2,
        gpu="Tesla T4",
        orders=(Order(1, Do.SAVE, AT - 5),),
    )
    pending = replace(
        session,
        id="p" * 32,
        generation=8,
        url="https://next.trycloudflare.com",
        promoted_at=None,
        problem="no agent\x1b[2J of aion answers there",
        state="loading",
        orders=(),
        busy=0,
    )
    state = replace(fleet.backends["colab"], session=session, pending=pending)
    fleet.backends["colab"] = state
    for ident, revoked in (("0123456789ab", None), ("ba9876543210", AT - 60)):
        fleet.tokens[ident] = Token(ident, "colab", "kept", AT - 9000, "configuration", revoked)
    daemon.past = [
        PastSession("o" * 32, "colab", 6, "kept", "t", URL, AT - 9e4, AT - 8000, "its agent left")
    ]
    return daemon


def test_a_new_token_is_alone_on_stdout_and_where_to_keep_it_on_stderr(daemon, at):
    ran = aion("token", "new", "colab", "-y", *at)
    assert (ran.code, ran.out) == (0, SECRET + "\n")
    assert SECRET not in ran.err
    assert "AION_TOKEN" in ran.err
    assert "aion token revoke colab --id 0123456789ab" in ran.err
    assert daemon.given[0][:2] == ("tokens", {"backend": "colab"})
    quiet = aion("token", "new", "colab", "-y", "-q", *at)
    assert (quiet.out, quiet.err) == (SECRET + "\n", "")
    shown = json.loads(aion("token", "new", "colab", "-y", "--json", *at).out)
    assert set(shown) == {"id", "backend", "token", "text"}


def test_a_token_whose_answer_was_lost_is_said_to_be(daemon, at):
    detail = "this Idempotency-Key made a token already; make another one"
    daemon.refuse = (409, {"detail": detail})
    ran = aion("token", "new", "colab", "-y", *at)
    assert (ran.code, ran.out) == (1, "")
    assert detail in ran.err


def test_tokens_are_listed_and_one_backends_alone(notebook, at):
    ran = aion("token", "list", *at)
    assert ran.code == 0
    assert "0123456789ab" in ran.out
    assert "revoked 60 s" in ran.out
    assert "configuration" in ran.out
    assert "kept" not in ran.out
    assert len(json.loads(aion("token", "list", "colab", "--json", *at).out)) == 2
    none = aion("token", "list", "lab", *at)
    assert (none.code, none.out) == (0, "")
    assert "aion token new" in none.err


def test_revoking_says_what_it_ends_and_asks(notebook, at):
    asked = aion("token", "revoke", "colab", *at)
    assert (asked.code, notebook.given) == (2, [])
    assert "all tokens of colab end for good" in asked.err
    assert "colab serves chat now" in asked.err
    assert aion("token", "revoke", "colab", "-y", *at).code == 0
    assert notebook.given[-1][:2] == ("tokens/revoke", {"backend": "colab"})
    one = aion("token", "revoke", "colab", "--id", "0123456789ab", "-y", *at)
    assert one.code == 0
    assert notebook.given[-1][1] == {"ids": ["0123456789ab"]}
    strange = aion("token", "revoke", "lab", "--id", "0123456789ab", "-y", *at)
    assert (strange.code, len(notebook.given)) == (2, 2)


def test_sessions_are_listed_with_who_waits_and_who_is_over(notebook, at):
    ran = aion("session", "list", *at)
    assert ran.code == 0
    live, pending = ran.out.splitlines()[1:]
    for word in ("colab", "7", "ready", "2 h", "in 1 h", "Tesla T4", URL, "2 open", "told to save"):
        assert word in live
    for word in ("8", "pending", "no agent\\x1b[2J of aion answers there"):
        assert word in pending
    over = aion("session", "list", "--past", "5", *at).out.splitlines()[-1]
    assert "its agent left" in over
    shown = json.loads(aion("session", "list", "--past", "5", "--json", *at).out)
    assert [len(shown[name]) for name in ("live", "pending", "past")] == [1, 1, 1]


def test_nobody_registered_is_said_on_stderr(daemon, at):
    daemon.fleet.backends["colab"] = replace(daemon.fleet.backends["colab"], session=None)
    ran = aion("session", "list", *at)
    assert (ran.code, ran.out) == (0, "")
    assert "nobody is registered" in ran.err


def test_status_explain_and_show_tell_of_the_session_and_of_the_one_that_waits(notebook, at):
    status = aion("status", *at).out
    line = next(one for one in status.splitlines() if one.startswith("colab"))
    assert "in 1 h" in line
    assert "no. 8 registered: no agent" in line
    explained = aion("explain", "chat", *at).out
    line = next(one for one in explained.splitlines() if one.startswith("colab"))
    assert "in 1 h" in line
    assert "no. 8 registered" in line
    shown = aion("backend", "show", "colab", *at).out
    for word in (URL, "no. 7: ready; 2 open; told to save; heard 9 s ago", "no. 8: loading"):
        assert word in shown


def test_an_agent_is_told_to_restart_after_a_question_and_to_save_without_one(notebook, at):
    assert aion("backend", "save", "colab", *at).code == 0
    asked = aion("backend", "restart", "colab", *at)
    assert (asked.code, len(notebook.given)) == (2, 1)
    assert aion("backend", "restart", "colab", "-y", *at).code == 0
    assert [path for path, _, _ in notebook.given] == [
        "backends/colab/save",
        "backends/colab/restart",
    ]
