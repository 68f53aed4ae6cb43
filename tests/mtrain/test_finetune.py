"""Fine-tuning: an epoch is every image once, the best epoch is kept, and a killed tuning ends with the same bits."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dpconvert.runtime import locks
from mtrain.data import sampling
from mtrain.data.batches.image_batches import EpochBatches
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import batches
from mtrain.data.task import Task, open_task
from mtrain.errors import RunError, UsageError
from mtrain.model.backbones import Body
from mtrain.model.network import SharedNetwork
from mtrain.scoring import metrics
from mtrain.train import checkpoint
from mtrain.transfers import finetune_rate
from mtrain.transfers.finetune import Tuned, divide, finetune
from mtrain.transfers.finetune_rate import Recipe, Sets, Tuning, logits, new_classifier
from tests.mtrain.pools import write_task
from tests.mtrain.test_fit import Notes

RECIPE = Recipe(epochs=3, rates=(0.05, 1e-6), batch=8, size=32, workers=0, device="cpu")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """20 training samples of three classes."""
    return open_task(write_task(tmp_path_factory.mktemp("s") / "Gamma", classes=3, sizes={"train": 20, "val": 9}))


@pytest.fixture(scope="module")
def start() -> SharedNetwork:
    """A tiny network with what makes going on hard: batch normalization and dropout."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, 4),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
    ]
    return SharedNetwork("tiny", Body(nn.Sequential(*layers)))


@pytest.fixture(autouse=True)
def checkpoints_after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune_rate, "CHECKPOINT_SECONDS", 0.0)


class KilledError(Exception):
    """Stands for the death of the process."""


def sets_of(task: Task) -> Sets:
    return divide(task, task.rows["train"], task.rows["val"])


def tuned(start: SharedNetwork, task: Task, folder: Path, notes: Notes | None = None, **changed: Any) -> Tuned:
    return finetune(start, task, sets_of(task), replace(RECIPE, **changed), folder, notes or Notes())


def bits(found: Tuned) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in found.model.state_dict().items()}


