"""Whoever starts the notebooks: when told to, when she looks, sometimes twice; and others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from backends.base import Random
from orchestrator.core.registry import MintToken, RevokeTokens
from tests.simulation import plans
from tests.simulation.machine import Machine
from tests.simulation.notebooks import Notebook

ALMOST_OVER_S = 900.0


def digest(token: str) -> str:
    """Give what the daemon keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Human:
    """Starts notebooks and looks after their tokens. `runs`: all that ever were.

    `tokens` by backend, oldest first: the last one is good, those before are revoked or about to.
    """

    def __init__(
        self, machine: Machine, notebooks: Sequence[plans.Notebook], random: Random
    ) -> None:
        self.m, self.random = machine, random
        self.plans = {one.name: one for one in notebooks}
        self.tokens = {one.name: [plans.token_of(one.name)] for one in notebooks}
        self.runs: list[Notebook] = []
        self._looks = 0
        machine.world.changed = self._changed
        machine.phone.read = self._read

    def begin(self) -> None:
        """Start every notebook soon, and look after them from then on."""
        for name in self.plans:
            self.m.time.after(1.0 + 90.0 * self.random.random(), partial(self.start, name))
        if self.plans:
            self._look_again(300.0)

    def running(self, name: str) -> list[Notebook]:
        """List the runs of a backend that have not ended, oldest first."""
        return [run for run in self.runs if run.name == name and run.ended is None]

    def start(self, name: str, *, token: str | None = None, rightful: bool = True) -> Notebook:
        """Start one more run of a notebook."""
        random = self.random
        run = Notebook(
            len(self.runs) + 1,
            self.plans[name],
            token or self.tokens[name][-1],
            self.m.world,
            self.m.call,
            clock_error_s=(0.0, 0.0, -3600.0, 3600.0)[int(4 * random.random())],
            honest=random.random() < 0.6,
            unsteady=(0.0, 0.02, 0.2)[int(3 * random.random())],
            rightful=rightful,
        )
        self.runs.append(run)
        run.begin()
        longest_s = run.plan.session_s + 120.0 + 300.0 * random.random()
        self.m.time.after(longest_s, lambda: run.end("its time is over where it runs"))
        return run

    def tidy(self) -> None:
        """Set everything right: no strangers, no dead agents, and a good token for each."""
        for name in self.plans:
            for run in self.running(name):
                if not run.rightful:
                    run.end("it was found out")
                run.revive_agent(forgets=False)
                if run.lost:
                    run.lose(False)
            self._mint(name)
        self._look_again(5.0 + 300.0 * self.random.random())

    def change_token(self, name: str) -> None:
        """Make a new token and revoke those before."""
        old, new = self.tokens[name][-1], f"token-{len(self.tokens[name])}-of-{name}"
        self.tokens[name].append(new)
        self._mint(name)
        self.m.order(RevokeTokens(ids=(digest(old)[:12],)))

    def _mint(self, name: str) -> None:
        """Have the daemon know the newest token, unless it does."""
        if len(self.tokens[name]) > 1:
            secret = digest(self.tokens[name][-1])
            self.m.order(MintToken(secret[:12], name, secret, "the operator"))

    # ── what she does by herself ────────────────────────────────────────────────────────────────

    def _look_again(self, wait_s: float) -> None:
        """Look then, instead of whenever she was going to."""
        self._looks += 1
        number = self._looks
        self.m.time.after(wait_s, lambda: self._look() if number == self._looks else None)

    def _look(self) -> None:
        for name in self.plans:
            now = self.m.time.true
            current = [run for run in self.running(name) if run.lives and run.rightful]
            lasting = [run for run in current if run.ends_at - now > ALMOST_OVER_S]
            if self._spent(name):
                continue
            if not current or (not lasting and self.random.random() < 0.5):
                self.start(name)
        self._look_again(60.0 + 900.0 * self.random.random() ** 2)

    def _read(self, body: str) -> None:
        """Do what a message asks for."""
        for name in self.plans:
            if plans.restart_of(name) in body:
                self.m.time.after(20.0 + 200.0 * self.random.random(), partial(self._asked, name))

    def _asked(self, name: str) -> None:
        if not any(run.lives for run in self.running(name)):
            self.start(name)

    def _spent(self, name: str) -> bool:
        """Say whether she sees that its hours are used up: then she starts none by herself."""
        if self.m.assembly is None:
            return False
        until = self.m.assembly.loop.fleet.backends[name].exhausted_until
        return until is not None and until > self.m.steady()

    def _changed(self, tunnel: object) -> None:
        for run in self.runs:
            if run.tunnel is tunnel:
                run.noticed()
