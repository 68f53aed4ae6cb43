"""Targets that cannot be scored: the others are, and the failure is kept with its reason."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mtrain.cli import group
from mtrain.data.task import Task
from mtrain.disk.documents import read_document, write_document
from mtrain.errors import DivergedError, RunError, UsageError
from mtrain.sweep import cell_run
from mtrain.sweep.cells import Cell
from mtrain.sweep.left_out import left_out_sets
from mtrain.sweep.spec import load_sweep
from mtrain.sweep.store import Store
from mtrain.transfers.transfer import transfer as plain_transfer
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.test_damage import line, made, mtrain, place, transfer
from tests.mtrain.test_sweep import TINY

__all__ = ["made", "place"]
FEW = TINY.replace("lr = [1e-2, 1e-3]", "lr = [1e-3]").replace("warmup = [true, false]", "warmup = [false]")
FEW = FEW.replace("warmup = 3\n", "").replace("iterations = 6", "iterations = 2\nwarmup = 0")


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`mtrain sweep few.toml` on three tasks, two of which are left out in turn."""
    monkeypatch.chdir(tmp_path)
    write_pool(tmp_path / "shards", sizes={"train": 12, "val": 8, "test": 4})
    (tmp_path / "few.toml").write_text(FEW)
    return lambda *words: CliRunner().invoke(group, ["sweep", "few.toml", *words])


