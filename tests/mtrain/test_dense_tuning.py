"""Masks and points on a network that is trained with the decoder: what moves, by how much, and what stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mtrain.cli import transfer_lines
from mtrain.data.batch import Batch
from mtrain.data.images import Images
from mtrain.data.loader import EpochBatches
from mtrain.data.targets import Targets
from mtrain.data.task import Dense, Task, open_task
from mtrain.errors import UsageError
from mtrain.model.backbones import Body
from mtrain.model.network import SharedNetwork
from mtrain.transfers.dense import LR, FrozenDense
from mtrain.transfers.dense_tuned import Moving, TunedDense
from tests.mtrain.dense_networks import body
from tests.mtrain.dense_pools import write_dense_task

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
    return EpochBatches(Images(parts), 16, 0, 8, targets=Targets(parts))[0]


def decoder(task: Task, moving: Moving, source: SharedNetwork) -> FrozenDense:
    dense: Dense = task.dense  # type: ignore[assignment]
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
    assert transfer_lines.moving((), None, None) == Moving()
    assert transfer_lines.moving((0.01,), "heads", None).determining() == {}
    assert transfer_lines.moving((0.01,), "all", None).determining() == {"tune": "all", "lr": 0.01}
    assert transfer_lines.moving((), "last:2", 0.5).determining() == {"tune": "last:2", "lr": 1e-4, "layer_decay": 0.5}
    with pytest.raises(UsageError, match=r"--mode dense trains the network at one --lr"):
        transfer_lines.moving((0.1, 0.01), "all", None)
    assert set(transfer_lines.unmoved(["dense"], None)) == {"rates", "layer_decay"}
    assert transfer_lines.unmoved(["dense", "finetune"], None) == {}
    assert transfer_lines.unmoved(["dense"], "all") == {}
