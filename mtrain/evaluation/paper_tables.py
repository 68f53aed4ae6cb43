"""The rows of the paper's Table V, one per task and network, from evaluations and as published.

An evaluation is one transfer of one model to one target, scored on its test set and stored in
`evaluations/<target>/<digest>.json`.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpconvert.manifest.catalog import manifest_folder
from dpconvert.plural import counted
from dpconvert.validation_errors import first_fault
from mtrain.disk.documents import read_document, short_digest
from mtrain.errors import RunError
from mtrain.evaluation.comparing.comparisons import BASELINES, IMAGENET, START
from mtrain.evaluation.comparing.paired import Interval, paired
from mtrain.evaluation.selecting.ranks import Summary, margin, significant, summary
from mtrain.runs.run_folder import SOUP, Run
from mtrain.scoring.metrics import METRICS
from mtrain.setting_roles import INCIDENTAL

# the columns of Table V, in its order
COLUMNS = {
    "scratch": "scratch",
    "svm-imagenet": "svm, ImageNet",
    "svm-multitask": "svm, multi-task",
    "finetune-imagenet": "finetune, ImageNet",
    "finetune-multitask": "finetune, multi-task",
    "joint": "joint",
}
# those of masks and points, which the paper does not score
DENSE_COLUMNS = {"dense-imagenet": "dense, ImageNet", "dense-multitask": "dense, multi-task"}
TRANSFERS = ("svm", "finetune", "dense")
TITLES = COLUMNS | DENSE_COLUMNS | {f"{mode}-{START}": f"{mode}, {BASELINES[START]}" for mode in TRANSFERS}
UNSEEDED = {"svm-imagenet", "svm-start"}  # the same weights and no randomness: there is only one value
POOL = "pool"  # entry of `Evaluation.training`: a digest of what was trained on
# settings of a training that the row of an evaluation or its pool already states, or over which it is averaged
TOLD = frozenset({"seed", "backbone", "size", "tasks", "drop", "joint"})


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Score = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]  # a kappa may be negative


class Evaluation(BaseModel):
    """The content of one file, as far as it is used here. `score`: in -1..1. `identity`: what it depends on.

    n_train: the number of images that the mode trained on, with fine-tuning those of the training set alone. train_val:
    that of the training and validation sets; earlier versions did not state it. training: of a multi-task network, as
    `training_of` states it. samples, groups: the numbers that were scored. answers: the file of its predictions, if it
    has one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: str
    metric: str
    mode: str
    source: str
    backbone: str
    seed: int
    set: str
    score: Score | None
    n_train: int
    train_val: int | None = None
    run: str | None = None
    identity: dict[str, Any] = {}
    training: dict[str, Any] = {}
    groups: int | None = None
    samples: int | None = None
    answers: Path | None = None

    @property
    def column(self) -> str:
        return self.mode if self.mode in TITLES else f"{self.mode}-{self.source}"


@dataclass(frozen=True)
class TaskRow:
    """One task by one metric. `size`: number of images in train and val. The scores are by column, in percent.

    samples, groups: the numbers of the test set that were scored; None if no evaluation states them. intervals: of the
    mean scores by column, and differences: of multi-task minus its baseline by mode, in percent, by bootstrap
    over groups.
    """

    task: str
    metric: str
    size: int
    scores: Mapping[str, Summary]
    samples: int | None = None
    groups: int | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    differences: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def best(self) -> str | None:
        """The column with the highest mean."""
        return max(self.scores, key=lambda column: self.scores[column].mean, default=None)

    def baseline(self, mode: str) -> str:
        """What multi-task is compared with in this mode, one of `BASELINES`."""
        return baseline_of(self.scores, mode)

    def gain(self, mode: str) -> float | None:
        """The difference between multi-task and its baseline in this transfer mode, in percentage points."""
        pair = self._pair(mode)
        return None if pair is None else pair[0].mean - pair[1].mean

    def verdict(self, mode: str) -> int | None:
        """1 if multi-task is significantly better than its baseline, -1 if it is significantly worse, else 0.

        None if that is undefined: a score is missing, there is only one seed, or no score differs between seeds.
        """
        pair = self._pair(mode)
        if pair is None or margin(*pair) is None:
            return None
        return int(math.copysign(1, pair[0].mean - pair[1].mean)) if significant(*pair) else 0

    def _pair(self, mode: str) -> tuple[Summary, Summary] | None:
        ours, theirs = (self.scores.get(f"{mode}-{source}") for source in ("multitask", self.baseline(mode)))
        return None if ours is None or theirs is None else (ours, theirs)


