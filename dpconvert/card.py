"""task.json, the description of a converted task. Its presence means that the task is complete.

The schema is `TaskCard`. docs/format.md describes it for readers without this package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from dpconvert.card_parts import BoxesCard as BoxesCard
from dpconvert.card_parts import DenseCard as DenseCard
from dpconvert.card_parts import Difference as Difference
from dpconvert.card_parts import Failure as Failure
from dpconvert.card_parts import FileCard as FileCard
from dpconvert.card_parts import InstancesCard as InstancesCard
from dpconvert.card_parts import Licence as Licence
from dpconvert.card_parts import Model as Model
from dpconvert.card_parts import PointsCard as PointsCard
from dpconvert.card_parts import SegCard as SegCard
from dpconvert.card_parts import ShardCard as ShardCard
from dpconvert.card_parts import Split as Split
from dpconvert.card_parts import SplitCard as SplitCard
from dpconvert.errors import ShardError
from dpconvert.validation_errors import first_fault

SCHEMA = 3  # the highest that this version reads; a card states the lowest that describes it
FILE_NAME = "task.json"
INDEX_NAME = "index.parquet"
IGNORE = 255  # mask value of pixels that are not annotated
WORK = ".work"  # folder of an unfinished conversion, inside the task's folder
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Metric = Literal["accuracy", "roc_auc", "quadratic_kappa", "macro_auc", "pearson"]
METRICS: dict[str, str] = {
    "accuracy": "accuracy",
    "roc_auc": "area under the ROC curve",
    "quadratic_kappa": "quadratic kappa",
    "macro_auc": "mean area under the ROC curves of the classes",
    "pearson": "Pearson correlation",
}
ORDINAL = "ordinal"  # kind of tasks whose classes are listed in their order, the lowest first
MULTILABEL = "multilabel"  # kind of tasks whose samples have any number of the classes
REGRESSION = "regression"  # kind of tasks whose samples have a number
OTHER_COLUMNS = ("file", "key", "split", "group")  # of tables with a column for each class
Target = Literal["class", "labels", "value"]
"""What a sample is labelled with: one class, any number of classes, or a number."""
Label = int | list[int] | float
"""The label of a sample: the number of its class, those of its classes in their order, or its value."""


class TaskCard(Model):
    """A complete task: its description, splits and files, and the versions that made them."""

    schema_version: int = Field(default=1, alias="schema")
    task: str
    source: str
    title: str
    kind: str
    classes: list[str]
    metric: Metric
    organ: str
    stain: str
    split_policy: str
    splits: dict[Split, SplitCard]
    group_kind: str
    related: list[str] = []
    licence: Licence
    citation: str
    expectations: list[Difference] = []
    notes: list[str] = []
    options: dict[str, Any] = {}
    request: str
    plan: str
    digest: str
    index: FileCard
    shards: list[ShardCard]
    side_files: list[FileCard] = []
    failures: list[Failure] = []
    tools: dict[str, str] = {}
    dense: DenseCard | None = None
    unit: str | None = None

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        own = {"labels": "macro_auc", "value": "pearson"}
        if own.get(self.target) != (self.metric if self.metric in own.values() else None):
            raise ValueError(f"kind {self.kind!r} is not scored by {self.metric!r}")
        return self

    @property
    def target(self) -> Target:
        """What the samples of the task are labelled with."""
        return target_of(self.kind)

    @property
    def class_columns(self) -> list[str]:
        """The columns of the classes in a table that also has columns of `OTHER_COLUMNS`."""
        return [f"class {name}" if name in OTHER_COLUMNS else name for name in self.classes]

    def json_body(self) -> dict[str, Any]:
        """Return the content of task.json. `dense`, and the targets in it, are absent if the task has none; `unit` is
        absent if the samples have no numbers.
        """
        absent = {"dense"} if self.unit is not None else {"dense", "unit"}
        body = self.model_dump(mode="json", by_alias=True, exclude=absent)
        if self.dense is None:
            return body
        targets = self.dense.model_dump(mode="json")
        return body | {"dense": {name: target for name, target in targets.items() if target is not None}}

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What a notebook shows: the digests of some dozen files would hide it."""
        yield "task", self.task
        yield "kind", self.kind
        yield "classes", self.classes
        yield "samples", {split: self.splits[split].samples for split in SPLITS if split in self.splits}
        yield "licence", self.licence.name

    def samples(self) -> int:
        """The number of samples over all splits."""
        return sum(s.samples for s in self.splits.values())

    def empty_sets(self) -> list[str]:
        """Return a line for each set, and each class of a set, that holds no sample."""
        samples = {split: content.samples for split, content in self.splits.items()}
        return empty_sets(self.classes, {split: content.classes for split, content in self.splits.items()}, samples)

    def sizes(self, split: SplitCard) -> list[int]:
        """Return the samples of each class in a split; in a list of one, all its samples if they have numbers."""
        return [split.samples] if self.target == "value" else split.classes


