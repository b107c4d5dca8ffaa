"""What all answers of `/api` have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class View(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True)
