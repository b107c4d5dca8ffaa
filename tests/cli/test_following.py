"""`aion job run` waits by asking again: through hours, restarts and lost answers."""

import pytest
from standin import job
from terminal import aion

THEN, NOW = "2025-11-20T04:40:00Z", "2025-11-21T04:40:00Z"
BEFORE = job(last_at=THEN, said="yesterday's")
RUNNING = job(last_at=NOW, running=True)
DIED = "crashed: the daemon died while it ran"


def follow(daemon, at, *then, before=BEFORE):
    daemon.jobs = [[before], *([one] if isinstance(one, dict) else one for one in then)]
    return aion("job", "run", "prune", "-y", *at)


def test_a_run_is_followed_to_its_end_and_says_what_it_came_to(daemon, at):
    waiting = job(last_at=THEN, running=True)  # behind another heavy one: not begun yet
    ran = follow(daemon, at, waiting, RUNNING, RUNNING, RUNNING, job(last_at=NOW, said="3 rows"))
    assert (ran.code, ran.out) == (0, "prune: 3 rows\n")
    assert "goes on if you leave" in ran.err
    assert len(daemon.given) == 1


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (job(last_at=NOW, problem="the disk is full"), "prune: the disk is full"),
        (job(last_at=NOW, problem=DIED), f"prune: {DIED}"),
        (BEFORE, "not begun, for the daemon was restarted"),
        ([], "has no job prune"),
    ],
    ids=["failed", "the daemon died", "never begun", "no job any more"],
)
def test_a_run_that_did_not_end_well_is_never_told_of_as_done(daemon, at, end, said):
    ran = follow(daemon, at, RUNNING, end)
    assert (ran.code, ran.out) == (1, "")
    assert said in ran.err


def test_a_daemon_that_has_just_begun_to_live_is_not_taken_at_its_word(daemon, at):
    """Until it has read its table, no job seems ever to have run."""
    ran = follow(daemon, at, RUNNING, job(), job(), RUNNING, job(last_at=NOW, said="done"))
    assert (ran.code, ran.out) == (0, "prune: done\n")


def test_answers_that_are_lost_on_the_way_end_nothing(daemon, at):
    daemon.drop_looks = {2, 3}
    ran = follow(daemon, at, RUNNING, RUNNING, job(last_at=NOW, said="done"))
    assert (ran.code, ran.out) == (0, "prune: done\n")
    assert ran.err.count("waiting for it to come back") == 1
