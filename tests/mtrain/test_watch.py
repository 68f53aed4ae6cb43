"""What `mtrain watch` says of a run and of a sweep, while another process writes their files and after it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mtrain.cli import group
from mtrain.report.watch import ended, lines, run_status, sweep_status
from mtrain.runs.run_folder import Run
from mtrain.sweep.combination import Combination
from mtrain.sweep.race_record import ContestRecord, RaceRecord, RungRecord, write_record
from mtrain.sweep.store import Store
from tests.mtrain.sweeps import GRID, write_sweep
from tests.mtrain.test_report import a_run, a_transfer


def a_running_one(folder: Path) -> Run:
    """A run at iteration 100 of 1000 with batches of 50 images, 100 images/s: 450 s are left."""
    run = a_run(folder, transfers=[a_transfer("run", 0.875), a_transfer("imagenet", None)])
    about = json.loads((run.path / "config.json").read_text())
    about["config"] |= {"iterations": 1000, "batch": 50}
    (run.path / "config.json").write_text(json.dumps(about))
    (run.path / "state.json").write_text(json.dumps({"state": "running", "iteration": 50}))
    step: dict[str, Any] = {"event": "step", "loss": 0.5, "tasks": {"Alpha": 0.25, "Beta": 0.75}, "images_per_s": 100.0}
    step |= {"lr": {"shared": 1e-4}, "wait": 0.25, "memory": {"host": 2048.0}}
    with (run.path / "log.jsonl").open("w") as file:
        for iteration in (50, 100):
            file.write(json.dumps(step | {"iteration": iteration}) + "\n")
        file.write(json.dumps({"event": "validation", "iteration": 100, "accuracy": {"Alpha": 0.75}}) + "\n")
        file.write('{"event": "step", "iteration": 150, "lo')  # half a line: the other process is writing it
    return run


def test_a_run_that_is_trained_by_another_process_shows_its_time_left_and_scores(tmp_path: Path) -> None:
    run = a_running_one(tmp_path)
    with run.locked():
        status = run_status(run)
    assert (status["state"], status["iteration"], status["seconds"], status["seconds_left"]) == (
        "running",
        100,
        50,
        450,
    )
    assert not ended(status)
    assert list(lines(status)) == [
        "toy",
        "running, 100 of 1000 iterations, 0:50 spent, 7:30 left",
        "tiny, left out: Gamma",
        "loss 0.500, lr shared 0.0001",
        "100.0 images/s, 25% waiting for data, host memory 2,048 MiB",
        "loss by task:",
        "  Alpha    0.250",
        "  Beta     0.750",
        "accuracy on val, percent:",
        "  Alpha    75.00",
        "scores, percent:",
        "  not defined  Gamma, accuracy on val, svm, weights imagenet",
        "    87.50  Gamma, accuracy on val, svm, weights of the run",
    ]


def test_scores_of_other_seeds_and_settings_are_distinguished(tmp_path: Path) -> None:
    given = [{"seed": 0}, {"seed": 1}, {"seed": 1, "epochs": 5}]
    runs = [a_transfer("run", 0.5, mode="finetune") for _ in given]
    for one, settings in zip(runs, given, strict=True):
        one["identity"] |= settings
    assert [line.partition("on val, ")[2] for line in lines(run_status(a_run(tmp_path, transfers=runs)))][-3:] == [
        "finetune (seed 0), weights of the run",
        "finetune (seed 1), weights of the run",
        "finetune (seed 1, epochs 5), weights of the run",
    ]


def test_a_run_whose_process_was_killed_is_stopped_and_has_no_time_left(tmp_path: Path) -> None:
    status = run_status(a_running_one(tmp_path))
    assert (status["state"], status["seconds_left"]) == ("stopped", None)
    assert ended(status)


def test_a_run_that_has_logged_nothing_says_so(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    (run.path / "log.jsonl").unlink()
    assert "nothing was logged yet" in list(lines(run_status(run)))


def scores(combination: Combination, task: str, seed: int) -> float | str:
    if combination == GRID[3] and task == "Lung":
        return "missing"
    if combination == GRID[2]:
        return "diverged"
    return 0.5 + 0.1 * GRID.index(combination)


def test_a_sweep_shows_scores_and_ranks_so_far_instead_of_digests(tmp_path: Path) -> None:
    """Eight cells of one seed, written ten seconds apart; one is missing: ten seconds are left."""
    store = write_sweep(tmp_path / "toy", scores, seeds=(0,))
    written(store, time.time() - 70)
    status = sweep_status(store)
    assert (status["cells"], status["scored"], status["failed"]) == (8, 5, 2)
    assert status["seconds_left"] == pytest.approx(70 / 6)
    assert [one["combination"] for one in status["ranks"]][:2] == [str(GRID[3]), str(GRID[1])]
    shown = "\n".join(lines(status))
    assert "toy: 7 of 8 cells done, 2 failed, about 0:11 left" in shown
    assert f"  {GRID[1]}, seed 0: Necrosis 60.00, Glomeruli 60.00" in shown
    assert f"  {GRID[2]}, seed 0: Lung diverged" in shown
    assert "0000000" not in shown


def written(store: Store, start: float) -> None:
    """Make the results of a sweep seem written ten seconds apart, from `start` on."""
    for path in (store.path / "cells").glob("*.json"):
        at = start + 10 * int(path.stem)
        os.utime(path, (at, at))


def test_a_sweep_that_nothing_works_on_says_so_and_is_not_waited_for(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "toy", scores, seeds=(0,))
    assert not ended(sweep_status(store))
    written(store, 1000.0)
    status = sweep_status(store)
    assert (status["active"], status["seconds_left"], ended(status)) == (False, None, True)
    assert list(lines(status))[:2] == [
        "toy: 7 of 8 cells done, 2 failed",
        "nothing is running: `mtrain sweep FILE` resumes it",
    ]


@pytest.mark.parametrize("finished", [False, True])
def test_a_race_needs_not_all_cells(tmp_path: Path, finished: bool) -> None:
    """How many it needs is not known before its end, and then it is over whatever cells are missing."""
    store = write_sweep(tmp_path / "toy", scores, seeds=(0,))
    rung = RungRecord(share=1.0, seeds=1, entrants=4, stay=tuple(GRID[:2]), dropped={}, undecided=0, friedman=None)
    winner = GRID[0] if finished else None
    contest = ContestRecord(target=None, network=None, rungs=(rung,), finalists=None, winner=winner)
    write_record(store, RaceRecord(tasks=("Lung",), contests=(contest,), cost=0.25))
    status = sweep_status(store)
    assert (status["seconds_left"] is None) == (not finished)
    written(store, 1000.0)
    status = sweep_status(store)
    assert ended(status)
    shown = list(lines(status))
    assert shown[1] == f"race: {'finished' if finished else 'not finished'}, 25.0% of the iterations of the full grid"
    assert "  after 1 seed: 2 combinations can still win" in shown
    assert ("nothing is running: `mtrain sweep FILE --race` resumes it" in shown) == (not finished)


def test_runs_in_progress_are_listed_with_their_settings(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "sweeps" / "toy", scores, seeds=(0,))
    run = a_running_one(tmp_path)
    (store.path / "runs").mkdir()
    run.path.rename(store.path / "runs" / "0123abc")
    with Run(store.path / "runs" / "0123abc").locked():
        shown = list(lines(sweep_status(store)))
    at = shown.index("in training:")
    assert shown[at + 1].endswith("without Gamma: 100 of 1000, loss 0.500, 7:30 left")
    assert "0123abc" not in "".join(shown)


def test_a_damaged_result_is_a_note_and_hides_nothing(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "toy", scores, seeds=(0,))
    (store.path / "cells" / f"{0:024}.json").write_text("{")
    status = sweep_status(store)
    assert status["scored"] == 4
    assert any("cannot be read" in line for line in lines(status))


def test_without_a_terminal_the_state_is_printed_once(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    answer = CliRunner().invoke(group, ["watch", "--runs", str(run.path.parent)])
    assert answer.exit_code == 0, answer.output
    assert answer.output.startswith("toy\nstopped, 40 of ")


def test_a_name_alone_is_that_of_a_run_or_of_a_sweep(tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweeps" / "grid", scores, seeds=(0,))
    a_run(tmp_path)
    folders = ["--runs", str(tmp_path / "runs"), "--sweeps", str(tmp_path / "sweeps")]
    grid, at = ("grid", "grid: 7 of 8 cells done"), str(tmp_path / "sweeps" / "grid")
    for name, first in (("toy", "toy\nstopped, 40 of "), grid, (at, grid[1])):
        answer = CliRunner().invoke(group, ["watch", name, *folders])
        assert answer.exit_code == 0, answer.output
        assert answer.stdout.startswith(first)
    write_sweep(tmp_path / "sweeps" / "toy", scores, seeds=(0,))
    answer = CliRunner().invoke(group, ["watch", "toy", *folders])
    assert str(answer.exception) == "both a run and a sweep are called toy; give --run toy or --sweep toy"
    answer = CliRunner().invoke(group, ["watch", "toy", "--run", "other", *folders])
    assert str(answer.exception) == "two things to watch; found toy; give NAME, --run or --sweep"
    answer = CliRunner().invoke(group, ["watch", "other", *folders])
    assert str(answer.exception) == "no run and no sweep named 'other'; runs: toy; sweeps: grid, toy"
