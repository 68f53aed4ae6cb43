"""What a training is: `FitConfig`, every choice with its default. The defaults are the protocol of Mormont et al., IEEE
JBHI 25(2), 2021; learning rate, tau and warm-up are those of the DenseNet121 that the authors released.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from dpconvert.plural import counted
from mtrain.backbones import catalog

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=0, lt=1)]

# what a training did that is older than a choice, where that is not the choice's default
BEFORE: dict[str, Any] = {"train_on": "train"}

SIZE = 224  # px
TUNE = re.compile(r"all|heads|norms|bias|last:[1-9]\d*|lora:[1-9]\d*(:\d+(\.\d+)?)?")

# what may differ when a run goes on: it does not enter the weights. Which tasks leave does, but a run compares the
# tasks themselves, not how they were spelt.
INCIDENTAL = frozenset({
    "shards", "leave_out", "workers", "device", "checkpoint_every", "validate_every", "log_every",
    "accumulate", "skip_corrupt",
})  # fmt: skip


OPTIONAL = frozenset({
    "weights_key", "train_on", "joint", "backbone_options", "tune", "layer_decay", "checkpointing",
    "optimizer", "schedule", "ema", "label_smoothing", "temperature", "task_weights", "class_balanced", "rotations",
    "stain_jitter", "colour_jitter", "batchnorm", "sync_batchnorm", "compile",
    "stream",
})  # fmt: skip


def _share(of: int, least: int = 0, most: int = 2**63) -> Callable[[dict[str, Any]], int]:
    """A default that is a share of the iterations: the paper's 5 000 of warm-up are a tenth of its 50 000."""
    return lambda given: min(max(given.get("iterations", 0) // of, least), most)


def _size(given: dict[str, Any]) -> int:
    return catalog.size_of(given.get("backbone", ""), given.get("backbone_options")) or SIZE


def _start(given: dict[str, Any]) -> str:
    backbone = given.get("backbone", "")
    return backbone if catalog.is_folder(backbone) else "imagenet"


class FitConfig(BaseModel):
    """A training. Counts are in iterations where nothing else is said."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    shards: str = "shards"
    """Folder or address of the tasks."""
    leave_out: tuple[str, ...] = ()
    """Tasks not to train on; related ones leave too."""
    train_on: Literal["train+val", "train", "train+val+test"] = "train+val"
    """Sets of each task to train on: train+val as in the paper, or train alone, which leaves val for curves."""
    joint: tuple[str, ...] = ()
    """Targets of `--mode joint`, of which the training set alone is trained on."""
    backbone: str = "mtdp_densenet121"
    """The paper's DenseNet121, a network of torchvision, `timm:NAME`, `efficientnet_lite0`, a network that `mtrain
    backbones` lists, or the path of a table or folder."""
    backbone_options: dict[str, Any] = Field(default_factory=dict)
    """Of timm's constructor, for `timm:NAME`."""
    weights: str = Field(default_factory=_start)
    """What it starts from: imagenet, random, a file, or the folder of one; imagenet, or the folder that the backbone is
    given by, if not given."""
    weights_key: str | None = None
    """Part of a weights file that holds more than one network, like teacher.backbone."""
    iterations: Positive = 50_000
    """Of the whole training."""
    warmup: Count = Field(default_factory=_share(10))
    """First iterations, which train the heads alone; a tenth if not given."""
    warmup_lr: Rate = 1e-3
    """Learning rate of the heads during the warm-up."""
    lr: Rate = 1e-4
    """Learning rate of the shared network."""
    tau: Rate = 5.0
    """The heads learn at lr x tau."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of stochastic gradient descent."""
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    batch: int = Field(default=64, ge=2)  # batch normalization has no variance to learn from in one sample
    """Samples of an iteration, over all ranks."""
    size: int = Field(default_factory=_size, ge=16)
    """Side of the network's input, px; 224, or what the network's table says, if not given."""
    accumulate: Positive = 1
    """Micro-batches that a rank divides its share of the batch into."""
    sync_batchnorm: bool = False
    """Batch-normalization statistics of the whole batch where ranks share it."""
    compile: bool = False
    """Use torch.compile."""
    adapt_batches: Count = 20
    """For batch-normalization adaptation."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    workers: Count = 2
    """Loader processes, of each rank."""
    stream: bool = False
    """Read shards from end to end instead of by offset."""
    skip_corrupt: Count = 0
    """Pictures that may be unreadable."""
    checkpoint_every: Positive = Field(default_factory=_share(10, least=10, most=1000))
    """Iterations; a tenth, at most 1000, if not given."""
    validate_every: Count = Field(default_factory=_share(10, least=100))
    """Iterations, 0 for never; a tenth, 100 at least, if not given."""
    log_every: Positive = Field(default_factory=_share(20, least=1, most=50))
    """Iterations; a twentieth, at most 50, if not given."""
    # what the paper does not do, all off
    tune: str = "all"
    """What of the shared network moves: all, heads (nothing), norms, bias, last:N (the last N blocks), or
    lora:R[:ALPHA] (updates of rank R beside the projections of attention)."""
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """Factor on the rate from each block to the one before; none: one rate."""
    checkpointing: bool = False
    """Compute the blocks again in the backward pass instead of keeping what is in them: less memory, more time."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["constant", "cosine"] = "constant"
    """cosine: from the full rates at the end of the warm-up to 0 at the end."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the weights' moving average; 0 for none."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that goes to all classes alike."""
    temperature: Rate | None = None
    """Tasks drawn in proportion to size ^ (1 / temperature); none: all alike."""
    task_weights: dict[str, Share] = Field(default_factory=dict)
    """Factors on the chance of a task, by name."""
    class_balanced: bool = False
    """Inside a task every class alike."""
    rotations: bool = False
    """Quarter turns beside the flips."""
    stain_jitter: Strength = 0.0
    """Strength of changes of the stains' densities."""
    colour_jitter: Strength = 0.0
    """Strength of changes of brightness, contrast, saturation and hue."""
    batchnorm: Literal["adapted", "train", "frozen", "per-task"] = "adapted"
    """adapted to the pool first, train (as it is), frozen (statistics stand still) or per-task (statistics of each)."""

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

    @field_validator("tune")
    @classmethod
    def _says_what_moves(cls, tune: str) -> str:
        if not TUNE.fullmatch(tune):
            raise ValueError("neither all, heads, norms, bias, last:N nor lora:R[:ALPHA]")
        if tune.count(":") == 2 and not float(tune.rpartition(":")[2]):
            raise ValueError("updates times 0 are none: give another ALPHA")
        return tune

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
        if mode == "per-task" and info.data.get("tune", "all") != "all":
            raise ValueError("per-task does not go with --tune")
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
