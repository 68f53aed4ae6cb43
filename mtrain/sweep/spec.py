"""Read the TOML file that defines a sweep, and validate it as a `Sweep`."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from dpconvert.manifest.catalog import manifest_folder
from dpconvert.manifest.toml_text import read_toml
from dpconvert.plural import counted
from dpconvert.validation_errors import first_fault
from mtrain.config import FitConfig
from mtrain.errors import UsageError
from mtrain.sweep.combination import NO_DECAY, WHOLE, Combination
from mtrain.sweep.grid_pools import PoolTasks, check_pools
from mtrain.sweep.race_settings import Race
from mtrain.transfers.request import STEPS

FIXED = {  # setting -> where a sweep file has it instead
    "lr": "[grid]",
    "tau": "[grid]",
    "backbone": "[grid]",
    "seed": "`seeds`, above the tables",
    "leave_out": "`leave_out`, above the tables",
    "shards": "`shards`, above the tables",
}
TUNING = ("tune", "layer_decay", "dense", "gradients", "pool")  # axes that may stand in [fit] instead
READ = {"svm": ("solver",), "dense": ("steps", "batch")}  # mode of [transfer] -> the settings that it reads
LENGTH = "warmup"  # key of [fit] with the length of the warm-up where [grid] turns it on
Rates = Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1)]


class _SweepPart(BaseModel):
    """A part of a sweep file; a setting that belongs in another part is refused with its place."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _in_its_place(cls, content: Any) -> Any:
        for name in content if isinstance(content, dict) else ():
            if name not in cls.model_fields and name in FitConfig.model_fields:
                raise ValueError(f"{name} has no place here: give it in {FIXED.get(name, '[fit]')}")
        return content


