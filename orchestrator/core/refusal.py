"""What a command that cannot be done is answered."""

from __future__ import annotations

from difflib import get_close_matches

from orchestrator.core.draft import Draft
from orchestrator.core.events import Answer


class Refused(Exception):
    """The command cannot be done; carries the answer."""

    def __init__(self, text: str, problem: str = "conflict") -> None:
        super().__init__(text)
        self.answer = Answer(text, problem)


def known(draft: Draft, name: str, kind: str) -> None:
    """Refuse a service or backend that is not configured, with the nearest one that is."""
    names = list(draft.config.services if kind == "service" else draft.config.backends)
    if name in names:
        return
    near = get_close_matches(name, names, 1)
    hint = f"; did you mean `{near[0]}`?" if near else f"; there are: {', '.join(names[:20])}"
    raise Refused(f"there is no {kind} `{name}`{hint}", "unknown")
