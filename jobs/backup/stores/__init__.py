"""Where copies are kept: one module per kind of address, imported when it is used."""

from __future__ import annotations

import importlib
import logging
import threading
from pathlib import Path
from typing import Final, cast

from jobs.backup.form import Access
from jobs.backup.stores.base import Store
from jobs.backup.stores.paced import Paced
from jobs.backup.targets import Scheme, Target
from orchestrator.edge.clock import SystemClock

MODULES: Final[dict[Scheme, str]] = {
    "file": "jobs.backup.stores.file",
    "rclone": "jobs.backup.stores.rclone",
    "gs": "jobs.backup.stores.gcs",
    "hf": "jobs.backup.stores.hub",
}
# They write whole addresses, and those of an upload under way let anybody write to it.
TALKATIVE: Final = (
    *("urllib3", "requests", "google", "httpx", "httpcore", "httpx2", "httpcore2"),
    "huggingface_hub",
)


def open_store(target: Target, access: Access, private: Path) -> Store:
    """Return the store at `target`; nothing is asked of it yet.

    `private`: a folder of ours (0700) that outlives a crash, for what an upload needs to go on.
    Secrets that a program must read from a file are kept there too, until `close`.
    """
    module = importlib.import_module(MODULES[target.scheme])
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    made = cast(Store, module.make(target, access, private))
    if access.bandwidth_bps and target.scheme != "rclone":  # which has a limit of its own
        return Paced(made, access.bandwidth_bps, SystemClock().steady, _pause)
    return made


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)