class Axes(_SweepPart):
    """`[grid]`: the values to combine; the defaults are those of `mtrain fit`."""

    backbone: Annotated[tuple[str, ...], Field(min_length=1)] = ("mtdp_densenet121",)
    """Networks."""
    lr: Rates = (1e-4,)
    """Learning rates of the shared network."""
    tau: Rates = (5.0,)
    """Learning rate of the heads: lr x tau."""
    warmup: Annotated[tuple[bool, ...], Field(min_length=1, strict=False)] = (True,)
    """Whether to warm up, for `warmup` iterations of `[fit]`."""
    tune: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None, json_schema_extra={"x-default": "that of `[fit]`"}
    )
    """What to train of the shared network, such as `"all"`, `"heads"` or `"lora:16"`."""
    layer_decay: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] | None = Field(
        default=None, json_schema_extra={"x-default": "that of `[fit]`"}
    )
    """Factors on the learning rate from each block to the one before; 1 for none."""
    dense: Annotated[tuple[bool, ...], Field(min_length=1, strict=False)] | None = Field(
        default=None, json_schema_extra={"x-default": "that of `[fit]`"}
    )
    """Whether to train on the masks and points of the pool as well."""
    gradients: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None, json_schema_extra={"x-default": "that of `[fit]`"}
    )
    """How to combine the gradients of the tasks, such as `"mean"` or `"upgrad"`."""
    pool: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None, json_schema_extra={"x-default": '`["all"]`'}
    )
    """Tasks to train on: `"all"`, or names in `pools`."""

    @field_validator("*")
    @classmethod
    def _no_value_twice(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return values and _distinct(values)

    def combinations(self, fit: Mapping[str, Any] | None = None) -> list[Combination]:
        """Return all combinations, in the order of the file. fit: the settings that they have in common."""
        fit = fit or {}
        tune = self.tune or (fit.get("tune", "all"),)
        decay = self.layer_decay or (fit.get("layer_decay", NO_DECAY),)
        dense = self.dense or (fit.get("dense", False),)
        gradients = self.gradients or (fit.get("gradients", "mean"),)
        pool = self.pool or (WHOLE,)
        axes = self.backbone, self.lr, self.tau, self.warmup, tune, decay, dense, gradients, pool
        return [Combination(*chosen) for chosen in itertools.product(*axes)]


class Transfer(BaseModel):
    """`[transfer]`: how each left-out task is scored."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    mode: Literal["svm", "dense"] = "svm"
    """`"svm"`: classes, by a linear support vector machine on features. `"dense"`: masks and points, by a decoder."""
    solver: Literal["batched", "sklearn"] = "batched"
    """Solver of `"svm"`."""
    steps: int = Field(default=STEPS, ge=1)
    """Training steps of `"dense"`, for each task. The seed is that of the training."""
    batch: int = Field(default=64, ge=2)
    """Batch size of `"dense"`."""

    def determining(self) -> dict[str, Any]:
        """Return what a score depends on: the mode, and the settings that it reads."""
        return {name: getattr(self, name) for name in ("mode", *READ[self.mode])}

    def idle(self) -> dict[str, str]:
        """Return the settings of the file that the mode does not read -> why."""
        given = self.model_fields_set - {"mode", *READ[self.mode]}
        return dict.fromkeys(sorted(given), f'transfer.mode = "{self.mode}" does not read it')


def _a_set(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


NAMES = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
TaskSet = Annotated[tuple[str, ...], BeforeValidator(_a_set), Field(min_length=1), WithJsonSchema(NAMES)]


class Sweep(_SweepPart):
    """A sweep file: left-out sets x combinations x seeds."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$", json_schema_extra={"x-default": "the name of the file"})
    """Name of the sweep's folder."""
    shards: str = "shards"
    """Folder of the tasks, or s3://, gs://, https://."""
    leave_out: Annotated[tuple[TaskSet, ...], Field(min_length=1)]
    """Sets of tasks to leave out and to score: one name, or a list of names that leave together."""
    together: int = Field(default=1, ge=1)
    """Number of these sets that one training leaves out and scores."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(min_length=1)]
    """Random seeds of the training runs of each combination."""
    grid: Axes = Axes()
    """Values to combine."""
    pools: dict[str, PoolTasks] = {}
    """Names for `grid.pool` -> tasks, or the path of a file of `mtrain influence`, with `{target}` for its target."""
    fit: dict[str, Any] = {}
    """[Settings](settings.md) that all training runs have in common."""
    transfer: Transfer = Transfer()
    """How left-out tasks are scored."""
    race: Race = Race()
    """How `--race` drops combinations."""

    @field_validator("leave_out", "seeds")
    @classmethod
    def _nothing_twice(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return _distinct(values)

    @field_validator("together")
    @classmethod
    def _no_more_sets_than_there_are(cls, together: int, info: ValidationInfo) -> int:
        sets = len(info.data.get("leave_out", ()))
        if sets and together > sets:
            raise ValueError(f"more than the {counted(sets, 'left-out set')}")
        return together

    @model_validator(mode="after")
    def _one_place_for_a_setting(self) -> Sweep:
        for name in TUNING:
            if getattr(self.grid, name) is not None and name in self.fit:
                raise ValueError(f"fit.{name}: grid.{name} sets it too")
        return self

    @model_validator(mode="after")
    def _pools_that_are_used(self) -> Sweep:
        check_pools(self.pools, self.grid.pool, self.fit, self.together)
        return self

    @model_validator(mode="after")
    def _race_with_the_seeds_there_are(self) -> Sweep:
        if self.race.seeds and self.race.seeds[-1] != len(self.seeds):
            raise ValueError(f"race.seeds: the last number is not that of all seeds, {len(self.seeds)}")
        return self

    @field_validator("fit")
    @classmethod
    def _nothing_that_stands_elsewhere(cls, fit: dict[str, Any]) -> dict[str, Any]:
        for name in sorted(fit.keys() & FIXED.keys()):
            raise ValueError(f"{name} has no place here: give it in {FIXED[name]}")
        if "test" in str(fit.get("train_on")):
            raise ValueError("train_on: only `mtrain release` trains on test sets")
        return fit

    def config(self, combination: Combination, leave_out: tuple[str, ...], seed: int) -> FitConfig:
        """Return the training of one cell.

        Raises:
            ValidationError: [fit] contains a key that is not a setting of a training.
        """
        lasting = {"warmup": 0} if not combination.warmup else {}
        varied = {"backbone": combination.backbone, "lr": combination.lr, "tau": combination.tau, "seed": seed}
        decay = None if combination.layer_decay == NO_DECAY else combination.layer_decay
        varied |= {"tune": combination.tune, "layer_decay": decay, "dense": combination.dense}
        varied |= {"gradients": combination.gradients}
        varied |= {"tasks": given} if isinstance(given := self.pools.get(combination.pool), tuple) else {}
        where = {"shards": self.shards, "leave_out": leave_out}
        return FitConfig.model_validate({"validate_every": 0} | self.fit | lasting | varied | where)

    def groups(self) -> list[tuple[str, ...]]:
        """Return the tasks that each training leaves out: those of `together` sets, in the order of the file."""
        starts = range(0, len(self.leave_out), self.together)
        return [tuple(itertools.chain(*self.leave_out[start : start + self.together])) for start in starts]

    def trainings(self) -> Iterator[tuple[int, tuple[str, ...], Combination]]:
        """Yield (seed, left-out tasks, combination) of every cell, those of the first seed first."""
        yield from itertools.product(self.seeds, self.groups(), self.grid.combinations(self.fit))


def load_sweep(given: str) -> Sweep:
    """Return the sweep in a file, or one of those included in the program, by name.

    Raises:
        UsageError: the file does not exist, or is not a sweep; the message names the faulty field.
    """
    path = _find(given)
    try:
        content = read_toml(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"not TOML: {error}", where=path) from None
    try:
        sweep = Sweep.model_validate({"name": path.stem} | content)
    except ValidationError as error:
        fault = first_fault(error, Sweep)
        raise UsageError(str(fault), where=path, found=fault.found) from None
    try:
        for seed, tasks, combination in sweep.trainings():
            sweep.config(combination, tasks, seed)
    except ValidationError as error:
        fault = first_fault(error, FitConfig)
        of_grid = fault.place in TUNING and getattr(sweep.grid, fault.place) is not None
        raise UsageError(f"{'grid' if of_grid else 'fit'}.{fault}", where=path, found=fault.found) from None
    return sweep


def _find(given: str) -> Path:
    if Path(given).is_file():
        return Path(given)
    known = {path.stem: path for path in sorted((manifest_folder() / "sweeps").glob("*.toml"))}
    name = Path(given).name.removesuffix(".toml")
    if name in known and given in (name, f"manifests/sweeps/{name}.toml"):
        return known[name]
    near = difflib.get_close_matches(name, known, n=2) or list(known)
    remedy = f"give a TOML file, or one of {', '.join(near)}"
    if (beside := Path(f"{given}.toml")).is_file():
        remedy = f"did you mean {beside}?"
    raise UsageError("no such sweep file", where=given, remedy=remedy)


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = [value for number, value in enumerate(values) if value in values[:number]]
    if twice:
        named = " and ".join(twice[0]) if isinstance(twice[0], tuple) else repr(twice[0])
        raise ValueError(f"{named} is listed twice")
    return values
