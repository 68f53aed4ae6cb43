"""The heads that a training writes besides the shared network, and the information needed to use them.

heads.safetensors contains <Task>.weight (classes, features) and <Task>.bias (classes). Its header states the classes of
each task, the patches it was trained on, its licence and its citation, so that a run can be used without its shards.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from dpconvert.image.rgb import Range
from dpconvert.manifest.rules import TissueRule
from dpconvert.plan.placement import ENLARGED
from mtrain.data.batches.images import ShardFiles
from mtrain.data.labels import Scaling, scaling_of
from mtrain.data.metadata import json_headers, read_json
from mtrain.data.rows import Rows, Target
from mtrain.data.shard_cache import fetch
from mtrain.data.task import Task
from mtrain.errors import RunError
from mtrain.model.weight_files.tensor_file import read_tensors, write_tensors
from mtrain.runs.belonging import NETWORK, check_part

OF_TARGETS = ("target", "unit", "scaling")
LOOKED_AT = 64  # number of samples from which the size and resolution of a task are estimated
LOOKED_INTO = 4  # number of shards that these samples are in, since remote ones may have to be fetched again


@dataclass(frozen=True)
class About:
    """The description of a task that a head was trained on.

    side: shorter side of its images, in stored pixels. mpp: micrometres per stored pixel, None if the source does not
    state it. mpps: the finest and the coarsest where they differ, else None. samples: number in each split.
    tissue_rule, tissue: how patches with tissue were distinguished from background, and their minimum share of tissue.
    range: for images of more than 8 bits, the sample values that became black and white. target: what the head
    predicts: a class, any number of classes, or a number; unit, scaling: of a number, which is the output times the
    deviation of the training set, plus its mean.
    """

    task: str
    title: str
    classes: tuple[str, ...]
    metric: str
    side: int
    mpp: float | None
    licence: dict[str, Any]
    citation: str
    digest: str
    samples: dict[str, int]
    tissue_rule: TissueRule = "saturation"  # default of runs made before the rule could be chosen
    tissue: float | None = None
    range: Range | None = None
    target: Target = "class"
    unit: str | None = None
    scaling: Scaling | None = None
    mpps: tuple[float, float] | None = None

    def stated(self) -> dict[str, Any]:
        """Return the fields as a file states them; those of other targets than a class, and resolutions that do not
        differ, are absent.
        """
        fields, absent = asdict(self), {*(OF_TARGETS if self.target == "class" else ())}
        absent |= {"mpps"} if self.mpps is None else set()
        return {name: fields[name] for name in fields if name not in absent}


@dataclass(frozen=True)
class Head:
    """A linear classifier on the features of the shared network."""

    about: About
    weight: Tensor
    bias: Tensor

    def module(self) -> nn.Linear:
        """Return a layer: features (N, num_features) -> logits (N, classes)."""
        classes, features = self.weight.shape
        layer = nn.Linear(features, classes)
        layer.load_state_dict({"weight": self.weight, "bias": self.bias})
        return layer.eval()


def save_heads(path: Path, heads: nn.Module, tasks: Iterable[Task], network: str | None = None) -> None:
    """Write the heads of these tasks. network: the digest of the shared network that they were trained with.

    Raises:
        RunError: the file cannot be written, for example because the disk is full.
    """
    descriptions = {task.name: about(task).stated() for task in tasks}
    write_tensors(path, heads.state_dict(), {"tasks": descriptions} | ({NETWORK: network} if network else {}))


def load_heads(path: Path) -> dict[str, Head]:
    """Return the head of each task.

    Raises:
        RunError: the file is missing or damaged.
    """
    if not path.is_file():
        raise RunError(
            "this run kept no heads: it has not finished, or is of an older version",
            where=path.parent,
            remedy="finish it with `mtrain fit --run NAME`, or train another",
        )
    try:
        tensors, header = read_tensors(path)
        check_part(path, header)
        descriptions = [_about(fields) for fields in header["tasks"].values()]
        return {of.task: Head(of, tensors[f"{of.task}.weight"], tensors[f"{of.task}.bias"]) for of in descriptions}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        remedy = "have `mtrain fit` make them again from the checkpoint"
        raise RunError("damaged, or not the heads of a run", where=path, found=what, remedy=remedy) from None


def _about(fields: dict[str, Any]) -> About:
    scaling = fields.get("scaling")
    more: dict[str, Any] = {} if scaling is None else {"scaling": Scaling(*map(float, scaling))}
    if (mpps := fields.get("mpps")) is not None:
        finest, coarsest = map(float, mpps)
        more["mpps"] = finest, coarsest
    return About(**fields | more | {"classes": tuple(fields["classes"])})


def about(task: Task) -> About:
    """Describe a task from its card, with the sizes of training samples from its first to its last."""
    samples = list(_metadata(task, _spread(task.rows["train"])))
    sides = [
        min(s["stored_width"], s["stored_height"]) for s in samples if {"stored_width", "stored_height"} <= s.keys()
    ]
    scales = [s["mpp_stored"] for s in samples if isinstance(s.get("mpp_stored"), float)]
    card = task.card
    return About(
        task=task.name,
        title=card.title,
        classes=tuple(task.classes),
        metric=task.metric,
        side=int(statistics.median(sides)) if sides else 0,
        mpp=round(statistics.median_low(scales), 6) if scales else None,
        licence=card.licence.model_dump(),
        citation=card.citation,
        digest=card.digest,
        samples=task.sizes,
        tissue_rule=card.options.get("tissue_rule", "glass"),
        tissue=card.options.get("tissue"),
        range=card.options.get("range"),
        target=task.target,
        unit=card.unit,
        scaling=scaling_of(task) if task.target == "value" else None,
        mpps=(min(scales), max(scales)) if scales and max(scales) > ENLARGED * min(scales) else None,
    )


def _spread(rows: Rows) -> Rows:
    """Some samples from the first to the last, of a few shards: neighbours are of one slide."""
    shards = np.unique(rows.shard)
    here = np.flatnonzero(np.isin(rows.shard, shards[_evenly(len(shards), LOOKED_INTO)]))
    return rows.take(here[_evenly(len(here), LOOKED_AT)])


def _evenly(length: int, count: int) -> NDArray[np.intp]:
    """At most `count` indices from 0 to `length` - 1, as far apart as possible."""
    return np.unique(np.linspace(0, length - 1, count).round().astype(np.intp)) if length else np.zeros(0, np.intp)


def _metadata(task: Task, rows: Rows) -> Iterable[dict[str, Any]]:
    """Yield the JSON metadata of these samples; empty if it is damaged."""
    files = ShardFiles(task.files())
    fetch(files.copies(np.unique(rows.shard)))
    for shard, header in zip(rows.shard.tolist(), json_headers(rows).tolist(), strict=True):
        try:
            yield read_json(files, shard, header)
        except ValueError:  # damaged: the other samples suffice to describe the task
            yield {}
