"""One finding of `aion doctor`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

PASSED, FAILED, ADVICE = "PASSED", "FAILED", "ADVICE"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `remedy` says what to do, if anything is to be done."""

    outcome: str
    subject: str
    text: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the finding for `--json`."""
        return asdict(self)
