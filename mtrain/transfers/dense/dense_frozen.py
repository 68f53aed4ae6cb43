"""Masks and points by a small decoder on a frozen network: `--mode dense`.

The decoder and its recipe are those of the benchmark eva (kaiko-ai, `ConvDecoderWithImage`): the last map of the
network, doubled, a convolution of 64 channels; beside it the image, two convolutions of 32 channels; one of 1 x 1.
Masks are trained by the Dice loss of the whole batch, with AdamW at 2e-3 and batches of 64. Points, which eva does not
have, are discs, trained by the focal loss of mtrain.model.dense.dense_loss.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpconvert.runtime.progress import Reporter
from mtrain.data import sampling
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.image_batches import EpochBatches
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import batches_on
from mtrain.data.dense_sample import IGNORE
from mtrain.data.instances import instances_of
from mtrain.data.rows import DenseTargets, Rows
from mtrain.data.targets import MasksAndPoints, turned
from mtrain.data.task import Task
from mtrain.errors import DivergedError
from mtrain.model.dense.dense_loss import drawn_discs, point_losses
from mtrain.model.dense.dense_network import enlarged
from mtrain.model.dense.maps import FeatureMap, features_and_maps, levels_of
from mtrain.model.devices import find_device
from mtrain.model.network import SharedNetwork
from mtrain.scoring.dense import Counts
from mtrain.scoring.dense_counts import DenseAnswers
from mtrain.scoring.panoptic import Matches, matches
from mtrain.scoring.peaks import counted, found_masks
from mtrain.train import checkpoint
from mtrain.train.backward.exactness import exact_gradients, make_exact
from mtrain.train.dense_validation import ordered_targets

LR = 2e-3
HIDDEN = (64, 32, 32)
STRIDE = 4  # of the maps of points
SMOOTH = 1e-5
CHECKED = 50  # steps between two looks whether the loss is finite
CHECKPOINT_SECONDS = 20.0  # minimum time between checkpoints


class ConvDecoderWithImage(nn.Module):
    """The last map of a network (N, features, h, w) and its images (N, 3, S, S) -> logits (N, maps, S, S)."""

    def __init__(self, features: int, maps: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Upsample(scale_factor=2), _convolution(features, HIDDEN[0]))
        self.second = nn.Sequential(
            _convolution(HIDDEN[0] + 3, HIDDEN[1]), _convolution(HIDDEN[1], HIDDEN[2]), nn.Conv2d(HIDDEN[2], maps, 1)
        )

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """Logits at the size of the images."""
        small = self.first(features)
        logits: Tensor = self.second(torch.cat([enlarged(small.float(), images.shape[-1]), images], dim=1))
        return logits


def _convolution(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU())


class FrozenDense:
    """A decoder under training on a frozen network."""

    def __init__(self, network: SharedNetwork, dense: DenseTargets, size: int, seed: int, device: str) -> None:
        self.device, self.dense, self.size = find_device(device), dense, size
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self.level: FeatureMap = levels_of(network.body, size, network.name)[-1]
        torch.manual_seed(seed)
        self.decoder = ConvDecoderWithImage(self.level.channels, dense.channels).to(self.device)
        self.optimizer = torch.optim.AdamW(self.decoder.parameters(), lr=LR)

    def logits(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """Of masks (N, classes, S, S), and of points at a quarter of the size; None for a kind that there is not."""
        images = batch.to(self.device).images(self.size, self.network.interpolation)
        pixels = self.network.normalize(images)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.decoder(self.maps(pixels), pixels).float()
        classes = len(self.dense.seg)
        discs = F.avg_pool2d(logits[:, classes:], STRIDE, ceil_mode=True) if self.dense.points else None
        return (logits[:, :classes] if classes else None), discs

    def maps(self, pixels: Tensor) -> Tensor:
        """The last map of the network, without what gradients need: (N, channels, h, w)."""
        with torch.no_grad():
            return features_and_maps(self.network, self.network.body, [self.level], pixels)[1][0]

    def train(self, training: bool) -> None:
        """Have what is trained behave as in training, or as in use."""
        self.decoder.train(training)

    def step(self, batch: Batch) -> Tensor:
        """One step on a batch; its loss."""
        self.train(True)
        own = (batch.masks, batch.points, batch.radii, batch.flips)
        masks, points, radii, flips = (part.to(self.device, non_blocking=True) for part in own)
        masks, points = turned(masks, points, flips)
        seg, discs = self.logits(batch)
        loss = torch.zeros((), device=self.device)
        if seg is not None:
            loss = loss + batch_dice(seg, masks)
        if discs is not None:
            truth = drawn_discs(points, radii, discs.shape, self.size)
            known = torch.ones(discs.shape[:2], dtype=torch.bool, device=self.device)
            loss = loss + point_losses(discs, truth, known, radii * discs.shape[-1] / self.size).mean()
        self.optimizer.zero_grad(set_to_none=True)
        with exact_gradients(self.network):
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    @property
    def parts(self) -> nn.Module:
        """All modules that training changes."""
        return nn.ModuleDict({"decoder": self.decoder})

    def resume(self, folder: Path, report: Reporter) -> int:
        """Restore the newest readable checkpoint of `folder`; return the number of steps done, 0 without one."""
        saved = checkpoint.newest_readable(folder, report.note, checkpoint.owner(folder))
        if saved is None:
            return 0
        checkpoint.restore(self.parts, self.optimizer, saved[0])
        for kept in self.optimizer.state.values():
            kept["step"] = kept["step"].cpu()  # where AdamW keeps it
        return saved[1]

    @property
    def is_finite(self) -> bool:
        """Whether all trained values are finite."""
        trained = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        return all(bool(parameter.isfinite().all()) for parameter in trained)

    @torch.no_grad()
    def answers(self, task: Task, rows: Rows, batch: int, workers: int) -> DenseAnswers:
        """What is found on these rows, counted."""
        self.train(False)
        tables: list[Counts | None] = []
        hits: list[Counts | None] = []
        quality: list[Matches] = []
        of = [self.dense.seg.index(name) for name in self.dense.instances]
        truth = instances_of(task, rows, self.size) if of else None
        for some in ordered_targets(
            task, rows, size=self.size, batch=batch, workers=workers, how=self.network.interpolation
        ):
            seg, discs = self.logits(some)
            table, hit = counted(seg, discs, self.dense, some.masks, some.points, some.radii)
            if truth is not None and seg is not None:
                pairs = zip(some.masks.numpy(), found_masks(seg), strict=True)
                quality += [matches(*next(truth), mask, found, of) for mask, found in pairs]
            tables.append(table)
            hits.append(hit)
        return DenseAnswers(
            rows.key.astype(np.str_),
            rows.group.astype(np.str_),
            _joined(tables),
            _joined(hits),
            self.dense.seg,
            self.dense.points,
            np.stack(quality) if quality else None,
            self.dense.instances,
        )


def _joined(parts: Sequence[Counts | None]) -> Counts | None:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if present else None


def batch_dice(logits: Tensor, masks: Tensor) -> Tensor:
    """The soft Dice loss of a batch, averaged over classes; sums are over all annotated pixels of all images."""
    known = (masks != IGNORE)[:, None]
    truth = (masks[:, None] == torch.arange(logits.shape[1], device=masks.device)[:, None, None]) & known
    shares = torch.where(known, logits.softmax(1), 0)
    overlap = (shares * truth).sum((0, 2, 3))
    return (1 - (2 * overlap + SMOOTH) / (shares.sum((0, 2, 3)) + truth.sum((0, 2, 3)) + SMOOTH)).mean()


D = TypeVar("D", bound=FrozenDense)


def train_decoder(
    frozen: D,
    task: Task,
    rows: Rows,
    *,
    steps: int,
    batch: int,
    seed: int,
    workers: int,
    report: Reporter,
    folder: Path | None = None,
) -> D:
    """The decoder, trained for `steps` steps on these rows of a task.

    folder: of checkpoints, from which an interrupted training resumes with the same bits; none are written without it.

    Raises:
        DivergedError: the loss or the trained values are not finite.
    """
    make_exact(frozen.network, frozen.size, frozen.device, report.note)
    done = 0 if folder is None else frozen.resume(folder, report)
    if done:
        report.note(f"{task.name}: the decoder resumes after {done} of {steps} steps")
    saved = time.monotonic()
    with report.bar(f"{task.name}: decoder", steps, done=done, unit="steps") as advance:
        for number, some in enumerate(_drawn(task, rows, frozen, range(done, steps), batch, seed, workers), start=done):
            torch.manual_seed(sampling.model_seed(seed, number))
            loss = frozen.step(some)
            last = number + 1 == steps
            if (number % CHECKED == 0 or last) and not bool(loss.isfinite()):
                raise DivergedError(f"{task.name}: the loss of the decoder is not finite after {number + 1} steps")
            if folder is not None and (last or time.monotonic() - saved >= CHECKPOINT_SECONDS):
                _check_finite(frozen, task, number + 1)
                state = checkpoint.training_state(frozen.parts, frozen.optimizer)
                checkpoint.save(folder, number + 1, state, checkpoint.owner(folder))
                saved = time.monotonic()
            advance()
    _check_finite(frozen, task, steps)
    return frozen


def _check_finite(frozen: FrozenDense, task: Task, steps: int) -> None:
    if not frozen.is_finite:
        raise DivergedError(f"{task.name}: the trained values are not finite after {steps} steps")


def _drawn(
    task: Task, rows: Rows, frozen: FrozenDense, steps: range, batch: int, seed: int, workers: int
) -> Iterator[Batch]:
    parts = [(task, rows)]
    images = Images(parts, how=frozen.network.interpolation)
    dataset = EpochBatches(images, frozen.size, seed, batch, targets=MasksAndPoints(parts))
    return batches_on(frozen.device, dataset, steps, workers=workers)
