"""Doctor: what is amiss is FAILED, with a remedy, and nothing is changed."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
from terminal import aion

import backends
from backends.base import Check, Plan, Ports
from orchestrator.cli.reach import egress, of_its_kind
from orchestrator.core.specs import Backend, FleetConfig, HealthPolicy
from orchestrator.errors import ChildFailed

TEXT = """
[server]
listen = "127.0.0.1:{port}"
[health]
controls = []
[backends.gone]
kind = "static"
engine = "openai"
url = "http://127.0.0.1:9"
restart_url = "https://colab.research.google.com/drive/abc"
"""


@contextmanager
def listening():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def examined(tmp_path, port=0, text=TEXT, more=""):
    (tmp_path / "aion.toml").write_text(text.replace("{port}", str(port)) + more)
    ran = aion("doctor", "--json", cwd=tmp_path, STATE_DIRECTORY=str(tmp_path / "state"))
    found = {}
    for finding in json.loads(ran.out):
        found.setdefault(finding["subject"], finding)
    return ran.code, found


def test_a_dead_backend_and_a_taken_port_fail_with_a_remedy(tmp_path):
    with listening() as port:
        code, found = examined(tmp_path, port)
    assert code == 1
    for subject in ("port", "backend gone"):
        assert found[subject]["outcome"] == "FAILED"
        assert found[subject]["remedy"]
    assert found["configuration"]["outcome"] == "PASSED"
    assert "Colab" in found["terms of gone"]["text"]
    assert found["alerts"]["outcome"] == "ADVICE"


@pytest.mark.parametrize(("platform", "host"), [("colab", "Google"), ("kaggle", "Kaggle")])
def test_the_terms_of_a_notebooks_host_are_named(tmp_path, platform, host):
    more = f'[backends.one]\nkind = "notebook"\nplatform = "{platform}"\n'
    _, found = examined(tmp_path, 8765, more=more + '[backends.two]\nkind = "notebook"\n')
    assert found["terms of one"]["outcome"] == "ADVICE"
    assert host in found["terms of one"]["text"]
    assert "terms of two" not in found


def test_what_is_started_when_it_is_needed_may_be_off(tmp_path):
    more = '[backends.one]\nkind = "fake"\nscript = "up"\npower = "boot 3s"\n'
    _, found = examined(tmp_path, more=more)
    assert found["backend one"]["outcome"] == "ADVICE"
    assert "aion backend start one" in found["backend one"]["remedy"]


def test_what_registers_itself_is_not_looked_for_without_its_session(tmp_path):
    _, found = examined(tmp_path, 8765, more='[backends.colab]\nkind = "notebook"\n')
    assert found["backend colab"]["outcome"] == "PASSED"
    assert "aion session list" in found["backend colab"]["text"]


def test_a_broken_file_fails_with_every_problem_and_nothing_else_is_looked_at(tmp_path):
    code, found = examined(tmp_path, 8765, more="nope = 1\nwrong = 2\n")
    assert code == 1
    assert list(found) == ["configuration"]
    assert "nope" in found["configuration"]["text"]
    assert "wrong" in found["configuration"]["text"]


def test_a_damaged_database_fails(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "aion.db").write_bytes(b"not a database at all" * 100)
    _, found = examined(tmp_path, 8765)
    assert found["database"]["outcome"] == "FAILED"


def test_doctor_writes_nothing(tmp_path):
    examined(tmp_path, 8765)
    assert [path.name for path in tmp_path.iterdir()] == ["aion.toml"]


def test_on_a_page_each_check_is_a_line_with_its_remedy_below(tmp_path):
    (tmp_path / "aion.toml").write_text(TEXT.replace("{port}", "8765"))
    ran = aion("doctor", cwd=tmp_path)
    assert "FAILED  backend gone: connection refused\n        → start it" in ran.out
    assert "checks failed" in ran.err


class Settings:
    dns = ()

    def __init__(self, count, **policy):
        spec = Backend("b", "static", "openai", health=replace(HealthPolicy(), **policy))
        self.fleet = FleetConfig({f"b{n}": replace(spec, name=f"b{n}") for n in range(count)}, {})


@pytest.mark.parametrize(
    ("count", "interval_s", "outcome"),
    [(3, 10.0, "PASSED"), (11, 10.0, "ADVICE"), (50, 300.0, "PASSED")],
)
def test_the_traffic_of_a_month_is_estimated_as_a_free_machine_would_bill_it(
    count, interval_s, outcome
):
    assert egress(Settings(count, interval_s=interval_s)).outcome == outcome


def of_a_kind(monkeypatch, checks, **limits):
    """What doctor says of a backend whose kind brings these checks."""
    module = ModuleType("odd")
    if checks is not None:
        module.checks = checks
    monkeypatch.setitem(sys.modules, "odd", module)
    monkeypatch.setitem(backends.KINDS, "odd", "odd")
    config = SimpleNamespace(plans={"box": Plan(Backend("box", "odd", "openai"), None)})
    found = asyncio.run(of_its_kind(config, "box", Ports(None, None, None, None), **limits))
    return [(one.outcome, one.subject, one.text, one.remedy) for one in found]


def test_a_kind_brings_checks_of_its_own(monkeypatch):
    async def checks(plan, ports):
        assert isinstance(ports, Ports)
        return [
            Check(True, f"{plan.backend.name} is there"),
            Check(False, "no quota", "ask for it"),
            Check(None, "a trial account"),
        ]

    assert of_a_kind(monkeypatch, checks) == [
        ("PASSED", "odd box", "box is there", ""),
        ("FAILED", "odd box", "no quota", "ask for it"),
        ("ADVICE", "odd box", "a trial account", ""),
    ]
    assert of_a_kind(monkeypatch, None) == []


def test_checks_of_a_kind_that_fail_or_hang_are_a_finding(monkeypatch):
    async def fail(plan, ports):
        raise ChildFailed("its child died")

    async def hang(plan, ports):
        await asyncio.Event().wait()

    assert of_a_kind(monkeypatch, fail) == [("FAILED", "odd box", "its child died", "")]
    ((outcome, _, text, _),) = of_a_kind(monkeypatch, hang, within_s=0.05)
    assert (outcome, text) == ("FAILED", "its provider said nothing within 0.05 s")
