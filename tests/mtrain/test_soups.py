"""Soups: the arithmetic of weights, what is measured anew, what is refused, and that every command takes the result."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from mtrain.config import FitConfig
from mtrain.disk.documents import write_document
from mtrain.errors import RunError, UsageError
from mtrain.model.batchnorm import batchnorm_adapt
from mtrain.model.network import shared_network
from mtrain.model.weight_files.weights import save_weights, seen_by
from mtrain.runs.run_folder import Run
from mtrain.soups.making import make
from mtrain.soups.weight_arithmetic import SoupRecipe, check_alike, combined
from mtrain.sweep.combination import Combination
from mtrain.sweep.store import Store
from mtrain.train.fit import fit
from tests.mtrain.pools import write_pool
from tests.mtrain.test_fit import Notes
from tests.small_programs import call

SETTINGS: dict[str, Any] = {
    "backbone": "shufflenet_v2_x0_5",
    "iterations": 2,
    "warmup": 0,
    "batch": 8,
    "lr": 0.01,
    "adapt_batches": 1,
    "size": 32,
    "workers": 0,
    "device": "cpu",
    "validate_every": 0,
    "leave_out": ("Gamma", "Delta"),
}
VIT = "timm:vit_tiny_patch16_224"
LORA = {
    "backbone": VIT,
    "backbone_options": {"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": 32},
    "tune": "lora:2",
    "weights": "random",
}
HERE: dict[str, Any] = {"device": "cpu", "workers": 0}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("Alpha", "Beta", "Gamma", "Delta")
    return write_pool(tmp_path_factory.mktemp("soups"), names, sizes={"train": 12, "val": 8, "test": 4})


def trained(shards: Path, path: Path, **changes: Any) -> Run:
    run = Run(path)
    assert fit(FitConfig(**SETTINGS | changes, shards=str(shards)), run, Notes()) == "finished"
    return run


@pytest.fixture(scope="module")
def seeds(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two seeds from one file of weights; both left Gamma out."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(5)
    start = folder / "start.safetensors"
    save_weights(shared_network("shufflenet_v2_x0_5", "random").body, start, "shufflenet_v2_x0_5")
    one, other = (trained(shards, folder / f"seed{seed}", weights=str(start), seed=seed) for seed in (0, 1))
    return one, other


@pytest.fixture(scope="module")
def adapters(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Low-rank updates of one start: of Alpha, of Beta, and of both."""
    folder = tmp_path_factory.mktemp("adapters")
    pools = {"alpha": ("Alpha",), "beta": ("Beta",), "both": ("Alpha", "Beta")}
    return {name: trained(shards, folder / name, **LORA, tasks=tasks) for name, tasks in pools.items()}


def test_a_combination_is_the_weighted_sum_in_the_type_of_the_weights() -> None:
    states = [
        {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([5.0, -2.0]), "n": torch.tensor(4)},
    ]
    found = combined(states, [0.25, 0.75])
    assert found["w"].tolist() == [4.0, -1.0]
    assert found["w"].dtype == torch.float32
    assert found["n"].item() == 3


