"""Recorded iterations, with a double of a CUDA graph on the processor."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from mtrain.model.batchnorm import batchnorm_per_task
from mtrain.train.graph import UNRECORDED
from mtrain.train.inputs import Inputs
from mtrain.train.trainer import Training
from tests.mtrain.dense_networks import dense_training
from tests.mtrain.dense_pools import write_mixed_pool
from tests.mtrain.pools import write_pool
from tests.mtrain.recordings import Double, FirstFails, OfTheProcessor, Unsupported, Wrong
from tests.mtrain.test_device import locked
from tests.mtrain.test_fit import a_training

ITERATIONS = UNRECORDED + 4
CHOICES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "adamw": {"optimizer": "adamw", "schedule": "cosine", "weight_decay": 0.01},
    "augmented": {
        "rotations": True,
        "stain_jitter": 0.1,
        "colour_jitter": 0.1,
        "label_smoothing": 0.1,
        "ema": 0.9,
        "schedule": "cosine",
    },
    "frozen": {"batchnorm": "frozen"},
    "heads": {"tune": "heads"},
    "statistics of each task": {"batchnorm": "per-task", "class_balanced": True},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More tasks than a batch has images, whose sides differ: heads are empty, batches differ in bytes."""
    folder = tmp_path_factory.mktemp("pool")
    for number, side in enumerate([16, 20, 24, 32, 40]):
        write_pool(folder, (f"Task{number}",), sizes={"train": 6, "val": 2}, shape=(side, side))
    return folder


@pytest.fixture(scope="module")
def unresized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of the network's size: the recorded products with weights round those of other sizes otherwise."""
    names = [f"Task{number}" for number in range(5)]
    return write_pool(tmp_path_factory.mktemp("pool"), names, sizes={"train": 6, "val": 2}, shape=(16, 16))


def trained(shards: Path, recording: Any, numbers: range, state: Any = None, **choices: Any) -> tuple[Training, Any]:
    """A training that has run these iterations, and their losses."""
    settings = {"leave_out": (), "warmup": 0, "batch": 4, "size": 16, "iterations": 2 * ITERATIONS} | choices
    training = a_training(shards, **settings)
    if training.config.batchnorm == "per-task":
        batchnorm_per_task.split(training.model.shared, len(training.tasks))
    if state is not None:
        training.iteration = numbers.start
        training.restore(state)
    training.recording = recording
    losses = [training.step(*parts) for parts in training.iterations(numbers)]
    return training, torch.stack(losses)


def whole_state(training: Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.state().items()}


