"""Options that were given and have no effect are said, by whatever command they were given to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mtrain.cli import group
from mtrain.cli.scores import MODES
from mtrain.config import FitConfig
from mtrain.transfers import modes, request
from tests.mtrain.test_damage import made, mtrain, place

__all__ = ["made", "place"]


def unused(*words: str) -> list[str]:
    found = mtrain(*words)
    assert found.exit_code == 0, found.exception
    return re.findall(r"^(--\S+) is not used: ", found.stderr, flags=re.MULTILINE)


def test_every_mode_says_which_options_it_reads() -> None:
    assert list(request.READS) == list(modes.MODES) == MODES
    parameters = {parameter.name for parameter in group.commands["transfer"].params}
    assert parameters >= request.CHOICES
    assert set(request.unread(["svm", "finetune", "dense"])) == set()
    assert set(request.unread(["svm", "finetune"])) == {"steps"}
    assert set(request.unread(["knn"])) == {
        "solver", "epochs", "rates", "batch", "early_stop", "seed", "steps", "tune", "layer_decay",
    }  # fmt: skip
    assert "seed" not in request.unread(["svm"], "random")


def test_options_of_other_modes_are_said(place: Path) -> None:
    given = ["--epochs", "3", "--lr", "0.1", "--seed", "4", "--solver", "sklearn", "--batch", "8"]
    words = ["transfer", "--mode", "knn", "--target", "Gamma", "--workers", "0"]
    assert unused(*words, *given) == ["--solver", "--epochs", "--lr", "--batch", "--seed"]
    assert unused(*words) == []
    assert mtrain(*words, *given, "--quiet").stderr == ""


def test_a_seed_draws_the_random_weights_that_are_asked_for(place: Path) -> None:
    words = ["transfer", "--mode", "knn", "--target", "Gamma", "--workers", "0", "--weights", "random", "--json"]
    digests = []
    for seed in ([], ["--seed", "0"], ["--seed", "7"]):
        assert unused(*words, *seed) == []
        (path,) = Path("runs/toy/transfer").glob("Gamma-knn-random.json")
        digests.append(re.findall(r'"weights_digest": "(\w+)"', path.read_text())[0])
    assert digests[0] == digests[1] != digests[2]  # the run's own seed is 0


def test_settings_without_an_effect_are_said(place: Path) -> None:
    words = ["fit", "--run", "other", "--optimizer", "adamw", "--momentum", "0.5", "--batchnorm", "frozen"]
    words += ["--adapt-batches", "3", "--warmup", "0", "--warmup-lr", "0.1", "--iterations", "1", "--batch", "4"]
    words += ["--size", "32", "--workers", "0", "--backbone", "shufflenet_v2_x0_5", "--weights", "random"]
    words += ["--sync-batchnorm", "--leave-out", "Gamma"]
    assert sorted(unused(*words)) == ["--adapt-batches", "--momentum", "--sync-batchnorm", "--warmup-lr"]
    assert unused("report", "--run", "toy", "--paper") == ["--paper"]


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({}, set()),
        ({"optimizer": "adamw"}, {"momentum"}),
        ({"batchnorm": "train"}, {"adapt_batches"}),
        ({"batchnorm": "per-task"}, set()),
        ({"iterations": 4, "warmup": 4}, {"lr", "tau", "schedule"}),
        ({"train_on": "train"}, {"joint"}),
    ],
)
def test_what_has_no_effect_beside_other_settings(settings: dict[str, Any], idle: set[str]) -> None:
    assert set(FitConfig(shards="x", **settings).idle()) == idle
