"""Hours in which a backend should be on, as the file says them."""

import pytest

from orchestrator.core.onhours import OnHours
from orchestrator.errors import ConfigError
from orchestrator.settings import load

VM = '[backends.vm]\nkind = "fake"\npower = "boot 5s"\n'
STATIC = '[backends.lab]\nkind = "static"\nurl = "http://127.0.0.1:9"\n'


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "aion.toml"
        path.write_text(text)
        return load(path, environ={"STATE_DIRECTORY": str(tmp_path)})

    return read


def hours(config):
    return config.fleet.backends["vm"].on_hours


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ('on_from = "08:00"\non_until = "19:00"', OnHours(480, 1140)),
        ('on_from = "22:30"\non_until = "06:00"', OnHours(1350, 360)),
        ('on_from = "00:00"\non_until = "24:00"', OnHours(0, 1440)),
        ('on_from = "08:00"\non_until = "19:00"\non_days = "mon-fri"', (0, 1, 2, 3, 4)),
        ('on_from = "08:00"\non_until = "19:00"\non_days = "fri - mon"', (0, 4, 5, 6)),
        ('on_from = "08:00"\non_until = "19:00"\non_days = "sat, Wednesday"', (2, 5)),
        ('on_from = "08:00"\non_until = "19:00"\non_days = ["sunday", "tue-wed"]', (1, 2, 6)),
    ],
)
def test_hours_are_read_as_they_are_said(read, keys, found):
    wanted = found if isinstance(found, OnHours) else OnHours(480, 1140, found)
    assert hours(read(f'{VM}start = "auto"\n{keys}\n')) == wanted


def test_without_hours_there_are_none(read):
    assert hours(read(VM)) is None


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ('start = "auto"\non_from = "08:00"', "backends.vm.on_from: these hours need `on_until`"),
        ('start = "auto"\non_until = "08:00"', "backends.vm.on_until: these hours need `on_from`"),
        ('start = "auto"\non_days = "mon"', "backends.vm.on_days: these hours need `on_from`"),
        (
            'start = "auto"\non_from = "08:00"\non_until = "08:00"',
            'the same time; the whole day is "00:00" to "24:00"',
        ),
        ('on_from = "08:00"\non_until = "19:00"', 'so it needs start = "auto"'),
        ('on_from = "8"\non_until = "19:00"', 'expected a time of day in quotes, such as "08:00"'),
        ('on_from = "08:00"\non_until = "25:00"', "expected a time of day"),
        (
            'on_from = "08:00"\non_until = "19:00"\non_days = "mon-frday"',
            "did you mean `friday`?",
        ),
        ('on_from = "08:00"\non_until = "19:00"\non_days = []', "an empty list"),
    ],
)
def test_what_is_wrong_is_said_in_the_users_words(read, keys, says):
    with pytest.raises(ConfigError) as refused:
        read(f"{VM}{keys}\n")
    assert says in str(refused.value)


def test_hours_of_what_aion_cannot_start_are_warned_about(read):
    config = read(f'{STATIC}on_from = "08:00"\non_until = "19:00"\n')
    assert "backends.lab.on_from: aion cannot start a backend of this kind" in config.warnings
