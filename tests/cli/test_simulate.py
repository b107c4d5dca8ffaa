"""`aion simulate`: the operator's own configuration, played."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest
from terminal import OnTerminal, aion

from orchestrator.core.events import Entry, Turn
from orchestrator.core.model import BackendState, Health, Now, Observation, Source, Verdict
from orchestrator.edge.store import Store, inline

ROOT = Path(__file__).parents[2]
CONTRACT = Path(__file__).parent / "fleets" / "contract.toml"
AT = 1_795_262_400.0  # 2026-11-21 12:00 UTC, a Saturday: each month is another, these are one
CLOCK = {"PYTHONPATH": str(Path(__file__).parent / "clock"), "CLOCK_AT": str(AT)}


@pytest.fixture
def place(tmp_path):
    """A folder with the contract's fleet, and a state folder without a database."""
    shutil.copy(CONTRACT, tmp_path / "aion.toml")
    return tmp_path


def simulate(place, *words: str, **env: str):
    return aion("simulate", *words, cwd=place, STATE_DIRECTORY=str(place / "state"), **CLOCK, **env)


def stored(place, *, falls: int) -> None:
    """What a daemon leaves behind that has run for two days; colab is down at the end."""

    async def write() -> None:
        (place / "state").mkdir()
        store = Store(f"sqlite:///{place / 'state' / 'aion.db'}", inline(), create=True)
        await store.load()
        start = AT - 48 * 3600
        for hour in range(48):
            store.observe(Observation("lab", Source.PROBE, Verdict.OK), start + hour * 3600)
            await store.flush(everything=True)
        for number in range(falls):
            for after_s, new in ((0, "up"), (60, "down"), (120, "up")):
                at = start + number * 600 + after_s
                entry = Entry("health", "lab", f"lab is {new}", {"old": "", "new": new})
                await store.commit(Turn(entries=(entry,), durable=True), Now(at, at))
        colab = BackendState("colab", health=Health.DOWN)
        at = start + 48 * 3600
        await store.commit(Turn(backends={"colab": colab}, durable=True), Now(at, at))
        await store.close()

    asyncio.run(write())


# ── weeks ───────────────────────────────────────────────────────────────────────────────────────


def test_the_demos_fleet_has_an_outlook(tmp_path):
    words = ("simulate", "--days", "30", "--seeds", "3")
    ran = aion(*words, "--config", str(ROOT / "config" / "demo.toml"), cwd=tmp_path, **CLOCK)
    assert ran.code == 0, ran.err
    assert ran.err == ""
    assert "30 d from Sat 21 Nov" in ran.out
    for word in ("CHAT", "available", "uncovered", "failovers", "colab", "kaggle", "lab"):
        assert word in ran.out


def test_an_outlook_needs_no_credentials_and_says_what_it_rests_on(place):
    ran = simulate(place, "--days", "7", "--seeds", "4")
    assert ran.code == 0, ran.err
    assert "Failure rates: assumed: there is no" in ran.out
    assert "Nobody starts anything from 23:00 to 08:00 (alerts.operator_hours)." in ran.out
    assert "start one, urgently" in ran.out
    assert "cannot serve yet" in ran.out
    assert "assumed: free notebook" in ran.out


def test_as_json_it_has_every_figure_and_the_same_seeds_give_the_same(place):
    words = ("--days", "5", "--seeds", "3", "--json")
    first, second = (json.loads(simulate(place, *words).out) for _ in range(2))
    assert first == second
    assert (first["days"], first["seeds"]) == (5.0, 3)
    chat, drafts = first["services"]
    assert set(chat["available"]) == {"mean", "p5", "p50", "p95"}
    assert 0.9 < chat["available"]["p50"] <= 1
    assert drafts["uncovered_min"]["mean"] > chat["uncovered_min"]["mean"]
    assert len(chat["hours"]) == 24
    assert {one["name"]: one["plays"] for one in first["backends"]}["groq"] is False
    assert first["asked"]["mean"] > 0
    assert 1 <= len(first["sentences"]) <= 3
    assert json.loads(simulate(place, "--days", "5", "--seeds", "4", "--json").out) != first


def test_many_plays_over_several_processes_say_what_one_process_says(place):
    """Twenty days are played in one process, a hundred in several."""
    few = json.loads(simulate(place, "--days", "5", "--seeds", "4", "--json").out)
    many = json.loads(simulate(place, "--days", "5", "--seeds", "20", "--json").out)
    assert many["seeds"] == 20
    names = [one["name"] for one in few["services"]]
    assert [one["name"] for one in many["services"]] == names
    assert many["services"][0]["available"]["p50"] == pytest.approx(
        few["services"][0]["available"]["p50"], abs=0.01
    )


def test_history_takes_the_place_of_what_is_assumed(place):
    stored(place, falls=12)
    seen = json.loads(simulate(place, "--days", "2", "--seeds", "2", "--json").out)
    assert seen["rates"].startswith("from the history in ")
    lab = next(one for one in seen["backends"] if one["name"] == "lab")
    assert lab["basis"] == "history: 12 failures in 2 d"
    colab = next(one for one in seen["backends"] if one["name"] == "colab")
    assert colab["basis"] == "assumed: free notebook"
    assert lab["mttr_s"] < 300


