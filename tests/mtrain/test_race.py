"""Races: decisions that no order of completion changes, rungs that are beginnings of one training, and their record."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from dpconvert.runtime.progress import Reporter
from mtrain.cli import group
from mtrain.disk.documents import write_document
from mtrain.errors import UsageError
from mtrain.evaluation.selecting import ranks, selected, selection
from mtrain.model.weight_files.weights import state_digest
from mtrain.race import decisions, race_cost
from mtrain.race.agenda import RaceAgenda, race_agenda, rules_of
from mtrain.race.decisions import Contest, Rules, Rung, decide, rank_bounds
from mtrain.runs.run_folder import Run
from mtrain.sweep import cell_run, sweep_cost
from mtrain.sweep.cells import Cell, cells_of
from mtrain.sweep.engines import local_engine
from mtrain.sweep.left_out import left_out_sets
from mtrain.sweep.race_record import NAME, read_record
from mtrain.sweep.race_settings import Race
from mtrain.sweep.spec import Sweep
from mtrain.sweep.store import Store
from mtrain.train.fit import fit
from tests.mtrain.pools import write_pool
from tests.mtrain.sweeps import changed_sweep
from tests.small_networks import whole_networks

QUIET = Reporter(quiet=True)
TINY = """
leave_out = ["Alpha", "Beta", "Gamma"]
seeds = [0, 1]

[grid]
backbone = ["shufflenet_v2_x0_5"]
lr = [1e-1, 1e-2, 1e-3]
tau = [1, 5]
warmup = [true, false]

[race]
lengths = [0.25, 1.0]
keep = 0.3
least = 2

