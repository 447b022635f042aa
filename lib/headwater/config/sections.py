"""The base of all sections: frozen models that refuse unknown keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Days = Annotated[float, Field(gt=0, le=36_500)]
"""Fractions of a day are allowed, because news is old by the evening. A date before the first year could not be computed, so a
century is the most."""
Hours = Annotated[float, Field(ge=0, le=36_500 * 24)]
"""The same, and none at all."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)