def test_a_database_that_cannot_be_read_is_said_and_the_outlook_goes_on(place):
    (place / "state").mkdir()
    (place / "state" / "aion.db").write_text("nothing of the sort" * 100)
    ran = simulate(place, "--days", "2", "--seeds", "2")
    assert ran.code == 0
    assert "is not a SQLite database" in ran.out


def test_rates_can_be_given(place):
    words = ("--days", "3", "--seeds", "2", "--json", "--mtbf", "lab=6h", "--mttr", "lab=20m")
    lab = next(
        one for one in json.loads(simulate(place, *words).out)["backends"] if one["name"] == "lab"
    )
    assert (lab["mtbf_s"], lab["mttr_s"], lab["basis"]) == (21600.0, 1200.0, "given")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--mtbf", "lob=6h"), "did you mean `lab`?"),
        (("--mtbf", "groq=6h"), "no backend `groq` that can serve"),
        (("--mtbf", "lab"), "write a backend and a duration"),
        (("--mttr", "lab=soon"), "'soon' is not a duration"),
        (("--days", "0"), "--days"),
        (("--seeds", "0"), "--seeds"),
        (("--what-if", "colob dies"), "no backend `colob`; did you mean `colab`?"),
        (("--what-if", "colab explodes"), "understood are:"),
    ],
)
def test_what_is_not_understood_is_said_in_one_line(place, words, says):
    ran = simulate(place, *words)
    assert ran.code == 2
    assert says in ran.err
    assert ran.err.count("\n") == 1
    assert ran.out == ""


def test_a_configuration_that_is_wrong_or_missing_is_said(tmp_path):
    ran = simulate(tmp_path)
    assert ran.code == 5
    assert "no configuration" in ran.err
    (tmp_path / "aion.toml").write_text('[backends.a]\nkind = "static"\nurl = "ftp://x"\n')
    ran = simulate(tmp_path)
    assert ran.code == 5
    assert "an address starts with" in ran.err


def test_a_fleet_that_cannot_serve_has_no_outlook(tmp_path):
    text = '[backends.a]\nkind = "api"\nbase_url = "https://api.example.org/v1"\n'
    (tmp_path / "aion.toml").write_text(text)
    ran = simulate(tmp_path)
    assert ran.code == 2
    assert "no backend of this configuration can serve" in ran.err


# ── a mishap ────────────────────────────────────────────────────────────────────────────────────


def test_a_mishap_is_told_second_by_second(place):
    ran = simulate(place, "--what-if", "colab dies for 10m")
    assert ran.code == 0, ran.err
    assert "With everything up, chat is served by colab" in ran.out
    for step in ("0:00.0", "(1 of 3)", "chat: colab → kaggle", "is written: CNAME", "10:00.0"):
        assert step in ran.out
    assert "without an answer; colab serves it after" in ran.out
    assert "Played at 40 other moments: from " in ran.out


def test_a_mishap_as_json(place):
    seen = json.loads(simulate(place, "--what-if", "colab and kaggle die", "--json").out)
    assert seen["from"] == "everything up"
    kinds = [line["kind"] for line in seen["lines"]]
    assert kinds[:2] == ["world", "world"]
    assert {"look", "verdict", "move", "name", "told"} <= set(kinds)
    times = [line["t"] for line in seen["lines"]]
    assert times == sorted(times)
    chat, drafts = seen["services"]
    assert (chat["ended_with"], drafts["ended_with"]) == ("gpu-vm", None)
    assert len(chat["others_s"]) == 40


def test_a_mishap_begins_with_what_the_daemon_last_wrote(place):
    stored(place, falls=0)
    seen = json.loads(simulate(place, "--what-if", "kaggle dies", "--json").out)
    assert seen["from"] == "database"
    assert seen["services"][0]["began_with"] == "kaggle"


def test_on_a_terminal_of_80_columns_nothing_is_wider(place):
    words = ("simulate", "--days", "30", "--seeds", "2", "--config", str(place / "aion.toml"))
    shown = OnTerminal(*words, STATE_DIRECTORY=str(place / "state"), **CLOCK).end()
    assert shown.code == 0
    lines = re.sub(r"\x1b\[[0-9;]*[mK]", "", shown.out).split("\n")
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("backend") and "rates" in line for line in lines)  # a table still


def test_a_long_one_says_how_far_it_is_and_ends_at_once_when_told_to(place):
    words = ("simulate", "--seeds", "10000", "--config", str(place / "aion.toml"))
    shown = OnTerminal(*words, STATE_DIRECTORY=str(place / "state"), **CLOCK)
    shown.until("of 10000 plays")
    shown.type("\x03")  # to all its processes, as a terminal does
    done = shown.end()
    assert done.code == 130
    assert "Traceback" not in done.out
