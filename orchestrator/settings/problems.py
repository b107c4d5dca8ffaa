"""What is wrong with a configuration, said with the line, a caret and what to do.

A shown line never holds a secret: text that may be one is covered before it is printed, also in
lines that are wrong for another reason.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.settings.positions import Mark, Path, Places

_WIDEST = 110
_SECRET_KEY = re.compile(
    r"token|key|secret|passw|pwd|dsn|auth|webhook|bearer|cookie|ping_url", re.IGNORECASE
)
_PREFIXED = re.compile(
    r"\b(?:sk|gsk|hf|ghp|gho|glpat|xox[a-z]|AKIA|AIza|cfut|eyJ)[-_A-Za-z0-9]{8,}"
)
_SEGMENT = re.compile(r"(?=[A-Za-z0-9]*[0-9])(?=[A-Za-z0-9]*[A-Za-z])[A-Za-z0-9]{16,}")
_USERINFO = re.compile(r"://[^/@\s]+@")
_SCHEME = re.compile(
    r"(?<![A-Za-z0-9+.-])(?!https?:|tcp:|sqlite|rclone:|gs:)[A-Za-z][A-Za-z0-9+.-]*://\S{16}"
)
_LITERAL = re.compile(r"(\"\"\"|'''|\"|')(.*?)(\1|$)")
_KEY_BEFORE = re.compile(r"([A-Za-z0-9_.-]+)[\"']?\s*=\s*[\[{(]?\s*$")
_RUN = re.compile(r"[^\s\"'=\[\]{},#]{16,}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong. `path` is what it is about; `text` is one line that holds no secret.

    `on_key`: the caret goes under the key rather than its value. `secret`: a secret stands there.
    `mark`: the place, where it is known already (text that is not TOML); `raw`: the line may be
    the middle of anything.
    """

    path: Path
    text: str
    on_key: bool = False
    secret: bool = False
    mark: Mark | None = None
    raw: bool = False


def shown(name: object, longest: int = 60) -> str:
    """Give a name fit for a terminal: control characters escaped, never long."""
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(name))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def named(name: object) -> str:
    """Give a name that an operator wrote, unless a secret was pasted there."""
    return "•••" if looks_secret(str(name)) else shown(name)


def dotted(path: Path) -> str:
    """Write a path as in TOML, `backends.gpu-vm.models[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]{1,63}", part)
            text += ("." if text else "") + (part if plain else f'"{shown(part)}"')
    return text


def nearest(name: object, known: Iterable[str]) -> str:
    """Say `; did you mean …?`, or nothing."""
    found = difflib.get_close_matches(str(name).lower(), sorted(known), n=1, cutoff=0.6)
    return f"; did you mean `{found[0]}`?" if found else ""


def looks_secret(text: str) -> bool:
    """Tell whether `text` looks like a token, a key, or an address that carries one."""
    patterns = (_PREFIXED, _SEGMENT, _USERINFO, _SCHEME)
    return any(pattern.search(text) for pattern in patterns)


def is_secret_key(key: str) -> bool:
    """Tell whether a key of this name holds a secret."""
    return _SECRET_KEY.search(key) is not None


def render(
    problems: Iterable[Problem],
    *,
    name: str,
    text: str,
    places: Places,
    origins: Mapping[Path, str],
    title: str = "problem",
) -> str:
    """Print problems in the order of the file.

    `origins` names the flag or variable that a path's value came from, where it is not the file.
    """
    lines = text.split("\n")
    found = list(problems)
    covers = [m for p in found if p.secret and (m := places.values.get(p.path))]
    entries: list[tuple[int, int, str]] = []
    for problem in found:
        origin = _origin(problem.path, origins)
        if not origin and problem.path[:-1] not in places.keys:
            origin = _near(problem.path, origins)
        mark = None if origin else _place(problem, places)
        if mark is None:
            entries.append(
                (1 << 30, 0, f"  {origin}: {problem.text}" if origin else f"  {problem.text}")
            )
        else:
            line = _covered(
                lines[mark.line - 1] if mark.line <= len(lines) else "", mark.line, covers
            )
            line = _RUN.sub(_dots, _all_literals(line)) if problem.raw else line
            entries.append((mark.line, mark.column, _pointed(line, mark, problem.text)))
    entries.sort(key=lambda entry: entry[:2])
    count = len(entries)
    head = f"{count} {title}{'' if count == 1 else 's'} in {name}"
    return "\n".join([head, *(entry[2] for entry in entries)])


def located(problems: Iterable[Problem], places: Places) -> list[dict[str, object]]:
    """List problems for a program: line and column count from 1, None where there is no place."""
    found: list[dict[str, object]] = []
    for problem in problems:
        mark = _place(problem, places)
        line, column = (mark.line, mark.column + 1) if mark else (None, None)
        key = dotted(problem.path) or None
        found.append({"line": line, "column": column, "key": key, "text": problem.text})
    return found


def _origin(path: Path, origins: Mapping[Path, str]) -> str | None:
    return next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), None)


def _near(path: Path, origins: Mapping[Path, str]) -> str | None:
    """Name what set something else in the table where `path` is missing."""
    table = path[:-1]
    return next((name for at, name in origins.items() if table and at[: len(table)] == table), None)


def _place(problem: Problem, places: Places) -> Mark | None:
    if problem.mark:
        return problem.mark
    path = problem.path
    if not problem.on_key and path in places.values:
        mark = places.values[path]
        return Mark(mark.line, mark.column, 1)
    while path:
        if path in places.keys:
            return places.keys[path]
        path = path[:-1]
    return None


def _pointed(line: str, mark: Mark, text: str) -> str:
    """One problem: the line, and below it the caret and the text."""
    column = min(mark.column, len(line))
    start = 0 if len(line) <= _WIDEST else max(0, min(column - _WIDEST // 2, len(line) - _WIDEST))
    part = line[start : start + _WIDEST]
    lead = "…" if start else ""
    tail = "…" if start + _WIDEST < len(line) else ""
    before = part[: column - start]
    pad = len(lead) + sum(_columns(c) for c in before)
    width = sum(_columns(c) for c in part[column - start : column - start + mark.width])
    part = "".join(c if c.isprintable() else " " if c == "\t" else "�" for c in part)
    row = f"{lead}{part}{tail}".rstrip()
    return f"{mark.line:>4} | {row}\n     | {' ' * pad}{'^' * max(1, width)} {text}"


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _covered(line: str, number: int, covers: Iterable[Mark]) -> str:
    """Cover what is, or may be, a secret; the columns stay."""
    for mark in covers:
        if mark.line == number:
            stretch = line[mark.column : mark.column + mark.width]
            line = line[: mark.column] + "•" * len(stretch) + line[mark.column + mark.width :]

    def cover(match: re.Match[str]) -> str:
        before = _KEY_BEFORE.search(line[: match.start()]) or re.match(
            r"\s*([A-Za-z0-9_.-]+)", line
        )
        key = before[1].rpartition(".")[2] if before else ""
        hide = looks_secret(match[2]) or (key != "credential" and is_secret_key(key))
        return f"{match[1]}{'•' * len(match[2])}{match[3]}" if hide else match[0]

    return _LITERAL.sub(cover, line)


def _all_literals(line: str) -> str:
    return _LITERAL.sub(lambda m: f"{m[1]}{'•' * len(m[2])}{m[3]}", line)


def _dots(match: re.Match[str]) -> str:
    return "•" * len(match[0])
