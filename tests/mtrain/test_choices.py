"""What the paper does not do, and is off unless asked for: it does what it says, and a run with it resumes exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mtrain.cli import group
from mtrain.config import FitConfig
from mtrain.data.mixing import mixture
from mtrain.data.pool import open_pool
from mtrain.errors import UsageError
from mtrain.model.batchnorm.batchnorm_per_task import TaskBatchNorm, split
from mtrain.model.loss import task_losses
from mtrain.model.network import load_weights, shared_network
from mtrain.model.task_heads import TaskHeads
from mtrain.runs.run_folder import Run
from mtrain.setting_roles import SECTIONS
from mtrain.train import fit
from tests.mtrain.pools import write_pool
from tests.mtrain.test_fit import SMALL, Notes, a_training, config, interrupted

TOGETHER: list[dict[str, Any]] = [
    {"optimizer": "adamw", "schedule": "cosine", "ema": 0.9, "lr": 1e-3, "label_smoothing": 0.1},
    {"batchnorm": "per-task", "temperature": 2.0, "class_balanced": True, "rotations": True, "ema": 0.5},
    {"batchnorm": "frozen", "stain_jitter": 0.2, "colour_jitter": 0.2, "task_weights": {"Alpha": 3.0}},
    {"gradients": "pcgrad", "log_cosines": 2, "optimizer": "adamw", "lr": 1e-3},
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"), ("Alpha", "Beta", "Gamma"), sizes={"train": 16, "val": 5})


@pytest.mark.parametrize(
    ("which", "stopped_at"),
    [(0, 3), (1, 9), (2, 5), (3, 9), *(pytest.param(*more, marks=pytest.mark.stress) for more in [(0, 9), (1, 4)])],
)
def test_an_interrupted_run_ends_with_the_same_bits(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int, stopped_at: int
) -> None:
    """Stopped in the warm-up, at its end, just after it, and later."""
    settings = config(shards, **TOGETHER[which], validate_every=6)
    whole, resumed = Run(tmp_path / "whole" / "toy"), Run(tmp_path / "resumed" / "toy")
    assert fit.fit(settings, whole, Notes()) == "finished"
    interrupted(monkeypatch, resumed, settings, stopped_at)
    assert fit.fit(settings, resumed, Notes()) == "finished"
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    load_weights(shared_network(SMALL, "random").body, whole.weights, SMALL)  # under the network's own names


@pytest.mark.parametrize(
    "chosen",
    [
        {"optimizer": "adamw"},
        {"schedule": "cosine"},
        {"ema": 0.5},
        {"label_smoothing": 0.2},
        {"temperature": 1.0},
        {"task_weights": {"Alpha": 5.0}},
        {"class_balanced": True},
        {"rotations": True},
        {"stain_jitter": 0.2},
        {"colour_jitter": 0.2},
        {"batchnorm": "frozen"},
        {"batchnorm": "train"},
        {"batchnorm": "per-task"},
        {"gradients": "pcgrad"},
        {"gradients": "upgrad"},
    ],
    ids=str,
)
def test_each_choice_changes_the_weights_and_the_digest(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    """Tasks of other sizes, so that a temperature tells them apart."""
    pool = tmp_path_factory.mktemp("pool")
    write_pool(pool, ("Alpha",), sizes={"train": 24})
    write_pool(pool, ("Beta",), sizes={"train": 6})
    plain = config(pool, leave_out=(), iterations=4, warmup=1)
    other = plain.model_copy(update=chosen)
    assert other.determining() != plain.determining()
    left = []
    for name, settings in (("plain", plain), ("other", other)):
        run = Run(tmp_path / name / "toy")
        assert fit.fit(settings, run, Notes()) == "finished"
        left.append(run.weights.read_bytes())
    assert left[0] != left[1]


def test_choices_that_are_off_leave_no_trace_in_the_digest() -> None:
    assert not {"optimizer", "ema", "batchnorm", "task_weights"} & FitConfig().determining().keys()


def test_smoothing_by_hand() -> None:
    """0.1 of the target to three classes alike."""
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    target = torch.tensor([[0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]])
    expected = -(target * F.log_softmax(logits, 1)).sum()
    heads = TaskHeads(1, {"A": 3, "B": 2})
    logits = torch.cat([logits, torch.full((1, 2), 50.0)], dim=1)  # of another task, which get no share of the target
    assert task_losses(logits, labels, torch.tensor([0]), heads, 0.1)[0] == pytest.approx(float(expected))


def test_frozen_statistics_stand_still_and_weights_do_not(shards: Path) -> None:
    training = a_training(shards, warmup=0, batchnorm="frozen")
    layers = [m for m in training.model.shared.modules() if isinstance(m, _BatchNorm)]
    means = [layer.running_mean.clone() for layer in layers if layer.running_mean is not None]
    weights = [layer.weight.clone() for layer in layers]
    for batch in training.drawn(range(2)):
        training.step(batch)
    assert all(torch.equal(a, b.running_mean) for a, b in zip(means, layers, strict=True) if b.running_mean is not None)
    assert not all(torch.equal(a, b.weight) for a, b in zip(weights, layers, strict=True))


def test_statistics_of_a_task_are_those_of_its_own_images(shards: Path) -> None:
    training = a_training(shards, warmup=0, batchnorm="per-task")
    split(training.model.shared, len(training.tasks))
    layer = next(m for m in training.model.shared.modules() if isinstance(m, TaskBatchNorm))
    before, _ = (values.clone() for values in layer.statistics())
    [batch] = training.drawn(range(1))
    training.step(batch)
    moved = (layer.statistics()[0] != before).any(1)
    assert moved.tolist() == [bool(count) for count in batch.counts]


def test_the_temperature_by_hand(tmp_path: Path) -> None:
    """Sizes 4 and 16: at 2 the chances are as 1 to 2, at 1 as 1 to 4; with a weight of 3 on the small, 3 to 4."""
    write_pool(tmp_path, ("Small",), sizes={"train": 4})
    write_pool(tmp_path, ("Large",), sizes={"train": 16})
    pool = open_pool(tmp_path)
    assert [task.name for task in pool.tasks] == ["Large", "Small"]
    for chosen, share in (
        ({"temperature": 2.0}, 2 / 3),
        ({"temperature": 1.0}, 4 / 5),
        ({"task_weights": {"Small": 3.0}}, 1 / 4),
        ({"temperature": 1.0, "task_weights": {"Small": 3.0}}, 4 / 7),
    ):
        bounds = mixture(FitConfig(**chosen), pool).bounds
        assert bounds is not None
        assert int(bounds[0]) / 2**64 == pytest.approx(share)


@pytest.mark.parametrize(
    ("weights", "told"),
    [({"Alfa": 2.0}, "did you mean Alpha"), ({"Alpha": 0, "Beta": 0, "Gamma": 0}, "every weight is 0")],
)
def test_weights_that_make_no_sense_are_refused(shards: Path, weights: dict[str, float], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        mixture(FitConfig(task_weights=weights), open_pool(shards))


def test_weights_go_by_the_names_of_tasks_without_case(shards: Path) -> None:
    pool = open_pool(shards)
    one, other = (vars(mixture(FitConfig(task_weights={name: 3.0}), pool)) for name in ("alpha", "Alpha"))
    assert repr(one) == repr(other)
    with pytest.raises(UsageError, match="Alpha has two weights"):
        mixture(FitConfig(task_weights={"alpha": 3.0, "Alpha": 2.0}), pool)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--task-weight", "Lung"], "NAME=NUMBER"),
        (["--task-weight", "Lung=x"], "NAME=NUMBER"),
        (["--batchnorm", "per-task", "--compile"], "per-task does not go with --compile"),
        (["--class-balanced", "--stream"], "--class-balanced: chooses images by class"),
        (["--ema", "1"], "--ema"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(shards: Path, options: list[str], told: str) -> None:
    found = CliRunner().invoke(group, ["fit", "--shards", str(shards), *options])
    assert found.exit_code != 0
    assert told in found.output + str(found.exception)


def test_flags_that_exclude_each_other_are_not_shown_as_values(shards: Path) -> None:
    found = CliRunner().invoke(group, ["fit", "--shards", str(shards), "--class-balanced", "--stream"])
    assert str(found.exception) == "--class-balanced: chooses images by class, but --stream takes them as they come"


def test_help_fits_a_screen_and_help_all_shows_every_option() -> None:
    flags = ("--help", "--help-all", "--help")
    short, whole, again = (CliRunner().invoke(group, ["fit", flag]).output for flag in flags)
    assert again == short
    assert len(short.splitlines()) <= 40
    assert "--help-all" in short
    for name in FitConfig.model_fields:
        flag = name.removesuffix("s") if name in ("task_weights", "backbone_options") else name
        assert f"--{flag.replace('_', '-')}" in whole
    assert all(f"\n{title}:\n" in whole for title in SECTIONS)


def test_every_setting_is_in_one_section_of_the_help() -> None:
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(FitConfig.model_fields)
