"""aion: the always-on orchestrator for AI backends that come and go."""
