"""What only a GPU can show: `make gpu` runs these, and the benchmark of an iteration. Skipped where there is none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrain.data.batches.augment import resized
from mtrain.data.pool import open_pool
from mtrain.model import recorded_network
from mtrain.model.frozen import computed
from mtrain.model.inference import LOADED, Inference
from mtrain.model.network import MultiHead, shared_network
from mtrain.model.recorded_network import repeated
from mtrain.model.recording import CudaGraph
from mtrain.runs.run_folder import Run
from mtrain.train import fit, graph
from mtrain.train.trainer import Training
from tests.mtrain.dense_pools import write_mixed_pool
from tests.mtrain.pools import write_pool
from tests.mtrain.test_augment import SIDES, batch_of, smooth
from tests.mtrain.test_fit import Notes, a_training, config, interrupted
from tests.small_networks import whole_networks

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and `-m cuda`, as in `make gpu`"),
]
MANY = tuple(f"Task{number}" for number in range(22))
VIT = "timm:vit_tiny_patch16_224"


@pytest.fixture(scope="module", autouse=True)
def networks_are_those_of_other_interpreters() -> Iterator[None]:
    with whole_networks():
        yield


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More tasks than a batch has samples, so that heads are empty in every iteration."""
    return write_pool(tmp_path_factory.mktemp("pool"), MANY, sizes={"train": 8, "val": 2})


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("seed", range(5))
def test_a_training_with_empty_heads_comes_to_its_end(shards: Path, tmp_path: Path, seed: int, optimizer: str) -> None:
    run = Run(tmp_path / "toy")
    settings = config(
        shards, leave_out=(), device="cuda", iterations=12, warmup=4, batch=16, seed=seed, optimizer=optimizer
    )
    assert fit.fit(settings, run, Notes()) == "finished"


def test_a_step_is_that_of_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, as the processor computes: the losses of the first iteration, and which rows of the heads move.

    Nothing is resized: a random network turns one level of 255 into other losses.
    """
    shards = write_pool(tmp_path, MANY, sizes={"train": 8, "val": 2}, shape=(64, 64))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch, "autocast", lambda *_types, enabled: nullcontext(enabled))
    here = a_training(shards, leave_out=(), warmup=0, batch=16, size=64)
    model = MultiHead(shared_network(here.config.backbone, "random"), here.model.heads.sizes)
    model.load_state_dict(here.model.state_dict())
    device = torch.device("cuda")
    there = Training(here.config, here.pool, model.to(device).to(memory_format=torch.channels_last), device)
    before = here.model.heads.weight.detach().clone()
    (batch,) = here.drawn(range(1))
    losses = here.step(batch), there.step(batch)
    assert torch.allclose(losses[0], losses[1].cpu(), rtol=0.02, atol=0.02)
    moved = [(heads.weight.detach().cpu() != before).any(1) for heads in (here.model.heads, there.model.heads)]
    assert torch.equal(*moved)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_recorded_training_ends_with_the_bits_of_one_whose_recording_is_refused(
    shards: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one checks itself too: no note says that its replay differs."""
    found = []
    for refused in (False, True):
        said: list[str] = []
        here = a_training(shards, leave_out=(), warmup=4, batch=16, size=64, optimizer=optimizer)
        model = MultiHead(shared_network(here.config.backbone, "random"), here.model.heads.sizes)
        model.load_state_dict(here.model.state_dict())
        device = torch.device("cuda")
        there = Training(here.config, here.pool, model.to(device).to(memory_format=torch.channels_last), device)
        there.recording, there.note = CudaGraph, said.append
        if refused:
            monkeypatch.setattr(graph, "UNRECORDED", 10**9)
        for parts in there.iterations(range(16)):
            there.step(*parts)
        assert said == []
        assert there.recorded is not None
        assert (not there.recorded.losses) == refused
        found.append(there.state())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("name", ["resnet18", "mtdp_densenet121", VIT])
def test_a_recorded_network_gives_the_features_of_the_network_to_the_bit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_network, "WORTH", 2)
    how = Inference.on(torch.device("cuda"))
    network = shared_network(name, "random").eval().to(how.device).to(memory_format=torch.channels_last)
    recorded = repeated(lambda images: network(network.normalize(images)), how)
    assert isinstance(recorded, recorded_network.RecordedNetwork)
    for _ in range(6):
        images = torch.randint(256, (8, 3, 224, 224), dtype=torch.uint8, device=how.device)
        with how.running():
            assert torch.equal(recorded(images), network(network.normalize(images)))
    assert recorded.results is not None


def test_squares_of_all_sizes_are_those_of_the_processor_but_for_one_level() -> None:
    pixels, sides = batch_of([smooth(side) for side in SIDES], 24)
    found = resized(pixels.cuda(), sides, 24).cpu().int()
    assert (found - resized(pixels, sides, 24).int()).abs().max() <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_features_are_those_of_the_processor_within_the_precision_of_bfloat16_in_the_same_order(
    tmp_path: Path, workers: int
) -> None:
    """Of more batches than results may be on their way back."""
    write_pool(tmp_path, ("Many",), sizes={"train": 300, "val": 2}, shape=(80, 72))
    (task,) = open_pool(tmp_path).tasks
    torch.manual_seed(0)
    network = shared_network("resnet18", "random")
    ours = Inference(torch.device("cuda"), torch.bfloat16, LOADED, 2)
    found = [
        computed(network, task, task.rows["train"], "train", size=64, workers=workers, inference=how, report=Notes())
        for how in (ours, Inference.on(torch.device("cuda")), Inference.on(torch.device("cpu")))
    ]
    exact = found.pop()
    for some in found:
        assert np.abs(some - exact).max() < 0.02 * np.abs(exact).max()
        nearest = ((some[:, None] - exact[None]) ** 2).sum(2).argmin(1)
        assert (np.abs(exact[nearest] - exact).max(1) < 0.02 * np.abs(exact).max()).all()


