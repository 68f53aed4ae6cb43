"""What a process keeps between the cells of a sweep: nothing outside the block, nothing stale, and the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mtrain.data.batches.resident import ResidentImages
from mtrain.data.kept import keeping, kept
from mtrain.data.pool import open_pool
from mtrain.errors import ShardError
from mtrain.model.batchnorm import batchnorm_adapt
from mtrain.train import adaptation, start
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.test_fit import a_training


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_pool(tmp_path / "pool", ("Alpha", "Beta"), sizes={"train": 12, "val": 4, "test": 4})


def test_something_is_made_once_for_each_key_and_only_within_the_block() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    assert [kept("a", 1, make), kept("a", 1, make)] == [0, 1]
    with keeping():
        assert [kept("a", 1, make), kept("a", 1, make)] == [2, 2]
        with keeping():
            assert kept("a", 1, make) == 2
        assert [kept("a", 2, make), kept("b", 2, make), kept("a", 1, make)] == [3, 4, 5]
    assert kept("a", 1, make) == 6


def test_what_fails_is_not_kept() -> None:
    with keeping():
        with pytest.raises(ZeroDivisionError):
            kept("a", 1, lambda: 1 // 0)
        assert kept("a", 1, lambda: 7) == 7


def test_an_index_is_read_once_and_again_when_the_shards_change(shards: Path) -> None:
    with keeping():
        first, second = open_pool(shards), open_pool(shards)
        assert all(
            one.rows["train"] is other.rows["train"] for one, other in zip(first.tasks, second.tasks, strict=True)
        )
        write_task(shards / "Beta", seed=9, sizes={"train": 8, "val": 4, "test": 4})
        third = open_pool(shards)
        assert [len(task.rows["train"]) for task in third.tasks] == [12, 8]
        assert third.tasks[0].rows["train"] is first.tasks[0].rows["train"]
        index = next((shards / "Beta").glob("*.parquet"))
        content = bytearray(index.read_bytes())
        content[len(content) // 2] ^= 1
        index.write_bytes(bytes(content))
        with pytest.raises(ShardError, match="the index has changed"):
            open_pool(shards)
        next((shards / "Alpha").glob("train-*.tar")).unlink()
        with pytest.raises(ShardError, match="missing"):
            open_pool(shards)


def test_resident_images_stay_for_the_next_cell_unless_a_shard_has_changed(shards: Path) -> None:
    def found(**changed: object) -> ResidentImages:
        training = a_training(shards, leave_out=(), resident=1, **changed)
        assert training.images is not None
        return start._resident(training, training.images)[0]

    with keeping():
        first = found()
        assert found(lr=1e-1) is first
        assert found(size=40) is not first
        second = found()
        shard = next((shards / "Alpha").glob("train-*.tar"))
        content = shard.read_bytes()
        shard.unlink()
        shard.write_bytes(content)
        third = found()
        assert third is not second
        assert torch.equal(third.pixels, second.pixels)


def test_an_adaptation_is_that_of_each_training_to_the_bit(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two learning rates share it; another seed, batch or network state does not."""
    asked = []
    plain = batchnorm_adapt.adapt
    monkeypatch.setattr(batchnorm_adapt, "adapt", lambda *given: asked.append(1) or plain(*given))

    def adapted(lr: float = 1e-3, seed: int = 0, batch: int = 8, factor: float = 1.0) -> list[torch.Tensor]:
        training = a_training(shards, leave_out=(), lr=lr, seed=seed, batch=batch, adapt_batches=2)
        shared = training.model.shared
        with torch.no_grad():
            next(shared.parameters()).mul_(factor)
        assert adaptation.adapt(training) == len(batchnorm_adapt.layers_of(shared))
        return list(shared.body.state_dict().values())

    alone = adapted()
    other = ({"seed": 1}, {"batch": 6}, {"factor": 2.0})
    with keeping():
        for given, count in (({}, 2), ({"lr": 1e-1}, 2), *zip(other, (3, 4, 5), strict=True), ({}, 6)):
            found = adapted(**given)  # type: ignore[arg-type]
            assert len(asked) == count
            assert all(map(torch.equal, alone, found)) == (given not in other)
