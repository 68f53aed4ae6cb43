"""The training: one step against its formulas, and runs that end with the same bits however they were interrupted."""

from __future__ import annotations

import copy
import itertools
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from dpconvert.runtime.progress import Advance, Reporter
from mtrain.config import FitConfig
from mtrain.data import sampling
from mtrain.data.pool import open_pool
from mtrain.errors import RunError, UsageError
from mtrain.model.network import MultiHead, shared_network
from mtrain.runs.run_folder import Run
from mtrain.train import checkpoint, ending, fit, validation
from mtrain.train.optimizer import PhaseOptimizer
from mtrain.train.trainer import Training
from tests.forked import Forked
from tests.mtrain.pools import write_pool, write_task
from tests.power_loss import on_disk_when_named

SMALL = "shufflenet_v2_x0_5"
WITH_DROPOUT = "mobilenet_v3_small"
CPU = torch.device("cpu")
COMMON: dict[str, Any] = {
    "leave_out": ("Gamma",),
    "backbone": SMALL,
    "weights": "random",
    "iterations": 12,
    "warmup": 4,
    "lr": 1e-2,
    "batch": 8,
    "size": 32,
    "adapt_batches": 2,
    "weight_decay": 1e-3,
    "workers": 0,
    "checkpoint_every": 3,
    "validate_every": 0,
    "log_every": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"), ("Alpha", "Beta", "Gamma"), sizes={"train": 16, "val": 5})


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """The weights file that an uninterrupted run called "toy" leaves."""
    known: dict[str, bytes] = {}

    def weights(**changed: Any) -> bytes:
        key = str(sorted(changed.items()))
        if key not in known:
            run = Run(tmp_path_factory.mktemp("whole") / "toy")
            assert fit.fit(config(shards, **changed), run, Notes()) == "finished"
            known[key] = run.weights.read_bytes()
        return known[key]

    return weights


class Notes(Reporter):
    """Keeps what is said, and of which work there was progress: its name and total."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []
        self.bars: list[tuple[str, int]] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    def bar(self, what: str, total: int, done: int = 0, unit: str = "samples") -> AbstractContextManager[Advance]:
        if total != done:
            self.bars.append((what, total))
        return super().bar(what, total, done, unit)


def config(shards: Path, **changed: Any) -> FitConfig:
    return FitConfig(**(COMMON | {"shards": str(shards)} | changed))


def a_training(shards: Path, **changed: Any) -> Training:
    settings, pool = config(shards, **changed), open_pool(shards)
    torch.manual_seed(0)
    network = shared_network(settings.backbone, "random")
    targets = {task.name: task.target for task in pool.tasks}
    model = MultiHead(network, {task.name: task.outputs for task in pool.tasks}, targets=targets)
    return Training(settings, pool, model, CPU)


def stop_after(monkeypatch: pytest.MonkeyPatch, iteration: int) -> None:
    """SIGTERM to this process while that iteration is under way."""
    plain = Training.step

    def step(self: Training, *parts: Any) -> torch.Tensor:
        if self.iteration + 1 == iteration:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, *parts)

    monkeypatch.setattr(Training, "step", step)


def interrupted(monkeypatch: pytest.MonkeyPatch, run: Run, settings: FitConfig, iteration: int) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, iteration)
        assert fit.fit(settings, run, Notes()) == "stopped"
    assert run.state() == ("stopped", iteration)


# --- one step ---


def pieces(model: MultiHead) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, str | None]]:
    """(name, values, gradient, task) of every parameter of the shared network, and of the rows of each task's head."""
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        if name.startswith("heads."):
            rows = zip(*(model.heads.rows_of(of).items() for of in (parameter.data, parameter.grad)), strict=True)
            yield from ((f"{name} {task}", values, gradient, task) for (task, values), (_, gradient) in rows)
        else:
            yield name, parameter.data, parameter.grad, None


def test_one_step_is_what_the_formulas_say(shards: Path) -> None:
    """Five iterations in double precision: for each parameter, with g its gradient of sum(loss) / B,

    heads: g <- g * B / B_t; then g <- g + decay * p; v <- 0.9 v + g; p <- p - rate * v; heads without samples: nothing.
    """
    ours = a_training(shards, warmup=0, lr=1e-4, tau=3.0, batch=4, weight_decay=0.01, size=64)
    ours.model.double()
    ours.optimizer = PhaseOptimizer(ours.config, ours.model, 0)
    ours.prepare = lambda batch: Training.prepare(ours, batch).double()  # type: ignore[method-assign]
    plain, velocity = copy.deepcopy(ours.model).train(), {}
    seen: set[tuple[int, ...]] = set()
    for number, batch in enumerate(ours.drawn(range(5))):
        counts, start = batch.counts.tolist(), 0
        seen.add(tuple(n > 0 for n in counts))
        torch.manual_seed(sampling.model_seed(0, number))
        features, loss = plain.shared(ours.prepare(batch)), torch.zeros((), dtype=torch.float64)
        for task, count in zip(ours.tasks, counts, strict=True):
            for i in range(start, start + count):
                loss = loss + F.cross_entropy(plain.heads[task](features[i]), batch.labels[i]) / 4
            start += count
        plain.zero_grad()
        loss.backward()
        for name, parameter, gradient, task in pieces(plain):
            rate = 1e-4
            if task is not None:
                if not (count := counts[ours.tasks.index(task)]):
                    continue
                gradient, rate = gradient * 4 / count, 1e-4 * 3
            velocity[name] = 0.9 * velocity.get(name, 0) + gradient + 0.01 * parameter
            parameter -= rate * velocity[name]
        losses = ours.step(batch)
        assert float(losses.sum()) == pytest.approx(4 * float(loss.detach()), rel=1e-9)
    assert (True, True, True) in seen
    assert len(seen) > 1
    for (name, one), other in zip(ours.model.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-11), name


def test_the_warmup_moves_the_heads_alone_and_learns_no_statistics(shards: Path) -> None:
    ours = a_training(shards, warmup=2, warmup_lr=0.5, weight_decay=0.1, momentum=0.9)
    before = copy.deepcopy(ours.model.state_dict())
    moved = []
    for batch in ours.drawn(range(3)):
        assert ours.optimizer.rates == {"heads": 0.5}
        ours.step(batch)
        moved.append({n for n, tensor in ours.model.state_dict().items() if not torch.equal(tensor, before[n])})
        assert all((p.grad is None) == (ours.iteration <= 2) for p in ours.model.shared.parameters())
    assert moved[1] == {name for name in before if name.startswith("heads.")}
    assert moved[2] == set(before)
    assert ours.optimizer.rates == {"shared": ours.config.lr, "heads": ours.config.lr * 5}


def test_after_the_warmup_the_heads_begin_without_momentum(shards: Path) -> None:
    ours = a_training(shards, warmup=1, tau=1e-30, lr=1.0, batch=8)
    for batch in ours.drawn(range(2)):
        ours.step(batch)
    weight = ours.model.heads.weight
    momentum = ours.optimizer.state[weight]["momentum_buffer"]
    assert weight.grad is not None
    assert all(ours.counts)
    assert torch.allclose(momentum, weight.grad + 1e-3 * weight)


# --- whole runs ---


def test_a_run_learns_and_leaves_what_it_says(shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    run, notes = Run(tmp_path / "toy"), Notes()
    learning = {
        "backbone": "timm:test_resnet",
        "lr": 5e-2,
        "iterations": 24,
        "warmup": 2,
        "tau": 1.0,
        "validate_every": 10,
        "train_on": "train",
    }
    assert fit.fit(config(shards, **learning, workers=1), run, notes) == "finished"
    assert run.state() == ("finished", 24)
    assert run.left_out() == ["Gamma"]
    about = run.about()
    assert about["pool"] == {t.name: t.card.digest for t in open_pool(shards).tasks if t.name != "Gamma"}
    assert about["versions"]["torch"] == torch.__version__.partition("+")[0]
    events = run.events()
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert len(losses) == 12
    assert losses[-1] < 0.5 * losses[0]
    validations = [event for event in events if event["event"] == "validation"]
    assert [event["iteration"] for event in validations] == [10, 20, 24]
    assert validations[-1]["accuracy"] == {"Alpha": 1, "Beta": 1}
    assert [path.name for path in checkpoint.newest(run.checkpoints)] == [
        "iteration-00000024.safetensors",
        "iteration-00000021.safetensors",
    ]
    assert list((run.path / "tensorboard").glob("events*"))
    assert any("15 batch-normalization layers adapted" in note for note in notes.said)
    shared_network("timm:test_resnet", run.weights)


@pytest.mark.parametrize(
    ("backbone", "iteration", "workers"),
    [(SMALL, 3, 0), (SMALL, 4, 2), (SMALL, 5, 1), (WITH_DROPOUT, 8, 0)],
    ids=["in the warm-up", "at its end", "after it", "with dropout"],
)
def test_a_stopped_run_goes_on_to_the_same_bits(
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: Callable[..., bytes],
    backbone: str,
    iteration: int,
    workers: int,
) -> None:
    run = Run(tmp_path / "toy")
    interrupted(monkeypatch, run, config(shards, backbone=backbone, checkpoint_every=100), iteration)
    assert len(checkpoint.newest(run.checkpoints)) == 1
    assert fit.fit(config(shards, backbone=backbone, workers=workers, log_every=5), run, Notes()) == "finished"
    assert run.weights.read_bytes() == whole(backbone=backbone)


def fit_words(shards: Path, runs: Path, **changed: Any) -> list[str]:
    options = COMMON | {"shards": str(shards), "leave_out": "Gamma"} | changed
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return ["fit", "--runs", str(runs), "--run", "toy", *words]


def started(shards: Path, runs: Path, **changed: Any) -> subprocess.Popen[str]:
    """`mtrain fit` as a user runs it, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mtrain.cli", *fit_words(shards, runs, **changed)],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def forked(shards: Path, runs: Path, **changed: Any) -> Forked:
    """The same in a fork, which has imported everything; tests/mtrain/test_faults.py starts interpreters."""
    return Forked(fit_words(shards, runs, **changed))


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str] | Forked) -> None:
    begun = time.monotonic()
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begun < 200
        time.sleep(0.01)


LONG: dict[str, Any] = {"iterations": 40, "warmup": 15, "checkpoint_every": 5}


def test_a_process_that_is_asked_to_stop_says_how_to_go_on_and_ends_with_the_same_bits(
    shards: Path, tmp_path: Path, whole: Callable[..., bytes]
) -> None:
    run = Run(tmp_path / "toy")
    process = forked(shards, tmp_path, workers=2, **LONG)
    wait_for(lambda: len(run.events()) > 2, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"stopped; a checkpoint is saved: resume with: mtrain fit --runs {tmp_path} --run toy" in said
    assert "Traceback" not in said
    state, iteration = run.state()
    assert state == "stopped"
    assert 0 < iteration < LONG["iterations"]
    assert fit.fit(config(shards, **LONG), run, Notes()) == "finished"
    assert run.weights.read_bytes() == whole(**LONG)


def test_a_process_that_is_killed_anywhere_goes_on_to_the_same_bits(
    shards: Path, tmp_path: Path, whole: Callable[..., bytes]
) -> None:
    run = Run(tmp_path / "toy")
    process = forked(shards, tmp_path, workers=1, **LONG)
    wait_for(lambda: bool(checkpoint.newest(run.checkpoints)), process)
    assert run.state()[0] == "running"
    time.sleep(random.uniform(0, 0.2))  # what is left of it takes half a second
    process.kill()
    process.communicate()
    assert run.state()[0] == "stopped"
    assert fit.fit(config(shards, **LONG), run, Notes()) == "finished"
    assert run.weights.read_bytes() == whole(**LONG)


def test_the_disk_has_every_file_of_a_run_when_it_gets_its_name(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, named = Run(tmp_path / "toy"), on_disk_when_named(monkeypatch)
    fit.fit(config(shards, iterations=1, warmup=0), run, Notes())
    assert named.keys() >= {"config.json", "state.json", run.weights.name, run.heads.name}
    assert named.keys() >= {path.name for path in checkpoint.newest(run.checkpoints)}
    assert {name: sizes for name, sizes in named.items() if sizes[0] != sizes[1]} == {}


def test_a_run_that_was_killed_before_its_weights_were_there_has_not_finished(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Callable[..., bytes]
) -> None:
    run = Run(tmp_path / "toy")
    with monkeypatch.context() as patch:
        patch.setattr(ending, "save_weights", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit.fit(config(shards), run, Notes())
    assert run.state() == ("stopped", 12)
    assert fit.fit(config(shards), run, Notes()) == "finished"
    assert run.weights.read_bytes() == whole()


@pytest.mark.parametrize("finished", [True, False])
def test_a_state_that_was_copied_from_another_run_is_noticed(shards: Path, tmp_path: Path, finished: bool) -> None:
    run, other, notes = Run(tmp_path / "toy"), Run(tmp_path / "other"), Notes()
    settings = config(shards, iterations=2, warmup=0, batch=4, size=32)
    fit.fit(settings, run, Notes())
    fit.fit(settings.model_copy(update={"iterations": 3}), other, Notes())
    whole, own = run.weights.read_bytes(), json.loads((run.path / "state.json").read_bytes())
    if not finished:
        run.weights.unlink()
    shutil.copy(other.path / "state.json", run.path)
    assert run.state()[1] == 3
    assert fit.fit(settings, run, notes) == "finished"
    assert any(f"{run.path / 'state.json'}: the state of another run" in note for note in notes.said)
    assert (run.weights.read_bytes(), json.loads((run.path / "state.json").read_bytes())) == (whole, own)
    run.write("state.json", {"state": "finished", "iteration": 2})  # of an earlier version
    assert fit.fit(settings, run, again := Notes()) == "finished"
    assert not any("another run" in note for note in again.said)


def test_a_finished_run_says_so_and_does_nothing(shards: Path, tmp_path: Path) -> None:
    run, notes = Run(tmp_path / "toy"), Notes()
    settings = config(shards, iterations=2, warmup=0)
    fit.fit(settings, run, Notes())
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != ".lock"}
    assert fit.fit(settings, run, notes) == "finished"
    assert notes.said == ["toy: already finished, nothing to do"]
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != ".lock"}


# --- what goes wrong ---


@pytest.fixture(scope="module")
def stopped(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped after iteration 8."""
    run = Run(tmp_path_factory.mktemp("stopped") / "toy")
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, run, config(shards), 8)
    return run.path


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(
    shards: Path, tmp_path: Path, stopped: Path, whole: Callable[..., bytes], damage: str
) -> None:
    run, notes = Run(shutil.copytree(stopped, tmp_path / "toy")), Notes()
    newest, _ = checkpoint.newest(run.checkpoints)
    data = bytearray(newest.read_bytes())
    data[-1000] ^= 1
    newest.write_bytes({"cut": data[:-1000], "changed": data, "empty": b""}[damage])
    assert fit.fit(config(shards), run, notes) == "finished"
    assert any("iteration-00000008" in note and "the previous one is used" in note for note in notes.said)
    assert "toy: resumed after iteration 6 of 12" in notes.said
    assert run.weights.read_bytes() == whole()


def test_without_a_readable_checkpoint_the_run_begins_anew_and_says_so(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Callable[..., bytes]
) -> None:
    run, notes = Run(tmp_path / "toy"), Notes()
    interrupted(monkeypatch, run, config(shards), 2)
    for path in checkpoint.newest(run.checkpoints):
        path.write_bytes(b"?")
    assert fit.fit(config(shards), run, notes) == "finished"
    assert any("training starts from the beginning" in note for note in notes.said)
    assert run.weights.read_bytes() == whole()


@pytest.mark.parametrize("every", [1, 100])
def test_a_training_that_diverges_stops_in_one_line_and_keeps_only_finite_checkpoints(
    shards: Path, tmp_path: Path, every: int
) -> None:
    run = Run(tmp_path / "toy")
    with pytest.raises(RunError, match=r"diverged; start another run with a lower --lr") as caught:
        fit.fit(config(shards, lr=1e35, warmup=3, checkpoint_every=3, log_every=every), run, Notes())
    assert "\n" not in str(caught.value)
    kept = checkpoint.newest(run.checkpoints)
    assert [path.name for path in kept] == ["iteration-00000003.safetensors"]
    assert all(torch.isfinite(tensor).all() for tensor in load_file(kept[0]).values())
    assert all(event["loss"] == event["loss"] for event in run.events())


def test_weights_that_are_not_finite_are_not_kept_even_when_the_loss_was(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"after iteration 7 momentum.b is not finite"):
        checkpoint.save(tmp_path / "c", 7, {"model.a": torch.ones(2), "momentum.b": torch.tensor([1.0, torch.inf])})
    assert not (tmp_path / "c").exists()


def test_after_a_loss_that_is_not_finite_no_checkpoint_is_written(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plain = Run(tmp_path / "toy"), Training.step
    monkeypatch.setattr(Training, "step", lambda self, batch: plain(self, batch) * float("nan"))
    with pytest.raises(RunError, match=r"the loss of Alpha, Beta is not finite in iterations 1 to 3"):
        fit.fit(config(shards, log_every=100), run, Notes())
    assert not run.checkpoints.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lr": 0.5}, r"lr \(0\.01 in the run, 0\.5 requested\)"),
        ({"seed": 1, "batch": 4}, r"batch \(8 in the run, 4 requested\); seed \(0 in the run, 1 requested\)"),
        ({"leave_out": ("Beta",)}, r"tasks left out \(Gamma in the run, Beta requested\)"),
    ],
)
def test_other_settings_are_refused_by_name(
    shards: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    run = Run(tmp_path / "toy")
    fit.fit(config(shards, iterations=2, warmup=0), run, Notes())
    with pytest.raises(RunError, match=rf"{message}; give the run's own settings"):
        fit.fit(config(shards, iterations=2, warmup=0, **changed), run, Notes())
    assert fit.fit(config(shards, iterations=2, warmup=0, leave_out=("gamma",)), run, Notes()) == "finished"


def test_other_shards_are_refused_by_task(tmp_path: Path) -> None:
    run, settings = Run(tmp_path / "toy"), config(write_pool(tmp_path / "s"), iterations=1, warmup=0)
    fit.fit(settings, run, Notes())
    write_task(tmp_path / "s" / "Beta", seed=99)
    with pytest.raises(RunError, match="other settings: the shards of Beta;"):
        fit.fit(settings, run, Notes())
    write_task(tmp_path / "s" / "Beta", seed=1)
    write_task(tmp_path / "s" / "Delta")
    with pytest.raises(RunError, match=r"other settings: the tasks of the pool \(Delta\);"):
        fit.fit(settings, run, Notes())


def test_a_second_process_in_the_same_run_is_refused(shards: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "toy")
    told = r"another process is training this run; found process \d+ on .*; wait until it ends"
    with run.locked(), pytest.raises(RunError, match=told):
        fit.fit(config(shards), Run(tmp_path / "toy"), Notes())


def test_a_mistake_leaves_no_run_behind(shards: Path, tmp_path: Path) -> None:
    for wrong in ({"backbone": "resnet51"}, {"weights": str(tmp_path / "absent.pth")}, {"device": "tpu"}):
        with pytest.raises((UsageError, RunError)):
            fit.fit(config(shards, **wrong), Run(tmp_path / "runs" / "toy"), Notes())
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_size_that_the_network_cannot_take_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"densenet121 does not take images of 16 px: .*; give another --size"):
        fit.fit(config(shards, backbone="densenet121", size=16), Run(tmp_path / "toy"), Notes())


