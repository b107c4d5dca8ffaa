"""A run that keeps all promises, and the same run tampered with, in which one must be broken."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from tests.simulation import plans
from tests.simulation.sabotage import Steps
from tests.simulation.scripted import Act, Run, short_run

BOOK = plans.Notebook("book", priority=5, session_s=10800.0)


@dataclass(frozen=True)
class Case:
    """What happens, and what must come of it once it is tampered with.

    `also`: promises that cannot but be broken with it.
    """

    promise: str
    says: str
    script: Steps
    sabotage: Act
    seconds: float = 240.0
    last: tuple[str, ...] = ("finished",)
    notebooks: tuple[plans.Notebook, ...] = ()
    rented: plans.Rented | None = None
    also: tuple[str, ...] = ()


def lived(case: Case, *, sabotage: Act | None) -> Run:
    """Live through a case."""
    return short_run(
        case.seconds,
        script=case.script,
        sabotage=sabotage,
        last=case.last,
        notebooks=case.notebooks,
        rented=case.rented,
    )


def sound(case: Case) -> tuple[str, ...]:
    """Say what is broken in this run if nobody tampers with it."""
    return _sound(case.script, case.seconds, case.last, case.notebooks, case.rented)


@cache
def _sound(
    script: Steps,
    seconds: float,
    last: tuple[str, ...],
    notebooks: tuple[plans.Notebook, ...],
    rented: plans.Rented | None,
) -> tuple[str, ...]:
    run = short_run(seconds, script=script, last=last, notebooks=notebooks, rented=rented)
    return tuple(f"{one.invariant}: {one.what}" for one in run.breaches)


def judge(case: Case) -> None:
    """See that exactly the promise is named that this breaks."""
    run = lived(case, sabotage=case.sabotage)
    story = run.machine.trace.story(before=case.seconds)
    assert {case.promise} <= run.broken <= {case.promise, *case.also}, f"{run.breaches}\n{story}"
    assert any(case.says in breach.what for breach in run.breaches), run.breaches


def unsaid(module: ModuleType, cases: Iterable[Case], *, at_least: int) -> list[tuple[str, str]]:
    """List what a monitor can say and no case has it say."""
    cases = list(cases)
    assert module.__file__ is not None
    promises = {one.promise for one in cases}
    told = _told(ast.parse(Path(module.__file__).read_text()))
    said = [(promise, piece) for promise, piece in told if promise in promises]
    assert len(said) >= at_least
    return [
        (promise, piece)
        for promise, piece in said
        if not any(one.promise == promise and piece in one.says for one in cases)
    ]


def _told(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Find what the monitor can say: the promise, and the longest piece of the sentence."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        said = [one for one in node.args if isinstance(one, ast.JoinedStr | ast.Constant)]
        if node.func.attr not in ("breach", "_once") or len(said) < 2:
            continue
        promise, sentence = said[-2:]
        if not isinstance(promise, ast.Constant):
            continue
        parts = sentence.values if isinstance(sentence, ast.JoinedStr) else [sentence]
        pieces = [str(one.value) for one in parts if isinstance(one, ast.Constant)]
        yield promise.value, max(pieces, key=len).strip(" ,:;")
