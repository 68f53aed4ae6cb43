"""From a pool with masks and points to a run, its files, and a transfer to a left-out task with masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray

from mtrain.cli import group
from mtrain.config import FitConfig
from mtrain.data.batches.batch import Batch
from mtrain.data.pool import find_task, open_pool
from mtrain.errors import RunError, UsageError
from mtrain.evaluation.evaluate import opened
from mtrain.export import export
from mtrain.model.dense.dense_file import load_dense
from mtrain.report.details import titles_of
from mtrain.runs.run_folder import Run
from mtrain.train.fit import fit
from mtrain.transfers.dense.dense_frozen import ConvDecoderWithImage, FrozenDense, batch_dice
from mtrain.transfers.dense.dense_tuned import Moving
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.results import read_result
from mtrain.transfers.transfer import TransferOptions, result_path, source_of, transfer
from tests.mtrain.dense_pools import write_dense_task, write_mixed_pool
from tests.mtrain.test_fit import Notes

SMALL = "shufflenet_v2_x0_5"
RECIPE = Recipe(batch=8, device="cpu")


def settings(shards: Path, **changed: object) -> FitConfig:
    given = {
        "shards": str(shards),
        "backbone": SMALL,
        "weights": "random",
        "iterations": 3,
        "batch": 8,
        "size": 32,
        "adapt_batches": 1,
        "workers": 0,
        "validate_every": 2,
        "device": "cpu",
        "train_on": "train",
    }
    return FitConfig(**given | changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards/ and the finished run runs/toy, which trained on Masks and left Both out."""
    folder = tmp_path_factory.mktemp("dense")
    write_mixed_pool(folder / "shards")
    write_dense_task(folder / "shards" / "Both", seed=9)
    notes = Notes()
    fit(settings(folder / "shards", dense=True, leave_out=("Both",)), Run(folder / "runs" / "toy"), notes)
    (folder / "notes.txt").write_text("\n".join(notes.said))
    return folder


def test_a_run_says_what_it_trains_on_and_how_well_it_finds_it(folder: Path) -> None:
    notes = (folder / "notes.txt").read_text()
    assert "masks and points of 2 tasks are trained on too: Masks, Points" in notes
    assert "Dice on val: Masks 0." in notes
    events = [json.loads(line) for line in (folder / "runs" / "toy" / "log.jsonl").read_text().splitlines()]
    scored = [event for event in events if event["event"] == "validation"]
    assert all(0 <= event["dice"]["Masks"] <= 1 for event in scored)


def test_the_decoder_lies_beside_the_weights_and_goes_along_in_an_export(folder: Path, tmp_path: Path) -> None:
    run = Run(folder / "runs" / "toy")
    network = load_dense(run.dense)
    assert list(network.heads) == ["Masks", "Points"]
    assert [level.module for level in network.levels] == ["maxpool", "stage2", "stage3"]
    written = export(run, "safetensors", tmp_path / "out", accepted=True)
    again = load_dense(written.folder / "dense.safetensors")
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_a_lost_decoder_is_restored(folder: Path) -> None:
    run, notes = Run(folder / "runs" / "toy"), Notes()
    before = run.dense.read_bytes()
    run.dense.unlink()
    fit(settings(folder / "shards", dense=True, leave_out=("Both",)), run, notes)
    assert run.dense.read_bytes() == before


def test_dense_transfer_scores_masks_and_points_of_a_task_that_was_left_out(folder: Path) -> None:
    source = source_of(Run(folder / "runs" / "toy"), "run")
    task = find_task(open_pool(folder / "shards"), "Both")
    options = TransferOptions("dense", workers=0, recipe=RECIPE, steps=12)
    found = transfer(source, task, options, Notes())
    assert (found["metric"], found["set"], found["mode"], found["steps"]) == ("dice", "val", "dense", 12)
    assert found["score"] == found["scores"]["dice"]
    assert {"iou", "dice_other", "dice_disc", "f1", "f1_disc"} <= found["scores"].keys()
    low, high = found["intervals"]["dice"]
    assert low <= found["score"] <= high
    objects = sum(int(n) for n in task.rows["val"].objects)  # type: ignore[union-attr]
    assert 0 < found["objects"]["disc"]["objects"] <= objects  # those in the central square
    notes = Notes()
    assert transfer(source, task, options, notes) == found
    assert "existing result reused" in notes.said[-1]
    (final,) = opened([task])
    assert (
        transfer(source, final, TransferOptions("dense", True, workers=0, recipe=RECIPE, steps=2), Notes())["set"]
        == "test"
    )