def test_statistics_are_the_means_of_those_of_the_batches() -> None:
    """Of the second layer, from what the first gives when it normalizes each batch by itself."""
    network = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2), nn.Dropout(0.5))
    batches = [torch.randn(4, 2, 3, 3) * (1 + i) + i for i in range(3)]
    network[0].running_mean.fill_(7.0)
    assert batchnorm_adapt.measure(network, batches) == 2
    arrays = [batch.numpy().astype(np.float64) for batch in batches]
    mean = np.mean([a.mean((0, 2, 3)) for a in arrays], 0)
    variance = np.mean([a.var((0, 2, 3), ddof=1) for a in arrays], 0)
    np.testing.assert_allclose(network[0].running_mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(network[0].running_var.numpy(), variance, rtol=1e-5)
    np.testing.assert_allclose(network[1].running_mean.numpy(), 0, atol=1e-6)
    np.testing.assert_allclose(network[1].running_var.numpy(), 36 / 35, rtol=1e-3)
    assert network[0].momentum == 0.1


def test_a_soup_of_seeds_averages_weights_and_heads_and_measures_statistics(
    seeds: tuple[Run, Run], tmp_path: Path
) -> None:
    run, notes = Run(tmp_path / "soup"), Notes()
    soup = make(SoupRecipe(seeds), run, notes, **HERE)
    found, one, other = (load_file(of.weights) for of in (run, *seeds))
    learnt = [name for name in found if "running" not in name and "tracked" not in name]
    for name in learnt:
        np.testing.assert_allclose(found[name], (one[name].double() + other[name].double()) / 2, atol=1e-6)
    heads = [load_file(of.heads) for of in (run, *seeds)]
    torch.testing.assert_close(heads[0]["Alpha.weight"], (heads[1]["Alpha.weight"] + heads[2]["Alpha.weight"]) / 2)
    assert soup["images"] == 8
    assert f"{soup['batchnorm_layers']} batch-normalization layers measured on 8 training images" in str(notes.said)
    means = [name for name in found if "running_mean" in name]
    assert any(not torch.allclose(found[name], (one[name] + other[name]) / 2) for name in means)
    assert (run.state(), run.left_out()) == (("finished", 2), ["Delta", "Gamma"])
    assert seen_by(run.weights).sets == {"Alpha": ("train", "val"), "Beta": ("train", "val")}


def test_a_soup_is_the_same_again_and_another_of_its_name_is_refused(seeds: tuple[Run, Run], tmp_path: Path) -> None:
    make(SoupRecipe(seeds), Run(tmp_path / "one"), Notes(), **HERE)
    make(SoupRecipe(seeds), Run(tmp_path / "two"), Notes(), **HERE)
    one, two = (load_file(tmp_path / name / "shared.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    notes = Notes()
    assert make(SoupRecipe(seeds), Run(tmp_path / "one"), notes, **HERE)["images"] == 8
    assert notes.said == ["one: exists already"]
    with pytest.raises(RunError, match="another run has this name"):
        make(SoupRecipe(seeds[::-1]), Run(tmp_path / "one"), Notes(), **HERE)


def test_what_adapters_have_learnt_is_added_and_removed(adapters: dict[str, Run], tmp_path: Path) -> None:
    alpha, beta, both = adapters["alpha"], adapters["beta"], adapters["both"]
    torch.manual_seed(0)
    config = alpha.config()
    start = shared_network(alpha.network(), "random").body.state_dict()
    name = "blocks.1.attn.qkv.weight"
    update = {
        run.name: (lambda a: a["blocks.1.attn.qkv.lora_B"] @ a["blocks.1.attn.qkv.lora_A"])(load_file(run.adapter))
        for run in adapters.values()
    }
    total, less = Run(tmp_path / "sum"), Run(tmp_path / "less")
    make(SoupRecipe((alpha, beta), factor=0.5), total, Notes(), **HERE)
    make(SoupRecipe((both,), (beta,)), less, Notes(), **HERE)
    expected = start[name] + 0.5 * (update["alpha"] + update["beta"])
    torch.testing.assert_close(load_file(total.weights)[name], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        load_file(less.weights)[name], start[name] + update["both"] - update["beta"], atol=1e-6, rtol=0
    )
    assert sorted(load_file(total.heads)) == ["Alpha.bias", "Alpha.weight", "Beta.bias", "Beta.weight"]
    assert sorted(load_file(less.heads)) == ["Alpha.bias", "Alpha.weight"]
    assert set(less.seen().sets) == {"Alpha", "Beta"}, "what is removed has been seen"
    assert config.tune == "lora:2"


def test_what_cannot_be_combined_is_refused(
    seeds: tuple[Run, Run], adapters: dict[str, Run], shards: Path, tmp_path: Path
) -> None:
    one, other = seeds
    random0, random1 = (trained(shards, tmp_path / f"r{seed}", weights="random", seed=seed) for seed in (0, 1))
    cases: list[tuple[SoupRecipe, str]] = [
        (SoupRecipe((one,)), "one run has nothing to be averaged with"),
        (SoupRecipe((one, one)), "a run is named twice"),
        (SoupRecipe((one, adapters["alpha"])), "differ in their network"),
        (SoupRecipe((random0, random1)), "differ in the weights that they began from.*random weights of seed 0 and"),
        (SoupRecipe((one, random0)), "differ in the weights that they began from"),
    ]
    for recipe, message in cases:
        with pytest.raises(UsageError, match=message):
            check_alike(recipe)
    with pytest.raises(UsageError, match="has batch normalization"):
        make(SoupRecipe((one, other), factor=1.0), Run(tmp_path / "sum"), Notes(), **HERE)
    with pytest.raises(UsageError, match="no task remains"):
        make(SoupRecipe((adapters["alpha"],), (adapters["both"],)), Run(tmp_path / "none"), Notes(), **HERE)
    with pytest.raises(RunError, match="not finished"):
        check_alike(SoupRecipe((one, unfinished(one, tmp_path))))


def unfinished(run: Run, folder: Path) -> Run:
    """A copy of the run's settings without its weights."""
    copy = Run(folder / "unfinished")
    write_document(copy.path / "config.json", run.about())
    return copy


def test_a_start_is_recognized_by_its_content(seeds: tuple[Run, Run], tmp_path: Path) -> None:
    """A start of another path with the same tensors is the same start."""
    one, other = seeds
    copy = tmp_path / "copy.safetensors"
    save_file(load_file(other.config().weights), copy, {"backbone": '"shufflenet_v2_x0_5"'})
    about = other.about()
    moved = Run(tmp_path / "moved")
    write_document(moved.path / "config.json", about | {"config": about["config"] | {"weights": str(copy)}})
    write_document(moved.path / "state.json", {"state": "finished", "iteration": about["config"]["iterations"]})
    (moved.path / "heads.safetensors").write_bytes(other.heads.read_bytes())
    save_file(load_file(other.weights), moved.weights)  # as an earlier version: neither states the settings
    check_alike(SoupRecipe((one, moved)))


def test_every_command_takes_a_soup(
    seeds: tuple[Run, Run], shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ["--runs", str(seeds[0].path.parent)]
    here = ["--device", "cpu", "--workers", "0", "--quiet"]
    assert call("mtrain", ["soup", *runs, "seed0", "seed1", "--name", "soup", *here]) == 0
    assert "soup: the average of the weights of seed0, seed1 -> " in capsys.readouterr().out
    assert call("mtrain", ["runs", *runs]) == 0
    assert (
        "soup: finished, the average of the weights of seed0, seed1, left out: Delta, Gamma\n"
        in capsys.readouterr().out
    )
    state = seeds[0].path.with_name("soup") / "state.json"
    whole = state.read_bytes()
    state.unlink()
    with pytest.raises(RunError, match="not finished; remove this run, and make it again with `mtrain soup`"):
        call("mtrain", ["export", *runs, "soup", "--out", str(tmp_path / "none")])
    state.write_bytes(whole)
    assert call("mtrain", ["transfer", *runs, "--run", "soup", "--mode", "logistic", *here, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["task"] == "Delta"
    assert call("mtrain", ["export", *runs, "soup", "--out", str(tmp_path / "out"), "--task", "Alpha", "--quiet"]) == 0
    assert "the average of the weights of seed0, seed1" in (tmp_path / "out" / "README.md").read_text()
    image = tmp_path / "image.png"
    Image.new("RGB", (40, 40), (180, 80, 80)).save(image)
    predicted = ["predict", *runs, str(image), "--run", "soup", "--task", "Alpha", "--out", str(tmp_path), "--quiet"]
    assert call("mtrain", [*predicted, "--device", "cpu", "--patch", "32"]) == 0
    weights = str(seeds[0].path.parent / "soup" / "shared.safetensors")
    transfer = ["transfer", *runs, "--run", "seed0", "--weights", weights, "--mode", "knn", *here]
    assert call("mtrain", transfer) == 0
    capsys.readouterr()
    with pytest.raises(UsageError, match="trained on the val set of Alpha"):
        call("mtrain", [*transfer, "--target", "Alpha", "--shards", str(shards)])
    assert call("mtrain", ["report", *runs, "--run", "soup"]) == 0
    with pytest.raises(UsageError, match="made of other runs, not trained"):
        call("mtrain", ["fit", *runs, "--run", "soup", "--quiet"])


def test_a_sum_needs_no_images(adapters: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["soup", "--runs", str(adapters["alpha"].path.parent), "alpha", "beta", "--factor", "1", "--name", "sum"]
    assert call("mtrain", [*words, "--shards", "shards", "--workers", "1"]) == 0
    said = capsys.readouterr().err
    assert "--shards is not used: no images were needed" in said
    assert "--workers is not used: no images were read" in said


def sweep_of(seeds: tuple[Run, ...], path: Path) -> Store:
    """A sweep of one combination whose cells are these trainings."""
    combination, store, cells = Combination("shufflenet_v2_x0_5", 0.01, 5.0, False), Store(path), []
    for seed, run in enumerate(seeds):
        (path / "runs").mkdir(parents=True, exist_ok=True)
        (path / "runs" / run.name).symlink_to(run.path)
        cell = {"cell": f"{seed:024}", "combination": asdict(combination), "seed": seed}
        cells.append(cell | {"tasks": ("Gamma", "Delta")})
        score = {task: {"metric": "accuracy", "set": "val", "score": 0.5} for task in ("Gamma", "Delta")}
        content = {"run": f"runs/{run.name}", "state": "scored", "scores": score, "failures": {}, "seconds": 1.0}
        write_document(store.result_path(f"{seed:024}"), cell | content)
    write_document(path / "sweep.json", {"sweep": {}, "cells": cells})
    return store


def test_a_selection_adds_the_soup_of_each_chosen_cell(
    seeds: tuple[Run, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = sweep_of(seeds, tmp_path / "sweeps" / "toy")
    words = ["select", "--sweeps", str(tmp_path / "sweeps"), "--soup", "--device", "cpu", "--workers", "0", "--quiet"]
    assert call("mtrain", words) == 0
    out, err = capsys.readouterr()
    assert not err
    assert "Gamma, shufflenet_v2_x0_5: soup " in out
    assert "(accuracy on val; seeds 50.0, 50.0, mean 50.0) -> soups/shufflenet_v2_x0_5-" in out
    chosen = store.selection()["targets"]["Gamma"]
    soup = chosen["by_backbone"]["shufflenet_v2_x0_5"]["soup"]
    run = Run(store.path / soup["run"])
    (result,) = (run.path / "transfer").glob("Gamma*.json")
    stored = json.loads(result.read_text())
    assert (stored["set"], stored["score"], stored["mode"]) == ("val", soup["score"], "svm")
    assert not list((run.path / "transfer").glob("*final*"))


def test_a_selection_of_one_seed_has_no_soup_and_keeps_its_choice(seeds: tuple[Run, Run], tmp_path: Path) -> None:
    store = sweep_of(seeds[:1], tmp_path / "sweeps" / "toy")
    with pytest.raises(UsageError, match="one run has nothing to be averaged with"):
        call("mtrain", ["select", "--sweeps", str(tmp_path / "sweeps"), "--soup", "--workers", "0"])
    assert "Gamma" in store.selection()["targets"]
