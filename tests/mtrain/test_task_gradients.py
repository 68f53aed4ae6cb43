"""Gradients of single tasks: exact, logged without a trace in the training, and combined where they conflict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mtrain.data.batches.batch import Batch
from mtrain.errors import UsageError
from mtrain.model.tuning import moved
from mtrain.runs.run_folder import Run
from mtrain.train import fit
from mtrain.train.backward import conflicts, task_gradients
from mtrain.train.trainer import Training
from tests.mtrain.pools import write_pool
from tests.mtrain.test_fit import Notes, config, interrupted
from tests.mtrain.test_graph import Double, agree, trained, whole_state
from tests.mtrain.two_ranks import a_training

torchjd = pytest.mark.skipif(
    conflicts.importlib.util.find_spec("torchjd") is None, reason="needs torchjd: pip install 'dpconvert[gradients]'"
)
ITERATIONS = 10


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"), ("Alpha", "Beta", "Gamma"), sizes={"train": 16, "val": 5})


# --- the gradients, in double precision ---


def test_the_cosines_are_those_of_gradients_of_each_task_alone(shards: Path) -> None:
    """Of a network without batch normalization, where the images of other tasks make no difference."""
    training = a_training(shards, warmup=0, accumulate=2)
    [parts] = training.iterations(range(1))
    rows = np.zeros((3, sum(p.numel() for p in moved(training.model.shared))))
    for batch in parts:
        images, start = training.prepare(batch), 0
        for number, count in enumerate(batch.counts.tolist()):
            own = slice(start, start + count)
            start += count
            if count:
                logits = training.model.heads[training.tasks[number]](training.model.shared(images[own]))
                loss = torch.nn.functional.cross_entropy(logits, batch.labels[own].long(), reduction="sum")
                found = torch.autograd.grad(loss, moved(training.model.shared))
                rows[number] += np.concatenate([g.numpy().ravel() for g in found])
    lengths = np.linalg.norm(rows, axis=1)
    there = [number for number in range(3) if lengths[number]]
    expected = {
        f"{training.tasks[i]}/{training.tasks[j]}": rows[i] @ rows[j] / lengths[i] / lengths[j]
        for i in there
        for j in there
        if i < j
    }
    assert training.cosines(*parts) == pytest.approx(expected, rel=1e-9)
    assert expected


def test_the_inner_products_are_summed_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(task_gradients, "CHUNK", 7)
    expected = rows.double().numpy() @ rows.double().numpy().T
    np.testing.assert_allclose(task_gradients.gramian(rows).numpy(), expected, rtol=1e-12)


def test_tasks_without_a_gradient_have_no_cosines() -> None:
    products = torch.tensor([[4.0, 0.0, -6.0], [0.0, 0.0, 0.0], [-6.0, 0.0, 9.0]], dtype=torch.float64)
    assert task_gradients.cosines(products, ["A", "B", "C"]) == {"A/C": -1.0}


@torchjd
def test_weights_of_1_give_the_step_of_the_sum(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of shared network and heads, with accumulation and momentum."""
    monkeypatch.setattr(conflicts, "weights", lambda _way, products, _seed: torch.ones(len(products)).double())
    states = []
    for way in ("mean", "upgrad"):
        training = a_training(shards, gradients=way, accumulate=2, norm="batch")
        for parts in training.iterations(range(5)):
            training.step(*parts)
        states.append(training.state())
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-9, atol=1e-13)


# --- combinations ---


@torchjd
@pytest.mark.parametrize("way", ["pcgrad", "upgrad"])
def test_a_conflict_of_two_tasks_by_hand(way: str) -> None:
    """Of (1, 0) and (-1, 1) each loses what it has against the other: (0.5, 0.5) and (0, 1) add up to (0.5, 1.5)."""
    rows = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    weights = conflicts.weights(way, task_gradients.gramian(rows), 0)
    np.testing.assert_allclose((weights @ rows).numpy(), [0.5, 1.5], atol=2e-4)


@torchjd
@pytest.mark.parametrize("way", ["pcgrad", "upgrad"])
def test_without_a_conflict_and_whatever_the_scale_each_weighs_1(way: str) -> None:
    rows = torch.tensor([[1e-6, 0.0, 0.0], [1e-6, 2e-6, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    weights = conflicts.weights(way, task_gradients.gramian(rows), 0)
    np.testing.assert_allclose(weights.numpy(), [1, 1, 0], atol=1e-3)


@torchjd
def test_upgrad_is_the_sum_of_projections_by_an_independent_optimiser() -> None:
    rows = np.random.default_rng(3).normal(size=(5, 4))
    total = np.zeros(4)
    for row in rows:
        cone = {"type": "ineq", "fun": lambda x: rows @ x}
        total += minimize(lambda x, row=row: ((x - row) ** 2).sum(), row, constraints=cone, method="SLSQP").x
    weights = conflicts.weights("upgrad", task_gradients.gramian(torch.from_numpy(rows)), 0)
    np.testing.assert_allclose(weights.numpy() @ rows, total, atol=0.02)


@torchjd
def test_the_order_of_pcgrad_depends_on_its_seed_alone() -> None:
    products = task_gradients.gramian(torch.randn(6, 3, generator=torch.Generator().manual_seed(1)))
    state = torch.random.get_rng_state()
    one, again, other = (conflicts.weights("pcgrad", products, seed) for seed in (4, 4, 5))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.random.get_rng_state())


# --- in a run ---


def test_logged_cosines_leave_no_trace_in_the_training(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the same in an interrupted run; there are none in the warm-up of 4 iterations."""
    settings = config(shards, leave_out=())
    plain, logged, resumed = (Run(tmp_path / name / "toy") for name in ("plain", "logged", "resumed"))
    assert fit.fit(settings, plain, Notes()) == "finished"
    with_log = settings.model_copy(update={"log_cosines": 2})
    assert fit.fit(with_log, logged, Notes()) == "finished"
    assert logged.weights.read_bytes() == plain.weights.read_bytes()
    assert logged.heads.read_bytes() == plain.heads.read_bytes()
    interrupted(monkeypatch, resumed, with_log, 5)
    assert fit.fit(with_log, resumed, Notes()) == "finished"
    found = [[e for e in run.events() if e["event"] == "cosines"] for run in (logged, resumed)]
    assert found[0] == found[1]
    assert [e["iteration"] for e in found[0]] == [6, 8, 10, 12]
    assert set(found[0][0]["cosines"]) <= {"Alpha/Beta", "Alpha/Gamma", "Beta/Gamma"}


def test_cosines_beside_recorded_iterations_leave_no_trace(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = trained(shards, Double, range(ITERATIONS))
    step = Training.step

    def logged(self: Training, *parts: Batch) -> torch.Tensor:
        assert self.cosines(*parts)
        return step(self, *parts)

    monkeypatch.setattr(Training, "step", logged)
    other, _ = trained(shards, Double, range(ITERATIONS))
    assert other.recorded is not None
    assert other.recorded.losses
    assert agree(whole_state(other), whole_state(plain))


def test_a_missing_package_is_reported_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"torchjd is not installed; found --gradients upgrad; pip install"):
        fit.fit(config(tmp_path, gradients="upgrad"), Run(tmp_path / "toy"), Notes())
