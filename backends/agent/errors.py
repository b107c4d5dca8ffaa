"""What can go wrong, as the agent tells it apart.

AgentError
├── Refused   nobody but the operator can mend it: said in one line, then it ends
├── Away      the daemon did not answer, or not as it should: asked again, for ever
├── Unknown   the daemon does not know this session (any more): register anew
└── Gone      this session is over: superseded, revoked or past its end
"""

from __future__ import annotations


class AgentError(Exception):
    """Something that the agent knows how to go on from."""


class Refused(AgentError):
    """Only the operator can mend this; its text is one line that says how."""


class Away(AgentError):
    """The daemon did not answer as it should; `retry_after_s` is what it asked for, or 0."""

    def __init__(self, text: str, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Unknown(AgentError):
    """The daemon does not know this session."""


class Gone(AgentError):
    """This session is over."""
