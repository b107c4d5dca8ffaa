"""What runs beside the engine: in a notebook, or on any machine that comes and goes.

It starts the engine, puts a small proxy with a door before it, opens a tunnel, tells the daemon
where that leads, and sees to it that all of this goes on. It is shipped as one file (`bundle.py`)
that needs Python 3.11 and aiohttp, so its modules import each other relatively and nothing of ours.
"""

VERSION = "0.1.0"
"""What the agent tells the daemon of itself; the version of the whole product."""