def test_related_tasks_leave_too_and_it_says_so(tmp_path: Path) -> None:
    write_pool(tmp_path / "s")
    write_task(tmp_path / "s" / "Delta", related=["Gamma"])
    run, notes = Run(tmp_path / "toy"), Notes()
    fit.fit(config(tmp_path / "s", iterations=1, warmup=0), run, notes)
    assert "Delta is left out too: related to Gamma" in notes.said
    assert run.left_out() == ["Delta", "Gamma"]


def test_a_task_without_a_training_set_is_refused(tmp_path: Path) -> None:
    write_pool(tmp_path / "s")
    write_task(tmp_path / "s" / "Delta", sizes={"test": 4})
    with pytest.raises(UsageError, match="Delta: this task has no training set; leave it out with --leave-out"):
        fit.fit(config(tmp_path / "s"), Run(tmp_path / "toy"), Notes())


def test_empty_sets_and_classes_are_said_before_a_training_starts(tmp_path: Path) -> None:
    write_pool(tmp_path / "s")
    write_task(tmp_path / "s" / "Delta", sizes={"train": 24, "test": 1})  # labels 0 and 1 in turn
    notes = Notes()
    fit.fit(config(tmp_path / "s", iterations=1, warmup=0), Run(tmp_path / "toy"), notes)
    assert [note for note in notes.said if "no sample" in note] == [
        "Delta: no sample in val; no sample of class 'class-1' in test"
    ]
    assert notes.said.index("Delta: no sample in val; no sample of class 'class-1' in test") == 0