def empty_sets(
    classes: Sequence[str], counts: Mapping[Split, Sequence[int]], samples: Mapping[Split, int]
) -> list[str]:
    """Return a line for each set without a sample, each class without one anywhere, and each class that a set lacks.

    counts: split -> samples of each class, in the order of `classes`. samples: split -> samples, some of which may have
    no class; an absent split is empty.
    """
    filled = [split for split in SPLITS if samples.get(split)]
    nowhere = [i for i in range(len(classes)) if not any(counts[split][i] for split in filled)]
    return [
        *(f"no sample in {split}" for split in SPLITS if split not in filled),
        *(f"class {classes[i]!r} has no sample in the whole task" for i in nowhere),
        *(
            f"no sample of class {label!r} in {split}"
            for split in filled
            for i, label in enumerate(classes)
            if i not in nowhere and not counts[split][i]
        ),
    ]


def metric_of(kind: str, classes: Sequence[str]) -> Metric:
    """Return the metric of a task of this kind: it follows from the card's `kind` and the number of its classes."""
    of_kind: dict[str, Metric] = {ORDINAL: "quadratic_kappa", MULTILABEL: "macro_auc", REGRESSION: "pearson"}
    if kind in of_kind:
        return of_kind[kind]
    return "roc_auc" if len(classes) == 2 else "accuracy"


def schema_of(metric: Metric) -> int:
    """Return the lowest schema with this metric: programs that do not know it refuse the card as a newer one."""
    return {"quadratic_kappa": 2, "macro_auc": 3, "pearson": 3}.get(metric, 1)


def target_of(kind: str) -> Target:
    """Return what the samples of a task of this kind are labelled with."""
    of_kind: dict[str, Target] = {MULTILABEL: "labels", REGRESSION: "value"}
    return of_kind.get(kind, "class")


def begun(place: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders in `place` that hold a finished task, and those that hold an unfinished conversion."""
    folders = sorted(f for f in place.iterdir() if f.is_dir() and not f.name.startswith("."))
    finished = [folder for folder in folders if (folder / FILE_NAME).exists()]
    others = [folder for folder in folders if (folder / WORK).is_dir() or any(folder.glob("*.tar"))]
    return finished, [folder for folder in others if folder not in finished]


def dataset_digest(shards: list[ShardCard]) -> str:
    """Return the digest that identifies the data: sha256 over `<name> <sha256>` lines of the shards in name order."""
    lines = "".join(f"{s.name} {s.sha256}\n" for s in sorted(shards, key=lambda s: s.name))
    return hashlib.sha256(lines.encode()).hexdigest()


def dump(card: TaskCard) -> bytes:
    """Return task.json as bytes: sorted keys, and `card`, a sha256 over the other fields that reveals any change."""
    return _written(card.json_body())


def _without_card(folder: Path) -> ShardError:
    """The error for a folder without a card: of tasks, of an unfinished one, or of something else."""
    if not folder.is_dir():
        return ShardError("no such folder", where=folder, remedy="give the folder of a converted task")
    if finished := sorted(path.parent for path in folder.glob(f"*/{FILE_NAME}")):
        tasks = ", ".join(path.name for path in finished[:3]) + (", ..." if len(finished) > 3 else "")
        return ShardError("no task.json", where=folder, found=f"tasks: {tasks}", remedy=f"give one: {finished[0]}")
    if (folder / WORK).is_dir() or any(folder.glob("*.tar")):
        return ShardError("no task.json", where=folder, remedy="the conversion is unfinished: run it again")
    return ShardError("no task.json", where=folder, remedy="give the folder of a converted task")


def load(folder: Path) -> TaskCard:
    """Read `folder/task.json`, whose bytes must be exactly those that `dump` wrote. The only reader of cards.

    Raises:
        ShardError: the file is absent, of a newer schema, changed since it was written, or not a task card.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise _without_card(folder)
    data = path.read_bytes()
    try:
        body = json.loads(data)
        stated = body.pop("card", "")
        newer = body.get("schema", 0) > SCHEMA
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise ShardError("not a task card", where=path, remedy="convert the source again") from None
    if newer:
        raise ShardError("written by a newer version", where=path, remedy="update dpconvert")
    try:
        card = TaskCard.model_validate(body)
    except ValidationError as error:
        fault = first_fault(error, TaskCard)
        raise ShardError(
            f"not a task card: {fault}", where=path, found=fault.found, remedy="convert the source again"
        ) from None
    if stated != _body_digest(body) or data != _written(body):
        raise ShardError("changed since it was written", where=path, remedy="convert the source again with --overwrite")
    return card


def _written(body: dict[str, Any]) -> bytes:
    return (json.dumps(body | {"card": _body_digest(body)}, indent=1, sort_keys=True) + "\n").encode()


def _body_digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
