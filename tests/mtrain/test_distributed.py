"""One training by several processes: real torchrun, gloo, and what it must not change."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import multiprocessing

from mtrain.data.batches.batch import Batch
from mtrain.runs.run_folder import Run
from mtrain.train import checkpoint
from mtrain.train.distributed import SINGLE_PROCESS, Ranks
from mtrain.train.fit import fit
from tests.mtrain import two_ranks
from tests.mtrain.dense_pools import write_mixed_pool
from tests.mtrain.pools import write_pool
from tests.mtrain.test_fit import COMMON, Notes, config
from tests.mtrain.two_ranks import SCENARIOS, a_training, dense_results, results
from tests.small_networks import whole_networks

ROOT = Path(__file__).parents[2]
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module", autouse=True)
def networks_are_those_of_other_interpreters() -> Iterator[None]:
    with whole_networks():
        yield


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pools")
    write_mixed_pool(folder / "dense")
    return write_pool(folder / "pool", ("Alpha", "Beta", "Gamma"), sizes={"train": 16, "val": 7})


def torchrun(*words: str, processes: int = 2, meeting: Sequence[str] = ("--standalone",)) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *meeting, "--nproc-per-node", str(processes), *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def of_two(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[State, State]:
    """What two ranks end with: forks of this process, as a start of torch costs seconds. Runs below have torchrun."""
    out = tmp_path_factory.mktemp("ranks")
    multiprocessing.start_processes(as_rank, args=(free_port(), shards, out), nprocs=2, start_method="fork")  # type: ignore[no-untyped-call]
    one, other = (load_file(out / f"rank-{rank}.safetensors") for rank in range(2))
    return one, other


def as_rank(rank: int, port: int, shards: Path, out: Path) -> None:
    """What torchrun and the script do."""
    torch.set_num_threads(1)
    about = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in about.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    two_ranks.main(shards, out)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alone(shards: Path, **options: Any) -> State:
    return results(shards, SINGLE_PROCESS, **options)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_two_ranks_hold_the_same(of_two: tuple[State, State], scenario: str) -> None:
    one, other = of_two
    names = [name for name in one if name.startswith(f"{scenario}.")]
    assert len(names) > 10
    assert all(torch.equal(one[name], other[name]) for name in names)


@pytest.mark.parametrize("scenario", ["plain", "accumulated", "sync", "per-task-sync", "upgrad", "pcgrad"])
def test_two_ranks_train_as_one_does_on_the_same_batches(
    shards: Path, of_two: tuple[State, State], scenario: str
) -> None:
    """In double precision: weights, momentum, statistics, losses, accuracy. The heads of some batches are inactive."""
    options = SCENARIOS[scenario]
    expected = alone(shards, **options | {"accumulate": 1})
    found = {
        name.removeprefix(f"{scenario}."): tensor
        for name, tensor in of_two[0].items()
        if name.startswith(f"{scenario}.")
    }
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-10, atol=1e-13), name


def test_two_ranks_train_masks_and_points_as_one_does(shards: Path, of_two: tuple[State, State]) -> None:
    """In double precision, though a batch may have no masks or points in the share of one of them."""
    expected = dense_results(shards.parent / "dense", SINGLE_PROCESS)
    for state in of_two:
        found = {name.removeprefix("dense."): of for name, of in state.items() if name.startswith("dense.")}
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.allclose(found[name], tensor, rtol=1e-8, atol=1e-11), name


def test_accumulation_gives_the_update_of_the_whole_batch(shards: Path) -> None:
    expected = alone(shards)
    for parts in (2, 5):
        found = alone(shards, accumulate=parts)
        assert all(torch.allclose(found[name], tensor, rtol=1e-10, atol=1e-13) for name, tensor in expected.items())


@pytest.mark.parametrize("scenario", ["batch", "per-task"])
def test_without_synchronization_ranks_normalize_as_micro_batches_do(
    shards: Path, of_two: tuple[State, State], scenario: str
) -> None:
    """Weights are those of one rank that accumulates over the same two parts; running statistics are not compared: a
    rank takes the mean of the parts', micro-batches are taken in one after the other.
    """
    options, first = SCENARIOS[scenario], "model.shared.body.0.weight"
    expected = alone(shards, **options, accumulate=2)
    for name, tensor in expected.items():
        if not any(word in name for word in ("running", "tracked", "body.1.mean_", "body.1.variance_", "accuracy")):
            assert torch.allclose(of_two[0][f"{scenario}.{name}"], tensor, rtol=1e-10, atol=1e-13), name
    assert not torch.allclose(expected[first], alone(shards, **options)[first])


def test_the_wish_of_one_rank_stops_all_in_the_next_iteration(of_two: tuple[State, State]) -> None:
    assert [state["votes"].tolist() for state in of_two] == [[False, False, True]] * 2


# --- the batches ---


def digests(parts: Iterable[Iterable[Batch]]) -> list[str]:
    """A name for each iteration's batch, whatever the order of its images: `parts` are those of its shares."""
    return [
        "".join(sorted(name for batch in iteration for name in _images(batch)))
        for iteration in zip(*parts, strict=True)
    ]


