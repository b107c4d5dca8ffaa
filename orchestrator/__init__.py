"""aion: the always-on orchestrator for AI backends that come and go."""

__version__ = "0.1.0"
