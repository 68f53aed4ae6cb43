"""The pool is an axis of a sweep: lists of tasks, or a file of influence for each target."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpconvert.runtime.progress import Reporter
from mtrain.disk.documents import write_document
from mtrain.errors import RunError, UsageError
from mtrain.evaluation.selecting import selection
from mtrain.runs.run_folder import Run
from mtrain.sweep.cells import Cell, cells_of, check_unchanged
from mtrain.sweep.engines import local_engine
from mtrain.sweep.left_out import left_out_sets
from mtrain.sweep.store import Store
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.sweeps import changed_sweep

SWEEP = """
leave_out = ["Alpha", "Gamma"]
seeds = [0]

[grid]
backbone = ["shufflenet_v2_x0_5"]
lr = [1e-3]
warmup = [false]
pool = ["all", "some", "advised"]

[pools]
some = ["alpha", "beta", "Delta"]
advised = "FOLDER/{target}-last.json"

[fit]
weights = "random"
iterations = 1
batch = 4
size = 32
adapt_batches = 0
workers = 0
device = "cpu"
"""
Cells = Callable[..., list[Cell]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alpha, Beta, Gamma, Delta; and Epsilon, which is related to Gamma."""
    sizes = {"train": 12, "val": 8, "test": 4}
    names = ["Alpha", "Beta", "Gamma", "Delta"]
    folder = write_pool(tmp_path_factory.mktemp("pool") / "shards", names, sizes=sizes)
    write_task(folder / "Epsilon", seed=5, sizes=sizes, related=["gamma"])
    return folder


def advise(folder: Path, target: str, leave_out: list[str], **changed: Any) -> None:
    saw = {target: ["train", "val"]}
    write_document(folder / f"{target}-last.json", {"target": target, "leave_out": leave_out, "saw": saw} | changed)


@pytest.fixture
def planned(tmp_path: Path, shards: Path) -> Cells:
    """The cells of the sweep, with parts of its file changed."""
    advise(tmp_path, "Alpha", ["Beta"])
    advise(tmp_path, "Gamma", ["Delta"])

    def cells(*changes: tuple[str, str]) -> list[Cell]:
        text = SWEEP.replace("FOLDER", str(tmp_path))
        folder = [(old.replace("FOLDER", str(tmp_path)), new) for old, new in changes]
        sweep = changed_sweep(text, folder, tmp_path / "pools.toml", shards)
        return cells_of(sweep, left_out_sets(sweep))

    return cells


def test_each_training_takes_what_its_pool_and_its_left_out_set_leave(
    planned: Cells, tmp_path: Path, shards: Path
) -> None:
    cells = planned()
    store, of_alpha = Store(tmp_path / "sweep"), [cell for cell in cells if cell.tasks == ("Alpha",)]
    store.write_plan(changed_sweep(SWEEP, [], tmp_path / "plan.toml", shards), cells)
    assert local_engine.run(store, of_alpha, 1, Reporter(quiet=True)) == "finished"
    runs = {cell.combination.pool: Run(store.run(cell.training).path) for cell in of_alpha}
    assert {pool: sorted(run.about()["pool"]) for pool, run in runs.items()} == {
        "all": ["Beta", "Delta", "Epsilon", "Gamma"],
        "some": ["Beta", "Delta"],
        "advised": ["Delta", "Epsilon", "Gamma"],
    }
    of_gamma = {cell.combination.pool: cell.config for cell in cells if cell.tasks == ("Epsilon", "Gamma")}
    assert of_gamma["some"].tasks == ("Alpha", "Beta", "Delta")
    assert of_gamma["advised"].drop == str(tmp_path / "Gamma-last.json")
    written = {
        cell.combination.pool: json.loads(store.result_path(cell.digest).read_text())["choice"] for cell in of_alpha
    }
    assert written["all"] is None
    assert written["some"]["dropped"] == ["Epsilon", "Gamma"]
    assert (written["advised"]["target"], written["advised"]["saw"]) == ("Alpha", {"Alpha": ["train", "val"]})
    chosen = selection.select(store, incomplete=True)
    assert [one.pool for one in chosen.combinations] == ["all", "some", "advised"]
    assert any(note.startswith("pool advised: its files have seen the validation sets") for note in chosen.notes)


