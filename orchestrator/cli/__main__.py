"""`python -m orchestrator.cli`: the same as `aion`, for children that must run this very code."""

from orchestrator.cli import main

main()