def kill_in(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """At that step, counted from 1 over all rates."""
    plain, seen = Tuning._step, []

    def counted(self: Tuning, number: int, batch: Any) -> torch.Tensor:
        seen.append(number)
        if len(seen) == step:
            raise KilledError
        return plain(self, number, batch)

    monkeypatch.setattr(Tuning, "_step", counted)


# --- batches ---


def test_an_epoch_is_every_image_once_in_batches_of_nearly_one_size(task: Task) -> None:
    dataset = EpochBatches(Images([(task, task.rows["train"])]), 32, 5, 8)
    assert dataset.parts == 3
    items = list(batches(dataset, range(6), workers=0))
    assert [len(item.labels) for item in items] == [6, 7, 7] * 2
    for number in range(2):
        order = sampling.epoch(20, 5, number).row
        found = torch.cat([item.labels for item in items[3 * number : 3 * number + 3]])
        assert found.tolist() == task.rows["train"].label[order].tolist()
    again = list(batches(dataset, range(3, 6), workers=2))
    assert all(torch.equal(one.images(32), other.images(32)) for one, other in zip(again, items[3:], strict=True))


# --- one rate ---


def test_an_epoch_is_what_the_formulas_say(task: Task, start: SharedNetwork) -> None:
    """v <- 0.9 v + g; p <- p - rate v, with g the gradient of the batch's mean cross-entropy, for every parameter."""
    ours = Tuning(0.01, start, task, sets_of(task), replace(RECIPE, epochs=1))
    plain = new_classifier(start, task, RECIPE).train()
    velocity: dict[str, torch.Tensor] = {}
    losses = []
    for number, batch in enumerate(batches(ours.dataset, range(3), workers=0)):
        torch.manual_seed(sampling.model_seed(0, number))
        images = plain.shared.normalize(batch.images(RECIPE.size))
        loss = F.cross_entropy(plain(images), batch.labels)
        plain.zero_grad()
        loss.backward()
        losses += [float(loss.detach())] * len(batch.labels)
        for name, parameter in plain.named_parameters():
            assert parameter.grad is not None
            velocity[name] = 0.9 * velocity.get(name, 0) + parameter.grad
            parameter.data -= 0.01 * velocity[name]
    (found,) = ours._epochs()
    assert found == pytest.approx(np.mean(losses), rel=1e-5)
    for (name, one), other in zip(ours.model.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=name)


def test_the_new_layer_depends_on_the_seed_and_the_start_stays_what_it_was(task: Task, start: SharedNetwork) -> None:
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(np.random.default_rng().integers(1000))
        heads.append(new_classifier(start, task, replace(RECIPE, seed=seed)).head.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    Tuning(0.1, start, task, sets_of(task), replace(RECIPE, epochs=1)).run(Path("/nowhere"), Notes())
    assert all(torch.equal(tensor, before[name]) for name, tensor in start.state_dict().items())


def test_of_equally_good_epochs_the_first_is_kept_and_patience_counts_from_it(
    task: Task, start: SharedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter([0.2, 0.5, 0.5, 0.4, 0.9])
    monkeypatch.setattr(metrics, "score", lambda *_: next(given))
    ours = Tuning(0.01, start, task, sets_of(task), replace(RECIPE, epochs=10, early_stop=2))
    outcome = ours.run(tmp_path, Notes())
    assert [score for _, score in outcome.history] == [0.2, 0.5, 0.5, 0.4]
    assert (outcome.epoch, outcome.score, outcome.diverged) == (2, 0.5, False)
    assert not torch.equal(ours.best["head.weight"], ours.model.head.weight)


def test_a_rate_that_diverges_keeps_its_best_finite_epoch(task: Task, start: SharedNetwork, tmp_path: Path) -> None:
    notes = Notes()
    found = tuned(start, task, tmp_path, notes, rates=(1e30, 0.05))
    assert (found.outcomes[0].diverged, found.outcomes[0].epoch) == (True, 0)
    assert found.best.rate == 0.05
    assert "Gamma: diverged at rate 1e+30 in epoch 1" in notes.said
    assert all(torch.isfinite(tensor).all() for tensor in found.model.state_dict().values())
    with pytest.raises(RunError, match="no learning rate gave a finite network; give lower rates"):
        tuned(start, task, tmp_path, rates=(1e30,))


# --- all rates ---


def test_the_best_rate_wins_and_its_network_gives_its_score(task: Task, start: SharedNetwork, tmp_path: Path) -> None:
    found = tuned(start, task, tmp_path, epochs=20)
    assert [outcome.rate for outcome in found.outcomes] == [0.05, 1e-6]
    assert all(len(outcome.history) == 20 for outcome in found.outcomes)
    assert found.best.score == max(outcome.score for outcome in found.outcomes) > 0.5
    values = metrics.decisions_of(logits(found.model, task, task.rows["val"], RECIPE))
    assert metrics.score("accuracy", task.rows["val"].label, values) == found.best.score
    (place,) = tmp_path.iterdir()
    kept = {path.name for path in place.iterdir()} - {".lock"}
    assert kept == {"rate-0.05.json", "rate-1e-06.json", f"rate-{found.best.rate:g}.safetensors"}


@pytest.mark.parametrize("step", [2, 5, 10, 14], ids=["first epoch", "second", "second rate", "its second epoch"])
def test_a_killed_tuning_goes_on_to_the_same_bits(
    task: Task, start: SharedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole = tuned(start, task, tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_in(patch, step)
        with pytest.raises(KilledError):
            tuned(start, task, tmp_path / "cut")
    notes = Notes()
    found = tuned(start, task, tmp_path / "cut", notes)
    assert any("resumed after epoch 1" in note for note in notes.said) == (step in (5, 14))
    assert found.outcomes == whole.outcomes
    assert bits(found) == bits(whole)


def killed_in_step_5(start: SharedNetwork, task: Task, out: Path) -> None:
    """What a fork of this process does; each start of torch costs seconds."""
    torch.set_num_threads(1)
    plain = Tuning._step

    def step(self: Tuning, number: int, batch: Any) -> Any:
        if number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, number, batch)

    finetune_rate.CHECKPOINT_SECONDS, Tuning._step = 0.0, step  # type: ignore[method-assign]
    tuned(start, task, out, rates=(0.05,))


def test_a_process_that_is_killed_leaves_what_another_goes_on_with_to_the_same_bits(
    task: Task, start: SharedNetwork, tmp_path: Path
) -> None:
    process = multiprocessing.get_context("fork").Process(target=killed_in_step_5, args=(start, task, tmp_path / "cut"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    notes = Notes()
    found = tuned(start, task, tmp_path / "cut", notes, rates=(0.05,))
    assert notes.said == ["Gamma: resumed after epoch 1 at rate 0.05"]
    assert bits(found) == bits(tuned(start, task, tmp_path / "whole", rates=(0.05,)))


def test_a_second_process_at_the_same_fine_tuning_is_refused(task: Task, start: SharedNetwork, tmp_path: Path) -> None:
    tuned(start, task, tmp_path, epochs=1, rates=(0.05,))
    (place,) = tmp_path.iterdir()
    told = rf"another process is fine-tuning here; found process {os.getpid()} on .*; wait for it"
    with locks.held(place / locks.NAME), pytest.raises(RunError, match=told):
        tuned(start, task, tmp_path, epochs=1, rates=(0.05,))


def test_a_damaged_checkpoint_is_passed_over(
    task: Task, start: SharedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_in(patch, 8)
        with pytest.raises(KilledError):
            tuned(start, task, tmp_path)
    (folder,) = tmp_path.glob("*/rate-0.05")
    newest, _ = checkpoint.newest(folder)
    newest.write_bytes(b"?")
    notes = Notes()
    tuned(start, task, tmp_path, notes)
    assert "the previous one is used" in notes.said[0]
    assert notes.said[1] == "Gamma: resumed after epoch 1 at rate 0.05"


def test_a_finished_tuning_is_recognised_and_another_rate_is_added_alone(
    task: Task, start: SharedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tuned(start, task, tmp_path)
    with monkeypatch.context() as patch:
        kill_in(patch, 1)
        assert bits(tuned(start, task, tmp_path, workers=1)) == bits(first)
    with monkeypatch.context() as patch:
        kill_in(patch, 10)  # three epochs of three steps, and no more
        assert len(tuned(start, task, tmp_path, rates=(0.05, 1e-6, 1e-7)).outcomes) == 3
    loser = next(outcome.rate for outcome in first.outcomes if outcome.rate != first.best.rate)
    assert tuned(start, task, tmp_path, rates=(loser,)).best.rate == loser  # its weights had been removed
    assert len(list(tmp_path.iterdir())) == 1
    tuned(start, task, tmp_path, seed=1, rates=(0.05,))
    assert len(list(tmp_path.iterdir())) == 2


# --- sets ---


def test_without_a_validation_set_whole_groups_of_the_training_set_take_its_place(tmp_path: Path) -> None:
    alone = open_task(write_task(tmp_path / "Omega", sizes={"train": 40}))
    sets = sets_of(alone)
    assert len(sets.train) + len(sets.val) == 40
    assert len(sets.val) == 8
    assert not {*sets.train.group} & {*sets.val.group}
    assert sets.notes == ("Omega has no validation set: 8 of its 40 training samples, in whole groups, take its place",)


@pytest.mark.parametrize(("alone", "lost"), [([2], ""), ([0, 1, 2], "'class-0'")])
def test_a_class_of_a_single_group_is_trained_on(tmp_path: Path, alone: list[int], lost: str) -> None:
    """The folds are dealt the groups with the largest share of a class first."""
    task = open_task(write_task(tmp_path / "Omega", classes=3, sizes={"train": 36}))
    rows = task.rows["train"]
    groups = [f"class {c}" if c in alone else group for c, group in zip(rows.label, rows.group, strict=True)]
    sets = divide(task, replace(rows, group=np.array(groups, object)), task.rows["val"])
    assert [c for c in range(3) if c not in sets.train.label] == ([0] if lost else [])
    assert any(f"all training samples of {lost} are among them" in note for note in sets.notes) == bool(lost)


def test_a_validation_set_of_one_class_chooses_by_accuracy_and_one_class_to_train_on_is_refused(
    tmp_path: Path,
) -> None:
    task = open_task(write_task(tmp_path / "Omega", sizes={"train": 8, "val": 1}))
    sets = sets_of(task)
    assert (task.metric, sets.metric) == ("roc_auc", "accuracy")
    assert "holds one class only: accuracy chooses" in sets.notes[0]
    with pytest.raises(UsageError, match="less than two classes"):
        divide(task, task.rows["train"].take([0, 2]), task.rows["val"])


def test_outcomes_on_disk_are_plain_numbers(task: Task, start: SharedNetwork, tmp_path: Path) -> None:
    found = tuned(start, task, tmp_path, rates=(0.05,), epochs=2)
    (path,) = tmp_path.glob("*/rate-0.05.json")
    content = json.loads(path.read_bytes())
    assert content["history"] == found.best.history
    assert all(math.isfinite(value) for pair in content["history"] for value in pair)


# --- a part of the network ---


@pytest.fixture(scope="module")
def transformer() -> SharedNetwork:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return SharedNetwork("vit", Body(timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes), size=32))


def moved(start: SharedNetwork, found: Tuned) -> set[str]:
    before, after = start.body.state_dict(), found.model.shared.body.state_dict()
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("tune", "pattern"),
    [
        ("heads", r"(?!)"),
        ("bias", r".*\.bias"),
        ("last:1", r"blocks\.1\..*|norm\..*"),
        ("lora:2", r".*attn\.(qkv|proj)\.weight"),
    ],
)
def test_a_part_of_the_network_is_tuned_and_the_rest_stays(
    task: Task, transformer: SharedNetwork, tmp_path: Path, tune: str, pattern: str
) -> None:
    found = tuned(transformer, task, tmp_path, tune=tune, rates=(0.05,), epochs=2)
    names = moved(transformer, found)
    assert all(re.fullmatch(pattern, name) for name in names)
    assert bool(names) == (tune != "heads")
    recipe = replace(RECIPE, tune=tune)
    scored = metrics.score(
        "accuracy", sets_of(task).val.label, metrics.decisions_of(logits(found.model, task, sets_of(task).val, recipe))
    )
    assert scored == pytest.approx(found.best.score)


def test_the_rate_of_a_fine_tuning_falls_from_block_to_block(task: Task, transformer: SharedNetwork) -> None:
    recipe = replace(RECIPE, layer_decay=0.5)
    groups = Tuning(0.8, transformer, task, sets_of(task), recipe).optimizer.param_groups
    assert [group["lr"] for group in groups] == [0.8, 0.8, 0.4, 0.2, pytest.approx(0.1)]


def test_a_network_that_stands_still_keeps_its_statistics(task: Task, start: SharedNetwork, tmp_path: Path) -> None:
    assert moved(start, tuned(start, task, tmp_path, tune="heads", rates=(0.05,), epochs=2)) == set()


def test_what_is_off_does_not_enter_what_a_result_depends_on() -> None:
    assert not {"tune", "layer_decay", "workers", "device"} & RECIPE.determining().keys()
    assert replace(RECIPE, tune="bias", layer_decay=0.5).determining().items() >= {
        ("tune", "bias"),
        ("layer_decay", 0.5),
    }