def _images(batch: Batch) -> Iterator[str]:
    for image, label, flips in zip(batch.images(32), batch.labels, batch.flips, strict=True):
        content = image.contiguous().numpy().tobytes() + bytes([int(label), *map(int, flips)])
        yield hashlib.sha256(content).hexdigest()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than cores is the point
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_batches_are_the_same_for_any_number_of_ranks_and_workers(shards: Path, workers: int, size: int) -> None:
    known = digests([a_training(shards, batch=8).drawn(range(5))])
    shares = [a_training(shards, Ranks(rank, size), workers=workers, batch=8) for rank in range(size)]
    assert digests([share.drawn(range(5)) for share in shares]) == known
    assert len(set(known)) == 5


@pytest.mark.parametrize(("size", "parts"), [(1, 1), (2, 1), (3, 4), (5, 2)])
def test_shares_are_the_whole_in_order_and_nearly_equal(size: int, parts: int) -> None:
    shares = [Ranks(rank, size).share(64, part, parts) for rank in range(size) for part in range(parts)]
    assert [slot for share in shares for slot in share] == list(range(64))
    assert {len(share) for share in shares} <= {64 // (size * parts), -(-64 // (size * parts))}


# --- whole runs ---


LONG: dict[str, Any] = {"iterations": 60, "warmup": 10, "checkpoint_every": 5, "workers": 1}


def fit_words(shards: Path, runs: Path, **changed: Any) -> list[str]:
    options = COMMON | {"shards": str(shards), "leave_out": "Gamma"} | LONG | changed
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return ["-m", "--", "mtrain", "fit", "--runs", str(runs), "--run", "toy", *words]


def started(shards: Path, runs: Path, **changed: Any) -> subprocess.Popen[str]:
    """`mtrain fit` by two processes, as a user starts it."""
    return torchrun(*fit_words(shards, runs, **changed))


def nodes(*words: str) -> list[subprocess.Popen[str]]:
    """Two torchruns of one process each that meet on this machine, as on two; the first keeps the meeting point."""
    meeting = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
    return [torchrun(*words, processes=1, meeting=meeting) for _ in range(2)]


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    begun = time.monotonic()
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begun < 200
        time.sleep(0.01)


def rank_of(torchrun: subprocess.Popen[str], rank: int) -> int:
    """The process id of a rank."""
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    (found,) = (
        int(c) for c in children if f"RANK={rank}".encode() in Path(f"/proc/{c}/environ").read_bytes().split(b"\0")
    )
    return found


@pytest.mark.stress
@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_process_is_killed_all_stop_within_seconds_and_the_run_continues_by_one(
    shards: Path, tmp_path: Path, rank: int
) -> None:
    run, notes = Run(tmp_path / "toy"), Notes()
    process = started(shards, tmp_path)
    wait_for(lambda: bool(checkpoint.newest(run.checkpoints)), process)
    begun = time.monotonic()
    os.kill(rank_of(process, rank), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - begun < 20
    assert process.returncode != 0
    assert (
        said.count("mtrain: error: another process of this training has ended, so this one stops too; run the same")
        == 1
    )
    assert f"[rank{1 - rank}]" not in said  # a traceback
    assert run.state()[0] == "stopped"
    assert fit(config(shards, **LONG), run, notes) == "finished"
    assert any(
        "toy: batches were divided into 2 processes x 1 parts, now 1 process x 1: its sums" in n for n in notes.said
    )
    assert any("batch normalization sees 1/1 of a batch at a time instead of 1/2" in n for n in notes.said)
    assert {event["iteration"] for event in run.events()} == set(range(2, 61, 2))


def stopped(process: subprocess.Popen[str], run: Run, how: signal.Signals) -> None:
    """torchrun passes the signal on, and kills what has not ended 30 seconds later."""
    wait_for(lambda: len(run.events()) > 2, process)
    begun = time.monotonic()
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - begun < 25
    again = f"torchrun --nproc-per-node 2 -m -- mtrain fit --runs {run.path.parent} --run toy"
    assert said.count(f"mtrain: stopped; a checkpoint is saved: resume with: {again}") == 1
    state, iteration = run.state()
    assert state == "stopped"
    assert 0 < iteration < 60
    assert checkpoint.newest(run.checkpoints)[0].stem == f"iteration-{iteration:08d}"


@pytest.mark.stress
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_two_processes_that_were_stopped_say_how_to_go_on_and_end_with_the_bits_of_two_that_were_not(
    shards: Path, tmp_path: Path, how: signal.Signals
) -> None:
    stopped(started(shards, tmp_path / "one"), Run(tmp_path / "one" / "toy"), how)
    for runs in (tmp_path / "one", tmp_path / "other"):
        process = started(shards, runs)
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    one, other = (Run(tmp_path / name / "toy").weights.read_bytes() for name in ("one", "other"))
    assert one == other


@pytest.mark.stress
def test_two_nodes_end_with_the_bits_of_two_processes_on_one(
    shards: Path, of_two: tuple[State, State], tmp_path: Path
) -> None:
    for process in nodes(str(Path(__file__).with_name("two_ranks.py")), str(shards), str(tmp_path)):
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    for rank, expected in enumerate(of_two):
        found = load_file(tmp_path / f"rank-{rank}.safetensors")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.stress
@pytest.mark.parametrize("dead", [0, 1])
def test_when_a_node_dies_the_other_stops_within_seconds_and_says_so(shards: Path, tmp_path: Path, dead: int) -> None:
    run = Run(tmp_path / "toy")
    both = nodes(*fit_words(shards, tmp_path))
    wait_for(lambda: bool(checkpoint.newest(run.checkpoints)), both[1 - dead])
    begun = time.monotonic()
    ranks = Path(f"/proc/{both[dead].pid}/task/{both[dead].pid}/children").read_text().split()
    both[dead].kill()
    for rank in ranks:
        os.kill(int(rank), signal.SIGKILL)
    _, said = both[1 - dead].communicate(timeout=60)
    both[dead].communicate()
    assert time.monotonic() - begun < 30
    assert both[1 - dead].returncode == 1
    assert said.count("mtrain: error: another process of this training has ended, so this one stops too; run the") == 1
    assert "]: Traceback" not in said  # of the rank; torchrun adds its own
    assert run.state()[0] == "stopped"


@pytest.mark.stress
def test_a_mistake_is_said_once_whatever_the_number_of_processes(shards: Path, tmp_path: Path) -> None:
    process = started(shards, tmp_path, batch=3)
    _, said = process.communicate(timeout=100)
    assert said.count("mtrain: error: --batch 3 is too small for 2 processes with --accumulate 1; give --batch 4") == 1
    assert said.count("mtrain: error") == 1
    assert not (tmp_path / "toy").exists()
