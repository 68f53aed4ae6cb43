"""The losses of masks and points, one number per sample.

The rule of the paper therefore holds for them too: their sum is divided by the batch size, and the gradients of a
task's own weights are multiplied by B / B_t. No shape depends on how much of a sample is annotated.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mtrain.data.dense_sample import IGNORE
from mtrain.model.dense.dense_network import DenseNetwork, enlarged

ALPHA, GAMMA = 0.25, 2.0  # Lin et al., "Focal loss for dense object detection", 2017
AT_ONCE = 32  # number of points to draw at once
SMALLEST = 0.75  # minimum radius of a disc, in map positions: every point then covers at least one


def dense_losses(
    network: DenseNetwork,
    logits: Tensor,
    tasks: Tensor,
    masks: Tensor,
    points: Tensor,
    radii: Tensor,
    *,
    scaled: bool = True,
) -> Tensor:
    """Return the loss of each sample: (N,).

    logits, tasks: as in `DenseNetwork`. masks: uint8 (N, S, S). points: (N, P, 3). radii: (N,), in pixels of the masks.
    scaled: divide by the logarithm of the number of classes, so that guessing costs about 1 in every kind of task.
    """
    values = logits.to(torch.promote_types(logits.dtype, torch.float32))
    seg, discs = torch.split(values, [network.most_classes, network.most_points], dim=1)
    losses = values.new_zeros(len(values))
    if network.most_classes:
        classes = network.classes[tasks].to(values.dtype).clamp(min=2)
        losses = losses + mask_losses(
            enlarged(seg, masks.shape[-1]), masks, network.has_class[tasks], classes.log() if scaled else None
        )
    if network.most_points:
        truth = drawn_discs(points, radii, discs.shape, masks.shape[-1])
        found = point_losses(discs, truth, network.has_points[tasks], radii * discs.shape[-1] / masks.shape[-1])
        losses = losses + found / (math.log(2) if scaled else 1)
    return losses


def mask_losses(logits: Tensor, masks: Tensor, known: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return the soft Dice loss plus the mean cross-entropy per pixel divided by `scale` (N,): (N,).

    The Dice loss is averaged over the classes that occur in the mask. Pixels of value 255 are ignored; the loss is 0 if
    no pixel is annotated. logits: (N, K, S, S). masks: (N, S, S). known: (N, K), whether the sample's task has each of
    the K classes.
    """
    none = torch.finfo(logits.dtype).min
    logs = logits.masked_fill(~known[:, :, None, None], none).log_softmax(1)
    annotated = masks != IGNORE
    truth = masks[:, None] == torch.arange(logits.shape[1], device=masks.device, dtype=masks.dtype)[:, None, None]
    truth = truth & annotated[:, None]
    pixels = annotated.sum((1, 2)).clamp(min=1)
    entropy = -torch.where(truth, logs, 0).sum((1, 2, 3)) / pixels
    shares = torch.where(annotated[:, None], logs.exp(), 0)
    area = truth.sum((2, 3))
    overlap = 2 * (shares * truth).sum((2, 3)) / (shares.sum((2, 3)) + area).clamp(min=1e-6)
    present = area > 0
    dice = torch.where(present, 1 - overlap, 0).sum(1) / present.sum(1).clamp(min=1)
    return dice + (entropy if scale is None else entropy / scale)


def point_losses(logits: Tensor, truth: Tensor, known: Tensor, radii: Tensor) -> Tensor:
    """Return the sigmoid focal loss, summed over positions and divided by the number of those in discs: (N,).

    The divisor is at least the area of one disc. logits, truth: (N, K, h, w). known: (N, K). radii: (N,), in map
    positions.
    """
    chance = logits.sigmoid()
    wrong = torch.where(truth, 1 - chance, chance)
    weight = torch.where(truth, ALPHA, 1 - ALPHA) * wrong**GAMMA
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="none")
    total = (weight * entropy * known[:, :, None, None]).sum((1, 2, 3))
    one = (math.pi * radii.clamp(min=SMALLEST).square()).to(total.dtype)
    return total / torch.maximum(truth.sum((1, 2, 3)).to(total.dtype), one)


def drawn_discs(points: Tensor, radii: Tensor, shape: torch.Size | tuple[int, ...], size: int) -> Tensor:
    """Return a boolean map of `shape` (N, K, h, w): whether each position lies in the disc of a point of each class.

    points: (N, P, 3), x and y in pixels of a square of side `size`, and the class, -1 for none. radii: (N,), in these
    pixels.
    """
    count, classes, height, width = shape
    scale_x, scale_y = width / size, height / size
    radius = (radii * max(scale_x, scale_y)).clamp(min=SMALLEST)[:, None, None, None]
    rows = torch.arange(height, device=points.device)[:, None] + 0.5
    columns = torch.arange(width, device=points.device) + 0.5
    found = torch.zeros((count, classes, height, width), dtype=torch.bool, device=points.device)
    for some in torch.split(points, AT_ONCE, dim=1):
        x, y, kind = (part[:, :, None, None] for part in some.unbind(-1))
        inside = (columns - x * scale_x).square() + (rows - y * scale_y).square() <= radius.square()
        of_class = [(inside & (kind == number)).any(1) for number in range(classes)]
        found = found | torch.stack(of_class, dim=1)
    return found
