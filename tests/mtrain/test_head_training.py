"""Heads that are trained on features computed once end as heads trained on the images themselves would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from dpconvert.arguments import in_arguments, of_model
from mtrain.config import FitConfig
from mtrain.data import sampling
from mtrain.data.batches.augment import CENTRE
from mtrain.data.batches.images import Images
from mtrain.data.pool import open_pool
from mtrain.errors import UsageError
from mtrain.model.network import shared_network
from mtrain.runs.run_folder import Run
from mtrain.sweep.schema import json_schema
from mtrain.train.distributed import Ranks
from mtrain.train.fit import fit
from mtrain.train.head_training import CACHE
from tests.mtrain.test_backbone_runs import config_of, write_world
from tests.mtrain.test_damage import mtrain
from tests.mtrain.test_fit import Notes

pytest.importorskip("timm")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("heads"))


def settings(made: Path, **given: Any) -> FitConfig:
    return config_of(
        made,
        **({"validate_every": 3, "log_every": 1, "train_on": "train", "tune": "heads", "features": "cached"} | given),
    )


def without_augmentation(words: Any) -> tuple[Any, Any]:
    return np.full(len(words), CENTRE), np.zeros((len(words), 2), dtype=bool)


def numbers(run: Run) -> dict[tuple[Any, ...], float]:
    """The losses and validation accuracies of a run's log, by iteration and name."""
    found = {}
    for event in run.events():
        values = {**event.get("tasks", {}), **event.get("accuracy", {}), "loss": event.get("loss", 0.0)}
        found |= {(event["event"], event.get("iteration"), name): value for name, value in values.items()}
    return found


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"accumulate": 2, "class_balanced": True, "ema": 0.9, "optimizer": "adamw", "schedule": "cosine"},
        {"train_on": "train+val", "validate_every": 0, "label_smoothing": 0.1, "task_weights": {"Beta": 3.0}},
    ],
)
def test_the_heads_are_those_of_the_same_images_online(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    monkeypatch.setattr(sampling, "_augmentation", without_augmentation)
    online, cached = Run(tmp_path / "online"), Run(tmp_path / "cached")
    assert fit(settings(made, features="online", **given), online, Notes()) == "finished"
    assert fit(settings(made, **given), cached, Notes()) == "finished"
    one, two = load_file(online.heads), load_file(cached.heads)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6, msg=name)
    one, two = load_file(online.weights), load_file(cached.weights)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert numbers(online).keys() >= {("step", 6, "loss"), ("step", 6, "Beta")}
    assert numbers(cached) == pytest.approx(numbers(online), rel=1e-4)


def test_the_features_are_those_of_central_squares(made: Path, tmp_path: Path) -> None:
    fit(settings(made), Run(tmp_path / "run"), Notes())
    task, network = (
        open_pool(made / "shards").tasks[0],
        shared_network(str(made / "tiny.toml"), made / "tiny.safetensors"),
    )
    tables = [load_file(path)["features"] for path in (tmp_path / CACHE).glob("Alpha-*.safetensors")]
    (table,) = [table for table in tables if len(table) == len(task.rows["train"])]
    pixels = Images([(task, task.rows["train"])]).decode(5)
    side = min(pixels.shape[:2])
    top, left = ((length - side + 1) // 2 for length in pixels.shape[:2])
    crop = torch.from_numpy(pixels[top : top + side, left : left + side].copy()).permute(2, 0, 1)[None]
    image = F.interpolate(crop, size=(28, 28), mode=network.interpolation, antialias=True)
    with torch.inference_mode():
        expected = network.eval()(network.normalize(image))[0]
    torch.testing.assert_close(table[5], expected, rtol=1e-4, atol=1e-5)


def test_features_are_computed_once_for_all_runs_in_a_folder(made: Path, tmp_path: Path) -> None:
    first, second = Notes(), Notes()
    fit(settings(made), Run(tmp_path / "one"), first)
    fit(settings(made, lr=0.01, tau=2.0, seed=3), Run(tmp_path / "two"), second)
    of = [name for name, _ in first.bars if "features of" in name]
    assert of == [f"{task}: features of {split}" for split in ("train", "val") for task in ("Alpha", "Beta")]
    assert not [name for name, _ in second.bars if "features of" in name]
    assert any("no random crops and flips" in text for text in first.said)


def test_a_run_that_is_resumed_ends_with_the_same_bits_even_if_its_features_are_damaged(
    made: Path, tmp_path: Path
) -> None:
    whole, parts = Run(tmp_path / "a" / "run"), Run(tmp_path / "b" / "run")
    for run in (whole, parts):
        assert fit(settings(made), run, Notes()) == "finished"
    for path in sorted(parts.checkpoints.glob("*.safetensors"))[1:]:  # as if it had been killed after iteration 3
        path.unlink()
    for path in (parts.weights, parts.heads):
        path.unlink()
    path = min((tmp_path / "b" / CACHE).iterdir())
    *kept, last = path.read_bytes()
    path.write_bytes(bytes([*kept, last ^ 1]))
    said = Notes()
    assert fit(settings(made), parts, said) == "finished"
    assert any("computed again" in text for text in said.said)
    assert any("resumed after iteration 3" in text for text in said.said)
    assert whole.heads.read_bytes() == parts.heads.read_bytes()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tune": "all"}, "cached is for --tune heads"),
        ({"tune": "lora:2"}, "cached is for --tune heads"),
        ({"rotations": True}, "--rotations"),
        ({"stain_jitter": 0.1}, "--stain-jitter"),
        ({"colour_jitter": 0.1}, "--colour-jitter"),
        ({"stream": True}, "--stream"),
        ({"dense": True}, "--dense"),
        ({"skip_corrupt": 2}, "--skip-corrupt"),
        ({"batchnorm": "per-task"}, "per-task"),
    ],
)
def test_what_cached_features_cannot_do_is_refused_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(in_arguments(said, of_model(FitConfig)))):
        FitConfig(**({"tune": "heads", "features": "cached"} | given))


def test_several_processes_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--features cached trains in one process"):
        fit(settings(made), Run(tmp_path / "run"), Notes(), Ranks(0, 2))
    assert not (tmp_path / "run").exists()


def test_runs_from_before_the_choice_keep_their_digests(made: Path, tmp_path: Path) -> None:
    assert "features" not in settings(made, features="online").determining()
    assert settings(made).determining()["features"] == "cached"
    assert "features" in json_schema()["properties"]["fit"]["properties"]


def test_the_command_refuses_cached_features_of_a_network_that_moves(made: Path, tmp_path: Path) -> None:
    words = ["fit", "--shards", str(made / "shards"), "--runs", str(tmp_path), "--features", "cached"]
    done = mtrain(*words)
    assert isinstance(done.exception, UsageError)
    assert "--features: cached is for --tune heads" in str(done.exception)