[fit]
weights = "random"
iterations = 12
warmup = 4
batch = 8
size = 32
adapt_batches = 1
workers = 0
checkpoint_every = 3
device = "cpu"
"""
Scorer = Callable[[Cell, str], float | str | None]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("Alpha", "Beta", "Gamma", "Delta")
    return write_pool(tmp_path_factory.mktemp("pool"), names, sizes={"train": 12, "val": 8, "test": 4})


def opened(folder: Path, shards: Path, *changes: tuple[str, str]) -> tuple[Sweep, RaceAgenda, list[Cell], Store]:
    """The tiny sweep, with lines of its file changed: its race, the cells of the full grid, and its folder."""
    sweep = changed_sweep(TINY, changes, folder / "tiny.toml", shards)
    sets = left_out_sets(sweep)
    cells, store = cells_of(sweep, sets), Store(folder / "sweeps" / "tiny")
    store.write_plan(sweep, cells)
    return sweep, race_agenda(sweep, sets, cells), cells, store


def write_result(store: Store, cell: Cell, scorer: Scorer) -> None:
    """The result that a run of the cell would have written."""
    found = {task: scorer(cell, task) for task in cell.tasks}
    odd = {task: str(score) for task, score in found.items() if isinstance(score, str)}
    scores = {task: {"metric": "accuracy", "set": "val", "score": s} for task, s in found.items() if task not in odd}
    c = cell.combination
    content = {
        "cell": cell.digest,
        "run": f"runs/{cell.training}",
        "seed": cell.config.seed,
        "seconds": 1.0,
        "combination": {"backbone": c.backbone, "lr": c.lr, "tau": c.tau, "warmup": c.warmup},
        "state": next(iter(odd.values()), "scored"),
        "scores": scores,
        "failures": odd,
    }
    write_document(store.result_path(cell.digest), content)


def noisy(cell: Cell, task: str) -> float:
    """Scores by combination, task, seed and length; the rate dominates."""
    key = f"{cell.combination}{task}{cell.config.seed}{cell.config.iterations}"
    return 0.5 + 0.1 * {1e-1: -1, 1e-2: 2, 1e-3: 1}[cell.combination.lr] + 0.15 * random.Random(key).random()


def raced(agenda: RaceAgenda, store: Store, scorer: Scorer, order: random.Random, most: int = 10**6) -> int:
    """Complete cells that are due in a random order, several of which are begun at a time. How many were completed."""
    done = 0
    while done < most and (due := agenda.due(store, QUIET)):
        for cell in order.sample(due, min(len(due), order.randint(1, 9))):
            write_result(store, cell, scorer)
            done += 1
    return done


# --- decisions ---


def test_ranks_are_bounded_by_what_missing_scores_can_still_do() -> None:
    means = np.array([[0.9, 0.5], [0.8, np.nan], [np.nan, 0.7], [0.1, 0.7]])
    low, high = rank_bounds(means)
    # task 0: 1..2, 2..3, 1..4, 3..4; task 1: 3..4, 1..4, 1.5..2.5, 1.5..2.5
    assert low.tolist() == [2, 1.5, 1.25, 2.25]
    assert high.tolist() == [3, 3.5, 3.25, 3.25]


@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_bounds_hold_for_every_completion_and_close_on_the_rank(seed: int, combinations: int, tasks: int) -> None:
    rng = np.random.default_rng(seed)
    full = rng.integers(0, 4, (combinations, tasks)) / 4.0
    full[rng.random(full.shape) < 0.1] = -np.inf
    exact = ranks.mean_ranks(ranks.task_ranks(full))
    low, high = rank_bounds(np.where(rng.random(full.shape) < 0.4, np.nan, full))
    assert (low <= exact + 1e-9).all()
    assert (exact <= high + 1e-9).all()
    for bound in rank_bounds(full):
        assert bound == pytest.approx(exact)


RULES = Rules((Rung(0.1, 1, 4), Rung(0.3, 1, 3), Rung(1.0, 1, 2), Rung(1.0, 3, 1)), unlikely=0.05, draws=50)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_decision_that_is_made_stays_whatever_comes_and_the_choice_is_the_same_in_any_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    full = [rng.integers(0, 6, (8, 4, rung.seeds)) / 6.0 for rung in RULES.rungs]
    contest = Contest(1, tuple(range(8)))
    final = decide(RULES, contest, full)
    assert final.winner is not None
    known = [np.full(of.shape, np.nan) for of in full]
    for place in rng.permutation([(r, *at) for r, of in enumerate(full) for at in np.ndindex(of.shape)]):
        rung, at = int(place[0]), tuple(place[1:])
        known[rung][at] = full[rung][at]
        if rng.random() < 0.8:
            continue
        so_far = decide(RULES, contest, known)
        for early, late in zip(so_far.verdicts, final.verdicts, strict=False):
            assert early.entrants == late.entrants
            assert set(early.stay) <= set(late.stay)
            assert set(early.dropped) <= set(late.dropped)
        assert so_far.winner in (None, final.winner)
    assert decide(RULES, contest, known) == final


def test_the_scores_on_a_target_do_not_enter_its_contest() -> None:
    rng = np.random.default_rng(0)
    scores = [rng.random((8, 4, rung.seeds)) for rung in RULES.rungs]
    others = [of.copy() for of in scores]
    for of in others:
        of[:, 2] = rng.random(of[:, 2].shape)
    contest = Contest(2, tuple(range(8)))
    assert decide(RULES, contest, scores) == decide(RULES, contest, others)
    everything = Contest(None, tuple(range(8)))
    assert decide(RULES, everything, scores) != decide(RULES, everything, others)


def test_a_rung_of_all_combinations_and_seeds_is_the_selection_of_the_full_grid() -> None:
    scores = np.random.default_rng(1).random((6, 5, 3))
    table = ranks.task_ranks(ranks.seed_means(scores))
    for target in range(5):
        outcome = decide(Rules((Rung(1.0, 3, 1),)), Contest(target, tuple(range(6))), [scores])
        assert outcome.winner == ranks.best(ranks.mean_ranks(table, target))


def test_combinations_drop_by_place_and_by_the_bootstrap_and_are_reported_with_the_reason() -> None:
    rules = Rules((Rung(0.1, 1, 4), Rung(1.0, 1, 4), Rung(1.0, 2, 1)), unlikely=0.02)
    level = np.array([0.9, 0.8, 0.5, 0.3, 0.2, 0.1])  # on every one of eight tasks
    scores = [np.tile(level[:, None, None], (1, 8, rung.seeds)) for rung in rules.rungs]
    first, second = decide(rules, Contest(None, tuple(range(6))), scores).verdicts
    assert first.stay == (0, 1, 2, 3)
    assert dict(first.dropped) == {
        4: "place 5 of 6 (mean rank 5.00), 4 stay",
        5: "place 6 of 6 (mean rank 6.00), 4 stay",
    }
    assert second.stay == (0,)
    assert dict(second.dropped) == dict.fromkeys((1, 2, 3), "wins 0.0% of bootstrap draws")
    level[:5] = 0.9  # which all stay, though there is room for four
    first = decide(rules, Contest(None, tuple(range(6))), [np.tile(level[:, None, None], (1, 8, 1))]).verdicts[0]
    assert (first.stay, dict(first.dropped)) == ((0, 1, 2, 3, 4), {5: "place 6 of 6 (mean rank 6.00), 5 stay"})
    assert second.friedman is not None
    assert second.friedman < 0.001
    tied = [np.full(of.shape, 0.5) for of in scores]
    assert [one.stay for one in decide(rules, Contest(None, tuple(range(6))), tied).verdicts] == [tuple(range(6))] * 2


def test_a_rung_opens_for_a_combination_before_the_rung_below_is_complete() -> None:
    level = np.linspace(1, 0, 8)
    scores = [np.tile(level[:, None, None], (1, 4, rung.seeds)) for rung in RULES.rungs]
    scores[0][3, 3] = scores[0][7, 3] = np.nan
    verdict = decide(RULES, Contest(None, tuple(range(8))), scores).verdicts[0]
    assert verdict.stay == (0, 1, 2)
    assert set(verdict.dropped) == {5, 6, 7}
    assert verdict.open == (3, 4)
    assert decisions.wanted([decide(RULES, Contest(None, tuple(range(8))), scores)])[1] == {0, 1, 2}


def test_the_cost_is_that_of_the_longest_training_of_each_seed() -> None:
    assert decisions.cost(RULES, [{0, 1, 2, 3}, {0, 1, 2}, {0, 1}, {0}]) == pytest.approx(3 + 1 + 0.3 + 0.1)


@pytest.mark.parametrize(
    ("seeds", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 3]), (4, [1, 2, 4]), (5, [1, 2, 5]), (10, [1, 2, 4, 10])]
)
def test_seeds_are_doubled_until_all_are_there(seeds: int, counts: list[int]) -> None:
    rungs = rules_of(Race(), 48, seeds).rungs
    assert [rung.seeds for rung in rungs if rung.share == 1] == counts
    assert [rung.share for rung in rungs[:2]] == [0.1, 0.3]
    assert [rung.keep for rung in rungs[:3]] == [29, 18, 11]


# --- the race of a sweep ---


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=3, deadline=None)
def test_any_order_of_completion_and_any_interruption_take_the_same_cells_and_choose_the_same(
    seed: int, shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    order = random.Random(seed)
    folder = tmp_path_factory.mktemp("race")
    _, agenda, _, store = opened(folder, shards)
    raced(agenda, store, noisy, order, most=order.randint(0, 40))
    _, again, _, _ = opened(folder, shards)  # as after a kill: nothing but the files is known
    raced(again, store, noisy, order)
    there = sorted(path.stem for path in (store.path / "cells").glob("*.json"))
    _, straight, _, other = opened(tmp_path_factory.mktemp("other"), shards)
    raced(straight, other, noisy, random.Random(0))
    assert there == sorted(path.stem for path in (other.path / "cells").glob("*.json"))
    assert (store.path / NAME).read_bytes() == (other.path / NAME).read_bytes()
    record = read_record(store)
    assert record is not None
    assert record.finished


@pytest.mark.parametrize("seed", range(3))
def test_no_training_begins_before_a_shorter_one_that_is_needed_too(seed: int, shards: Path, tmp_path: Path) -> None:
    _, agenda, _, store = opened(tmp_path, shards)
    order = random.Random(seed)
    while due := agenda.due(store, QUIET):
        begun = {cell.training for cell in due}
        assert not [cell for cell in due if begun.intersection(cell.prefixes)]
        write_result(store, order.choice(due), noisy)


def test_a_race_ends_though_two_of_its_lengths_are_the_same_training(shards: Path, tmp_path: Path) -> None:
    few = ("iterations = 12", "iterations = 6"), ("[0.25, 1.0]", "[0.1, 0.3, 1.0]")
    _, agenda, _, store = opened(tmp_path, shards, *few)
    assert len({(cell.warmup is None, cell.config.iterations) for cell in agenda.cells}) < 6
    raced(agenda, store, noisy, random.Random(0))
    record = read_record(store)
    assert record is not None
    assert record.finished


def test_results_that_were_there_before_do_not_change_what_the_race_decides(shards: Path, tmp_path: Path) -> None:
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    _, agenda, _, store = opened(tmp_path / "empty", shards)
    raced(agenda, store, noisy, random.Random(1))
    _, other, cells, full = opened(tmp_path / "full", shards)
    for cell in cells:
        write_result(full, cell, noisy)
    raced(other, full, noisy, random.Random(2))
    assert read_record(full) == read_record(store)


def test_a_later_run_completes_the_grid_and_says_whether_the_race_was_right(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, cells, store = opened(tmp_path, shards)

    def attempt(store: Store, cell: Cell, _report: Reporter) -> str:
        write_result(store, cell, noisy)
        return "done"

    monkeypatch.setattr(local_engine, "attempt", attempt)
    command = ["sweep", str(tmp_path / "tiny.toml"), "--shards", str(shards), "--sweeps", str(tmp_path / "sweeps")]
    answer = CliRunner().invoke(group, [*command, "--quiet", "--race"])
    assert answer.exit_code == 0, answer.output
    assert "tiny: race finished, " in answer.output
    assert "after 25% of the length, 1 seed: " in answer.output
    assert "out after 25% of the length, 1 seed: shufflenet_v2_x0_5 lr 1e-1 tau 1 with warm-up: place " in answer.output
    there = sum(store.has(cell) for cell in cells)
    assert 0 < there < len(cells) / 2
    assert CliRunner().invoke(group, [*command, "--status"]).stdout == answer.stdout
    chosen = selection.select(store)
    record = read_record(store)
    assert record is not None
    for target in (None, "Alpha", "Beta", "Gamma"):
        found, contest = chosen.winner(target), record.contest(target)
        assert found is not None
        assert contest is not None
        assert chosen.combinations[found[0]] == contest.winner
    assert chosen.notes[0].startswith("a race dropped ")
    content = selected.content(chosen, store)
    assert len(content["targets"]["Alpha"]["winner"]["models"]) == 2
    answer = CliRunner().invoke(group, [*command, "--quiet"])
    assert answer.exit_code == 0, answer.output
    assert "tiny: 72 of 72 cells" in answer.output
    assert f"the race, at {record.cost:.1%} of the iterations, chose as the full grid does in " in answer.output
    planned = CliRunner().invoke(group, [*command, "--quiet", "--plan"], catch_exceptions=False)
    assert planned.output == "tiny: 72 cells, all finished\n"
    full = selection.select(store)
    assert full.race is None
    right = sum(full.combinations[full.winner(c.target)[0]] == c.winner for c in record.contests)  # type: ignore[index]
    assert f"does in {right} of 4 contests" in answer.output
    assert answer.output.count(": the race chose ") == 4 - right
    again = CliRunner().invoke(group, ["select", "--sweeps", str(tmp_path / "sweeps")])
    assert f"does in {right} of 4 contests" in again.output


def test_a_race_of_other_settings_says_nothing_about_the_grid_of_today(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, agenda, _, store = opened(tmp_path, shards)
    raced(agenda, store, noisy, random.Random(1))
    file = tmp_path / "tiny.toml"
    edited = file.read_text().replace("iterations = ", "iterations = 1")
    assert edited != file.read_text()
    file.write_text(edited)

    def attempt(store: Store, cell: Cell, _report: Reporter) -> str:
        write_result(store, cell, noisy)
        return "done"

    monkeypatch.setattr(local_engine, "attempt", attempt)
    command = ["sweep", str(file), "--shards", str(shards), "--sweeps", str(tmp_path / "sweeps")]
    answer = CliRunner().invoke(group, [*command, "--quiet"])
    assert answer.exit_code == 0, answer.output
    assert answer.output.startswith("tiny: 72 of 72 cells")
    assert "the race" not in answer.output
    assert read_record(store) is None
    status = CliRunner().invoke(group, [*command, "--status"], standalone_mode=False)
    assert "since its settings, seeds or shards were changed" in str(status.exception)


def test_a_combination_that_diverges_drops_out_and_one_that_failed_holds_up_what_depends_on_it(
    shards: Path, tmp_path: Path
) -> None:
    def scorer(cell: Cell, task: str) -> float | str:
        if cell.combination.lr == 1e-1:
            return "diverged"
        return "failed" if failing and cell.combination.lr == 1e-2 and task == "Beta" else noisy(cell, task)

    failing = True
    _, agenda, _, store = opened(tmp_path, shards)
    raced(agenda, store, scorer, random.Random(0))
    record = read_record(store)
    assert record is not None
    assert not record.finished
    assert {cell.tasks for cell in agenda.failed()} == {("Beta",)}
    contest = record.contest("Beta")  # its own scores do not matter
    assert contest is not None
    assert contest.winner is not None
    failing = False
    store.forget_failed(agenda.failed())
    _, agenda, _, _ = opened(tmp_path, shards)
    raced(agenda, store, scorer, random.Random(0))
    record = read_record(store)
    assert record is not None
    assert record.finished
    assert all(c.lr < 1e-1 for one in record.contests for rung in one.rungs for c in rung.stay)


def test_a_task_whose_metric_is_not_defined_does_not_count(shards: Path, tmp_path: Path) -> None:
    _, agenda, _, store = opened(tmp_path, shards)
    raced(agenda, store, lambda cell, task: None if task == "Beta" else noisy(cell, task), random.Random(0))
    record = read_record(store)
    assert record is not None
    assert record.finished
    assert record.tasks == ("Alpha", "Gamma")
    assert selection.select(store).grid.tasks == ("Alpha", "Gamma")


def test_each_network_can_have_a_race_of_its_own(shards: Path, tmp_path: Path) -> None:
    two = '"shufflenet_v2_x0_5"', '"shufflenet_v2_x0_5", "shufflenet_v2_x1_0"'
    _, agenda, _, store = opened(tmp_path, shards, two, ("[race]", "[race]\nper_network = true"))
    better = {"shufflenet_v2_x0_5": 0.0, "shufflenet_v2_x1_0": 0.2}
    raced(agenda, store, lambda c, task: noisy(c, task) + better[c.combination.backbone] - 0.2, random.Random(0))
    record = read_record(store)
    assert record is not None
    assert {contest.network for contest in record.contests} == set(better)
    chosen = selected.content(selection.select(store), store)["targets"]["Alpha"]
    for backbone in better:
        contest = record.contest("Alpha", backbone)
        assert contest is not None
        assert contest.winner is not None
        assert chosen["by_backbone"][backbone]["lr"] == contest.winner.lr
    assert chosen["winner"]["backbone"] == "shufflenet_v2_x1_0"


def test_what_cannot_be_raced_is_refused_in_one_line(shards: Path, tmp_path: Path) -> None:
    cosine = ("batch = 8", 'batch = 8\nschedule = "cosine"')
    with pytest.raises(UsageError, match="a shorter training only under a constant learning rate"):
        opened(tmp_path, shards, cosine)
    _, agenda, _, _ = opened(tmp_path, shards, cosine, ("[0.25, 1.0]", "[1]"))
    assert all(cell.whole and not cell.prefixes for cell in agenda.cells)
    with pytest.raises(UsageError, match="a race needs two left-out tasks"):
        opened(tmp_path, shards, ('"Alpha", "Beta", "Gamma"', '"Alpha"'))
    for change, message in [
        (("[0.25, 1.0]", "[0.25, 0.5]"), "race.lengths: the last length is not 1"),
        (("[0.25, 1.0]", "[0.5, 0.25, 1]"), "race.lengths: not in increasing order"),
        (("keep = 0.3", "keep = 0.3\nseeds = [1, 3]"), "race.seeds: the last number is not that of all seeds, 2"),
        (("keep = 0.3", "keeps = 0.3"), "race.keeps: is not known here (did you mean 'keep'?)"),
    ]:
        with pytest.raises(UsageError) as caught:
            opened(tmp_path, shards, change)
        assert message in str(caught.value)
    command = ["sweep", str(tmp_path / "tiny.toml"), "--race", "--part", "1/2"]
    (tmp_path / "tiny.toml").write_text(TINY)
    assert "--part divides the full grid" in str(CliRunner().invoke(group, command).exception)


# --- trainings ---


def test_a_rung_is_scored_from_the_training_that_goes_on_bit_for_bit(shards: Path, tmp_path: Path) -> None:
    _, agenda, cells, store = opened(tmp_path, shards, ("lr = [1e-1, 1e-2, 1e-3]", "lr = [1e-2]"))
    iterations: list[tuple[int, int]] = []

    def counted(config: Any, run: Run, report: Reporter) -> Any:
        newest = max((int(p.stem.split("-")[1]) for p in run.checkpoints.glob("*.safetensors")), default=0)
        iterations.append((newest, config.iterations))
        return fit(config, run, report)

    whole = next(cell for cell in cells if cell.combination.warmup)
    rung = next(
        c for c in agenda.cells if not c.whole and c.combination == whole.combination and c.tasks == whole.tasks
    )
    assert rung.config.iterations == 4 + 2  # the warm-up, and a quarter of the 8 iterations behind it
    assert whole.prefixes == (rung.training,)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_run, "fit", counted)
        assert local_engine.work(store, [rung], QUIET) == "finished"
        assert local_engine.work(store, [whole], QUIET) == "finished"
    assert iterations == [(0, 4), (4, 6), (6, 12)]  # warm-up, rung, and the rest
    for cell in (rung, whole):
        alone = Run(tmp_path / "alone" / cell.training)
        assert fit(cell.config, alone, QUIET) == "finished"
        ours = store.run(cell.training)
        assert state_digest(load_file(alone.weights)) == state_digest(load_file(ours.weights))
        assert alone.weights.read_bytes() == ours.weights.read_bytes()
        assert not ours.checkpoints.exists()  # neither is needed any more


@pytest.mark.stress
@whole_networks()  # processes that are started anew
def test_a_race_of_real_training_runs_uses_several_processes(shards: Path, tmp_path: Path) -> None:
    _, agenda, _, store = opened(tmp_path, shards)
    taken = raced(agenda, store, noisy, random.Random(0))
    last = [cell for cell in agenda.cells if cell.config.seed == 1 and store.has(cell)][:2]
    for cell in last:
        store.result_path(cell.digest).unlink()
    (store.path / NAME).unlink()
    _, agenda, _, _ = opened(tmp_path, shards)
    assert local_engine.run(store, agenda, 2, QUIET) == "finished"
    record = read_record(store)
    assert record is not None
    assert record.finished
    assert len(list((store.path / "cells").glob("*.json"))) == taken
    assert all(store.run(cell.training).weights.is_file() for cell in last)


def test_the_plan_gives_the_expected_and_the_worst_cost(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = sweep_cost.Pace(step=3600, warm=360, image=36, weights_bytes=10**9, features=0)
    monkeypatch.setattr(sweep_cost, "measure", lambda *_: pace)
    monkeypatch.setattr(race_cost, "WORLDS", 3)
    (tmp_path / "tiny.toml").write_text(TINY)
    command = ["sweep", str(tmp_path / "tiny.toml"), "--shards", str(shards), "--sweeps", str(tmp_path / "sweeps")]
    answer = CliRunner().invoke(group, [*command, "--quiet", "--race", "--plan"])
    assert answer.exit_code == 0, answer.output
    assert "tiny: race of 12 combinations in 4 contests" in answer.output
    assert "  25% of the length, 1 seed: 12.0 combinations expected, 12 at worst" in answer.output
    assert "  2 seeds: " in answer.output
    found = json.loads(CliRunner().invoke(group, [*command, "--quiet", "--race", "--plan", "--json"]).output)
    # a whole training of a combination in 3 sets: 6 of 12 combinations warm up for 4 iterations, which they share; then
    # 8 iterations, or 12 without a warm-up; 20 images each
    whole = 3 * ((8 + 12) / 2 + 20 * 0.01) + 3 * 4 * 0.1 / 12
    begun = 3 * ((2 + 3) / 2 + 20 * 0.01) + 3 * 4 * 0.1 / 12
    assert found["hours_full"] == pytest.approx(24 * whole)
    assert [stage["worst"] for stage in found["stages"]] == [12, 12, 8]  # at most 4 contests x 4, then x 2
    hours = [begun, 3 * (0.75 * 10 + 0.2), whole]
    assert [stage["hours_each"] for stage in found["stages"]] == pytest.approx(hours)
    assert found["hours_worst"] == pytest.approx(12 * hours[0] + 12 * hours[1] + 8 * hours[2])
    assert found["share_worst"] == pytest.approx((12 + 8) / 24)
    assert 0 < found["share_expected"] <= found["share_worst"]


def test_one_training_leaves_several_sets_out_and_scores_all_of_them(shards: Path, tmp_path: Path) -> None:
    together = ("seeds = [0, 1]", "together = 2\nseeds = [0, 1]")
    fast = ("lr = [1e-1, 1e-2, 1e-3]", "lr = [1e-2]")
    sweep, agenda, cells, store = opened(tmp_path, shards, together, fast)
    assert sweep.groups() == [("Alpha", "Beta"), ("Gamma",)]
    assert [cell.tasks for cell in cells[:8]] == [("Alpha", "Beta")] * 4 + [("Gamma",)] * 4
    assert cells[0].config.leave_out == ("Alpha", "Beta")
    assert local_engine.work(store, cells[:1], QUIET) == "finished"
    result = store.result(cells[0].digest)
    assert result is not None
    assert set(result.scores) == {"Alpha", "Beta"}
    assert store.run(cells[0].training).left_out() == ["Alpha", "Beta"]
    store.result_path(cells[0].digest).unlink()  # of another metric than those that follow
    raced(agenda, store, noisy, random.Random(0))
    chosen = selection.select(store)
    assert chosen.grid.tasks == ("Alpha", "Beta", "Gamma")
    assert any(note.startswith("each training left 2 sets out at once") for note in chosen.notes)
    single = opened(tmp_path, shards, fast)[2]
    of_gamma = [{cell.digest for cell in of if cell.tasks == ("Gamma",)} for of in (cells, single)]
    assert of_gamma[0] == of_gamma[1]  # a set that leaves alone is the same cell
    with pytest.raises(UsageError, match="together: more than the 3 left-out sets"):
        opened(tmp_path, shards, ("seeds = [0, 1]", "together = 4\nseeds = [0, 1]"))


def test_the_jobs_of_a_race_are_alike(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    script = tmp_path / "job.sh"
    command = ["sweep", str(tmp_path / "tiny.toml"), "--shards", str(shards), "--sweeps", str(tmp_path / "sweeps")]
    answer = CliRunner().invoke(group, [*command, "--race", "--sbatch", str(script)])
    assert answer.exit_code == 0, answer.output
    assert "3 jobs; submit it with" in answer.output
    assert "#SBATCH --array=1-3\n" in script.read_text()
    assert "--race --quiet\n" in script.read_text()
    assert "--part" not in script.read_text()


def test_a_job_whose_parent_was_killed_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    receiver.close()
    monkeypatch.setattr(local_engine, "work", lambda *_: "stopped")
    try:
        local_engine._job(None, None, sender)  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGTERM, before)
        sender.close()
