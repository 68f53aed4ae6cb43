"""BreaKHis: folds from the attributes, scores by patient."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtrain.cli.transfer_lines import breakhis_lines
from mtrain.data.task import Task, attributes, open_task
from mtrain.errors import ShardError, UsageError
from mtrain.evaluation import breakhis
from mtrain.evaluation.breakhis import images_of, patient_accuracy
from mtrain.evaluation.selecting.ranks import summary
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.pretrained import Pretrained
from mtrain.transfers.transfer import TransferOptions, source_of
from tests.mtrain import test_evaluate
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.storages import web_server
from tests.mtrain.test_fit import Notes

SIZES = {"train": 24, "val": 8, "test": 8}
OPTIONS = TransferOptions(workers=0, recipe=Recipe(epochs=1, rates=(0.01,), batch=8, device="cpu"))


def told(split: str, number: int) -> dict[str, str]:
    """Ten patients of four images, two at each of two magnifications; in each fold two patients are tested."""
    patient = {"train": 0, "val": 6, "test": 8}[split] + number // 4
    folds = {f"fold{fold}": "test" if patient % 5 == fold - 1 else "train" for fold in range(1, 6)}
    return {"magnification": "100X" if number % 4 > 1 else "40X", "patient": f"14-{patient}", **folds}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in ("mtrain.train.start", "mtrain.transfers.transfer"):
        monkeypatch.setattr(f"{module}.shared_network", test_evaluate.tiny_network)
    write_pool(tmp_path / "shards", ("Alpha",))
    write_task(tmp_path / "BreakHis", sizes=SIZES, attributes=told)
    return tmp_path


@pytest.fixture
def task(place: Path) -> Task:
    return open_task(place / "BreakHis")


@pytest.fixture
def source(place: Path) -> Pretrained:
    return source_of(test_evaluate.trained(place, "toy", leave_out=()), "imagenet")


def scored(source: Pretrained, task: Task, place: Path, notes: Notes | None = None, **changed: Any) -> dict[str, Any]:
    options = TransferOptions(**{"workers": 0, "recipe": OPTIONS.recipe} | changed)
    return breakhis.breakhis(source, task, options, place / "evaluations", notes or Notes())


def test_a_patient_counts_once_however_many_images_there_are_of_it() -> None:
    """Patient a: 3 of 4 right; b: 0 of 1; c: 1 of 2. Mean (3/4 + 0 + 1/2) / 3, where images would give 4/7."""
    labels = np.array([0, 0, 1, 1, 1, 0, 1])
    found = np.array([0, 0, 1, 0, 0, 1, 1])
    assert patient_accuracy(labels, found, list("aaaabcc")) == pytest.approx(1.25 / 3)
    assert patient_accuracy(labels, labels, list("aaaabcc")) == 1.0


def test_mean_and_deviation_over_folds_by_hand() -> None:
    """0.8, 0.9, 1.0: mean 0.9, sample deviation 0.1."""
    folds = [{"patient_accuracy": value} for value in (0.8, 0.9, 1.0)]
    found = breakhis._summary(folds)
    assert (found["mean"], found["std"]) == (pytest.approx(0.9), pytest.approx(0.1))


def test_attributes_are_read_by_key(task: Task) -> None:
    found = attributes(task)
    assert len(found) == 40
    assert found["breakhis-val-00005"] == told("val", 5)


def test_a_fold_is_what_the_attributes_say_at_its_magnification_whatever_the_split(task: Task) -> None:
    images = images_of(task)
    assert images.magnifications == ["40X", "100X"]
    assert len(images.rows) == 40
    tested = []
    for number in range(1, 6):
        train, test = images.fold("40X", number)
        assert (len(train), len(test)) == (16, 4)
        assert {str(p) for p in images.patients[test]} == {f"14-{number - 1}", f"14-{number + 4}"}
        assert not set(images.patients[train]) & set(images.patients[test])
        assert all(images.described[i]["magnification"] == "40X" for i in (*train, *test))
        tested += test.tolist()
    assert len(set(tested)) == 20


def test_every_magnification_is_scored_over_five_folds_by_svm(source: Pretrained, task: Task, place: Path) -> None:
    found, notes = scored(source, task, place), Notes()
    assert list(found["magnifications"]) == ["40X", "100X"]
    for one in found["magnifications"].values():
        values = [fold["patient_accuracy"] for fold in one["folds"]]
        assert len(values) == 5
        assert (one["mean"], one["std"]) == (summary(values).mean, summary(values).std)
        assert one["mean"] > 0.7  # the colour of a toy image tells its class
        assert [(fold["n_train"], fold["n_test"], fold["patients"]) for fold in one["folds"]] == [(16, 4, 2)] * 5
        assert all(fold["in_both_sets"] == fold["notes"] == [] for fold in one["folds"])
    assert (found["source"], found["set"], found["metric"]) == ("imagenet", "folds", "patient_accuracy")
    assert scored(source, task, place, notes) == json.loads(json.dumps(found))
    assert "existing result reused" in notes.said[0]


def test_what_the_svm_notes_is_shown_once_for_each_magnification() -> None:
    folds = [{"patient_accuracy": 0.5, "notes": notes} for notes in (["small"], ["small", "late"], [])]
    one = {"mean": 0.5, "std": 0.0, "folds": folds}
    of = {"mode": "svm", "source": "multitask", "run": "runs/toy", "backbone": "tiny"}
    assert breakhis_lines(of | {"magnifications": {"40X": one}}) == [
        "40X: patient accuracy 50.00 +- 0.00 over 3 folds (svm, multitask, run toy, tiny)",
        "note: 40X, 2 folds: small",
        "note: 40X, 1 fold: late",
    ]


def test_fine_tuning_holds_out_whole_groups_of_a_folds_training_set(
    source: Pretrained, task: Task, place: Path
) -> None:
    notes = Notes()
    found = scored(source, task, place, notes, mode="finetune")
    assert len(found["magnifications"]["100X"]["folds"]) == 5
    held = "4 of its 16 training samples, in whole groups, take its place"
    assert sum(held in note for note in notes.said) == 10
    every = [fold["notes"] for one in found["magnifications"].values() for fold in one["folds"]]
    assert len(every) == 10
    assert all(any(held in note for note in of_fold) for of_fold in every)
    assert "note: 40X, 5 folds: BreakHis has no validation set: 4 of" in "\n".join(breakhis_lines(found))
    assert "folds" not in found["identity"]  # the first of the folds of each training set, as in earlier versions


def test_remote_shards_are_fetched_at_once_and_with_progress(
    source: Pretrained, task: Task, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTRAIN_CACHE", str(place / "cache"))
    notes = Notes()
    with web_server(place) as port:
        there = open_task(f"http://127.0.0.1:{port}/BreakHis")
        found = scored(source, there, place, notes)
    assert notes.bars[0] == ("downloading shards", len(task.card.shards))
    assert [work for work, _ in notes.bars[1:]] == [f"BreakHis: features of {split}" for split in SIZES]
    assert found["identity"]["task_digest"] == task.card.digest


def test_what_is_no_breakhis_is_said(source: Pretrained, place: Path) -> None:
    write_task(place / "Plain", sizes=SIZES)
    with pytest.raises(ShardError, match="samples without a magnification: not BreaKHis"):
        scored(source, open_task(place / "Plain"), place)
    write_task(place / "Unfolded", sizes=SIZES, attributes=lambda _split, _number: {"magnification": "40X"})
    with pytest.raises(ShardError, match=r"no official folds here; unpack mkfold.tar.gz"):
        scored(source, open_task(place / "Unfolded"), place)
    with pytest.raises(UsageError, match="no mode 'knn' here"):
        scored(source, open_task(place / "Plain"), place, mode="knn")
