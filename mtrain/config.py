"""What a training is: `FitConfig`, every choice with its default. The defaults are the protocol of Mormont et al., IEEE
JBHI 25(2), 2021; learning rate, tau and warm-up are those of the DenseNet121 that the authors released.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# what may differ when a run is resumed: it does not enter the result
INCIDENTAL = frozenset(
    {"shards", "workers", "device", "checkpoint_every", "log_every", "validate_every", "validate_samples"}
)
WARMUP_SHARE = 10


class FitConfig(BaseModel):
    """A training. Counts are in iterations where nothing else is said; `shards` and file weights are absolute paths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shards: str
    leave_out: tuple[str, ...] = ()
    backbone: str = "densenet121"
    weights: str = "imagenet"
    iterations: Positive = 50_000
    warmup: Count = Field(default=-1, validate_default=False)  # -1: a tenth of the iterations
    warmup_learning_rate: Rate = 1e-3
    learning_rate: Rate = 1e-4
    tau: Rate = 5.0
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    batch: Positive = 64
    size: int = Field(default=224, ge=16)
    seed: int = Field(default=0, ge=0, lt=2**63)
    adapt_batches: Count = 20
    workers: Count = 2
    device: str = "auto"
    checkpoint_every: Positive = 1000
    log_every: Positive = 50
    validate_every: Count = 0  # 0: never
    validate_samples: Positive = 200  # of each task

    @model_validator(mode="before")
    @classmethod
    def _default_warmup(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("warmup") is None:
            iterations = values.get("iterations", cls.model_fields["iterations"].default)
            return values | {"warmup": iterations // WARMUP_SHARE if isinstance(iterations, int) else 0}
        return values

    @model_validator(mode="after")
    def _warmup_within(self) -> FitConfig:
        if self.warmup > self.iterations:
            raise ValueError(f"a warm-up of {self.warmup} iterations in a training of {self.iterations}")
        return self
