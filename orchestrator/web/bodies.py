"""What operator commands carry in their bodies. Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from orchestrator.core.durations import ONE, seconds

LONGEST_S = 366 * 86400.0


def duration_s(text: Any) -> float:
    """Read "250ms", "90s", "15m", "12h" or "7d"; returns seconds. ValueError if it is not one."""
    length_s = seconds(text if isinstance(text, str) else "")
    if not 0 < length_s <= LONGEST_S:
        raise ValueError("a duration is longer than nothing and at most a year")
    return length_s


Duration = Annotated[
    float,
    BeforeValidator(
        duration_s, json_schema_input_type=Annotated[str, StringConstraints(pattern=f"^{ONE}$")]
    ),
    Field(examples=["4h"]),
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class Body(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FailoverBody(Body):
    """Where to; the best other one if it is left out."""

    to: Name | None = None


class SwitchoverBody(Body):
    """Where to, and when: a time with its offset, as in RFC 3339."""

    to: Name
    at: AwareDatetime


class PinBody(Body):
    """Which backend to prefer, for how long, and whether whatever happens."""

    backend: Name
    for_: Duration = Field(default=14400.0, alias="for")
    hard: bool = False


class PauseBody(Body):
    """For how long to observe only; until it is resumed if it is left out."""

    for_: Duration | None = Field(default=None, alias="for")


class MuteBody(Body):
    """For how long to be silent about an incident."""

    for_: Duration = Field(default=14400.0, alias="for")


class TokenBody(Body):
    """Which backend is to register with it."""

    backend: Name


class RevokeBody(Body):
    """Which tokens: by their ids, or all of a backend."""

    ids: Annotated[list[Name], Field(max_length=100)] = Field(default_factory=list)
    backend: Name | None = None


class NoBody(Body):
    """Nothing."""
