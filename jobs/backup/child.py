"""The child process that backs up: `python -m jobs.backup.child`.

In: `{"do": …, "plan": {…}, "store": URL, "dump": ID}`; `do`: run, verify, rehash, drill, expire
(which only says what would go), look (what `aion doctor` wants to know).
`store`: for verify, rehash, drill and expire, of one of the plan's copies; "" for each (a drill:
the first that can). `dump`: an id or a sequence, "" for the newest good one.

Out: `{"ok": …, …}` as the report of each says; or, where nothing could be done,
`{"ok": false, "kind": "Busy", "detail": …}`. No secret is in any of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from jobs.backup import verify
from jobs.backup.apart import apart
from jobs.backup.catalogue import pick, read
from jobs.backup.checkup import look
from jobs.backup.drill import Outcome, drill
from jobs.backup.errors import BackupError, StoreBroken, WrongKey
from jobs.backup.form import Copy, Plan
from jobs.backup.locks import alone
from jobs.backup.ports import Clock
from jobs.backup.readback import reread
from jobs.backup.run import Ports, run, store_folder
from jobs.backup.stores.base import Store
from orchestrator.childside import serve, tell
from orchestrator.edge.clock import SystemClock, SystemRandom

TELL_S: Final = 1.0


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """Do what the payload says; see the module's docstring."""
    plan = Plan.from_json(payload["plan"])
    pause = threading.Event().wait
    clock = SystemClock()
    teller = _Teller(clock)
    ports = Ports(clock, SystemRandom(), lambda seconds: void(pause(seconds)), teller, apart=apart)
    try:
        return DO[payload["do"]](plan, ports, payload.get("store", ""), payload.get("dump", ""))
    except BackupError as error:
        return {"ok": False, "kind": type(error).__name__, "detail": str(error)}


class _Teller:
    """Tells the daemon how far each step is, about once a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._step, self._at = clock, "", 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        at = self._clock.steady()
        if step != self._step or at - self._at >= TELL_S:
            self._step, self._at = step, at
            tell({"step": step, "done": done, "total": total})


def void(_: object) -> None:
    """Turn an answer into none."""


def _run(plan: Plan, ports: Ports, _store: str, _dump: str) -> dict[str, Any]:
    return run(plan, ports).to_json()


@contextmanager
def _opened(plan: Plan, ports: Ports, copy: Copy) -> Iterator[Store]:
    store = ports.open_store(copy.target, copy.access, store_folder(plan, copy))
    try:
        yield store
    finally:
        store.close()


def _copies(plan: Plan, url: str) -> list[Copy]:
    found = [copy for copy in plan.copies if url in {"", copy.target.url}]
    if not found and (url or not plan.syncs):
        raise BackupError(f"{url[:80]} is none of the places where {plan.name} is kept")
    return found


def _each(
    plan: Plan, ports: Ports, url: str, look: Callable[[Store], list[dict[str, Any]]]
) -> dict[str, Any]:
    """Look at each store; one that fails is a problem of its own."""
    found: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    for copy in _copies(plan, url):
        try:
            with _opened(plan, ports, copy) as store:
                found += look(store)
        except StoreBroken as error:
            problems.append(verify.problem(error, copy.target.url))
    bad = [one for one in found if not one.get("ok", True) and one.get("finished", True)]
    return {"ok": not (bad or problems), "found": found, "problems": problems}


def _verify(plan: Plan, ports: Ports, url: str, _dump: str) -> dict[str, Any]:
    return _each(
        plan,
        ports,
        url,
        lambda store: [finding.to_json() for _, finding in verify.survey(store, plan.name)],
    )


def _rehash(plan: Plan, ports: Ports, url: str, wanted: str) -> dict[str, Any]:
    """Read one dump back from each store, and what is kept besides: see `readback.reread`."""
    problems: list[dict[str, Any]] = []

    def look(store: Store) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if plan.dumps or wanted:
            one = pick(read(store, plan.name), wanted)
            found.append(verify.rehash(store, one, Path(plan.spool), ports.tell).to_json())
        more, failed = reread(replace(plan, syncs=()), ports, [store], url)
        problems.extend(failed)
        return found + more

    with alone(Path(plan.spool)):
        answer = _each(plan, ports, url, look)
        found, failed = reread(replace(plan, exports=()), ports, [], url)
    answer["problems"] += problems + failed
    answer["found"] += found
    answer["ok"] = answer["ok"] and not answer["problems"] and all(one["ok"] for one in found)
    return answer


def _expire(plan: Plan, ports: Ports, url: str, _dump: str) -> dict[str, Any]:
    return _each(
        plan,
        ports,
        url,
        lambda store: verify.expire(store, verify.survey(store, plan.name), plan.keep, dry=True),
    )


def _drilling(plan: Plan) -> Callable[..., Outcome]:
    if plan.itself is None:
        return drill
    from jobs.backup.rehearse import rehearse  # noqa: PLC0415 - only for aion's own state

    return rehearse


def _drill(plan: Plan, ports: Ports, url: str, wanted: str) -> dict[str, Any]:
    """Drill from the first store that gives a dump; a damaged copy there is not passed over."""
    last: StoreBroken | None = None
    with alone(Path(plan.spool)):
        for copy in _copies(plan, url):
            try:
                with _opened(plan, ports, copy) as store:
                    outcome = _drilling(plan)(
                        plan, store, clock=ports.clock, wanted=wanted, tell=ports.tell
                    )
            except StoreBroken as error:
                if not error.retry:
                    raise
                last = error
            else:
                return outcome.to_json()
    raise last or WrongKey("there is no store to drill from")


def _look(plan: Plan, ports: Ports, _store: str, _dump: str) -> dict[str, Any]:
    return {"ok": True, "found": look(plan, ports)}


DO: Final[dict[str, Callable[[Plan, Ports, str, str], dict[str, Any]]]] = {
    "run": _run,
    "verify": _verify,
    "rehash": _rehash,
    "expire": _expire,
    "drill": _drill,
    "look": _look,
}

if __name__ == "__main__":
    serve(main)