def baseline_of(columns: Iterable[str], mode: str) -> str:
    """What multi-task is compared with, by these columns of a network: the weights from which it began, if scored."""
    return START if f"{mode}-{START}" in columns else IMAGENET


def training_of(run: Run) -> dict[str, Any]:
    """What a score of the run's network depends on but for the seed: settings, and a digest of the sets trained on."""
    pool = [run.about().get("pool", {}), run.trained_on()]
    settings = run.config().model_dump(mode="json", exclude=set(INCIDENTAL | TOLD))
    made = {SOUP: soup["text"]} if (soup := run.about().get(SOUP)) else {}
    return settings | made | {POOL: short_digest(json.dumps(pool, sort_keys=True))}


def read_evaluations(folder: Path) -> list[Evaluation]:
    """Every evaluation of a test set under `folder`, the newest last.

    Raises:
        RunError: a file is not an evaluation.
    """
    found = []
    for path in evaluation_files(folder):
        try:
            content = read_document(path, "evaluate again: it is made anew")
            answers = path.with_suffix(".npz")
            evaluation = Evaluation.model_validate(content | {"answers": answers if answers.is_file() else None})
        except (OSError, ValueError) as error:
            what = reason(error)
            raise RunError(f"not an evaluation: {what}", where=path, remedy="remove it and evaluate again") from None
        if evaluation.set == "test":
            found.append(evaluation)
    return found


def evaluation_files(folder: Path) -> list[Path]:
    """Every evaluation under `folder`, the newest last."""
    return sorted(folder.glob("*/*.json"), key=lambda path: (path.stat().st_mtime_ns, path))


def table(evaluations: Iterable[Evaluation], backbone: str, *, intervals: bool = False) -> list[TaskRow]:
    """The rows of one network, with the columns that were evaluated. Of several evaluations of one task, column and
    seed, the last one counts; those by another metric have a separate row. intervals: also compute the intervals of
    the scores and of their differences.
    """
    by_task: dict[tuple[str, str], dict[str, dict[int, Evaluation]]] = {}
    for one in evaluations:
        if one.backbone == backbone and one.score is not None and one.column in TITLES:
            by_task.setdefault((one.task, one.metric), {}).setdefault(one.column, {})[one.seed] = one
    rows = []
    for (task, metric), columns in sorted(by_task.items()):
        every = [one for same in columns.values() for one in same.values()]
        scores = {
            name: _summary(columns[name].values(), seeded=name not in UNSEEDED) for name in TITLES if name in columns
        }
        size = max(one.n_train if one.train_val is None else one.train_val for one in every)
        row = TaskRow(task, metric, size, scores, _stated(every, "samples"), _stated(every, "groups"))
        rows.append(_with_intervals(row, columns) if intervals else row)
    return in_order(rows)


def undefined(evaluations: Iterable[Evaluation]) -> list[str]:
    """Notes on evaluations that no table shows, since their metric is not defined on the test set."""
    without = Counter((one.task, one.backbone, one.column, one.metric) for one in evaluations if one.score is None)
    return [
        f"{task}, {backbone}, {column}: {METRICS.get(metric, metric)} is not defined on the test set "
        f"({counted(count, 'evaluation')})"
        for (task, backbone, column, metric), count in sorted(without.items())
    ]


