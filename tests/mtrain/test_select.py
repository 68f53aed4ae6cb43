"""Selection: the ranks of a sweep's results, what wins for each target, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mtrain.cli import group
from mtrain.errors import RunError, UsageError
from mtrain.evaluation.selecting import selected, selection, selection_lines
from mtrain.sweep.combination import Combination
from mtrain.sweep.store import Store
from tests.mtrain.sweeps import GRID, write_sweep

FAST_WARM, FAST, SLOW_WARM, SLOW = GRID
# seed means of the four combinations; ranks: Lung 1 2 3 4, Necrosis 4 3 1 2, Glomeruli 1.5 1.5 3 4
MEANS = {
    "Lung": (0.9, 0.8, 0.7, 0.6),
    "Necrosis": (0.5, 0.6, 0.8, 0.7),
    "Glomeruli": (0.75, 0.75, 0.5, 0.25),
}


def by_hand(combination: Combination, task: str, seed: int) -> float:
    """The means above, the two seeds to either side of them."""
    return MEANS[task][GRID.index(combination)] + (0.0625 if seed else -0.0625)


def test_the_mean_rank_leaves_the_targets_own_out(tmp_path: Path) -> None:
    found = selection.select(write_sweep(tmp_path / "toy", by_hand))
    assert found.grid.tasks == ("Lung", "Necrosis", "Glomeruli")
    assert found.ranks.T.tolist() == [[1, 2, 3, 4], [4, 3, 1, 2], [1.5, 1.5, 3, 4]]
    assert found.mean_ranks == pytest.approx([6.5 / 3, 6.5 / 3, 7 / 3, 10 / 3])
    # without Lung: 2.75 2.25 2 3; without Necrosis: 1.25 1.75 3 4; without Glomeruli: 2.5 2.5 2 3
    assert found.winner("Lung") == (2, 2.0)
    assert found.winner("Necrosis") == (0, 1.25)
    assert found.winner("Glomeruli") == (2, 2.0)
    assert found.winner(None) == (0, pytest.approx(6.5 / 3))
    assert found.order == [0, 1, 2, 3]


def test_a_choice_among_equal_ranks_is_said(tmp_path: Path) -> None:
    """Ranks: Lung 1 2, Necrosis 2 1, Glomeruli 1.5 1.5: without Glomeruli both have 1.5."""
    means = {"Lung": (0.9, 0.8), "Necrosis": (0.5, 0.6), "Glomeruli": (0.75, 0.75)}
    two = GRID[:2]
    store = write_sweep(tmp_path / "toy", lambda c, task, _seed: means[task][two.index(c)], combinations=two)
    found = selection.select(store)
    assert (found.winner("Glomeruli"), found.tied("Glomeruli"), found.tied("Lung")) == ((0, 1.5), 2, 1)
    said = "Glomeruli: 2 combinations have the smallest mean rank; the first is chosen"
    assert found.notes == (said,)
    assert f"note: {said}" in selection_lines.lines(found)
    assert selected.content(found, store)["notes"] == [said]


def test_each_network_has_a_winner_of_its_own(tmp_path: Path) -> None:
    grid = [Combination("one", 1e-3, 5.0, True), Combination("two", 1e-3, 5.0, True), Combination("two", 1e-4, 5, True)]
    store = write_sweep(tmp_path / "toy", lambda c, _task, _seed: 0.9 - 0.1 * grid.index(c), combinations=grid)
    found = selection.select(store)
    assert found.winner("Lung") == (0, 1.0)
    assert found.winner("Lung", "two") == (1, 2.0)
    chosen = selected.content(found, store)["targets"]["Lung"]
    assert chosen["winner"]["backbone"] == "one"
    assert chosen["by_backbone"]["two"]["lr"] == 1e-3


def test_the_selection_names_the_models_that_left_the_target_out(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "toy", by_hand)
    content = selected.content(selection.select(store), store)
    models = content["targets"]["Glomeruli"]["winner"]["models"]
    assert [model["seed"] for model in models] == [0, 1]
    planned = {one.cell: one for one in store.planned()}
    assert all(planned[m["cell"]].tasks == ("Necrosis", "Glomeruli") for m in models)
    assert all(planned[m["cell"]].combination == SLOW_WARM for m in models)
    assert models[0]["run"] == f"runs/{models[0]['cell']}"
    assert content["over_all_tasks"]["tiny"]["models"] == []


def test_incomplete_grids_are_refused_unless_allowed(tmp_path: Path) -> None:
    def holes(combination: Combination, task: str, seed: int) -> float | str:
        return "missing" if combination == SLOW and task == "Lung" and seed else by_hand(combination, task, seed)

    store = write_sweep(tmp_path / "toy", holes)
    with pytest.raises(UsageError) as caught:
        selection.select(store)
    assert str(caught.value) == (
        "1 of 24 scores are missing: tiny lr 1e-4 tau 5 without warm-up on Lung with seed 1; "
        "continue with `mtrain sweep`, or compare the existing scores with --incomplete"
    )
    found = selection.select(store, incomplete=True)
    assert found.ranks[3, 0] == 4
    assert found.notes == ("1 of 24 scores are missing: ranks compare the existing ones",)


def test_nothing_at_all_is_refused_even_when_allowed(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "toy", lambda *_: "missing")
    with pytest.raises(UsageError, match="24 of 24 scores are missing"):
        selection.select(store, incomplete=True)


def test_diverged_runs_rank_last_and_are_reported(tmp_path: Path) -> None:
    def scores(combination: Combination, task: str, seed: int) -> float | str:
        return "diverged" if combination == FAST_WARM and not seed else by_hand(combination, task, seed)

    store = write_sweep(tmp_path / "toy", scores)
    with pytest.raises(UsageError, match=r"3 of 24 scores are missing: .* with seed 0") as caught:
        selection.select(store)
    assert "Glomeruli failed in 1 cell: the loss is not finite" in str(caught.value)
    found = selection.select(store, incomplete=True)
    assert found.ranks[0].tolist() == [4, 4, 4]
    assert found.notes[-1] == "2 training runs diverged: their combinations rank last there"
    assert found.notes[0] == "Glomeruli failed in 1 cell: the loss is not finite"
    content = selected.content(found, store)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["combinations"][-1]["tasks"]["Lung"]["mean"] is None
    assert content["targets"]["Lung"]["winner"]["lr"] == SLOW_WARM.lr  # Necrosis 1, Glomeruli 2; FAST 3 and 1
    assert "diverged" in "\n".join(selection_lines.lines(found))


def test_a_task_without_a_score_does_not_count(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "toy", lambda c, task, s: None if task == "Lung" else by_hand(c, task, s))
    found = selection.select(store)
    assert found.grid.tasks == ("Necrosis", "Glomeruli")
    assert found.notes == (
        "Lung: its metric is not defined on what was scored; it does not count",
        "Necrosis: 2 combinations have the smallest mean rank; the first is chosen",
    )


def test_one_task_alone_has_nothing_to_choose_by(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "toy", by_hand, sets=[("Lung",)])
    found = selection.select(store)
    assert found.winner("Lung") is None
    assert selected.content(found, store)["targets"]["Lung"]["winner"] is None
    assert "Lung: no other task was scored to choose by" in selection_lines.lines(found)


def test_the_command_prints_the_table_and_writes_the_choice(tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweeps" / "toy", by_hand)
    answer = CliRunner().invoke(group, ["select", "--sweeps", str(tmp_path / "sweeps")])
    assert answer.exit_code == 0, answer.output
    lines = answer.output.splitlines()
    assert lines[0].split() == ["combination", "mean", "rank", "95%", "wins", "Lung", "Necrosis", "Glomeruli"]
    assert "tiny lr 1e-3 tau 5 with warm-up" in lines[1]
    assert "Necrosis: tiny lr 1e-3 tau 5 with warm-up (mean rank 1.25 on the other tasks)" in lines
    # rank sums 6.5 6.5 7 10: 12 * 8.5 / (3 * 4 * 5) = 1.7, over 1 - 6 / 180 for the tie
    assert "Friedman test: chi-square 1.76, p = 0.624: no evidence that the combinations differ" in lines
    again = CliRunner().invoke(group, ["select", "--sweeps", str(tmp_path / "sweeps"), "--sweep", "toy", "--json"])
    assert json.loads(again.output) == Store(tmp_path / "sweeps" / "toy").selection()


def test_unknown_sweeps_and_damaged_results_are_reported(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "sweeps" / "toy", by_hand)
    answer = CliRunner().invoke(group, ["select", "--sweeps", str(tmp_path / "sweeps"), "--sweep", "other"])
    assert isinstance(answer.exception, RunError)
    assert "no sweep named 'other'; existing sweeps: toy" in str(answer.exception)
    store.result_path(f"{0:024}").write_text('{"cell": "x"}')
    with pytest.raises(RunError, match="not what a sweep writes: run: is missing"):
        selection.select(store)
