"""The demo's story of backups: one copy rots and is found; then the whole machine is gone.

Each step is one verb of `aion`, as an operator would type it, and what it says is checked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from orchestrator.cli.backup_world import BACKEND, SHOP, BackupWorld
from orchestrator.cli.narrator import Narrator
from orchestrator.cli.story import Expected, Missed, Story
from orchestrator.cli.watch import Sight, Watch, active
from orchestrator.core.records import ERA


class Backups(Story):
    """Dump, two copies, a flipped byte, found, restored from the other; then a rebuild."""

    def __init__(
        self, world: BackupWorld, watch: Watch, narrator: Narrator, *, patience: float = 1.0
    ) -> None:
        super().__init__(world, watch, narrator, patience=patience)
        self._shop = world

    async def steps(self) -> AsyncIterator[Expected]:
        """Yield what is expected next, having done what should bring it about."""
        yield Expected("ready", f"{BACKEND} serves", _serves, 30.0)
        before = await asyncio.to_thread(self._shop.rows, SHOP)
        dump = await self._dump(before)
        await self._spoil(dump)
        await self._find(dump)
        await self._restore(dump, before)
        await self._lose()
        yield Expected("rebuilt", f"the new one serves {BACKEND}, as the old one did", _new, 30.0)

    async def _dump(self, rows: dict[str, int]) -> str:
        made = await self._verb("backup", "run", SHOP, "-y")
        drive, bucket = self._shop.copies
        dump = str(made["dump"])
        there = [(place / dump / "manifest.json").exists() for place in (drive, bucket)]
        if not all(there):
            raise Missed(f"the dump {dump} is not in both places")
        counted = sum(json.loads(_manifest(bucket, dump))["tables"][n]["rows"] for n in (0, 1))
        if counted != sum(rows.values()):
            raise Missed(f"the dump holds {counted} rows, the database {sum(rows.values())}")
        text = f"{counted} rows are dumped, sealed, hashed, read back, and in two places: {dump}"
        self.observed(text, "dumped")
        await self._verb("backup", "verify", SHOP)
        self.observed("`aion backup verify`: both copies are whole", "whole")
        return dump

    async def _spoil(self, dump: str) -> None:
        (archive,) = (self._shop.copies[0] / dump).glob("archive*")
        data = bytearray(archive.read_bytes())
        data[len(data) // 2] ^= 1
        archive.write_bytes(data)
        text = f"one bit of {len(data)} bytes is flipped in {archive.parent.parent.name}"
        self.tell.did(text, step="flip")

    async def _find(self, dump: str) -> None:
        said = await self._verb("backup", "verify", SHOP, status=1)
        bad = [one for one in said["found"] if not one["ok"]]
        place = f"file:{self._shop.copies[0]}"
        if [(one["dump"], one["store"]) for one in bad] != [(dump, place)]:
            raise Missed(f"verify found {len(bad)} bad copies, and not just the one in {place}")
        self.observed(f"`aion backup verify` finds it, exit 1: {bad[0]['detail']}", "found")

    async def _restore(self, dump: str, before: dict[str, int]) -> None:
        key = ("--identity", str(self._shop.identity))
        words = ("backup", "restore", SHOP, dump, "--to", "restored_dsn", *key, "-y")
        said = await self._verb(*words)
        if said["store"] != f"file:{self._shop.copies[1]}":
            raise Missed(f"it was restored from {said['store']}")
        after = await asyncio.to_thread(self._shop.rows, "restored")
        if after != before:
            raise Missed(f"restored {after}, and there were {before}")
        counts = ", ".join(f"{count} in {name}" for name, count in after.items())
        text = f"the bad copy is passed over, the other restored into an empty database: {counts}"
        self.observed(text, "restored")

    async def _lose(self) -> None:
        await self._verb("backup", "run", "aion-state", "-y")
        self.observed("aion's own state is in both places too, its credentials sealed", "itself")
        await self._shop.lose()
        self.tell.did("the machine is gone: daemon, configuration, credentials, history")
        source = ("--from", f"file:{self._shop.copies[1]}")
        key = ("--identity", str(self._shop.identity))
        said = await self._verb("rebuild", *source, *key, "--to", str(self._shop.folder), "-y")
        text = f"`aion rebuild` from one copy: instance {said['instance']}, nothing is missing"
        self.observed(text, "brought back")
        await self._shop.serve_again()

    async def _verb(self, *words: str, status: int = 0) -> Any:
        """Run a verb and return what it says as JSON. Raises Missed for another exit status."""
        code, out, err = await self._shop.aion(*words, "--json")
        if code != status:
            last = (err.strip() or out.strip()).splitlines()[-1:]
            raise Missed(f"`aion {' '.join(words[:2])}` ended with {code}: {' '.join(last)}")
        try:
            return json.loads(out.splitlines()[-1])
        except (ValueError, IndexError):
            raise Missed(f"`aion {' '.join(words[:2])}` printed no JSON") from None


def _manifest(place: Path, dump: str) -> str:
    return (place / dump / "manifest.json").read_text()


def _serves(sight: Sight) -> bool:
    return sight["state"] == "serving" and active(sight) == BACKEND


def _new(sight: Sight) -> bool:
    return _serves(sight) and sight["epoch"] >= ERA
