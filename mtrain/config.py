"""What a training is: `FitConfig`, every choice with its default. The defaults are the protocol of Mormont et al., IEEE
JBHI 25(2), 2021; learning rate, tau and warm-up are those of the DenseNet121 that the authors released.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from dpconvert.plural import counted

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=0, lt=1)]

# what a training did that is older than a choice, where that is not the choice's default
BEFORE: dict[str, Any] = {"train_on": "train"}

# what may differ when a run goes on: it does not enter the weights. Which tasks leave does, but a run compares the
# tasks themselves, not how they were spelt.
INCIDENTAL = frozenset({
    "shards", "leave_out", "workers", "device", "checkpoint_every", "validate_every", "log_every",
    "accumulate", "skip_corrupt",
})  # fmt: skip


OPTIONAL = frozenset({
    "weights_key", "train_on", "joint",
    "optimizer", "schedule", "ema", "label_smoothing", "temperature", "task_weights", "class_balanced", "rotations",
    "stain_jitter", "colour_jitter", "batchnorm", "sync_batchnorm", "compile",
    "stream",
})  # fmt: skip


def _share(of: int, least: int = 0, most: int = 2**63) -> Callable[[dict[str, Any]], int]:
    """A default that is a share of the iterations: the paper's 5 000 of warm-up are a tenth of its 50 000."""
    return lambda given: min(max(given.get("iterations", 0) // of, least), most)


class FitConfig(BaseModel):
    """The settings of a training run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    shards: str = "shards"
    """Folder or address of the tasks."""
    leave_out: tuple[str, ...] = ()
    """Tasks to leave out of the pool, together with related ones."""
    train_on: Literal["train+val", "train", "train+val+test"] = "train+val"
    """Sets of each task to train on: train+val as in the paper, or only train, which keeps val for learning curves."""
    joint: tuple[str, ...] = ()
    """Targets of `--mode joint`: only their training sets are used."""
    backbone: str = "mtdp_densenet121"
    """The paper's DenseNet121, a network of torchvision, `timm:NAME`, or `efficientnet_lite0`."""
    weights: str = "imagenet"
    """Initial weights: imagenet, random or a file."""
    weights_key: str | None = None
    """Network to load from a weights file that contains several, such as teacher.backbone."""
    iterations: Positive = 50_000
    """Number of training iterations."""
    warmup: Count = Field(default_factory=_share(10))
    """Number of first iterations that train only the heads. Default: a tenth of all iterations."""
    warmup_lr: Rate = 1e-3
    """Learning rate of the heads during the warm-up."""
    lr: Rate = 1e-4
    """Learning rate of the shared network."""
    tau: Rate = 5.0
    """Factor of the heads' learning rate, which is lr x tau."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of stochastic gradient descent."""
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Weight decay."""
    batch: int = Field(default=64, ge=2)  # batch normalization has no variance to learn from in one sample
    """Number of samples per iteration, over all ranks."""
    size: int = Field(default=224, ge=16)
    """Side of the network's input in pixels."""
    accumulate: Positive = 1
    """Number of micro-batches per rank (gradient accumulation)."""
    sync_batchnorm: bool = False
    """Compute batch-normalization statistics across ranks."""
    compile: bool = False
    """Use torch.compile."""
    adapt_batches: Count = 20
    """Number of batches that adapt batch normalization to the pool."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Random seed."""
    device: str = "auto"
    """Device: auto, cpu, cuda or cuda:N."""
    workers: Count = 2
    """Number of loader processes of each rank."""
    stream: bool = False
    """Read shards sequentially instead of by offset, for pools larger than the disk."""
    skip_corrupt: Count = 0
    """Maximum number of unreadable images to skip and replace."""
    checkpoint_every: Positive = Field(default_factory=_share(10, least=10, most=1000))
    """Iterations between checkpoints. Default: a tenth of all iterations, 10 to 1000."""
    validate_every: Count = Field(default_factory=_share(10, least=100))
    """Iterations between validations; 0 for none. Default: a tenth of all iterations, at least 100."""
    log_every: Positive = Field(default_factory=_share(20, least=1, most=50))
    """Iterations between log entries. Default: a twentieth of all iterations, at most 50."""
    # what the paper does not do, all off
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer: stochastic gradient descent or AdamW."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning-rate schedule. cosine falls from the full rates at the end of the warm-up to 0 at the end."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights; 0 for no average."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread evenly over all classes."""
    temperature: Rate | None = None
    """Draw tasks in proportion to size ^ (1 / temperature); none: all tasks equally often."""
    task_weights: dict[str, Share] = Field(default_factory=dict)
    """Factors on the probability of drawing a task, by name."""
    class_balanced: bool = False
    """Draw the classes of a task equally often."""
    rotations: bool = False
    """Rotate images by random quarter turns, in addition to the flips."""
    stain_jitter: Strength = 0.0
    """Strength of random changes of the stains' densities."""
    colour_jitter: Strength = 0.0
    """Strength of random changes of brightness, contrast, saturation and hue."""
    batchnorm: Literal["adapted", "train", "frozen", "per-task"] = "adapted"
    """Batch normalization: adapted (adapted to the pool before training), train (unchanged), frozen (fixed statistics),
    or per-task (separate statistics for each task)."""

    @property
    def adapts(self) -> bool:
        """Whether batch normalization is adapted to the pool before the training."""
        return self.batchnorm in ("adapted", "per-task")

    def determining(self) -> dict[str, Any]:
        """What the weights depend on, for comparing and naming: choices that are off are left out, so that trainings
        from before there was a choice keep their names.
        """
        settings = self.model_dump(mode="json", exclude=set(INCIDENTAL))
        choices = choices_off()
        return {name: value for name, value in settings.items() if name not in OPTIONAL or value != choices[name]}

    @field_validator("class_balanced")
    @classmethod
    def _pictures_chosen_by_class(cls, balanced: bool, info: ValidationInfo) -> bool:
        if balanced and info.data.get("stream"):
            raise ValueError("chooses pictures by class, but --stream takes them as they come")
        return balanced

    @field_validator("batchnorm")
    @classmethod
    def _statistics_of_each_task(cls, mode: str, info: ValidationInfo) -> str:
        if mode == "per-task" and info.data.get("compile"):
            raise ValueError("per-task does not go with --compile")
        return mode

    @field_validator("warmup")
    @classmethod
    def _warmup_within_the_training(cls, warmup: int, info: ValidationInfo) -> int:
        if warmup > info.data.get("iterations", warmup):
            raise ValueError(f"longer than the training of {counted(info.data['iterations'], 'iteration')}")
        return warmup


def choices_off() -> dict[str, Any]:
    """What a training did that is older than its choices: as JSON has it."""
    fields = FitConfig.model_fields
    plain = {name: fields[name].get_default(call_default_factory=True) for name in OPTIONAL}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in (plain | BEFORE).items()}
