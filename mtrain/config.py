"""What a training is: `FitConfig`, every choice with its default. The defaults are the protocol of Mormont et al., IEEE
JBHI 25(2), 2021; learning rate, tau and warm-up are those of the DenseNet121 that the authors released.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from dpconvert.arguments import in_arguments, of_model
from dpconvert.plural import counted
from dpconvert.validation_errors import first_fault
from mtrain.backbones import catalog
from mtrain.errors import UsageError
from mtrain.setting_roles import BEFORE, INCIDENTAL, NOT_CACHED, OPTIONAL

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=0, lt=1)]


SIZE = 224  # px
TUNE = re.compile(r"all|heads|norms|bias|last:[1-9]\d*|lora:[1-9]\d*(:\d+(\.\d+)?)?")


def _share(of: int, text: str, least: int = 0, most: int = 2**63) -> Any:
    """A field whose default is a share of the iterations, `text` in words: the paper's warm-up of 5 000 is a tenth."""
    return Field(
        default_factory=lambda given: min(max(given.get("iterations", 0) // of, least), most),
        json_schema_extra={"x-default": text},
    )


def _size(given: dict[str, Any]) -> int:
    return catalog.size_of(given.get("backbone", ""), given.get("backbone_options")) or SIZE


def _start(given: dict[str, Any]) -> str:
    backbone = given.get("backbone", "")
    return str(catalog.folder_of(backbone) or "imagenet")


class FitConfig(BaseModel):
    """The settings of a training run."""

    # The text below each setting is its help on the command line and in the reference.

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    if not TYPE_CHECKING:  # type checkers read the fields

        def __new__(cls, **given: Any) -> FitConfig:
            """Check what a program gives. `model_validate` passes nothing here, and raises pydantic's ValidationError.

            Raises:
                UsageError: a setting that does not exist, or a value that it does not take.
            """
            try:
                if given:
                    cls.model_validate(given)
            except ValidationError as error:
                fault = first_fault(error, FitConfig)
                text = in_arguments(f"{fault.place}: {fault.what}", of_model(FitConfig))
                raise UsageError(text, found=fault.found) from None
            return super().__new__(cls)

    shards: str = "shards"
    """Folder of the tasks, or s3://, gs://, https://."""
    leave_out: tuple[str, ...] = ()
    """Leave out this task and related ones."""
    tasks: tuple[str, ...] = ()
    """Train on these tasks only; their names are separated by commas."""
    drop: str | None = None
    """File of `mtrain influence`: leave out the tasks that it found harmful to its target."""
    train_on: Literal["train+val", "train", "train+val+test"] = "train+val"
    """Sets to train on: train+val, or train, which keeps val for learning curves."""
    joint: tuple[str, ...] = ()
    """Target of `--mode joint`: only its training set is used."""
    backbone: str = "mtdp_densenet121"
    """Network that `mtrain backbones` lists, of torchvision, timm:NAME, or a path."""
    backbone_options: dict[str, Any] = Field(default_factory=dict)
    """Option of timm's constructor, for timm:NAME."""
    weights: str = Field(default_factory=_start, json_schema_extra={"x-default": "imagenet"})
    """Start: imagenet, random, a file or its folder."""
    weights_key: str | None = None
    """Network to load from a weights file that holds several, such as teacher."""
    iterations: Positive = 50_000
    """Number of training iterations."""
    warmup: Count = _share(10, "a tenth of the iterations")
    """Number of first iterations that train only the heads."""
    warmup_lr: Rate = 1e-3
    """Learning rate of the heads during the warm-up."""
    lr: Rate = 1e-4
    """Learning rate of the shared network."""
    tau: Rate = 5.0
    """Learning rate of the heads: lr x tau."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of stochastic gradient descent."""
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Weight decay (L2 penalty) of the optimizer."""
    batch: int = Field(default=64, ge=2)  # batch normalization has no variance to learn from in one sample
    """Batch size, over all processes."""
    size: int = Field(default_factory=_size, ge=16, json_schema_extra={"x-default": "224, or its own"})
    """Input size in pixels."""
    accumulate: Positive = 1
    """Number of micro-batches per process (gradient accumulation)."""
    sync_batchnorm: bool = False
    """Compute batch-normalization statistics over the whole batch, across processes."""
    compile: bool = False
    """Use torch.compile if it works here."""
    graph: bool | None = Field(default=None, json_schema_extra={"x-default": "on CUDA, where possible"})
    """Replay iterations as one CUDA graph, after a check."""
    adapt_batches: Count = 20
    """Batches that adapt batch normalization to the pool."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Random seed."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    workers: Count = 2
    """Data loader processes per GPU."""
    resident: Share = 0.0
    """Device memory for decoded training images, in GiB: small tasks are decoded once and stay there."""
    stream: bool = False
    """Read shards sequentially, for pools larger than the disk."""
    skip_corrupt: Count = 0
    """Maximum number of unreadable images to skip and replace."""
    checkpoint_every: Positive = _share(10, "a tenth of the iterations, at most 1000", least=10, most=1000)
    """Iterations between checkpoints."""
    validate_every: Count = _share(10, "a tenth of the iterations, at least 100", least=100)
    """Iterations between validations on val sets that are not trained on; 0 for none."""
    log_every: Positive = _share(20, "a twentieth of the iterations, at most 50", least=1, most=50)
    """Iterations between log entries."""
    log_cosines: Count = 0
    """Iterations between log entries on the cosines of the tasks' gradients; 0 for none."""
    # what the paper does not do, all off
    tune: str = "all"
    """What to train of the shared network: all, heads (nothing), norms, bias, last:N or lora:R[:ALPHA]."""
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """Factor on the learning rate from each block to the one before."""
    checkpointing: bool = False
    """Recompute blocks in the backward pass to save memory."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer of the network and of the heads."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rates after the warm-up: constant, or a cosine that ends at 0."""
    ema: float = Field(default=0.0, ge=0, lt=1, json_schema_extra={"x-default": "0, off"})
    """Decay of a moving average of the weights, such as 0.999."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    temperature: Rate | None = Field(default=None, json_schema_extra={"x-default": "all equally"})
    """Sample tasks in proportion to size ^ (1 / temperature)."""
    task_weights: dict[str, Share] = Field(default_factory=dict)
    """Factor on a task's sampling probability."""
    class_balanced: bool = False
    """Sample the classes of a task equally."""
    rotations: bool = False
    """Add quarter turns to the flips."""
    stain_jitter: Strength = 0.0
    """Change stain densities at random by up to this share."""
    colour_jitter: Strength = 0.0
    """Change brightness, contrast, saturation and hue at random by up to this share."""
    batchnorm: Literal["adapted", "train", "frozen", "per-task"] = "adapted"
    """Batch normalization: adapted to the pool first, trained as it is, frozen, or with statistics per task."""

    dense: bool = False
    """Also train on the masks and points of the tasks that have them."""
    loss_scale: Literal["auto", "none", "log-classes"] = "auto"
    """Divide each task's loss by the logarithm of its classes: auto does so with --dense."""
    gradients: Literal["mean", "pcgrad", "upgrad"] = "mean"
    """How to combine the gradients of the tasks in the shared network: mean, or by a method that resolves conflicts."""
    features: Literal["online", "cached"] = "online"
    """Features of --tune heads: cached are computed once, without random crops and flips."""

    def idle(self) -> dict[str, str]:
        """Settings that have no effect beside the others -> why."""
        still = "--tune heads" if self.tune == "heads" else "the warm-up"
        rules = {
            ("momentum",): (self.optimizer != "sgd", f"--optimizer {self.optimizer} has none"),
            ("adapt_batches",): (not self.adapts, f"--batchnorm {self.batchnorm} adapts nothing"),
            ("warmup_lr",): (not self.warmup, "there is no warm-up"),
            ("lr", "tau", "schedule"): (self.warmup == self.iterations, "the warm-up lasts for the whole training"),
            ("joint",): (self.train_on == "train", "--train-on train keeps every task to its training set"),
            ("validate_every",): (
                self.validate_every > 0 and "val" in self.train_on and not self.joint,
                f"--train-on {self.train_on} leaves no validation set",
            ),
            ("batchnorm", "adapt_batches"): (self.tune == "heads", "--tune heads leaves the shared network as it is"),
            ("resident",): (self.features == "cached", "--features cached reads features, not images"),
            ("layer_decay", "checkpointing", "compile", "sync_batchnorm", "gradients", "log_cosines"): (
                self.tune == "heads" or self.warmup == self.iterations,
                f"the shared network is not trained: {still} trains only the heads",
            ),
        }
        return {name: why for names, (holds, why) in rules.items() if holds for name in names}

    @property
    def scales_losses(self) -> bool:
        """Whether each task's loss is divided by the logarithm of its number of classes."""
        return self.loss_scale == "log-classes" or (self.loss_scale == "auto" and self.dense)

    @property
    def adapts(self) -> bool:
        """Whether batch normalization is adapted to the pool before the training."""
        return self.batchnorm in ("adapted", "per-task")

    def determining(self) -> dict[str, Any]:
        """What the weights depend on, for comparing and naming: choices that are off are left out, so that runs
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
            raise ValueError("ALPHA 0 would cancel the updates: give another one")
        return tune

    @field_validator("stream")
    @classmethod
    def _images_taken_as_they_come(cls, stream: bool, info: ValidationInfo) -> bool:
        if stream and info.data.get("resident"):
            raise ValueError("takes images as they come, but --resident keeps those of some tasks")
        return stream

    @field_validator("class_balanced")
    @classmethod
    def _images_chosen_by_class(cls, balanced: bool, info: ValidationInfo) -> bool:
        if balanced and info.data.get("stream"):
            raise ValueError("chooses images by class, but --stream takes them as they come")
        return balanced

    @field_validator("batchnorm")
    @classmethod
    def _statistics_of_each_task(cls, mode: str, info: ValidationInfo) -> str:
        if mode == "per-task" and info.data.get("compile"):
            raise ValueError("per-task does not go with --compile")
        if mode == "per-task" and info.data.get("tune", "all") != "all":
            raise ValueError("per-task does not go with --tune")
        return mode

    @field_validator("gradients")
    @classmethod
    def _gradients_of_each_task(cls, gradients: str, info: ValidationInfo) -> str:
        if gradients != "mean" and info.data.get("compile"):
            raise ValueError(f"{gradients} does not go with --compile")
        return gradients

    @field_validator("features")
    @classmethod
    def _features_that_stay(cls, features: str, info: ValidationInfo) -> str:
        if features == "online":
            return features
        if info.data.get("tune", "heads") != "heads":
            raise ValueError("cached is for --tune heads: features of a network that is trained do not stay")
        for option, why in NOT_CACHED.items():
            if info.data.get(option):
                raise ValueError(f"cached does not go with --{option.replace('_', '-')}, {why}")
        return features

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
