"""Training on masks and points: levels, losses, still parts, accumulation, checkpoints."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from dpconvert import card as cards
from mtrain.config import FitConfig
from mtrain.data.rows import DenseTargets
from mtrain.model.backbones import body_of
from mtrain.model.dense.dense_loss import drawn_discs, mask_losses, point_losses
from mtrain.model.dense.dense_network import DenseNetwork, enlarged
from mtrain.model.dense.maps import FeatureMap, features_and_maps, levels_of
from mtrain.model.network import shared_network
from mtrain.runs.run_folder import Run
from mtrain.train.fit import fit
from tests.mtrain.dense_networks import dense_training, trained
from tests.mtrain.dense_pools import write_mixed_pool
from tests.mtrain.test_fit import Notes

LEVELS = (FeatureMap("a", 3, "channels first"), FeatureMap("b", 5, "channels first"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed_pool(tmp_path_factory.mktemp("pool"))


def found_in(name: str, size: int) -> list[tuple[str, int, tuple[int, ...]]]:
    network = shared_network(name, "random").eval()
    levels = levels_of(network.body, size, name)
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        features, maps = features_and_maps(network, network.body, levels, images)
        assert torch.equal(features, network(images))
    return [(one.module, one.channels, tuple(of.shape[2:])) for one, of in zip(levels, maps, strict=True)]


def test_convolutional_networks_give_the_map_that_each_stage_ends_in() -> None:
    sides = [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert found_in("resnet18", 64) == [(f"layer{number + 1}", 64 << number, side) for number, side in enumerate(sides)]
    dense = [
        ("features.denseblock1", 256),
        ("features.denseblock2", 512),
        ("features.denseblock3", 1024),
        ("features", 1024),
    ]
    assert found_in("mtdp_densenet121", 64) == [(*of, side) for of, side in zip(dense, sides, strict=True)]


def test_transformers_give_the_patches_of_four_blocks() -> None:
    pytest.importorskip("timm", reason="timm is an extra")
    blocks = [f"blocks.{number}" for number in (2, 5, 8, 11)]
    assert found_in("timm:vit_tiny_patch16_224", 64) == [(block, 192, (4, 4)) for block in blocks]
    level = FeatureMap("", 2, "tokens", prefix=1)
    tokens = torch.arange(10).view(1, 5, 2)  # token 1 is the first patch, 2 the one to its right
    assert level.map_of(tokens)[0, 0].tolist() == [[2, 4], [6, 8]]


def test_timm_finds_the_same_maps() -> None:
    timm = pytest.importorskip("timm", reason="timm is an extra")
    torch.manual_seed(0)
    body = body_of("timm:resnet18", pretrained=False).module.eval()
    other = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    other.load_state_dict(body.state_dict(), strict=False)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        _, maps = features_and_maps(body, body, levels_of(body, 64, "resnet18"), images)
        assert all(torch.equal(*pair) for pair in zip(maps, other(images), strict=True))


def test_the_decoder_has_about_a_million_parameters() -> None:
    levels = [FeatureMap("", channels, "channels first") for channels in (256, 512, 1024, 2048)]
    network = DenseNetwork(levels, {"A": DenseTargets(seg=("a", "b"))})
    assert 6e5 < sum(parameter.numel() for parameter in network.parameters()) < 1.1e6


def test_maps_are_those_of_the_own_convolution_of_each_task() -> None:
    network = DenseNetwork(
        LEVELS,
        {"A": DenseTargets(seg=("a", "b", "c")), "B": DenseTargets(points=("p",)), "C": DenseTargets(("d",), ("q",))},
    )
    maps = [torch.randn(3, 3, 8, 8), torch.randn(3, 5, 4, 4)]
    found = network(maps, torch.tensor([1, 0, 2]))
    assert found.shape == (3, 4, 8, 8)  # three classes of masks at most, then one of points
    decoded = network.decoder(maps)
    weights, biases = network.heads.weight, network.heads.bias
    for image, channel, row in ((0, 3, 3), (1, 0, 0), (1, 2, 2), (2, 0, 4), (2, 3, 5)):
        wanted = F.conv2d(decoded[image : image + 1], weights[row : row + 1], biases[row : row + 1], padding=1)
        torch.testing.assert_close(found[image, channel], wanted[0, 0])
    assert not found[2, 1].any()  # task C has one class


def test_enlarging_is_bilinear() -> None:
    maps = torch.randn(2, 3, 5, 7, dtype=torch.double)
    wanted = F.interpolate(maps, size=(20, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarged(maps, 20), wanted)


def test_the_loss_of_masks_is_that_worked_out_by_hand() -> None:
    """Two pixels count: p = 1/2 each of two classes, one pixel of each class.

    Soft Dice of a class: 2 x 1/2 / (1 + 1) = 1/2, so 1 - 1/2; cross-entropy: ln 2, divided by ln 2.
    """
    logits = torch.zeros(3, 3, 1, 3)
    logits[:, 2] = 50  # not a class of this task
    masks = torch.tensor([[[0, 1, 255]], [[255, 255, 255]], [[0, 0, 0]]], dtype=torch.uint8)
    known = torch.tensor([[True, True, False]]).expand(3, 3)
    found = mask_losses(logits, masks, known, torch.full((3,), math.log(2)))
    # third: class 0 alone is present: 1 - 2 x 1.5 / (1.5 + 3) = 1/3
    torch.testing.assert_close(found, torch.tensor([0.5 + 1, 0.0, 1 / 3 + 1]))


def test_the_loss_of_points_is_that_worked_out_by_hand() -> None:
    """Chance 1/2 everywhere: a place in a disc costs 1/4 x 1/4 x ln 2, any other 3/4 x 1/4 x ln 2."""
    truth = torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    truth[0, 0, 0] = True  # two places of four; the second class is not one of this task
    found = point_losses(torch.zeros(1, 2, 2, 2), truth, torch.tensor([[True, False]]), torch.tensor([0.1]))
    one_disc = math.pi * 0.75**2
    torch.testing.assert_close(found, torch.tensor([(2 / 16 + 2 * 3 / 16) * math.log(2) / max(2, one_disc)]))


def test_discs_hold_the_places_within_the_radius() -> None:
    points = torch.tensor([[[6.0, 2.0, 1.0], [0, 0, -1]], [[4.0, 4.0, 0], [12.0, 12.0, 0]]])
    found = drawn_discs(points, torch.tensor([4.0, 0.0]), (2, 2, 4, 4), 16)
    rows, columns = np.mgrid[:4, :4] + 0.5
    wanted = (columns - 1.5) ** 2 + (rows - 0.5) ** 2 <= 1
    assert np.array_equal(found[0, 1].numpy(), wanted)
    assert not found[0, 0].any()
    assert bool(found[1, 0].any())  # no radius is so small that a point has no place
    assert not found[1, 1].any()


def test_parts_that_no_sample_reaches_stay_as_they_are(shards: Path) -> None:
    ours = dense_training(shards, batch=4, seed=5)
    model, moved = ours.model, {"heads": 0, "decoder": 0}
    assert model.dense is not None
    for parts in ours.iterations(range(6)):
        heads = {task: head.weight.clone() for task, head in model.dense.heads.items()}
        decoder = [parameter.clone() for parameter in model.dense.decoder.parameters()]
        ours.step(*parts)
        counts = dict(zip(ours.tasks, ours.counts, strict=True))
        for task, before in heads.items():
            assert torch.equal(before, model.dense.heads[task].weight) == (counts[task] == 0)
        still = all(torch.equal(*pair) for pair in zip(decoder, model.dense.decoder.parameters(), strict=True))
        assert still == (counts["Masks"] + counts["Points"] == 0)
        moved["heads"] += sum(counts[task] == 0 for task in heads)
        moved["decoder"] += still
    assert moved["heads"] > 0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_accumulated_batches_train_as_whole_ones(optimizer: str, shards: Path) -> None:
    whole, halves = (trained(shards, optimizer=optimizer, accumulate=parts).model for parts in (1, 2))
    for (name, one), other in zip(whole.named_parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("choices", [{}, {"optimizer": "adamw", "ema": 0.9, "rotations": True}], ids=["sgd", "adamw"])
def test_a_resumed_training_ends_with_the_same_bits(choices: dict[str, object], shards: Path) -> None:
    whole = trained(shards, **choices)
    first, second = trained(shards, 4, **choices), dense_training(shards, **choices)
    second.iteration = 4
    second.optimizer = type(second.optimizer)(second.config, second.model, 4)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    for parts in second.iterations(range(4, 6)):
        second.step(*parts)
    wanted = whole.state()
    assert wanted.keys() == second.state().keys()
    assert all(torch.equal(wanted[name], tensor) for name, tensor in second.state().items())
    assert "model.dense.heads.Masks.weight" in wanted


def test_a_pool_trains_to_the_same_bits_whether_or_not_it_has_masks(shards: Path, tmp_path: Path) -> None:
    plain = write_mixed_pool(tmp_path)
    for folder in plain.iterdir():  # the same images, with cards that say nothing of masks
        card = cards.load(folder).model_copy(update={"dense": None})
        (folder / cards.FILE_NAME).write_bytes(cards.dump(card))
    one, other = (trained(place, dense=False, loss_scale="auto").model for place in (shards, plain))
    assert one.dense is None
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))


def test_guesses_cost_about_one_in_each_kind_of_task(shards: Path) -> None:
    ours = dense_training(shards, batch=32, loss_scale="auto", warmup=0)
    (parts,) = ours.iterations(range(1))
    losses = ours.step(*parts) / torch.tensor(ours.counts)
    assert all(0.5 < value < 4 for value in losses.tolist()), losses


@pytest.mark.parametrize("gradients", ["mean", "upgrad"])
@pytest.mark.parametrize("backbone", ["timm:test_vit", "timm:test_resnet"])
def test_checkpointing_changes_no_bit(shards: Path, tmp_path: Path, backbone: str, gradients: str) -> None:
    given = {"backbone": backbone, "weights": "random", "shards": str(shards), "size": 64, "gradients": gradients}
    given |= {"batch": 8, "iterations": 3, "warmup": 1, "adapt_batches": 1, "workers": 0, "device": "cpu", "lr": 0.01}
    runs = Run(tmp_path / "plain"), Run(tmp_path / "checkpointing")
    for run, checkpointing in zip(runs, (False, True), strict=True):
        assert fit(FitConfig(**given, dense=True, checkpointing=checkpointing), run, Notes()) == "finished"
    for one, two in zip(*([run.weights, run.heads, run.dense] for run in runs), strict=True):
        whole, again = load_file(one), load_file(two)
        assert whole.keys() == again.keys()
        assert all(torch.equal(values, again[name]) for name, values in whole.items()), one.name
