"""The mode dense: a decoder of masks and points on a frozen or trained network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from dpconvert.runtime.progress import Reporter
from mtrain import __version__
from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.disk.atomic import locked
from mtrain.disk.documents import short_digest
from mtrain.transfers.dense.dense_frozen import FrozenDense, train_decoder
from mtrain.transfers.dense.dense_tuned import TunedDense
from mtrain.transfers.pretrained import Pretrained, TransferOptions, Transferred, scored_rows
from mtrain.transfers.request import FROZEN_NETWORK


def dense(source: Pretrained, task: Task, options: TransferOptions, report: Reporter) -> Transferred:
    """A decoder of masks and points on the frozen network, or on one that is trained with it."""
    parts = [split for split in (("train", "val") if options.final else ("train",)) if len(task.rows[split])]
    rows, trained = scored_rows(task, options), Rows.joined([task.rows[split] for split in parts])
    recipe, folder = options.recipe, _decoder_folder(source, task, options)
    with locked(folder, "another process is training this decoder", "wait for it"):
        decoder = train_decoder(
            _new_decoder(source, task, options),
            task,
            trained,
            steps=options.steps,
            batch=recipe.batch,
            seed=recipe.seed,
            workers=options.workers,
            report=report,
            folder=folder,
        )
        answers = decoder.answers(task, rows, recipe.batch, options.workers)
        shutil.rmtree(folder, ignore_errors=True)
    scored, metric = answers.scored(), decoder.dense.metrics[0]
    notes = [f"not scored: {' and '.join(task.unused)}"] if task.unused else []
    if np.isnan(scored["scores"][metric]):
        notes.append(f"the {options.scored} set of {task.name} holds nothing to find: no {metric}")
    if not scored["intervals"]:
        notes.append(
            f"the {options.scored} set of {task.name} has only one {task.card.group_kind}: no confidence intervals"
        )
    sizes = {split: len(task.rows[split]) for split in parts}
    settings = {"steps": options.steps, "tune": options.moving.tune} | options.moving.determining()
    settings |= {"moved": decoder.moved if isinstance(decoder, TunedDense) else 0}
    return Transferred(
        options.scored,
        sizes,
        settings,
        tuple(notes),
        score=scored["scores"][metric],
        metric=metric,
        scored=scored,
        counts=answers,
    )


def _decoder_folder(source: Pretrained, task: Task, options: TransferOptions) -> Path:
    """The folder of a training's checkpoints, under everything that the training depends on."""
    recipe, determining = options.recipe, options.moving.determining()
    settings = [source.digest, task.card.digest, source.run.config().size, options.final, options.steps, recipe.batch]
    digest = short_digest(json.dumps([*settings, recipe.seed, determining, __version__]))
    return source.run.path / "transfer" / "decoders" / f"{task.name}-{digest[:16]}"


def _new_decoder(source: Pretrained, task: Task, options: TransferOptions) -> FrozenDense:
    assert task.dense is not None, "check_sets refuses such tasks"
    network, size, recipe = source.network, source.run.config().size, options.recipe
    if options.moving.tune == FROZEN_NETWORK:
        return FrozenDense(network, task.dense, size, recipe.seed, recipe.device)
    return TunedDense(network, task.dense, size, recipe.seed, recipe.device, options.moving)