def untabled(evaluations: Iterable[Evaluation]) -> list[str]:
    """Notes with scores of modes that have no column."""
    found: dict[tuple[str, str, str, str], dict[int, float]] = {}
    for one in evaluations:
        if one.score is not None and one.column not in TITLES:
            found.setdefault((one.task, one.backbone, one.column, one.metric), {})[one.seed] = one.score
    return [
        f"{task}, {backbone}, {column}: {METRICS.get(metric, metric)} {100 * fmean(scores.values()):.2f}% on the test "
        f"set ({counted(len(scores), 'evaluation')}), not in a table"
        for (task, backbone, column, metric), scores in sorted(found.items())
    ]


def _stated(every: Iterable[Evaluation], name: str) -> int | None:
    """The first number of this name that an evaluation states."""
    return next((number for one in every if (number := getattr(one, name)) is not None), None)


def _with_intervals(row: TaskRow, columns: Mapping[str, Mapping[int, Evaluation]]) -> TaskRow:
    """The row with the intervals of those columns whose evaluations all kept their answers."""
    answers = {name: [one.answers for one in seeds.values()] for name, seeds in columns.items()}
    kept = {name: [path for path in paths if path is not None] for name, paths in answers.items() if all(paths)}
    found: dict[str, Interval] = {}
    apart: dict[str, Interval] = {}
    for mode in TRANSFERS:
        ours, theirs = f"{mode}-multitask", f"{mode}-{row.baseline(mode)}"
        one = paired({name: kept[name] for name in (ours, theirs) if name in kept}, row.metric, theirs)
        found |= one.intervals
        if ours in one.differences:
            apart[mode] = one.differences[ours]
    for name in kept.keys() - found.keys():
        found |= paired({name: kept[name]}, row.metric, "").intervals
    return replace(
        row,
        intervals={name: _in_percent(interval) for name, interval in found.items()},
        differences={mode: _in_percent(interval) for mode, interval in apart.items()},
    )


def _in_percent(interval: Interval) -> Interval:
    return 100 * interval[0], 100 * interval[1]


def _summary(same: Iterable[Evaluation], *, seeded: bool) -> Summary:
    return summary([100 * one.score for one in same if one.score is not None], seeded=seeded)


def in_order(rows: Iterable[TaskRow]) -> list[TaskRow]:
    """The rows in the order of the paper's figures: by metric, then by increasing size."""
    return sorted(rows, key=lambda row: (row.metric, row.size, row.task))


def backbones(evaluations: Iterable[Evaluation]) -> list[str]:
    """The networks that were evaluated, in name order."""
    return sorted({one.backbone for one in evaluations})


def published() -> dict[str, list[TaskRow]]:
    """The paper's Table V by network."""
    content = published_facts()
    return {
        backbone: in_order(
            TaskRow(
                task,
                content["tasks"][task]["metric"],
                content["tasks"][task]["size"],
                {column: _published(value) for column, value in columns.items()},
            )
            for task, columns in tasks.items()
        )
        for backbone, tasks in content["scores"].items()
    }


def published_breakhis() -> dict[str, dict[str, dict[str, Summary]]]:
    """The paper's scores on BreakHis: network -> transfer and source -> magnification."""
    return {
        backbone: {name: {m: _published(v) for m, v in row.items()} for name, row in rows.items()}
        for backbone, rows in published_facts()["breakhis"].items()
    }


def published_facts() -> dict[str, Any]:
    """The content of manifests/paper-scores.toml."""
    return tomllib.loads((manifest_folder() / "paper-scores.toml").read_text(encoding="utf-8"))


def _published(value: list[float]) -> Summary:
    """[mean] of a deterministic transfer, or [mean, std] over five seeds."""
    return Summary(value[0], value[1], 5) if len(value) == 2 else Summary(value[0], 0.0, 1)


def reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        fault = first_fault(error)
        return f"{fault}, found {fault.found}" if fault.found else str(fault)
    return str(error)
