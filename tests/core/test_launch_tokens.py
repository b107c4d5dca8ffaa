"""The token of one launch: what it is good for, until when, and who registers anew without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import Ask, PowerReport, PowerReported, Start, StartBackend
from orchestrator.core.registry import MintLaunchToken, Proved, Register, RevokeTokens
from orchestrator.core.tokens import LONGEST_S
from tests.core.worlds import World, backend, config, restarted

NAME = "kaggle"
HOUR = 3600.0


class Kernels(World):
    """A notebook that aion starts, each launch with a token of its own."""

    number = 0

    def launched(self):
        """Start it, and mint; returns the launch's label and the id of its token."""
        self.give(PowerReported(NAME, Ask.STATUS, PowerReport(PowerPhase.OFF)))
        turn = self.give(Start(NAME))
        [effect] = [one for one in turn.effects if isinstance(one, StartBackend)]
        answer, token = self.mints(effect.launch)
        assert answer is None
        self.says(PowerPhase.STARTING, effect.launch)
        return effect.launch, token

    def mints(self, launch):
        self.number += 1
        token = f"t{self.number}"
        return self.give(MintLaunchToken(token, NAME, f"{token}-secret", launch)).answer, token

    def says(self, phase, launch=""):
        self.at += 60.0
        self.give(PowerReported(NAME, Ask.STATUS, PowerReport(phase, launch), "", self.at))

    def registers(self, token, holder=""):
        """Register; returns the session's id, or why not."""
        self.number += 1
        ident = f"s{self.number}"
        url = f"https://{ident}.tunnel.test"
        turn = self.give(Register(NAME, ident, f"{ident}-secret", token, url, holder=holder))
        return ident if turn.answer.problem is None else turn.answer.text

    def serves(self, token, holder=""):
        ident = self.registers(token, holder)
        self.give(Proved(NAME, ident, True))
        assert self.fleet.backends[NAME].session.id == ident
        return ident


@pytest.fixture
def kernels():
    one = backend(NAME, kind="kaggle", registers=True, powered=True, url=None, session_s=9 * HOUR)
    return Kernels(config(one, backend("lab", priority=200)))


def test_the_token_of_a_launch_opens_sessions_until_one_of_them_served(kernels):
    _, token = kernels.launched()
    assert kernels.registers(token).startswith("s")
    kernels.serves(token)
    assert "registered already" in kernels.registers(token)
    assert kernels.fleet.tokens[token].spent_at is not None


@pytest.mark.parametrize("ended", ["off", "another", "a day", "stopping", "revoked"])
def test_it_ends_with_its_launch_and_after_a_day_at_the_latest(kernels, ended):
    launch, token = kernels.launched()
    if ended in ("off", "another"):
        kernels.says(PowerPhase.OFF)
        assert kernels.fleet.backends[NAME].power.phase is PowerPhase.OFF
    if ended == "another":
        kernels.at += 2 * HOUR
        other, _ = kernels.launched()
        assert other != launch
    if ended == "a day":
        kernels.at += LONGEST_S - 120.0
        assert kernels.registers(token).startswith("s")
        kernels.at += 120.0
    if ended == "stopping":
        state = kernels.fleet.backends[NAME]
        stopping = replace(state.power, phase=PowerPhase.STOPPING)
        kernels.fleet.backends[NAME] = replace(state, power=stopping)
    if ended == "revoked":
        assert kernels.give(RevokeTokens(backend=NAME)).answer.problem is None
        assert "revoked" in kernels.registers(token)
    else:
        assert "over" in kernels.registers(token)


def test_who_holds_a_living_session_registers_anew_and_again(kernels):
    _, token = kernels.launched()
    first = kernels.serves(token)
    second = kernels.registers(token, first)
    third = kernels.registers(token, second)  # before the one between had proved itself
    assert third.startswith("s")
    assert "over" in kernels.registers(token, second)
    kernels.give(Proved(NAME, third, True))
    assert "over" in kernels.registers(token, first)
    assert kernels.registers(token, third).startswith("s")


def test_a_holder_needs_the_very_session_and_a_token_that_is_not_revoked(kernels):
    _, token = kernels.launched()
    first = kernels.serves(token)
    assert "over" in kernels.registers(token, "somebody-else")
    answer = kernels.give(RevokeTokens(backend=NAME)).answer
    assert "session of kaggle is over" in answer.text
    assert "revoked" in kernels.registers(token, first)


def test_a_launch_that_is_not_to_be_made_any_more_gets_no_token(kernels):
    launch, _ = kernels.launched()
    answer, token = kernels.mints("aion-home-kaggle-999")
    assert answer.problem is not None
    kernels.says(PowerPhase.ON, launch)
    assert kernels.mints(launch)[0].problem is not None
    assert token not in kernels.fleet.tokens


def test_tokens_of_launches_long_over_are_forgotten_but_not_the_one_in_use(kernels):
    _, token = kernels.launched()
    kernels.serves(token)
    kernels.says(PowerPhase.OFF)  # as its provider says, though its agent lives
    kernels.at += LONGEST_S
    _, second = kernels.launched()
    assert set(kernels.fleet.tokens) == {token, second}
    kernels.says(PowerPhase.OFF)
    state = kernels.fleet.backends[NAME]
    kernels.fleet.backends[NAME] = replace(state, session=None, pending=None)
    kernels.at += LONGEST_S
    _, third = kernels.launched()
    assert set(kernels.fleet.tokens) == {third}


def test_a_restart_changes_nothing_of_it(kernels):
    launch, token = kernels.launched()
    again = restarted(kernels)
    answer = again.give(Register(NAME, "s99", "secret", token, "https://s99.tunnel.test")).answer
    assert answer.problem is None
    assert again.fleet.tokens[token].launch == launch
