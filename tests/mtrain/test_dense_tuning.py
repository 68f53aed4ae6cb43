"""Masks and points on a network that is trained with the decoder: what moves, by how much, and what stays."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from dpconvert.runtime.progress import Reporter
from mtrain.cli import transfer_work
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.image_batches import EpochBatches
from mtrain.data.batches.images import Images
from mtrain.data.rows import DenseTargets
from mtrain.data.targets import MasksAndPoints
from mtrain.data.task import Task, open_task
from mtrain.errors import UsageError
from mtrain.model.backbones import Body
from mtrain.model.network import SharedNetwork
from mtrain.transfers.dense.dense_frozen import LR, FrozenDense, train_decoder
from mtrain.transfers.dense.dense_tuned import Moving, TunedDense
from tests.mtrain.dense_networks import body
from tests.mtrain.dense_pools import draw_sample, write_dense_task

DECAY = 0.01  # weight decay of AdamW unless it is given


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return open_task(str(write_dense_task(tmp_path_factory.mktemp("tuning") / "Both", seed=9)))


def network() -> SharedNetwork:
    torch.manual_seed(3)
    inside = body()
    inside[0].append(nn.BatchNorm2d(4))
    return SharedNetwork("toy", Body(inside))


def first_batch(task: Task) -> Batch:
    parts = [(task, task.rows["train"])]
    return EpochBatches(Images(parts), 16, 0, 8, targets=MasksAndPoints(parts))[0]


def decoder(task: Task, moving: Moving, source: SharedNetwork) -> FrozenDense:
    dense: DenseTargets = task.dense  # type: ignore[assignment]
    if moving.tune == "heads":
        return FrozenDense(source, dense, 16, 0, "cpu")
    return TunedDense(source, dense, 16, 0, "cpu", moving)


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_a_frozen_network_keeps_every_bit_and_a_tuned_copy_of_it_does_not(task: Task) -> None:
    source = network()
    before = copied(source)
    frozen = decoder(task, Moving(), source)
    frozen.step(first_batch(task))
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen.network.state_dict().items())
    tuned = decoder(task, Moving("all"), source)
    tuned.step(first_batch(task))
    moved = {name for name, tensor in tuned.network.state_dict().items() if not torch.equal(tensor, before[name])}
    for name in ("0.0.weight", "1.0.weight", "0.2.running_mean"):
        assert any(one.endswith(name) for one in moved)
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.state_dict().items())


def test_the_first_step_of_adamw_moves_each_value_by_its_rate(task: Task) -> None:
    """After one step, AdamW's means are the gradient and its square: p (1 - lr w) - lr g / |g|."""
    tuned = decoder(task, Moving("all", lr=0.003), network())
    before = {name: p.detach().clone() for name, p in tuned.network.named_parameters()}
    decoders = [p.detach().clone() for p in tuned.decoder.parameters()]
    tuned.step(first_batch(task))
    checked = 0
    for name, p in tuned.network.named_parameters():
        if p.grad is not None:
            sure = p.grad.abs() > 1e-4  # far above the epsilon of AdamW, 1e-8
            wanted = before[name] * (1 - 0.003 * DECAY) - 0.003 * p.grad.sign()
            assert torch.allclose(p.detach()[sure], wanted[sure], atol=1e-6)
            checked += int(sure.sum())
    assert checked > 100
    for p, old in zip(tuned.decoder.parameters(), decoders, strict=True):
        assert p.grad is not None
        sure = p.grad.abs() > 1e-4
        assert torch.allclose(p.detach()[sure], (old * (1 - LR * DECAY) - LR * p.grad.sign())[sure], atol=1e-6)


@pytest.mark.parametrize(("tune", "names"), [("bias", ("bias",)), ("norms", ("2.weight", "2.bias"))])
def test_only_what_is_named_moves(task: Task, tune: str, names: tuple[str, ...]) -> None:
    source = network()
    tuned = decoder(task, Moving(tune), source)
    assert isinstance(tuned, TunedDense)
    before = copied(tuned.network)
    tuned.step(first_batch(task))
    for name, p in tuned.network.named_parameters():
        assert p.requires_grad == name.endswith(names)
        assert torch.equal(p, before[name]) == (not name.endswith(names) or p.grad is None)
    assert tuned.moved == sum(p.numel() for n, p in source.named_parameters() if n.endswith(names))


def test_a_tuned_network_scores_with_the_statistics_that_it_has_gathered(task: Task) -> None:
    tuned = decoder(task, Moving("all"), network())
    tuned.step(first_batch(task))
    answers = [tuned.answers(task, task.rows["val"], batch, 0) for batch in (8, 3)]
    assert answers[0].tables is not None
    assert answers[1].tables is not None
    assert (answers[0].tables == answers[1].tables).all()  # whatever the other images of a batch
    assert not tuned.network.training