def test_the_page_of_a_run_has_every_score_of_masks_points_and_instances(folder: Path, tmp_path: Path) -> None:
    words = ["--runs", str(folder / "runs"), "--run", "toy", "--shards", str(folder / "shards"), "--target", "Both"]
    scored = ["--mode", "dense", "--steps", "2", "--batch", "8", "--workers", "0", "--device", "cpu"]
    assert CliRunner().invoke(group, ["transfer", *words, *scored]).exit_code == 0
    page = tmp_path / "page.html"
    assert CliRunner().invoke(group, ["report", *words[:4], "--out", str(page)]).exit_code == 0
    text = page.read_text()
    assert '<th scope="row">Dice</th>' in text
    assert '<th scope="row">Dice: disc</th>' in text
    assert '<th scope="row">F1 of points: disc</th>' in text
    assert "Higher is better." in text
    results = {"run": {"scores": {"pq_nucleus": 0.4, "pq": 0.4, "dice_other": 0.5, "dice": 0.5}}, "imagenet": {}}
    assert list(titles_of(results)) == [
        ("dice", "Dice"),
        ("dice_other", "Dice: other"),
        ("pq", "panoptic quality"),
        ("pq_nucleus", "panoptic quality: nucleus"),
    ]


def test_dense_transfer_repeats_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    task = find_task(open_pool(folder / "shards"), "Both")
    found = []
    for workers in (0, 2):
        source = source_of(Run(folder / "runs" / "toy"), "random")
        options = TransferOptions("dense", workers=workers, recipe=RECIPE, steps=3)
        found.append(transfer(source, task, options, Notes())["scores"])
        for path in (folder / "runs" / "toy" / "transfer").glob("Both-dense-random*"):
            path.unlink()
    assert found[0] == found[1]


def test_results_of_other_settings_stay_beside_each_other(folder: Path) -> None:
    """Name, settings, scores: those of one setting are not lost when another is tried."""
    source = source_of(Run(folder / "runs" / "toy"), "run")
    task = find_task(open_pool(folder / "shards"), "Both")
    tried = [
        TransferOptions("dense", workers=0, recipe=RECIPE, steps=2, moving=moving)
        for moving in (Moving(), Moving("all", 1e-3), Moving("all", 1e-5), Moving("norms", 1e-5))
    ]
    tried += [TransferOptions("svm", workers=0, recipe=RECIPE, solver=solver) for solver in ("batched", "sklearn")]
    found = [transfer(source, task, options, Notes()) for options in tried]
    paths = [result_path(source, task, options) for options in tried]
    assert len(set(paths)) == 6
    assert [read_result(path) for path in paths] == found
    usual = TransferOptions("dense", recipe=Recipe(device="cpu"), moving=Moving("all"))
    assert result_path(source, task, usual).name == "Both-dense-run-seed0-tune-all.json"
    assert not list((folder / "runs" / "toy" / "transfer" / "decoders").iterdir())


def test_a_result_of_an_earlier_version_moves_to_the_name_of_its_settings(folder: Path) -> None:
    source = source_of(Run(folder / "runs" / "toy"), "run")
    task = find_task(open_pool(folder / "shards"), "Both")
    options = TransferOptions("svm", workers=0, recipe=RECIPE, solver="sklearn")
    found, path = transfer(source, task, options, Notes()), result_path(source, task, options)
    usual = path.with_name("Both-svm-run.json")
    for suffix in (".json", ".npz"):
        path.with_suffix(suffix).replace(usual.with_suffix(suffix))
    notes = Notes()
    assert transfer(source, task, options, notes) == found
    assert "existing result reused" in notes.said[-1]
    assert not usual.exists()
    assert not usual.with_suffix(".npz").exists()


