"""`aion notebook`: a notebook that is valid, tells the agent what it needs, and holds no secret."""

from __future__ import annotations

import ast
import json

import nbformat
import pytest
from terminal import aion

TOKEN = "colab-token-0123456789-abcdefghijklmnop"
TEXT = """
[server]
public_url = "https://aion.example.org/"
[backends.colab]
kind = "notebook"
engine = "ollama"
platform = "colab"
models = { "big" = "qwen3:8b", "small" = "qwen3:0.6b" }
token = { credential = "colab_token" }
[backends.kaggle]
kind = "notebook"
engine = "vllm"
platform = "kaggle"
allow_hosts = ["*.ngrok-free.app"]
[backends.box]
kind = "notebook"
engine = "llamacpp"
allow_hosts = ["box.example.org"]
[backends.here]
kind = "notebook"
allow_private = true
allow_hosts = ["127.0.0.9"]
[backends.linked]
kind = "notebook"
restart_url = "https://colab.research.google.com/drive/abc"
[backends.lab]
kind = "static"
url = "http://10.0.0.5:8080"
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "aion.toml").write_text(TEXT)
    return tmp_path


def written(place, name, *words, **env):
    ran = aion("notebook", name, "--output", "-", *words, cwd=place, **env)
    assert ran.code == 0, ran.err
    book = nbformat.reads(ran.out, as_version=4)
    nbformat.validate(book)
    assert (book.nbformat, book.nbformat_minor) == (4, 5)
    [cell] = [one for one in book.cells if one.cell_type == "code"]
    return book, cell.source, ran


def told(source):
    """What the cell calls `start` with, without running it."""
    values = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            values[node.targets[0].id] = ast.literal_eval(node.value)
    call = ast.parse(source).body[-1].value
    assert call.func.id == "start"
    return {
        one.arg: values[one.value.id] if isinstance(one.value, ast.Name) else one.value.value
        for one in call.keywords
    }


def test_on_colab_it_is_a_form_that_fetches_the_agent_and_starts_it(place):
    book, source, _ = written(place, "colab")
    assert told(source) == {
        "aion": "https://aion.example.org",
        "backend": "colab",
        "engine": "ollama",
        "models": ["qwen3:8b", "qwen3:0.6b"],
        "tunnel": "cloudflared",
    }
    assert source.startswith("#@title aion: colab\n")
    assert source.count("#@param") == 5
    assert '"/agent.py"' in source
    assert book.metadata.accelerator == "GPU"


def test_elsewhere_it_is_plain_python_with_the_way_in_that_the_backend_allows(place):
    _, source, ran = written(place, "kaggle")
    assert told(source)["tunnel"] == "ngrok"
    assert "#@" not in source
    assert "NGROK_AUTHTOKEN" in ran.err
    _, source, _ = written(place, "box")
    assert (told(source)["tunnel"], told(source)["url"]) == ("none", "https://box.example.org")
    _, source, _ = written(place, "here")
    assert told(source)["url"] == "http://127.0.0.9:8766"
    assert told(source)["listen"] == "127.0.0.9"


def test_the_token_is_never_in_it_and_need_not_be_known(place):
    _, _, ran = written(place, "colab", AION_CREDENTIAL_COLAB_TOKEN=TOKEN)
    assert TOKEN not in ran.out + ran.err
    assert "AION_TOKEN" in ran.out
    assert "the credential colab_token" in ran.err
    _, _, ran = written(place, "kaggle")
    assert "aion token new kaggle" in ran.err


@pytest.mark.parametrize(("name", "host"), [("colab", "Google"), ("kaggle", "Kaggle")])
def test_the_terms_are_said_in_the_notebook_and_beside_it(place, name, host):
    book, _, ran = written(place, name)
    assert host in book.cells[0].source
    assert "**Terms.**" in book.cells[0].source
    assert "terms: " in ran.err
    book, _, ran = written(place, "box")
    assert "terms" not in (book.cells[0].source + ran.err).lower()


def test_the_platform_is_the_backends_own_unless_said_otherwise(place):
    _, source, _ = written(place, "linked")
    assert "#@param" in source
    _, source, _ = written(place, "colab", "--platform", "jupyter")
    assert "#@param" not in source
    _, source, _ = written(place, "box", "--platform", "colab")
    assert told(source)["tunnel"] == "cloudflared"


def test_a_file_is_written_once_and_replaced_only_when_told(place):
    assert aion("notebook", "colab", cwd=place).code == 0
    path = place / "colab.ipynb"
    first = path.read_text()
    assert aion("notebook", "colab", cwd=place).code == 0, "nothing would change"
    path.write_text(first + "\n")
    ran = aion("notebook", "colab", cwd=place)
    assert ran.code == 2
    assert "--force" in ran.err
    assert path.read_text() == first + "\n"
    assert aion("notebook", "colab", "--force", "--json", cwd=place).code == 0
    assert path.read_text() == first
    assert sorted(one.name for one in place.iterdir()) == ["aion.toml", "colab.ipynb"]


def test_with_json_it_says_where_the_file_is(place):
    ran = aion("notebook", "box", "--output", "my.ipynb", "--json", cwd=place)
    assert json.loads(ran.out) == {
        "file": "my.ipynb",
        "platform": "jupyter",
        "aion": "https://aion.example.org",
    }


@pytest.mark.parametrize(
    ("words", "change", "code", "said"),
    [
        (["colab"], ('public_url = "https://aion.example.org/"', ""), 5, "server.public_url"),
        (["colab"], ("https://aion.example.org/", "http://127.0.0.1:8765"), 5, "cannot reach"),
        (["lab"], ("", ""), 1, "does not register itself"),
        (["colb"], ("", ""), 1, "did you mean `colab`?"),
        (["box", "--output", "no/such.ipynb"], ("", ""), 1, "cannot write no/such.ipynb"),
        (["colab"], ("public_url", "publik_url"), 5, "unknown key"),
    ],
)
def test_what_is_missing_is_one_clear_line(place, words, change, code, said):
    (place / "aion.toml").write_text(TEXT.replace(*change) if change[0] else TEXT)
    ran = aion("notebook", *words, cwd=place)
    assert ran.code == code, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert [one.name for one in place.iterdir()] == ["aion.toml"]


def test_text_that_looks_like_code_stays_text(place):
    name = 'x"); import os; os.system("id'
    (place / "aion.toml").write_text(TEXT.replace("qwen3:8b", name.replace('"', '\\"')))
    _, source, _ = written(place, "colab")
    assert told(source)["models"][0] == name
