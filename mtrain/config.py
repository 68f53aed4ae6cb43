"""What a training is: `FitConfig`, every choice with its default. The defaults are the protocol of Mormont et al., IEEE
JBHI 25(2), 2021; learning rate, tau and warm-up are those of the DenseNet121 that the authors released.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# what may differ when a run goes on: it does not enter the weights. Which tasks leave does, but a run compares the
# tasks themselves, not how they were spelt.
INCIDENTAL = frozenset({"shards", "leave_out", "workers", "device", "checkpoint_every", "validate_every", "log_every"})


def _share(of: int, least: int = 0, most: int = 2**63) -> Callable[[dict[str, Any]], int]:
    """A default that is a share of the iterations: the paper's 5 000 of warm-up are a tenth of its 50 000."""
    return lambda given: min(max(given.get("iterations", 0) // of, least), most)


class FitConfig(BaseModel):
    """A training. Counts are in iterations where nothing else is said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shards: str = "shards"
    leave_out: tuple[str, ...] = ()
    backbone: str = "densenet121"
    weights: str = "imagenet"  # imagenet, random or a file
    iterations: Positive = 50_000
    warmup: Count = Field(default_factory=_share(10))
    warmup_lr: Rate = 1e-3
    lr: Rate = 1e-4
    tau: Rate = 5.0
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    batch: int = Field(default=64, ge=2)  # batch normalization has no variance to learn from in one sample
    size: int = Field(default=224, ge=16)
    adapt_batches: Count = 20
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = "auto"
    workers: Count = 2
    checkpoint_every: Positive = Field(default_factory=_share(10, least=10, most=1000))
    validate_every: Count = Field(default_factory=_share(10, least=100))  # 0: never
    log_every: Positive = Field(default_factory=_share(20, least=1, most=50))

    @field_validator("warmup")
    @classmethod
    def _warmup_within_the_training(cls, warmup: int, info: ValidationInfo) -> int:
        if warmup > info.data.get("iterations", warmup):
            raise ValueError(f"longer than the training of {info.data['iterations']} iterations")
        return warmup
