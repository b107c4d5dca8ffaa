"""What server software answers at a backend: where to ask, and how to read what it says.

An `Engine` is data and pure functions; `asking` does the asking. One more engine is one more entry
in `servers.ENGINES` and in `backends.ENGINES`, with fixtures from that server's own documentation
in `tests/backends/fixtures`.
"""

from __future__ import annotations

from backends.engines.form import Call, Engine
from backends.engines.servers import ENGINES

__all__ = ["ENGINES", "Call", "Engine"]