def test_a_pool_is_a_part_of_what_a_cell_is_and_the_whole_one_is_not(planned: Cells) -> None:
    without = ('pool = ["all", "some", "advised"]\n\n[pools]\nsome = ["alpha", "beta", "Delta"]\n', "")
    plain = planned(without, ('advised = "FOLDER/{target}-last.json"\n', ""))
    cells = planned()
    assert len({cell.digest for cell in cells}) == len({cell.training for cell in cells}) == 6
    assert {cell.digest for cell in plain} == {cell.digest for cell in cells if cell.combination.pool == "all"}
    assert {str(cell.combination).rpartition("warm-up")[2] for cell in cells} == {"", " pool some", " pool advised"}


def test_another_advice_makes_another_cell_wherever_its_file_lies(planned: Cells, tmp_path: Path) -> None:
    before = {(cell.tasks, cell.combination.pool): cell for cell in planned()}
    advise(tmp_path, "Alpha", ["Delta"])
    after = {(cell.tasks, cell.combination.pool): cell for cell in planned()}
    assert [key for key in before if before[key].digest != after[key].digest] == [(("Alpha",), "advised")]
    with pytest.raises(RunError, match="the file that chooses the tasks has changed since the sweep began"):
        check_unchanged(before[("Alpha",), "advised"])


@pytest.mark.parametrize("place", ["one", "other"])
def test_a_file_in_the_settings_counts_by_its_content(planned: Cells, tmp_path: Path, place: str) -> None:
    grid = ('pool = ["all", "some", "advised"]\n\n[pools]\nsome = ["alpha", "beta", "Delta"]\n', "")
    (tmp_path / place).mkdir()

    def cells() -> set[str]:
        file = ('weights = "random"', f'weights = "random"\ndrop = "{tmp_path / place / "Alpha-last.json"}"')
        one = ('leave_out = ["Alpha", "Gamma"]', 'leave_out = ["Alpha"]')
        return {cell.digest for cell in planned(grid, ('advised = "FOLDER/{target}-last.json"\n', ""), file, one)}

    advise(tmp_path / place, "Alpha", ["Beta"])
    first = cells()
    advise(tmp_path / place, "Alpha", ["Delta"])
    assert not first & cells()
    advise(tmp_path / place, "Alpha", ["Beta"])
    assert first == cells()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([('"advised"]', '"advised", "other"]')], "'other' is neither 'all' nor a name in"),
        ([('"some", ', "")], "pools.some: grid.pool does not list it"),
        ([("some =", "all ="), ('"some", ', "")], "pools.all: .* choose another name"),
        ([("iterations = 1", 'iterations = 1\ntasks = ["Beta"]')], "fit.tasks: grid.pool chooses the tasks too"),
        ([("seeds = [0]", "seeds = [0]\ntogether = 2")], "pools.advised: a file for each target needs together = 1"),
        ([('["alpha", "beta", "Delta"]', '["Gamma", "Epsilon"]')], "without Gamma and .*, no task remains"),
        ([('["alpha", "beta", "Delta"]', '["Bete"]')], "no task 'Bete' in the pool; did you mean Beta"),
        ([("/{target}-last", "/Alpha-last")], "advises for another target .*; expected Gamma; found Alpha"),
        ([("/{target}-last", "/{target}-all")], "no such file of influence"),
    ],
)
def test_pools_that_make_no_sense_are_refused_in_one_line(
    planned: Cells, changes: list[tuple[str, str]], told: str
) -> None:
    with pytest.raises(UsageError) as error:
        planned(*changes)
    text = str(error.value)
    assert "\n" not in text
    assert re.search(told, text), text


def test_a_file_that_has_seen_the_test_set_of_its_target_is_refused(planned: Cells, tmp_path: Path) -> None:
    advise(tmp_path, "Gamma", ["Delta"], saw={"Gamma": ["train", "val", "test"]})
    with pytest.raises(UsageError, match="it has seen the test set of its target"):
        planned()
