"""A mishap in a few words."""

from __future__ import annotations

import pytest

from orchestrator.outlook.scene import Way
from orchestrator.outlook.whatif import Act, Change, Unclear, parse

NAMES = ("colab", "kaggle", "gpu-vm")
KILL, REVIVE = Change.KILL, Change.REVIVE


@pytest.mark.parametrize(
    ("text", "acts"),
    [
        ("colab dies now", [Act(0, KILL, "colab")]),
        ("Colab dies.", [Act(0, KILL, "colab")]),
        ("colab hangs", [Act(0, KILL, "colab", Way.HANGS)]),
        ("colab dies for 10m", [Act(0, KILL, "colab"), Act(600, REVIVE, "colab")]),
        ("colab goes down for 10 minutes", [Act(0, KILL, "colab"), Act(600, REVIVE, "colab")]),
        (
            "colab is stuck for 1h30m",
            [Act(0, KILL, "colab", Way.HANGS), Act(5400, REVIVE, "colab")],
        ),
        ("colab and kaggle die", [Act(0, KILL, "colab"), Act(0, KILL, "kaggle")]),
        ("both colab, kaggle and gpu-vm crash", [Act(0, KILL, n) for n in NAMES]),
        ("everything dies", [Act(0, KILL, n) for n in NAMES]),
        ("the network is lost for 5m", [Act(0, Change.CUT), Act(300, Change.JOIN)]),
        ("cloudflare is down for 1h", [Act(0, Change.DNS_DOWN), Act(3600, Change.DNS_UP)]),
        (
            "colab dies, then after 10m colab comes back",
            [Act(0, KILL, "colab"), Act(600, REVIVE, "colab")],
        ),
        ("colab dies; kaggle dies", [Act(0, KILL, "colab"), Act(60, KILL, "kaggle")]),
        (
            "colab dies for 2m, then kaggle dies",
            [Act(0, KILL, "colab"), Act(120, REVIVE, "colab"), Act(180, KILL, "kaggle")],
        ),
        (
            "cloudflare is down for 1h and colab dies",
            [Act(0, Change.DNS_DOWN), Act(0, KILL, "colab"), Act(3600, Change.DNS_UP)],
        ),
        ("colab dies after 5m", [Act(300, KILL, "colab")]),
    ],
)
def test_it_is_understood(text, acts):
    assert list(parse(text, NAMES)) == acts


def test_a_backend_may_be_called_as_a_verb_or_as_a_network():
    assert parse("down dies", ("down", "a")) == (Act(0, KILL, "down"),)
    assert parse("a goes down", ("down", "a")) == (Act(0, KILL, "a"),)
    assert parse("network dies", ("network",)) == (Act(0, KILL, "network"),)


def test_flapping_is_falling_again_and_again():
    acts = parse("colab flaps", NAMES)
    assert [act.change for act in acts] == [KILL, REVIVE] * 4
    assert acts[-1].after_s < 3600
    assert len(parse("colab flaps for 1h", NAMES)) == 12


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colob dies", "no backend `colob`; did you mean `colab`?"),
        ("xyzzy dies", "no backend `xyzzy`; there are colab, kaggle, gpu-vm"),
        ("colab explodes", "understood are: NAME dies, hangs, flaps or comes back"),
        ("colab dyes", "did you mean `dies`?"),
        ("dies", "to whom? There are colab"),
        ("", "nothing was said"),
        (" ; ", "nothing was said"),
        ("colab dies for a while", "`for` needs a duration"),
        ("colab dies for 10 parsecs", "not a duration"),
        ("colab dies for 99d", "seven days"),
        ("the network flaps", "only backends flap"),
        ("colab dies, then", ""),
    ],
)
def test_what_is_not_understood_gets_one_line_that_helps(text, says):
    if not says:
        assert parse(text, NAMES) == (Act(0, KILL, "colab"),)
        return
    with pytest.raises(Unclear) as caught:
        parse(text, NAMES)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