def test_a_training_repeats_bit_for_bit(task: Task) -> None:
    states = []
    for _ in range(2):
        tuned = decoder(task, Moving("all"), network())
        losses = [float(tuned.step(first_batch(task))) for _ in range(2)]
        states.append((losses, tuned.network.state_dict()))
    assert states[0][0] == states[1][0]
    assert all(torch.equal(tensor, states[1][1][name]) for name, tensor in states[0][1].items())


def test_rates_are_one_or_none_and_have_no_use_on_a_frozen_network() -> None:
    assert transfer_work.moving((), None, None) == Moving()
    assert transfer_work.moving((0.01,), "heads", None).determining() == {}
    assert transfer_work.moving((0.01,), "all", None).determining() == {"tune": "all", "lr": 0.01}
    assert transfer_work.moving((), "last:2", 0.5).determining() == {"tune": "last:2", "lr": 1e-4, "layer_decay": 0.5}
    with pytest.raises(UsageError, match=r"--mode dense trains the network at one --lr"):
        transfer_work.moving((0.1, 0.01), "all", None)
    assert set(transfer_work.unmoved(["dense"], None)) == {"rates", "layer_decay"}
    assert transfer_work.unmoved(["dense", "finetune"], None) == {}
    assert transfer_work.unmoved(["dense"], "all") == {}


def test_scores_are_those_that_numpy_and_pillow_find_in_the_shards(tmp_path: Path) -> None:
    """Images of the network's own size, so that nothing is resized: masks by the larger logit, points by peaks."""
    rng = np.random.default_rng(4)
    samples = {split: [draw_sample(rng, (32, 32)) for _ in range(8)] for split in ("train", "val")}
    task = open_task(str(write_dense_task(tmp_path / "Own", samples=samples)))
    assert task.dense is not None
    tuned = TunedDense(network(), task.dense, 32, 0, "cpu", Moving("all", lr=1e-3))
    train_decoder(tuned, task, task.rows["train"], steps=16, batch=8, seed=0, workers=0, report=Reporter(quiet=True))
    scores = tuned.answers(task, task.rows["val"], 3, 0).scored()["scores"]
    table, hits = np.zeros((2, 2)), np.zeros(3)
    with tarfile.open(tmp_path / "Own" / "val-000000.tar") as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    for key in sorted({name.partition(".")[0] for name in files}):
        image, seg = (np.array(Image.open(io.BytesIO(files[f"{key}.{kind}"]))) for kind in ("png", "seg.png"))
        logits = _logits(tuned, image)
        for true, found in zip(seg.ravel(), logits[:2].argmax(0).ravel(), strict=True):
            if true != 255:
                table[true, found] += 1
        hits += _hits(_peaks(logits[2]), [point[:2] for point in json.loads(files[f"{key}.json"])["points"]])
    dice = [2 * table[c, c] / (table[c].sum() + table[:, c].sum()) for c in (0, 1)]
    iou = [table[c, c] / (table[c].sum() + table[:, c].sum() - table[c, c]) for c in (0, 1)]
    assert scores["dice"] == pytest.approx(np.mean(dice))
    assert scores["iou"] == pytest.approx(np.mean(iou))
    assert hits[0] > 0
    assert scores["f1"] == pytest.approx(2 * hits[0] / (2 * hits[0] + hits[1] + hits[2]))
    assert scores["sensitivity"] == pytest.approx(hits[0] / (hits[0] + hits[2]))


@torch.no_grad()
def _logits(tuned: TunedDense, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    tuned.train(False)
    pixels = tuned.network.normalize(torch.from_numpy(image).permute(2, 0, 1)[None])
    logits: NDArray[np.float32] = tuned.decoder(tuned.maps(pixels), pixels)[0].numpy()
    return logits


def _peaks(logits: NDArray[np.float32]) -> list[tuple[float, float, float]]:
    """(chance, x, y) of the highest of 3 x 3 means of 4 x 4 logits, those within 5 px of a higher one left out."""
    chance = 1 / (1 + np.exp(-logits.reshape(8, 4, 8, 4).mean((1, 3))))
    found = [
        (chance[r, c], 4 * c + 2, 4 * r + 2)
        for r in range(8)
        for c in range(8)
        if chance[r, c] >= 0.5 and chance[r, c] == chance[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2].max()
    ]
    kept: list[tuple[float, float, float]] = []
    for chance_of, x, y in sorted(found, reverse=True):
        if all(np.hypot(x - a, y - b) > 5 for _, a, b in kept):
            kept.append((chance_of, x, y))
    return kept


def _hits(found: list[tuple[float, float, float]], truth: list[list[float]]) -> list[int]:
    """Hits, false finds and misses: the surest find first takes the nearest free object within 5 px."""
    free, hits = list(truth), 0
    for _, x, y in found:
        near = min(free, key=lambda point: np.hypot(x - point[0], y - point[1]), default=None)
        if near is not None and np.hypot(x - near[0], y - near[1]) <= 5:
            free.remove(near)
            hits += 1
    return [hits, len(found) - hits, len(free)]
