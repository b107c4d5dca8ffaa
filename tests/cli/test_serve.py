"""`aion serve` loads what a daemon needs, and no more."""

import subprocess
import sys

LOOK = """
import sys
import typer
from orchestrator.cli import serve
serve.without_rich()
import orchestrator.main
print(sorted({"rich", "pygments"} & set(sys.modules)))
import rich.console
"""


def test_the_daemon_colours_nothing_and_does_not_load_what_would():
    ran = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
