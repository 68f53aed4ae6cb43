"""The rows of the paper's last table, from evaluations on BreaKHis: the transfer of a network at each magnification.

Mean and standard deviation are over the five folds. With several seeds, the score of a fold is their mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mtrain.disk.documents import read_document
from mtrain.errors import RunError
from mtrain.evaluation.comparing.comparable import ANY_SIZE, comparable
from mtrain.evaluation.paper_tables import COLUMNS, Evaluation, Share, evaluation_files, published_breakhis, reason
from mtrain.evaluation.selecting.ranks import Summary, summary

MAGNIFICATIONS = ("40x", "100x", "200x", "400x")


class Fold(BaseModel):
    """One fold and its mean patient accuracy in 0..1."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    fold: int
    patient_accuracy: Share


class Magnification(BaseModel):
    """One magnification."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    folds: tuple[Fold, ...]


class Patients(Evaluation):
    """A file of `mtrain breakhis`."""

    set: Literal["folds"]
    magnifications: dict[str, Magnification]


@dataclass(frozen=True)
class BreakhisRow:
    """One transfer of one network: own and published scores in percent by magnification; own ones average `seeds`."""

    backbone: str
    column: str
    seeds: int
    scores: Mapping[str, Summary]
    published: Mapping[str, Summary]

    @property
    def title(self) -> str:
        return COLUMNS[self.column]

    @property
    def magnifications(self) -> list[str]:
        return [name for name in MAGNIFICATIONS if name in {*self.scores, *self.published}]


def breakhis_rows(
    folder: Path, backbones: Iterable[str], *, paper: bool, sizes: Mapping[str, int] = ANY_SIZE
) -> tuple[list[BreakhisRow], list[str]]:
    """The rows of these networks, of input of their sizes, and notes on what was left out as not comparable. Of several
    files of the same network, column, weights and seed, the newest counts.

    Raises:
        RunError: a file is not an evaluation.
    """
    backbones, every = list(backbones), []
    for path in evaluation_files(folder):
        try:
            content = read_document(path, "run `mtrain breakhis` or `mtrain evaluate` again to replace it")
            if content.get("set") != "folds":
                continue
            one = Patients.model_validate(content)
        except (OSError, ValidationError) as error:
            raise RunError(
                f"not an evaluation: {reason(error)}", where=path, remedy="remove it and run `mtrain breakhis` again"
            ) from None
        if one.backbone in backbones:
            every.append(one)
    kept, notes = comparable(every, ours=lambda one: one.source == "multitask", sizes=sizes)
    newest: dict[tuple[str, str], dict[Any, Patients]] = {}
    for one in kept:  # runs with several seeds have other weights
        newest.setdefault((one.backbone, one.column), {})[one.seed, one.identity.get("weights_digest")] = one
    known = published_breakhis() if paper else {}
    rows = [
        BreakhisRow(backbone, column, len(seeds), _scores(seeds.values()), known.get(backbone, {}).get(column, {}))
        for backbone in backbones
        for column in COLUMNS
        if (seeds := newest.get((backbone, column)))
    ]
    return rows, notes


def _scores(seeds: Iterable[Patients]) -> dict[str, Summary]:
    folds: dict[str, dict[int, list[float]]] = {}
    for one in seeds:
        for name, magnification in one.magnifications.items():
            for fold in magnification.folds:
                folds.setdefault(name.lower(), {}).setdefault(fold.fold, []).append(100 * fold.patient_accuracy)
    return {name: summary([sum(same) / len(same) for same in every.values()]) for name, every in folds.items()}