def test_features_are_the_same_bits_each_time(shards: Path) -> None:
    task = open_pool(shards).tasks[0]
    network, cuda = shared_network("resnet18", "random"), Inference.on(torch.device("cuda"))
    one, other = (
        computed(network, task, task.rows["train"], "train", size=64, workers=workers, inference=cuda, report=Notes())
        for workers in (0, 2)
    )
    assert np.array_equal(one, other)


@pytest.mark.parametrize("choice", ["--no-graph", "--graph"])
def test_a_killed_training_ends_with_the_bits_of_an_undisturbed_one(shards: Path, tmp_path: Path, choice: str) -> None:
    words = ["fit", "--shards", str(shards), "--runs", str(tmp_path), "--device", "cuda", "--backbone", "resnet18"]
    words += ["--weights", "random", "--size", "64", "--batch", "16", "--iterations", "60"]
    words += ["--checkpoint-every", "5", "--workers", "2", "--quiet", choice]
    command = [sys.executable, "-m", "mtrain.cli", *words, "--run"]
    subprocess.run([*command, "calm"], check=True)
    process = subprocess.Popen([*command, "killed"], start_new_session=True)
    while not list((tmp_path / "killed" / "checkpoints").glob("*.safetensors")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run([*command, "killed"], check=True)
    for name in ("shared.safetensors", "heads.safetensors"):
        one, other = (Run(tmp_path / run).path / name for run in ("calm", "killed"))
        assert _tensors(one) == _tensors(other)


def _tensors(path: Path) -> bytes:
    """Without the header, which names the run."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


KINDS: dict[str, dict[str, Any]] = {
    "adamw with a moving average": {"optimizer": "adamw", "schedule": "cosine", "ema": 0.9, "label_smoothing": 0.1},
    "augmented": {"rotations": True, "stain_jitter": 0.2, "colour_jitter": 0.2},
    "statistics of each task": {"batchnorm": "per-task", "temperature": 2.0, "class_balanced": True},
    "accumulated": {"accumulate": 2},
    "resident": {"resident": 0.5},
    "heads alone": {"tune": "heads", "features": "cached"},
    "pcgrad": {"gradients": "pcgrad", "log_cosines": 4},
    "upgrad": {"gradients": "upgrad"},
    "LoRA": {"tune": "lora:2", "backbone": VIT, "batchnorm": "train", "size": 64, "layer_decay": 0.8},
    "last blocks, checkpointing": {"tune": "last:2", "backbone": VIT, "checkpointing": True, "size": 64},
    "masks and points": {"dense": True, "size": 64},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_stopped_training_of_any_kind_ends_with_the_bits_of_an_undisturbed_one(
    kind: dict[str, Any], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its graph is the iteration, where there is one."""
    pool = write_mixed_pool(tmp_path / "pool") if kind.get("dense") else shards
    settings = config(pool, **{"leave_out": (), "device": "cuda", "iterations": 16, "warmup": 5, "batch": 16} | kind)
    whole, resumed = Run(tmp_path / "whole" / "toy"), Run(tmp_path / "resumed" / "toy")
    notes = Notes()
    assert fit.fit(settings, whole, notes) == "finished"
    assert not [note for note in notes.said if "other bits" in note or "last bits" in note]
    interrupted(monkeypatch, resumed, settings, 11)
    assert fit.fit(settings, resumed, Notes()) == "finished"
    for name in ("shared.safetensors", "heads.safetensors"):
        assert _tensors(whole.path / name) == _tensors(resumed.path / name)


def test_the_commands_after_a_training_run_on_the_device(shards: Path, tmp_path: Path) -> None:
    """Their scores are those of the processor, but for the precision of the features."""
    runs = ["--runs", str(tmp_path), "--run", "toy"]
    words = ["--shards", str(shards), "--leave-out", "Task0", "--backbone", "resnet18", "--weights", "random"]
    _mtrain("fit", *runs, *words, "--size", "64", "--batch", "16", "--iterations", "12", "--device", "cuda")
    for mode in ("svm", "knn", "logistic", "fewshot"):
        scores = []
        for hidden in ({}, {"CUDA_VISIBLE_DEVICES": ""}):
            found = json.loads(_mtrain("transfer", *runs, "--mode", mode, "--json", **hidden))
            scores.append([result["score"] for result in found])
        assert scores[0] == pytest.approx(scores[1], abs=0.25)  # of two images
    for more in (["--mode", "finetune", "--epochs", "2", "--lr", "1e-3"], ["--mode", "eva"]):
        _mtrain("transfer", *runs, *more)
    _mtrain("report", *runs)


def _mtrain(*words: str, **environment: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "mtrain.cli", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | environment).stdout
