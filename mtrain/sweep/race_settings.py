"""The section [race] of a sweep file."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Race(BaseModel):
    """`[race]`: how `mtrain sweep --race` drops combinations. The grid itself does not depend on it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    lengths: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (0.1, 0.3, 1.0)
    """Shares of the iterations after the warm-up at which the first seed is scored; the last one is 1."""
    seeds: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), json_schema_extra={"x-default": "1, 2, 4, ... and all of the sweep"}
    )
    """Numbers of seeds after which combinations trained to the end are compared; the last one is all of the sweep."""
    keep: float = Field(default=0.6, gt=0, le=1)
    """Share of the combinations that are kept for a target after each rung."""
    least: int = Field(default=3, ge=1)
    """Minimum number of combinations that are kept for a target, unless the bootstrap rules them out."""
    unlikely: float = Field(default=0.02, ge=0, lt=1)
    """Combinations trained to the end that win less than this share of bootstrap draws are dropped; 0 drops none."""
    per_network: bool = False
    """Race the combinations of each network among themselves, so that every network has a winner for every target."""

    @field_validator("lengths", "seeds")
    @classmethod
    def _increasing(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if any(one >= other for one, other in itertools.pairwise(values)):
            raise ValueError("not in increasing order")
        return values

    @field_validator("lengths")
    @classmethod
    def _to_the_end(cls, lengths: tuple[float, ...]) -> tuple[float, ...]:
        if lengths[-1] != 1:
            raise ValueError("the last length is not 1, the whole training")
        return lengths