@pytest.mark.parametrize("moving", [Moving(), Moving("all", 1e-3)], ids=["frozen", "tuned"])
def test_a_killed_decoder_resumes_and_ends_with_the_same_bits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moving: Moving
) -> None:
    monkeypatch.setattr("mtrain.transfers.dense.dense_frozen.CHECKPOINT_SECONDS", 0)
    source = source_of(Run(folder / "runs" / "toy"), "random")
    task = find_task(open_pool(folder / "shards"), "Both")
    options = TransferOptions("dense", workers=0, recipe=RECIPE, steps=5, moving=moving)
    whole = transfer(source, task, options, Notes())
    path = result_path(source, task, options)
    counts = path.with_suffix(".npz").read_bytes()
    path.unlink()
    step = FrozenDense.step

    def killed(self: FrozenDense, batch: Batch) -> torch.Tensor:
        if self.optimizer.state and next(iter(self.optimizer.state.values()))["step"] == 3:
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(FrozenDense, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            transfer(source, task, options, Notes())
    notes = Notes()
    assert transfer(source, task, options, notes)["scores"] == whole["scores"]
    assert "Both: the decoder resumes after 3 of 5 steps" in notes.said
    assert path.with_suffix(".npz").read_bytes() == counts


def test_tasks_without_masks_and_pools_without_them_are_refused(folder: Path, tmp_path: Path) -> None:
    source = source_of(Run(folder / "runs" / "toy"), "random")
    task = find_task(open_pool(folder / "shards"), "Alpha")
    with pytest.raises(UsageError, match="neither masks nor points"):
        transfer(source, task, TransferOptions("dense", workers=0, recipe=RECIPE), Notes())
    with pytest.raises(UsageError, match="--dense: no task of this pool has masks"):
        fit(
            settings(folder / "shards", dense=True, leave_out=("Both", "Masks", "Points")), Run(tmp_path / "a"), Notes()
        )


def test_without_dense_a_run_trains_classes_alone_and_says_so(folder: Path, tmp_path: Path) -> None:
    notes, run = Notes(), Run(tmp_path / "plain")
    fit(settings(folder / "shards"), run, notes)
    assert any("masks and points of 3 tasks are not trained on (--dense trains on them)" in note for note in notes.said)
    with pytest.raises(RunError, match="no decoder of masks and points"):
        load_dense(run.dense)


def test_the_dice_loss_of_a_batch_is_that_worked_out_by_hand() -> None:
    """Chance 1/2 of each class on three annotated pixels, two of class 0: 2 x 1 / (1.5 + 2), 2 x 0.5 / (1.5 + 1)."""
    masks = torch.tensor([[[0, 0]], [[1, 255]]], dtype=torch.uint8)
    wanted = 1 - (2 / 3.5 + 1 / 2.5) / 2
    assert float(batch_dice(torch.zeros(2, 2, 1, 2), masks)) == pytest.approx(wanted, abs=1e-4)


def test_the_decoder_answers_at_the_size_of_the_images() -> None:
    decoder = ConvDecoderWithImage(7, 3)
    assert decoder(torch.randn(2, 7, 4, 4), torch.randn(2, 3, 50, 50)).shape == (2, 3, 50, 50)


def test_networks_are_compared_on_masks_with_differences_on_the_same_groups(folder: Path, tmp_path: Path) -> None:
    """Score and intervals of the JSON by numpy alone, from the confusion matrices beside the results."""
    words = ["compare", "--runs", folder / "runs", "--shards", folder / "shards", "--mode", "dense", "--steps", "3"]
    words += ["--batch", "8", "--backbone", f"{SMALL}=random", "--size", "32", "--run", "toy", "--target", "Both"]
    words += ["--workers", "0", "--device", "cpu", "--out", tmp_path / "page.html"]
    answer = CliRunner().invoke(group, [*map(str, words), "--json"])
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert [(task["name"], task["metric"]) for task in found["tasks"]] == [("Both", "dice")]
    drawn = []
    for network, run in zip(found["networks"], (f"*{SMALL}*", "toy"), strict=True):
        (path,) = [one for one in (folder / "runs").glob(f"{run}/transfer/Both-dense-*.npz") if is_of_steps(one, 3)]
        drawn.append(dice_in_draws(path))
        told = network["scores"]["Both"]
        assert told["score"] == pytest.approx(dice_of(np.load(path)["seg"].sum(0)))
        assert told["interval"] == pytest.approx(np.percentile(drawn[-1], [2.5, 97.5]))
    assert told["difference_interval"] == pytest.approx(np.percentile(drawn[1] - drawn[0], [2.5, 97.5]))
    assert found["networks"][1]["rank_interval"] is not None
    counts = np.load(path)["seg"].sum(0)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    assert told["others"]["iou"] == pytest.approx((counts.diagonal() / union).mean())
    assert {"iou", "f1"} <= told["others"].keys()
    page = (tmp_path / "page.html").read_text()
    assert "Dice" in page
    assert "<td>intersection over union</td>" in page
    assert f"{100 * told['others']['iou']:.1f}" in page
    lines = CliRunner().invoke(group, list(map(str, words))).stdout
    assert "Both: toy: Dice 0." in lines
    assert f"  IoU {told['others']['iou']:.4f}" in lines


def test_networks_that_are_trained_with_their_decoders_are_compared(folder: Path, tmp_path: Path) -> None:
    """The scores are those of `mtrain transfer --tune` with the same settings, and not those of frozen networks."""
    given = [
        "--runs",
        folder / "runs",
        "--mode",
        "dense",
        "--steps",
        "2",
        "--batch",
        "8",
        "--target",
        "Both",
        "--tune",
        "all",
        "--lr",
        "0.01",
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    words = [
        "compare",
        *given,
        "--shards",
        folder / "shards",
        "--backbone",
        f"{SMALL}=random",
        "--size",
        "32",
        "--run",
        "toy",
        "--out",
        tmp_path / "page.html",
        "--json",
    ]
    answer = CliRunner().invoke(group, list(map(str, words)))
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert found["tune"] == "all"
    assert "the networks are trained with their decoders: --tune all --lr 0.01" in found["notes"]
    alone = CliRunner().invoke(group, ["transfer", *map(str, given), "--run", "toy", "--json"])
    (single,) = json.loads(alone.stdout)
    assert (single["tune"], single["lr"]) == ("all", 0.01)
    assert found["networks"][1]["scores"]["Both"]["score"] == single["score"]
    wrong = CliRunner().invoke(group, [*map(str, words), "--lr", "0.1"])
    assert "--mode dense trains the network at one --lr" in str(wrong.exception)
    still = CliRunner().invoke(group, list(map(str, [*words[:-1], "--mode", "knn"])))
    assert "--tune is not used: --mode knn does not read it" in still.stderr


def is_of_steps(path: Path, steps: int) -> bool:
    result = json.loads(path.with_suffix(".json").read_text())
    return (result["steps"], result["tune"]) == (steps, "heads")


def dice_of(table: NDArray[np.int64]) -> float:
    sums = table.sum(0) + table.sum(1)
    return float(np.mean([2 * table[c, c] / sums[c] for c in range(len(table)) if sums[c]]))


def dice_in_draws(path: Path) -> NDArray[np.float64]:
    """The mean Dice in a thousand draws of whole groups."""
    arrays = np.load(path)
    names, of = np.unique(arrays["group"], return_inverse=True)
    picked = np.random.Generator(np.random.Philox(0)).integers(len(names), size=(1000, len(names)))
    tables = np.stack([arrays["seg"][of == number].sum(0) for number in range(len(names))])
    return np.array([dice_of(tables[draw].sum(0)) for draw in picked])