def test_a_task_may_have_any_name(tmp_path: Path) -> None:
    write_pool(tmp_path / "s")
    for name in ("training", "weight", "bias"):
        write_task(tmp_path / "s" / name)
    run = Run(tmp_path / "toy")
    fit.fit(config(tmp_path / "s", leave_out=(), iterations=2, warmup=1), run, Notes())
    state, _ = checkpoint.load(checkpoint.newest(run.checkpoints)[0])
    ours = a_training(tmp_path / "s", warmup=0)
    ours.restore(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state().items())


def test_a_full_disk_is_one_line_and_the_run_continues_later(
    shards: Path, tmp_path: Path, whole: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "toy")
    interrupted(monkeypatch, run, config(shards), 4)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # no larger file can be written
    try:
        with pytest.raises(
            RunError, match=r"iteration-00000006.safetensors: cannot be written: .*; make room"
        ) as caught:
            fit.fit(config(shards), run, Notes())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    kept = {path.name for path in run.checkpoints.iterdir()}
    assert kept == {"iteration-00000003.safetensors", "iteration-00000004.safetensors"}
    assert fit.fit(config(shards), run, Notes()) == "finished"
    assert run.weights.read_bytes() == whole()


def test_a_loader_process_that_is_killed_ends_the_run_in_one_line_and_it_goes_on(
    shards: Path, tmp_path: Path, whole: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plain = Run(tmp_path / "toy"), Training.step

    def step(self: Training, batch: Any) -> torch.Tensor:
        if self.iteration == 3:
            for worker in multiprocessing.active_children():
                worker.kill()
                worker.join()
        return plain(self, batch)

    with monkeypatch.context() as patch:
        waits = _MultiProcessingDataLoaderIter._try_get_data
        patch.setattr(waits, "__defaults__", (0.1,))  # seconds; torch looks every five
        patch.setattr(Training, "step", step)
        with pytest.raises(RunError, match=r"a loader process was killed, .* with fewer --workers"):
            fit.fit(config(shards, workers=1), run, Notes())
    assert fit.fit(config(shards), run, Notes()) == "finished"
    assert run.weights.read_bytes() == whole()


def test_too_little_memory_on_the_device_is_one_line_and_other_errors_are_not_hidden(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, expected in (
        (torch.OutOfMemoryError("CUDA out of memory."), pytest.raises(RunError, match=r"memory .* a smaller --batch")),
        (RuntimeError("a mistake of ours"), pytest.raises(RuntimeError, match="a mistake of ours")),
    ):
        monkeypatch.setattr(Training, "step", Mock(side_effect=error))
        with expected:
            fit.fit(config(shards), Run(tmp_path / "toy"), Notes())


def test_a_log_that_cannot_be_written_is_one_line(shards: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "toy")
    run.path.mkdir()
    (run.path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"log.jsonl: cannot be written: No space left on device"):
        fit.fit(config(shards), run, Notes())


def test_a_line_of_the_log_that_was_cut_does_not_take_the_next_with_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.log({"event": "step", "iteration": 1})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"event": "st')
    run.log({"event": "step", "iteration": 2})
    assert [event["iteration"] for event in run.events()] == [1, 2]


def test_validation_can_be_cut_short_and_is_repeatable(shards: Path) -> None:
    ours = a_training(shards)
    first = ours.validate()
    assert first is not None
    assert list(first) == ["Alpha", "Beta", "Gamma"]
    assert ours.validate() == first
    asked = itertools.count()
    assert ours.validate(enough=lambda: next(asked) == 1) is None


def test_of_a_large_validation_set_images_from_all_over_it_are_looked_at(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "VALIDATED", 3)
    seen = []

    def none(_network: object, dataset: Any, *_: object, **_options: object) -> Iterator[Any]:
        seen.append([key.decode() for key in dataset.images.key])
        return iter(())

    monkeypatch.setattr(validation, "outputs", none)
    a_training(shards).validate()
    assert seen[0] == ["alpha-val-00000", "alpha-val-00002", "alpha-val-00004"]


def test_val_is_trained_on_by_default_and_never_scored(shards: Path, tmp_path: Path) -> None:
    """Section IV-E of the paper; `train_on="train"` leaves the validation sets for curves."""
    run, notes = Run(tmp_path / "both"), Notes()
    fit.fit(config(shards, validate_every=4), run, notes)
    assert "trained on: train, val of 2 tasks; no validation set is left (--train-on train keeps it)" in notes.said
    assert {event["event"] for event in run.events()} == {"step"}
    assert run.about()["trained_on"] == {"Alpha": ["train", "val"], "Beta": ["train", "val"]}
    with pytest.raises(RunError, match=r"train_on \('train\+val' in the run, 'train' requested\)"):
        fit.fit(config(shards, train_on="train"), run, Notes())
    kept, notes = Run(tmp_path / "kept"), Notes()
    fit.fit(config(shards, validate_every=12, joint=("beta",)), kept, notes)
    assert "trained on: train, val of 1 task; only the training set of Beta" in notes.said
    (validation,) = [event for event in kept.events() if event["event"] == "validation"]
    assert validation["accuracy"].keys() == {"Beta"}
    assert kept.about()["trained_on"] == {"Alpha": ["train", "val"], "Beta": ["train"]}


def test_test_sets_are_for_a_release(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"only `mtrain release` trains on test sets"):
        fit.fit(config(shards, train_on="train+val+test"), Run(tmp_path / "toy"), Notes())
    assert not (tmp_path / "toy").exists()