def agree(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_recorded_iterations_have_the_bits_of_the_same_iterations_without_a_recording(
    shards: Path, choices: dict[str, Any]
) -> None:
    recorded, losses = trained(shards, Double, range(ITERATIONS), **choices)
    assert recorded.recorded is not None
    assert recorded.recorded.losses
    plain, expected = trained(shards, Unsupported, range(ITERATIONS), **choices)
    assert torch.equal(losses, expected)
    assert agree(whole_state(recorded), whole_state(plain))


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_recorded_iterations_are_those_of_a_training_without_graphs_but_for_rounding(
    unresized: Path, choices: dict[str, Any]
) -> None:
    """Of learning rates, which are tensors in single precision."""
    recorded, losses = trained(unresized, Double, range(ITERATIONS), lr=1e-6, **choices)
    plain, expected = trained(unresized, None, range(ITERATIONS), lr=1e-6, **choices)
    assert torch.equal(losses[0], expected[0])
    assert torch.allclose(losses, expected, rtol=0.01)
    assert recorded.counts == plain.counts


def test_the_warm_up_and_the_training_are_recorded_one_after_the_other(shards: Path) -> None:
    training, losses = trained(shards, Double, range(2 * ITERATIONS), warmup=ITERATIONS)
    assert training.recorded is not None
    assert training.recorded.losses
    _, expected = trained(shards, Unsupported, range(2 * ITERATIONS), warmup=ITERATIONS)
    assert torch.equal(losses, expected)


@pytest.mark.parametrize("batchnorm", ["adapted", "per-task"])
def test_a_resumed_training_ends_with_the_bits_of_an_undisturbed_one(shards: Path, batchnorm: str) -> None:
    choices = {"batchnorm": batchnorm, "lr": 1e-4}
    calm, _ = trained(shards, Double, range(2 * ITERATIONS), **choices)
    first, _ = trained(shards, Double, range(ITERATIONS), **choices)
    resumed, _ = trained(shards, Double, range(ITERATIONS, 2 * ITERATIONS), whole_state(first), **choices)
    assert agree(whole_state(resumed), whole_state(calm))


@pytest.mark.parametrize(
    ("recording", "reason"),
    [(Unsupported, "operation not permitted when stream is capturing"), (Wrong, "its replay gives other bits")],
)
def test_a_recording_that_is_not_the_iteration_is_said_and_not_used(
    shards: Path, recording: type[Double], reason: str
) -> None:
    said: list[str] = []
    training = a_training(shards, leave_out=(), warmup=0, batch=4, size=16)
    training.recording, training.note = recording, said.append
    for parts in training.iterations(range(ITERATIONS)):
        training.step(*parts)
    assert len(said) == 1
    assert reason in said[0]
    assert training.recorded is not None
    assert not training.recorded.losses
    assert isinstance(training.recorded.recording, Double)
    assert not training.recorded.recording.recorded  # its memory is free


def test_a_recording_that_fails_once_is_tried_again(shards: Path) -> None:
    again, losses = trained(shards, FirstFails, range(ITERATIONS))
    assert again.recorded is not None
    assert again.recorded.losses
    once, expected = trained(shards, Double, range(ITERATIONS))
    assert torch.equal(losses, expected)
    assert agree(whole_state(again), whole_state(once))


DENSE: dict[str, dict[str, Any]] = {
    "defaults": {},
    "warm-up": {"warmup": 20},
    "scaled": {"loss_scale": "log-classes"},
    "augmented adamw": {"optimizer": "adamw", "lr": 1e-4, "rotations": True, "stain_jitter": 0.1, "ema": 0.9},
    "heads": {"tune": "heads"},
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed_pool(tmp_path_factory.mktemp("mixed"))


def trained_on_masks(shards: Path, recording: Any, **choices: Any) -> tuple[Training, torch.Tensor]:
    """A training on masks and points after 40 iterations, and their losses."""
    training = dense_training(shards, precision=torch.float32, **{"iterations": 40, "warmup": 0} | choices)
    training.recording = recording
    losses = [training.step(*parts) for parts in training.iterations(range(40))]
    return training, torch.stack(losses)


@pytest.mark.parametrize("choices", DENSE.values(), ids=DENSE)
def test_each_number_of_images_with_masks_and_points_has_its_own_recording(
    mixed: Path, choices: dict[str, Any]
) -> None:
    recorded, losses = trained_on_masks(mixed, Double, **choices)
    assert recorded.recorded is not None
    assert len(recorded.recorded.losses) > 1
    plain, expected = trained_on_masks(mixed, Unsupported, **choices)
    assert torch.equal(losses, expected)
    assert agree(whole_state(recorded), whole_state(plain))


def test_recorded_iterations_on_masks_and_points_are_those_without_graphs_but_for_rounding(mixed: Path) -> None:
    recorded, losses = trained_on_masks(mixed, Double, lr=1e-6)
    plain, expected = trained_on_masks(mixed, None, lr=1e-6)
    assert torch.allclose(losses[0], expected[0], rtol=1e-3)  # resized at once, their squares are rounded otherwise
    assert torch.allclose(losses, expected, rtol=0.01)
    assert recorded.counts == plain.counts


@pytest.mark.parametrize("choices", DENSE.values(), ids=DENSE)
def test_a_recorded_iteration_touches_no_memory_of_the_processor(
    mixed: Path, choices: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device "meta" is in the place of CUDA. A graph would repeat a copy from memory that is gone."""
    training = dense_training(mixed, precision=torch.float32, **{"iterations": 40, "warmup": 0} | choices)
    assert of_the_processor(training, monkeypatch) == []


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_nor_does_one_on_classes_alone(shards: Path, choices: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    training = a_training(shards, **{"leave_out": (), "warmup": 0, "batch": 8, "size": 16} | choices)
    if training.config.batchnorm == "per-task":
        batchnorm_per_task.split(training.model.shared, len(training.tasks))
    assert of_the_processor(training, monkeypatch) == []


def of_the_processor(training: Training, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operators of a recorded iteration that touch memory of the processor."""
    monkeypatch.setattr(torch, "autocast", lambda *_types, enabled: nullcontext(enabled))
    monkeypatch.setattr(torch.Tensor, "pin_memory", locked)
    device = torch.device("meta")
    training = Training(training.config, training.pool, training.model.to(device), device)
    size, objects = training.config.size, training.objects or 0
    inputs = Inputs(8, size, len(training.tasks), device, part=training.dense, objects=objects)
    inputs.form = 4 if training.dense else 0
    training.optimizer.use_tensors_as_rates()
    training.optimizer.shared = None  # torch's own is fused on CUDA, and does not exist here
    for _ in range(2):  # constants are sent in the first iteration
        with OfTheProcessor() as found:
            training.optimizer.zero_grad()
            training._recorded_losses(inputs).sum().backward()  # type: ignore[no-untyped-call]
            training.optimizer.step(inputs.scales)
    return found.calls
