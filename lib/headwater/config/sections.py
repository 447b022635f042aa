"""What all sections share: they are frozen, and refuse a key that they do not know."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Days = Annotated[float, Field(gt=0)]
"""A part of a day may be meant: news are old by the evening."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)
