"""Starts or resumes a training: network, heads, device and optimizer, from initial weights or from a checkpoint."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from dpconvert.runtime.progress import Reporter
from mtrain.backbones import catalog
from mtrain.backbones.card import BackboneCard
from mtrain.config import FitConfig
from mtrain.data.batches.images import Images
from mtrain.data.batches.resident import GIB, ResidentImages, resident_images
from mtrain.data.kept import kept
from mtrain.data.pool import Pool
from mtrain.data.task import fetch_shards
from mtrain.errors import RunError, UsageError
from mtrain.model import tuning
from mtrain.model.batchnorm import batchnorm_adapt, batchnorm_per_task
from mtrain.model.batchnorm.batchnorm_sync import synchronize
from mtrain.model.inference import LOADED, Inference
from mtrain.model.network import MultiHead, SharedNetwork, check_size, shared_network
from mtrain.model.recording import CudaGraph
from mtrain.model.weight_files.tensor_file import fault_of
from mtrain.runs.belonging import settings_digest
from mtrain.runs.run_folder import Run
from mtrain.train import adaptation, checkpoint, footprint
from mtrain.train.backward.exactness import make_exact
from mtrain.train.distributed import Ranks
from mtrain.train.head_training import CACHE, HeadTraining
from mtrain.train.trainer import Training
from mtrain.used import mark


def network_of(config: FitConfig, run: Run) -> str | BackboneCard:
    """What the shared network is built from: a resumed run has its own table, whose file may be missing."""
    if run.exists and run.config().backbone == config.backbone and not Path(config.backbone).exists():
        return run.network()
    card = catalog.described(config.backbone, config.backbone_options)
    if card is not None and (fault := card.size_fault(config.size)):
        raise UsageError(fault, found=f"--size {config.size}")
    return card or config.backbone


def begin(
    config: FitConfig, network: str | BackboneCard, pool: Pool, run: Run, report: Reporter, ranks: Ranks
) -> Training:
    """A training at its start, or at the newest readable checkpoint of the run.

    The first rank reads the weights or the checkpoint, and broadcasts them to the others.
    """
    device = ranks.device(config.device)
    torch.manual_seed(config.seed)
    settings = settings_digest(run) if run.exists else None
    saved = checkpoint.newest_readable(run.checkpoints, report.note, settings) if ranks.first else None
    done = ranks.broadcast(lambda: 0 if saved is None else saved[1])
    model = _model(config, network, pool, with_weights=ranks.first and saved is None)
    _tell_memory(config, model, device, report, ranks)
    if config.sync_batchnorm and not ranks.alone:
        synchronize(model.shared, device)
    model = model.to(device).to(memory_format=torch.channels_last)
    make_exact(model.shared, config.size, device, report.note)
    _fetch(config, pool, report)
    _note_without_effect(config, model.shared, pool, ranks, report)
    training = _training(config, pool, model, device, done, ranks, run, report)
    if saved is None and ranks.first:
        _adapt(training, run, report)
    if config.batchnorm == "per-task":
        batchnorm_per_task.split(model.shared, len(pool.tasks))
    if saved is not None:
        training.restore(saved[0])
        training.measured = saved[0]
        report.note(f"{run.label}: resumed after iteration {done} of {config.iterations}")
    if not ranks.alone:
        training.restore(ranks.broadcast_state(training.state()))
    if isinstance(training, HeadTraining):
        training.read_features(run.path.parent / CACHE, report)
    _compile(training, run, report)
    _record(training, report)
    return training


def _model(config: FitConfig, network: str | BackboneCard, pool: Pool, *, with_weights: bool) -> MultiHead:
    """The shared network, prepared for the part of it that is trained, and the heads of the tasks.

    with_weights: with the initial weights, rather than random ones that others will replace.

    Raises:
        RunError: the initial weights are not finite.
    """
    weights, key = (config.weights, config.weights_key) if with_weights else ("random", None)
    shared = shared_network(network, weights, key)
    check_size(shared, config.size)
    _check_finite(shared, config.weights)
    _tune(config, shared)
    dense = {task.name: task.dense for task in pool.tasks if task.dense} if config.dense else {}
    targets = {task.name: task.target for task in pool.tasks}
    return MultiHead(shared, {task.name: task.outputs for task in pool.tasks}, dense, config.size, targets)


def _fetch(config: FitConfig, pool: Pool, report: Reporter) -> None:
    """Download the shards of a remote pool that the training will read, unless it streams them."""
    if not config.stream:
        splits = {split for task in pool.tasks for split in task.trains} | ({"val"} if config.validate_every else set())
        fetch_shards(pool.tasks, sorted(splits), report)


def _training(
    config: FitConfig,
    pool: Pool,
    model: MultiHead,
    device: torch.device,
    done: int,
    ranks: Ranks,
    run: Run,
    report: Reporter,
) -> Training:
    """The training of a model that has done `done` iterations, with its resident images."""
    kind = HeadTraining if config.features == "cached" else Training
    training = kind(config, pool, model, device, done, ranks)
    training.skipping.note = report.note
    if config.resident and training.images is not None and config.features == "online":
        training.resident, said = _resident(training, training.images)
        report.note(f"{run.label}: {said}")
    return training


def _compile(training: Training, run: Run, report: Reporter) -> None:
    """Have the network compiled where that is asked for, and it is trained."""
    if training.config.compile and training.config.tune != "heads":
        report.note(
            f"{run.label}: compiling the network; torch keeps the result for other runs ($TORCHINDUCTOR_CACHE_DIR)"
        )
        training.compile(report.note)


def _resident(training: Training, images: Images) -> tuple[ResidentImages, str]:
    """The resident images, and a line about them; those of the former cell of a sweep if they are the same."""
    mark("resident")
    config, device = training.config, training.device
    key = training.pool.digest, config.size, config.resident, training.how, str(device), images.stamps()
    return kept("resident", key, lambda: resident_images(images, config.size, round(config.resident * GIB), device))


def _tune(config: FitConfig, shared: SharedNetwork) -> None:
    """Prepare the shared network for training the part of it that the settings name."""
    tuning.prepare(shared.body, config.tune, shared.name)
    if config.layer_decay is not None:
        tuning.by_layer(shared.body, config.layer_decay, shared.name)
    if config.checkpointing:
        tuning.check_pointing(shared.body, shared.name)


def _note_without_effect(config: FitConfig, shared: SharedNetwork, pool: Pool, ranks: Ranks, report: Reporter) -> None:
    """Report settings that have no effect on this network, this pool and these processes."""
    normalizes = any(isinstance(layer, _BatchNorm) for layer in shared.modules())
    none, only = f"{shared.name} has no batch normalization", f"{pool.tasks[0].name} is the only task"
    sizes, equal = {len(task.rows["train"]) for task in pool.tasks}, "all tasks have the same number of images"
    rules = {
        f"--batchnorm {config.batchnorm}": (config.batchnorm != "adapted" and not normalizes, none),
        "--sync-batchnorm": (config.sync_batchnorm and not normalizes, none),
        "--sync-batchnorm ": (config.sync_batchnorm and normalizes and ranks.alone, "there is one process"),
        "--temperature": (config.temperature is not None and len(pool.tasks) == 1, only),
        "--temperature ": (config.temperature is not None and len(pool.tasks) > 1 and len(sizes) == 1, equal),
        f"--gradients {config.gradients}": (config.gradients != "mean" and len(pool.tasks) == 1, only),
        "--log-cosines": (config.log_cosines > 0 and len(pool.tasks) == 1, only),
        "--task-weight": (bool(config.task_weights) and len(pool.tasks) == 1, only),
    }
    for option, (holds, why) in rules.items():
        if holds:
            report.note(f"{option.rstrip()} is not used: {why}")


def _tell_memory(config: FitConfig, model: MultiHead, device: torch.device, report: Reporter, ranks: Ranks) -> None:
    """Report an estimate of the memory that an iteration takes, where anyone reads it."""
    if ranks.first and not report.quiet:
        frozen = LOADED * Inference.on(device).joined(LOADED)
        samples = frozen if config.features == "cached" else len(ranks.share(config.batch, 0, config.accumulate))
        for line in footprint.remarks(config, model, device, samples, ranks.size):
            report.once(line, key=line.split("; ")[0])  # the free memory differs from one training to the next


def _record(training: Training, report: Reporter) -> None:
    """Have the iterations recorded as a CUDA graph, where that is wanted and possible."""
    config = training.config
    wanted = training.device.type == "cuda" if config.graph is None else config.graph
    obstacles = {
        f"the device is {training.device.type}": training.device.type != "cuda",
        f"there are {training.ranks.size} processes": not training.ranks.alone,
        "--accumulate": config.accumulate > 1,
        "--checkpointing": config.checkpointing,
        "--features cached": config.features == "cached",
        f"--gradients {config.gradients}": config.gradients != "mean",
    }
    found = [name for name, holds in obstacles.items() if holds]
    if wanted and found:
        fault = "iterations run without a CUDA graph" if config.graph is None else "--graph has no effect"
        report.note(f"{fault}: {found[0]}")
    elif wanted:
        training.recording, training.note = partial(CudaGraph, training.device), report.note


def _adapt(training: Training, run: Run, report: Reporter) -> None:
    """Adapt batch normalization, on batches drawn for it. Only the first rank does, so the ranks do not change it."""
    config, shared = training.config, training.model.shared
    if not config.adapt_batches or not config.adapts or config.tune == "heads":
        return
    if not batchnorm_adapt.layers_of(shared):
        report.note(f"{run.label}: {shared.name} has no batch normalization to adapt")
    else:
        layers = adaptation.adapt(training)
        report.note(f"{run.label}: {layers} batch-normalization layers adapted to the pool")


def _check_finite(shared: SharedNetwork, weights: str) -> None:
    """Raises:
    RunError: the initial weights are not finite, or make no network.
    """
    if fault := fault_of(shared.body.state_dict()):
        raise RunError(fault, where=weights, remedy="give other --weights")