@pytest.fixture
def bad_gamma(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Transfers to Gamma fail while the list holds something; it counts those to other tasks, too."""
    why = ["no room for it"]

    def failing(source: Any, task: Task, *rest: Any) -> dict[str, Any]:
        if task.name == "Gamma" and why:
            raise UsageError(why[0], where="there")
        return plain_transfer(source, task, *rest)

    monkeypatch.setattr(cell_run, "transfer", failing)
    return why


def test_one_bad_target_does_not_stop_a_sweep(sweep: Callable[..., Result], bad_gamma: list[str]) -> None:
    for _ in range(2):
        found = sweep()
        assert found.exit_code == 1, found.exception
        assert found.stdout == "few: 2 of 2 cells, 1 of them failed -> sweeps/few\n"
        assert "Gamma in 1 cell: there: no room for it\n" in found.stderr
        assert "run the command again with --retry-failed" in found.stderr
    told = line(mtrain("select"))
    assert told.startswith("1 of 2 scores are missing: shufflenet_v2_x0_5 lr 1e-3 tau 5 without warm-up on Gamma with ")
    assert "Gamma failed in 1 cell: there: no room for it; `mtrain sweep --retry-failed` tries again" in told
    chosen = mtrain("select", "--incomplete")
    assert "note: Gamma failed in 1 cell: there: no room for it" in chosen.stdout
    assert mtrain("report", "--sweep", "few").exit_code == 0
    assert "Gamma failed in 1 cell: there: no room for it" in Path("sweeps/few/report/report.html").read_text()
    assert ",failed," in Path("sweeps/few/report/cells.csv").read_text()
    bad_gamma.clear()
    again = sweep("--retry-failed", "--json")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["failed"] == {}
    assert mtrain("select").exit_code == 0


def test_a_training_that_fails_is_one_cell(sweep: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = cell_run.fit

    def failing(config: Any, *rest: Any) -> Any:
        if config.leave_out == ("Alpha",):
            raise RunError("no such luck")
        return plain(config, *rest)

    monkeypatch.setattr(cell_run, "fit", failing)
    found = sweep()
    assert found.exit_code == 1
    assert found.stdout == "few: 2 of 2 cells, 1 of them failed -> sweeps/few\n"
    assert "Alpha in 1 cell: no such luck" in found.stderr


def test_a_rate_that_diverges_is_a_failed_cell(sweep: Callable[..., Result]) -> None:
    Path("few.toml").write_text(FEW.replace("lr = [1e-3]", "lr = [1e-3, 1e30]"))
    found = sweep("--json")
    assert found.exit_code == 1, found.exception
    failed = json.loads(found.stdout)["failed"]
    assert len(failed) == 2
    assert all("the training has diverged" in why for reasons in failed.values() for why in reasons.values())
    assert "Gamma in 1 cell: " in found.stderr
    told = line(mtrain("select"))
    assert told.startswith("2 of 4 scores are missing: shufflenet_v2_x0_5 lr 1e30 tau 5 without warm-up on Alpha with ")
    assert "the training has diverged" in told
    chosen = mtrain("select", "--incomplete")
    assert chosen.exit_code == 0
    assert "note: 2 training runs diverged: their combinations rank last there" in chosen.stdout
    assert "note: Gamma failed in 1 cell: " in chosen.stdout
    assert mtrain("report", "--sweep", "few").exit_code == 0
    rows = list(csv.DictReader(Path("sweeps/few/report/cells.csv").read_text().splitlines()))
    assert {row["state"]: "has diverged" in row["reason"] for row in rows} == {"scored": False, "diverged": True}
    before = {path: path.stat().st_mtime_ns for path in Path("sweeps/few/cells").iterdir()}
    assert sweep("--retry-failed").exit_code == 1
    after = {path: path.stat().st_mtime_ns for path in Path("sweeps/few/cells").iterdir()}
    assert {path.stem for path in before if after[path] != before[path]} == set(failed)


def test_the_part_of_a_slurm_array_in_which_a_rate_diverges_has_failed(sweep: Callable[..., Result]) -> None:
    Path("few.toml").write_text(FEW.replace("lr = [1e-3]", "lr = [1e30]"))
    assert sweep("--part", "1/2").exit_code == 1


def test_diverged_cells_of_earlier_versions_have_failed_too(sweep: Callable[..., Result]) -> None:
    assert sweep().exit_code == 0
    path = min(Path("sweeps/few/cells").iterdir())
    known = {name: value for name, value in read_document(path, "").items() if name != "failures"}
    write_document(path, {**known, "state": "diverged", "reason": "the loss is not finite", "scores": {}})
    found = sweep()
    assert found.exit_code == 1
    assert f"{known['left_out'][0]} in 1 cell: the loss is not finite" in found.stderr
    assert "failed in 1 cell: the loss is not finite" in line(mtrain("select"))
    assert sweep("--retry-failed").exit_code == 0


def test_features_that_are_not_finite_take_no_score_from_other_tasks(
    sweep: Callable[..., Result], bad_gamma: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(source: Any, task: Task, *rest: Any) -> dict[str, Any]:
        if task.name == "Gamma":
            raise DivergedError("features that are not finite")
        return plain_transfer(source, task, *rest)

    monkeypatch.setattr(cell_run, "transfer", failing)
    write_task(Path("shards/Omega"), sizes={"train": 12, "val": 8}, related=["Gamma"])
    assert sweep().exit_code == 1
    assert mtrain("report", "--sweep", "few").exit_code == 0
    rows = list(csv.DictReader(Path("sweeps/few/report/cells.csv").read_text().splitlines()))
    assert {row["task"]: row["state"] for row in rows} == {"Alpha": "scored", "Gamma": "diverged", "Omega": "scored"}


def test_a_cell_whose_file_was_cut_is_run_again(sweep: Callable[..., Result]) -> None:
    assert sweep().exit_code == 0
    path = min(Path("sweeps/few/cells").iterdir())
    whole = json.loads(path.read_text())
    path.write_bytes(path.read_bytes()[:-40])
    found = sweep()
    assert found.exit_code == 0, found.stderr
    assert f"{path}: cannot be read" in found.stderr
    assert json.loads(path.read_text())["scores"] == whole["scores"]


def test_what_the_cards_tell_is_refused_before_any_training(sweep: Callable[..., Result]) -> None:
    shutil.rmtree("shards/Gamma")
    write_task(Path("shards/Gamma"), sizes={"train": 1, "val": 8})
    told = line(sweep())
    assert "shards/Gamma: its training set holds one class only: it cannot be scored; remove it from leave_out" in told
    assert not Path("sweeps").exists()


def test_a_target_among_the_tasks_of_all_trainings_is_refused_before_any_training(sweep: Callable[..., Result]) -> None:
    Path("few.toml").write_text(Path("few.toml").read_text().replace("[fit]", '[fit]\ntasks = ["Alpha", "Beta"]'))
    told = line(sweep())
    assert "fit.tasks: Alpha is both chosen and left out, itself or through a related task" in told
    assert "give a folder of that part as `shards`" in told
    assert not Path("sweeps").exists()


def test_a_related_task_that_cannot_be_scored_leaves_with_a_note(sweep: Callable[..., Result]) -> None:
    write_task(Path("shards/Omega"), sizes={"train": 1, "val": 8}, related=["Alpha"])
    sets = left_out_sets(load_sweep("few.toml").model_copy(update={"shards": "shards"}))
    left = sets["Alpha",]
    assert left.names == ("Alpha",)
    assert [task.name for task in left.pool.tasks] == ["Beta", "Gamma"]
    assert left.notes == ("Omega is left out, but not scored: its training set holds one class only",)


def test_of_several_targets_those_that_work_are_scored(place: Path) -> None:
    write_task(Path("shards/Solo"), sizes={"train": 1, "val": 8})
    found = transfer("--target", "Solo", "--target", "Gamma")
    assert found.exit_code == 1
    assert found.stdout.startswith("Gamma: accuracy ")
    assert "mtrain: error: Solo: " in found.stderr
    assert (
        "the training set of Solo holds a single class, so no classifier can be trained; choose another" in found.stderr
    )
    assert "a single class" in line(transfer("--target", "Solo"))


def test_a_cell_of_an_earlier_version_has_no_failures(tmp_path: Path) -> None:
    assert Store(tmp_path).failed(list[Cell]()) == {}
