"""What holds of the tree as a whole: sizes, addresses, paths, the locks, the layout."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "backends", "jobs")
FUNCTION_LINES = 50
MODULE_LINES = 500
COLUMNS = 100
PRAGMA = re.compile(r"\s*# (noqa|type: ignore).*$")
LOCKS = ("requirements.lock", "requirements-dev.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked(*patterns: str) -> list[Path]:
    """The files of this tree: what git would hold, or all if this is no checkout."""
    names = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "--", *patterns]
    done = subprocess.run(names, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        found = [ROOT / name for name in done.stdout.splitlines()]
    else:
        found = [path for pattern in patterns or ("*",) for path in ROOT.rglob(pattern)]
        found = [path for path in found if ".venv" not in path.parts]
    return [path for path in found if path.is_file()]


def sources() -> list[Path]:
    return [path for path in tracked("*.py") if path.relative_to(ROOT).parts[0] in PACKAGES]


def text_files() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        try:
            yield path, path.read_text()
        except UnicodeDecodeError:
            continue


# ── code ────────────────────────────────────────────────────────────────────────────────────────


def test_every_function_fits_a_screen():
    long = []
    for path in tracked("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines}")
    assert long == []


def test_every_module_has_one_subject_and_says_which():
    silent, long = [], []
    for path in sources():
        text = path.read_text()
        if text.strip() and ast.get_docstring(ast.parse(text)) is None:
            silent.append(str(path.relative_to(ROOT)))
        if text.count("\n") > MODULE_LINES:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))}")
    assert (silent, long) == ([], [])


def test_no_line_of_code_is_wider_than_100_columns():
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(PRAGMA.sub("", line)) > COLUMNS
    ]
    assert wide == []


def test_nothing_is_mocked():
    mock = re.compile(
        r"unittest[.]mock|from unittest import .*mock|\bmonkeypatch\.setattr|mocker\."
    )
    found = [
        str(path.relative_to(ROOT))
        for path in tracked("*.py")
        if mock.search(path.read_text()) and path != Path(__file__)
    ]
    assert found == []


# ── addresses and paths ─────────────────────────────────────────────────────────────────────────

# Put together from pieces, so that this file does not hold them itself.
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("rubygems", "org"),
        ("repo", "maven", "apache", "org"),
        ("registry-1", "docker", "io"),
        ("conda", "anaconda", "org"),
    )
)


def test_no_file_names_a_package_registry():
    found = [
        f"{path.relative_to(ROOT)}: {host}"
        for path, text in text_files()
        for host in REGISTRIES
        if host in text
    ]
    assert found == []


def test_no_file_holds_a_path_of_the_machine_it_was_written_on():
    # A home directory with a name, a pyenv, this checkout's own place.
    pieces = [r"/(?:home|Users)/[a-z][a-z0-9]+/", r"/root/\.", re.escape(str(ROOT)) + r"\b"]
    machine = re.compile("|".join(pieces))
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path, text in text_files()
        if path != Path(__file__) and (match := machine.search(text))
    ]
    assert found == []


# ── locks ───────────────────────────────────────────────────────────────────────────────────────


def locked(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Each package of a lock: its requirement and its hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=", line.strip())
            parsed = Requirement(requirement)
            found[canonicalize_name(parsed.name)] = (parsed, [h.strip() for h in hashes])
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_every_package_with_hashes_and_names_no_address(name):
    assert "://" not in (ROOT / name).read_text()
    assert not re.search(r"(?m)^\s*--?(index|extra|find|trusted)", (ROOT / name).read_text())
    for requirement, hashes in locked(name).values():
        assert re.fullmatch(r"==[^*]+", str(requirement.specifier)), requirement
        assert requirement.url is None
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for h in hashes), requirement


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_the_same_on_amd64_and_arm64(name):
    amd64 = {"platform_machine": "x86_64"}
    arm64 = {"platform_machine": "aarch64"}
    for requirement, _ in locked(name).values():
        if requirement.marker is not None:
            marker = Marker(str(requirement.marker))
            assert marker.evaluate(amd64) == marker.evaluate(arm64), requirement


def test_packages_with_compiled_parts_have_wheels_of_several_machines_locked():
    # One hash would be one file: a build for a single machine, or a source distribution.
    lock = locked("requirements.lock")
    for name in ("aiohttp", "grpcio", "httptools", "pydantic-core", "sqlalchemy", "uvloop"):
        assert len(lock[name][1]) > 8, name


@pytest.mark.parametrize(("name", "extras"), [(LOCKS[0], ("build",)), (LOCKS[1], ("build", "dev"))])
def test_a_lock_agrees_with_pyproject(name, extras):
    lock = locked(name)
    wanted = list(PROJECT["project"]["dependencies"])
    for extra in extras:
        wanted += PROJECT["project"]["optional-dependencies"][extra]
    for line in wanted:
        requirement = Requirement(line)
        pinned = lock.get(canonicalize_name(requirement.name))
        assert pinned is not None, f"{line} is not in {name}: make lock"
        version = str(pinned[0].specifier).removeprefix("==")
        assert requirement.specifier.contains(version, prereleases=True), f"{line}: make lock"


def test_the_development_lock_holds_the_runtime_lock():
    run, develop = (locked(name) for name in LOCKS)
    assert {n: r.specifier for n, (r, _) in run.items()} == {
        n: develop[n][0].specifier for n in run
    }
    for system in ("linux", "darwin", "win32"):
        for implementation in ("CPython", "PyPy"):
            place = {
                "sys_platform": system,
                "platform_python_implementation": implementation,
                "implementation_name": implementation.lower(),
            }
            needed = {
                n for n, (r, _) in run.items() if r.marker is None or r.marker.evaluate(place)
            }
            there = {n for n in run if (m := develop[n][0].marker) is None or m.evaluate(place)}
            assert needed <= there, place


def test_there_is_no_lock_that_carries_addresses():
    names = {path.name for path in tracked()}
    assert not names & {"uv.lock", "poetry.lock", "Pipfile.lock"}
    assert not [name for name in names if name.startswith("pylock")]


# ── layout ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("folder", ["config", "systemd"])
def test_configuration_and_units_are_data(folder):
    files = [path for path in tracked(folder) if path.is_relative_to(ROOT / folder)]
    assert files
    assert [path for path in files if path.suffix in {".py", ".pyc"}] == []


def test_only_the_three_packages_are_shipped():
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert tuple(wheel["packages"]) == PACKAGES


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/free-vm.md"])
def test_every_make_target_that_a_document_names_exists(document):
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    spoken = set(re.findall(r"(?:`|^|\s)make ([a-z]+)\b", (ROOT / document).read_text()))
    # "make sure" and the like are prose: only what stands in code counts.
    code = re.findall(r"`[^`]*`|```.*?```", (ROOT / document).read_text(), re.DOTALL)
    spoken &= set(re.findall(r"\bmake(?: -C \S+)? ([a-z]+)\b", "\n".join(code)))
    assert spoken <= targets


def test_the_changelog_has_a_place_for_what_is_not_released():
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("tool", ["ruff", "coverage", "noqa"])
def test_a_whole_file_is_never_excused(tool):
    excuse = re.compile(rf"(?m)^# (?:{tool}: noqa\s*$|mypy: ignore-errors|flake8: noqa)")
    assert [str(p) for p in tracked("*.py") if excuse.search(p.read_text())] == []


def test_continuous_integration_runs_what_a_newcomer_runs():
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert re.search(r"(?m)^make test\b", script.read_text())
