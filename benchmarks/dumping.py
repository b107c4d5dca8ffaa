"""What a backup's child does, in a process that imports no more than it: dump, copy or restore.

python -m benchmarks.dumping < {"do": "dump", …}
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.backup.form import Access, DumpId, Plan
from jobs.backup.targets import Target
from orchestrator.edge.clock import SystemClock


def dump(asked: dict[str, Any]) -> dict[str, Any]:
    """Dump as the plan says; return the manifest."""
    from jobs.backup.dump import make

    clock = SystemClock()
    new = DumpId.new("main", 1, datetime.fromtimestamp(clock.wall(), UTC))
    return make(Plan.from_json(asked["plan"]), new, None, clock=clock).to_json()


def put(asked: dict[str, Any]) -> dict[str, Any]:
    """Copy a file to a store."""
    from jobs.backup.stores import open_store

    store = open_store(
        Target.parse(asked["target"]), Access.from_json(asked["access"]), Path(asked["private"])
    )
    store.put(Path(asked["file"]), "main-000001-20261121T030005Z/archive.dump.zst")
    store.close()
    return {}


def back(asked: dict[str, Any]) -> dict[str, Any]:
    """Restore from a folder of dumps, two at a time."""
    from jobs.backup.restore import Into, restore
    from jobs.backup.stores import open_store

    private = Path(asked["private"])
    store = open_store(Target.parse(asked["target"]), Access(), private)
    restore(store, "main", "", Into(asked["dsn"], jobs=2), private)
    return {}


if __name__ == "__main__":
    wish = json.load(sys.stdin)
    json.dump({"dump": dump, "put": put, "restore": back}[wish["do"]](wish), sys.stdout)
