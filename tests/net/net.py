"""Plants each fish in a copy of the tree, casts the nets at it, and says which test caught it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tests.net.fish import FISH, NETS, Fish

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("orchestrator", "backends", "jobs", "tests", "config", "pyproject.toml")
WORKERS = 2
CPU_S = 10  # of the processor, from the start of the run: the wall clock says how busy others are
WALL_S = 90.0
PATIENCE_S = 120.0  # for a net without a fish, which runs to its end
PYTEST = (
    "--exitfirst",
    "--quiet",
    "--tb=short",
    "--hypothesis-profile=ci",  # the same examples every time, none remembered, no deadlines
    "-p",
    "no:cacheprovider",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",  # the plugins are imported before the fork
)


@dataclass(frozen=True, slots=True)
class Cast:
    """What one net made of one fish, or of none. `test`: the first that failed; "" if none did.

    `trouble`: why it proves nothing: it was not run, nothing was tested, or the fish broke an
    import rather than a rule.
    """

    net: str
    test: str = ""
    error: str = ""
    trouble: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0

    @property
    def caught(self) -> bool:
        return bool(self.test) and not self.trouble

    @property
    def passed(self) -> bool:
        return not self.test and not self.trouble


@dataclass(frozen=True, slots=True)
class Haul:
    """All that came of it: each net without a fish, and each fish with its casts."""

    empty: dict[str, Cast]
    casts: dict[str, tuple[Cast, ...]]

    def catches(self, fish: Fish) -> list[Cast]:
        """List the casts that caught it, by nets that let pass what is no fish."""
        return [
            cast
            for cast in self.casts.get(fish.name, ())
            if cast.caught and self.empty[cast.net].passed
        ]


def gone(fish: Fish, root: Path = ROOT) -> str:
    """Say why this row is out of date; empty if it is not."""
    path = root / fish.file
    if not path.is_file():
        return f"there is no {fish.file}"
    count = path.read_text().count(fish.old)
    return "" if count == 1 else f"its old text is {count} times in {fish.file}, not once"


class Boat:
    """A copy of the tree with an interpreter of its own, and a process that runs tests there.

    The interpreter finds the copy where ours finds the tree, in child processes too, whatever their
    environment.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._tree = folder, folder / "tree"
        self._tree.mkdir(parents=True)
        for name in COPIED:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, self._tree / name, ignore=ignored)
            else:
                shutil.copy2(ROOT / name, self._tree / name)
        python = self._interpreter()
        self._edits = 0
        self._process = subprocess.Popen(
            [python, "-P", str(self._tree / "tests/net/caster.py")],
            cwd=self._tree,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _interpreter(self) -> Path:
        folder = self._folder / "venv"
        venv.create(folder, symlinks=True)
        scheme = {"base": str(folder), "platbase": str(folder)}
        site = Path(sysconfig.get_path("purelib", "venv", scheme))
        libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        # Of folders named here no .pth is read, so the editable install of the tree is not found.
        (site / "copy.pth").write_text("\n".join([str(self._tree), *libraries]) + "\n")
        return folder / "bin" / "python"

    def cast(self, net: str, fish: Fish | None = None, *, cpu_s: int = CPU_S) -> Cast:
        """Run a net with that fish in the tree, within `cpu_s`; or to its end, with none."""
        if fish is None:
            return self._run(net, 0, PATIENCE_S)
        with self._planted(fish):
            return self._run(net, cpu_s, WALL_S)

    @contextmanager
    def _planted(self, fish: Fish) -> Iterator[None]:
        path = self._tree / fish.file
        text, stat = path.read_text(), path.stat()
        path.write_text(text.replace(fish.old, fish.new))
        # Bytecode is told by whole seconds and size: each edit gets a second of its own.
        self._edits += 1
        os.utime(path, (self._edits, self._edits))
        try:
            yield
        finally:
            path.write_text(text)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    def _run(self, net: str, cpu_s: int, wall_s: float) -> Cast:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        words = [*PYTEST, f"--basetemp={self._folder / 't'}", *NETS[net]]
        order = {"words": words, "cpu_s": cpu_s, "wall_s": wall_s}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            return Cast(net, trouble="the process that runs the tests has died")
        return _judged(net, json.loads(line), cpu_s)

    def close(self) -> None:
        """End the process; it ends by itself when nothing more comes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _environment() -> dict[str, str]:
    """Ours, without what would have tests or imports go elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PY")}
    return {**kept, "PYTHONHASHSEED": "0"}


def _judged(net: str, answer: dict[str, Any], cpu_s: int) -> Cast:
    found, tail = answer["found"], answer["tail"]
    took = {"cpu_s": answer["cpu_s"], "wall_s": answer["wall_s"]}
    if found is None:
        how = f"not done within {cpu_s} s of CPU" if cpu_s else "not done"
        return Cast(net, trouble=f"{how} (status {answer['code']}): {tail}", **took)
    cast = Cast(net, found["test"], found["error"], **took)
    if found["strangers"]:
        trouble = f"tested what is not in the copy: {found['strangers'][:3]}"
    elif found["broken"]:
        trouble = f"it breaks an import or a name, not a rule: {found['error']}"
    elif answer["code"] not in (0, 1) or bool(found["test"]) != (answer["code"] == 1):
        trouble = f"pytest ended with status {answer['code']}: {tail}"
    elif not found["passed"] and not found["test"]:
        trouble = "not one test was run"
    elif cpu_s and answer["cpu_s"] > cpu_s:
        trouble = f"took {answer['cpu_s']:.1f} s of CPU, more than {cpu_s}"
    else:
        return cast
    return Cast(net, found["test"], found["error"], trouble, **took)


def fish_out(fishes: Sequence[Fish], folder: Path, workers: int = WORKERS) -> Haul:
    """Cast every fish's nets at it, and each of these nets once at nothing.

    A row that is out of date is left out.
    """
    nets = list(dict.fromkeys(net for fish in fishes for net in fish.where))
    jobs = [(net, None) for net in nets]
    jobs += [(net, fish) for fish in fishes if not gone(fish) for net in fish.where]
    boats: SimpleQueue[Boat] = SimpleQueue()

    def work(job: tuple[str, Fish | None]) -> Cast:
        boat = boats.get()
        try:
            return boat.cast(*job)
        finally:
            boats.put(boat)

    made = []
    try:
        for number in range(workers):
            made.append(Boat(folder / str(number)))
            boats.put(made[-1])
        with ThreadPoolExecutor(workers) as pool:
            done = list(pool.map(work, jobs))
    finally:
        for boat in made:
            boat.close()
    empty: dict[str, Cast] = {}
    casts: dict[str, tuple[Cast, ...]] = {}
    for (net, fish), cast in zip(jobs, done, strict=True):
        if fish is None:
            empty[net] = cast
        else:
            casts[fish.name] = (*casts.get(fish.name, ()), cast)
    return Haul(empty, casts)


def table(fishes: Sequence[Fish], haul: Haul) -> list[str]:
    """Say line by line which test caught which fish, and after how many seconds of CPU."""
    told = [
        (fish.name, f"{cast.cpu_s:4.1f} s", _said(cast, "NOBODY"))
        for fish in fishes
        for cast in haul.casts.get(fish.name, ())
    ]
    told += [(fish.name, "   -  ", gone(fish)) for fish in fishes if gone(fish)]
    told += [
        ("(no fish)", f"{cast.cpu_s:4.1f} s", _said(cast, "passes")) for cast in haul.empty.values()
    ]
    wide = max(len(name) for name, _, _ in told) if told else 0
    lines = [f"{name:{wide}}  {took}  {said}" for name, took, said in told]
    caught = sum(bool(haul.catches(fish)) for fish in fishes)
    cpu_s = sum(cast.cpu_s for casts in haul.casts.values() for cast in casts)
    cpu_s += sum(cast.cpu_s for cast in haul.empty.values())
    return [*lines, f"{caught} of {len(fishes)} caught, with {cpu_s:.0f} s of CPU"]


def _said(cast: Cast, nothing: str) -> str:
    if cast.trouble:
        return f"{cast.net}: NO PROOF: {cast.trouble.splitlines()[0]}"
    return f"{cast.net}: {cast.test or nothing}"


def main(words: Sequence[str]) -> int:
    """`python -m tests.net [WORD …]`: cast at all, or at those whose name holds one of the words."""
    chosen = [fish for fish in FISH if not words or any(word in fish.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="net-") as folder:
        haul = fish_out(chosen, Path(folder))
    print(*table(chosen, haul), sep="\n")
    for cast in (*haul.empty.values(), *itertools.chain(*haul.casts.values())):
        if cast.trouble:
            print(f"\n── {cast.net}: {cast.test}\n{cast.trouble}")
    return 0 if all(haul.catches(fish) for fish in chosen) else 1
