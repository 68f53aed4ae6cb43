"""What the files of a sweep state about its cells: scores, results and the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mtrain.scoring.metrics import lowest
from mtrain.sweep.combination import Combination


class Score(BaseModel):
    """The score of one transfer; None if the task's metric is undefined on the scored samples.

    scores: all scores by name, which for numbers include their errors.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    metric: str
    set: str
    score: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None
    scores: dict[str, float | None] = {}

    @model_validator(mode="after")
    def _within_the_metric(self) -> Score:
        if self.score is not None and self.score < lowest(self.metric):
            raise ValueError(f"not a score of {self.metric}: {self.score:g}")
        return self


class Result(BaseModel):
    """The result file of a cell.

    run: folder of its training, relative to that of the sweep. state: "failed" if a task has no score, "diverged" if
    the reason is NaN or infinity. failures: task -> reason why it has no score.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    cell: str
    run: str
    combination: Combination
    seed: int
    state: Literal["scored", "diverged", "failed"]
    scores: dict[str, Score]
    failures: dict[str, str] = {}
    seconds: float

    @model_validator(mode="before")
    @classmethod
    def _reasons_by_task(cls, content: Any) -> Any:
        return {**content, "failures": failures_of(content)} if isinstance(content, dict) else content


class Planned(BaseModel):
    """A cell as sweep.json lists it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cell: str
    combination: Combination
    seed: int
    tasks: tuple[str, ...]


def failures_of(result: Mapping[str, Any]) -> Any:
    """Return task -> reason for a missing score; a diverged training of an earlier version has one for all."""
    if result.get("state") == "diverged" and not result.get("failures"):
        return dict.fromkeys(result.get("left_out", ()), result.get("reason", "the training has diverged"))
    return result.get("failures", {})
