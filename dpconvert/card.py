"""task.json: what a converted task is. Its presence means that the task is complete; readers need nothing else.

The schema is `TaskCard`; docs/format.md describes it for people who read shards without this package.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpconvert.errors import ShardError

SCHEMA = 1
FILE_NAME = "task.json"
INDEX_NAME = "index.parquet"
WORK = ".work"  # of a conversion that has not ended, in the task's folder
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Model(BaseModel):
    """Frozen, and strict about what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Licence(Model):
    """The terms under which the images may be used."""

    name: str
    """Name of the licence."""
    url: str = ""
    """Address of its text."""
    open: bool = False
    """Whether anyone may download and redistribute the images."""
    note: str = ""
    """Conditions or doubts, in one line."""


class SplitCard(Model):
    """Sizes of one split: `classes[i]` samples carry label i; `groups` distinct patients, slides or images."""

    samples: int
    classes: list[int]
    groups: int


class ShardCard(Model):
    """One tar file of a task."""

    name: str
    split: Split
    samples: int
    size: int
    sha256: str


class FileCard(Model):
    """A side file of a task."""

    name: str
    size: int
    sha256: str


class Difference(Model):
    """Expected against made, for one number. `reason` is set when the difference is a known one."""

    what: str
    expected: int
    made: int
    reason: str = ""


class Failure(Model):
    """A sample that could not be made, and why."""

    key: str
    source: str
    reason: str


class TaskCard(Model):
    """A complete task: what it is, how it is split, which files hold it and what made them."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    task: str
    source: str
    title: str
    kind: str
    classes: list[str]
    metric: Literal["accuracy", "roc_auc"]
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

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def samples(self) -> int:
        """Number of samples over all splits."""
        return sum(s.samples for s in self.splits.values())


def begun(place: Path) -> tuple[list[Path], list[Path]]:
    """The folders in `place` that hold a finished task, and those that hold one whose conversion has not ended."""
    folders = sorted(f for f in place.iterdir() if f.is_dir() and not f.name.startswith("."))
    finished = [folder for folder in folders if (folder / FILE_NAME).exists()]
    others = [folder for folder in folders if (folder / WORK).is_dir() or any(folder.glob("*.tar"))]
    return finished, [folder for folder in others if folder not in finished]


def dataset_digest(shards: list[ShardCard]) -> str:
    """The name of the data: sha256 over `<name> <sha256>` lines of the shards, in name order."""
    lines = "".join(f"{s.name} {s.sha256}\n" for s in sorted(shards, key=lambda s: s.name))
    return hashlib.sha256(lines.encode()).hexdigest()


def dump(card: TaskCard) -> bytes:
    """The bytes of task.json: sorted keys, and `card`, a sha256 of all the rest, for `verify` to see any change."""
    body = card.model_dump(mode="json", by_alias=True)
    return _written(body)


def load(folder: Path) -> TaskCard:
    """Read `folder/task.json`, whose bytes must be exactly those that `dump` wrote. The only reader of cards.

    Raises:
        ShardError: absent, not JSON, of a newer schema, changed since it was written, or not a task card.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise ShardError("no task.json here", where=folder, remedy="the conversion has not finished: run it again")
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
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise ShardError(
            f"not a task card: {place}: {problem['msg']}", where=path, remedy="convert the source again"
        ) from None
    if stated != _body_digest(body) or data != _written(body):
        raise ShardError("changed since it was written", where=path, remedy="convert the source again with --overwrite")
    return card


def _written(body: dict[str, Any]) -> bytes:
    return (json.dumps(body | {"card": _body_digest(body)}, indent=1, sort_keys=True) + "\n").encode()


def _body_digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
