"""Terminals wide and narrow, pipes, colours, and text that means harm."""

from __future__ import annotations

import json
import re

import pytest
from standin import Standin, fleet
from terminal import OnTerminal, aion

from orchestrator.cli.output import clean

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = "\x1b]0;owned\x07\x1b[2J [bold]fine[/bold] \u202eevil\r\nerror: none"


@pytest.mark.parametrize(
    "char", ["\x00", "\x07", "\x1b", "\x9b", "\r", "\n", "\u202e", "\u2028", "\ud800"]
)
def test_control_and_invisible_characters_are_shown_as_escapes(char):
    assert clean(f"a{char}b").isprintable()
    assert clean(f"a{char}b").startswith("a\\")


def test_ordinary_text_of_any_language_is_left_alone():
    for text in ("modelo avançado", "模型 qwen3:8b", "[/bold] 100 %", "👍"):
        assert clean(text) == text


def test_endless_text_is_cut():
    assert len(clean("x" * 10_000)) < 2100


@pytest.mark.parametrize("columns", [0, 80, 40])
def test_hostile_text_from_a_backend_reaches_no_terminal_and_no_pipe(token_file, columns):
    with Standin(fleet(hostile=HOSTILE)) as daemon:
        words = ("status", "--url", daemon.url, "--token-file", str(token_file))
        if columns:
            shown = ESCAPE.sub("", OnTerminal(*words, columns=columns).end().out)
        else:
            shown = aion(*words).out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "[bold]" in shown
    assert not re.search(r"^error:", shown, re.MULTILINE)


def test_json_holds_hostile_text_as_it_is(token_file):
    with Standin(fleet(hostile=HOSTILE)) as daemon:
        ran = aion("status", "--json", "--url", daemon.url, "--token-file", str(token_file))
    lab = json.loads(ran.out)["backends"][1]
    assert lab["reason"] == HOSTILE
    assert "\x1b" not in ran.out


def test_a_pipe_gets_no_colours_and_nothing_is_cut(at):
    ran = aion("status", *at)
    assert "\x1b" not in ran.out
    assert "requests to an API go through the gateway, which is not there yet" in ran.out


def test_a_terminal_gets_colours_unless_no_color_is_set(at):
    assert "\x1b[32m" in OnTerminal("status", *at).end().out
    plain = OnTerminal("status", *at, NO_COLOR="1").end().out
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", plain)


@pytest.mark.parametrize("columns", [20, 40, 80])
@pytest.mark.parametrize("verb", ["status", "explain", "incident list"])
def test_no_line_is_wider_than_the_terminal_and_no_name_is_cut(at, columns, verb):
    ran = OnTerminal(*verb.split(), *at, columns=columns).end()
    lines = ESCAPE.sub("", ran.out).splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in ran.out
    name = {"incident list": "i7"}.get(verb, "colab")
    assert any(name in line for line in lines)


def test_a_narrow_terminal_gets_a_list_instead_of_a_table(at):
    wide = ESCAPE.sub("", OnTerminal("backend", "list", *at, columns=120).end().out)
    narrow = ESCAPE.sub("", OnTerminal("backend", "list", *at, columns=40).end().out)
    assert re.search(r"^colab +static +ollama", wide, re.MULTILINE)
    assert re.search(r"^kind +static$", narrow, re.MULTILINE)


def test_the_help_fits_a_narrow_terminal():
    shown = OnTerminal("--help", columns=52).end().out
    assert max(map(len, shown.splitlines())) <= 52
