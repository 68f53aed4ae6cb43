"""Trainings and sweeps that are killed again and again: the long forms of the tests beside them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtrain.runs.run_folder import Run
from mtrain.sweep.cells import cells_of
from mtrain.sweep.left_out import left_out_sets
from mtrain.sweep.spec import load_sweep
from mtrain.sweep.store import Store
from tests.mtrain.test_fit import LONG, shards, started, whole
from tests.mtrain.test_sweep import TINY
from tests.small_networks import whole_networks

__all__ = ["shards", "whole"]
KILLS = 20


@pytest.fixture(scope="module", autouse=True)
def networks_are_those_of_other_interpreters() -> Iterator[None]:
    with whole_networks():
        yield


@pytest.mark.stress
@pytest.mark.timeout(3600)
def test_a_training_killed_at_20_random_moments_ends_in_the_same_bits(
    shards: Path,
    tmp_path: Path,
    whole: Callable[..., bytes],
) -> None:
    run, moments, killed = Run(tmp_path / "toy"), random.Random(11), 0
    while killed < KILLS:
        process = started(shards, tmp_path, workers=killed % 3, **LONG)
        try:
            process.communicate(timeout=moments.uniform(2, 12))
        except subprocess.TimeoutExpired:
            killed += 1
            process.kill()
            process.communicate()
        if run.state()[0] == "finished":
            assert run.weights.read_bytes() == whole(**LONG)
            run.path.rename(tmp_path / f"done-{len([*tmp_path.glob('done-*')])}")
    while run.state()[0] != "finished":
        started(shards, tmp_path, workers=0, **LONG).communicate(timeout=600)
    assert run.weights.read_bytes() == whole(**LONG)


@pytest.mark.stress
@pytest.mark.timeout(3600)
def test_a_sweep_killed_at_random_moments_has_every_cell_once(shards: Path, tmp_path: Path) -> None:
    toml = tmp_path / "tiny.toml"
    toml.write_text(TINY)
    sweep = load_sweep(str(toml)).model_copy(update={"shards": str(shards)})
    cells, store = cells_of(sweep, left_out_sets(sweep)), Store(tmp_path / "sweeps" / "tiny")
    command = [sys.executable, "-m", "mtrain.cli", "sweep", str(toml), "--shards", str(shards), "--quiet", "--sweeps"]
    moments = random.Random(12)
    results: dict[str, bytes] = {}
    for _ in range(KILLS):
        process = subprocess.Popen([*command, str(store.path.parent)], start_new_session=True)
        try:
            process.wait(timeout=moments.uniform(2, 15))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        there = {cell.digest: store.result_path(cell.digest).read_bytes() for cell in cells if store.has(cell)}
        assert there.items() >= results.items(), "a result was made again"
        results = there
    subprocess.run([*command, str(store.path.parent)], check=True, timeout=1200)
    assert all(store.has(cell) for cell in cells)
    assert len(store.results(store.planned())) == len(cells)
    assert {name: store.result_path(name).read_bytes() for name in results} == results
