"""`aion backup list`, `verify` and `drill`: what there is, and whether it is whole and restores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.backup_words import (
    AnyName,
    Dump,
    From,
    Google,
    Name,
    Rclone,
    do_here,
    say_problems,
    size,
)
from orchestrator.cli.output import Cell

if TYPE_CHECKING:
    from jobs.backup.form import Manifest
    from orchestrator.cli.options import Given
    from orchestrator.cli.output import Output

NOTHING = "there is no dump; is it written as in `copies`, and mounted?"


def list_(
    ctx: typer.Context,
    name: AnyName = "",
    *,
    source: From = "",
    rclone: Rclone = None,
    google: Google = None,
) -> int:
    """List the dumps that the stores hold, by what is there and not by what was once written."""
    from jobs.backup import readback
    from jobs.backup.catalogue import read
    from jobs.backup.errors import StoreBroken
    from orchestrator.cli.backup_places import Bars, Keys, opened, plans, ports_of

    given: Given = ctx.obj
    output = given.output()
    rows: list[dict[str, Any]] = []
    exports: list[dict[str, Any]] = []
    syncs: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    with plans(given, name, source, Keys(rclone, google)) as found:
        for plan in found:
            for copy in plan.copies:
                try:
                    with opened(plan, copy, ports_of(Bars(output))) as store:
                        rows += [_row(store.url, one) for one in read(store, plan.name)]
                        exports += readback.shown(plan, store)
                except StoreBroken as error:
                    failed.append({"store": copy.target.url, "detail": str(error)})
            for sync, copy in [(one, copy) for one in plan.syncs for copy in one.to]:
                try:
                    Path(plan.spool).mkdir(mode=0o700, parents=True, exist_ok=True)
                    syncs.append(readback.kept(plan, sync, copy, ports_of(Bars(output))))
                except StoreBroken as error:
                    failed.append({"store": copy.target.url, "detail": str(error)})
    if source and not (rows or exports or syncs or failed):
        failed.append({"store": source, "detail": NOTHING})
    rows.sort(key=lambda row: str(row["dump"]), reverse=True)
    if output.json:
        output.data({"dumps": rows, "exports": exports, "syncs": syncs, "problems": failed})
    else:
        output.table(("dump", "size", "tables", "store", "state"), [_shown(row) for row in rows])
        _list_more(output, exports, syncs)
        if not (rows or exports or syncs or failed):
            output.say("there is no dump")
    say_problems(given, {"problems": failed})
    return 1 if failed else 0


def _list_more(output: Output, exports: list[dict[str, Any]], syncs: list[dict[str, Any]]) -> None:
    def state(one: Mapping[str, Any]) -> Cell:
        return Cell(one["problem"] or "there", "bad" if one["problem"] else "good")

    if exports:
        output.table(
            ("export", "parts", "rows", "up to", "size", "store", "state"),
            [
                (
                    Cell(one["export"], "strong"),
                    str(one["parts"]),
                    str(one["rows"]),
                    one["last"] or "",
                    size(one["size"]),
                    one["store"],
                    state(one),
                )
                for one in exports
            ],
        )
    if syncs:
        output.table(
            ("sync", "versions", "files", "size", "newest", "place", "state"),
            [
                (
                    Cell(one["sync"], "strong"),
                    str(one["versions"]),
                    str(one["files"]),
                    size(one["size"]),
                    (one["created_at"] or "")[:16],
                    one["store"],
                    state(one),
                )
                for one in syncs
            ],
        )


def _row(store: str, one: Any) -> dict[str, Any]:
    made: Manifest | None = one.manifest
    return {
        "dump": str(one.id),
        "store": store,
        "size": one.size,
        "created_at": None if made is None else made.created_at.isoformat(),
        "tables": None if made is None else len(made.tables),
        "rows": None if made is None else sum(max(table.rows, 0) for table in made.tables),
        "encrypted": made is not None and made.encrypted is not None,
        "quarantined": one.quarantined,
        "problem": one.problem,
    }


def _shown(row: Mapping[str, Any]) -> tuple[Cell | str, ...]:
    state = Cell(row["problem"], "bad") if row["problem"] else Cell("there", "good")
    if row["quarantined"]:
        state = Cell("in quarantine: see aion backup accept", "warn")
    tables = "" if row["tables"] is None else str(row["tables"])
    return Cell(row["dump"], "strong"), size(row["size"]), tables, row["store"], state


def verify(
    ctx: typer.Context,
    name: AnyName = "",
    dump: Dump = "",
    *,
    download: Annotated[bool, typer.Option("--download", help="Read one dump back whole.")] = False,
    source: From = "",
    rclone: Rclone = None,
    google: Google = None,
) -> int:
    """Check the copies against the stores' own hashes; --download reads one back and hashes it."""
    from orchestrator.cli.backup_places import Keys, plans

    given: Given = ctx.obj
    output = given.output()
    found: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    ok = True
    with plans(given, name, source, Keys(rclone, google)) as meant:
        for plan in meant:
            answer = do_here(given, "rehash" if download else "verify", plan, "", dump)
            found += [one for one in answer["found"] if dump in {"", one["dump"]} or download]
            problems += answer["problems"]
            ok = ok and answer["ok"]
    if output.json:
        output.data({"ok": ok, "found": found, "problems": problems})
    else:
        output.table(
            ("dump", "store", "state"),
            [
                (
                    Cell(one["dump"], "strong"),
                    one["store"],
                    Cell(one["detail"] or "whole", "good" if one["ok"] else "bad"),
                )
                for one in found
            ],
        )
    say_problems(given, {"problems": problems})
    return 0 if ok else 1


def drill(ctx: typer.Context, name: Name, dump: Dump = "") -> int:
    """Restore a dump into a scratch database and compare; the database itself is not touched."""
    from orchestrator.cli.backup_places import of_name

    given: Given = ctx.obj
    output = given.output()
    answer = do_here(given, "drill", of_name(given, name).plan, "", dump)
    if output.json:
        output.data(answer)
    elif answer["ok"]:
        text = f"{answer['dump']} from {answer['store']} restores: {answer['tables']} tables"
        output.line(f"{text}, {answer['rows']} rows, in {answer['seconds']:.1f} s")
    else:
        for line in answer["problems"]:
            output.line(Cell(f"{answer['dump']} from {answer['store']}: {line}", "bad"))
    return 0 if answer["ok"] else 1
