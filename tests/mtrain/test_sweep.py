"""Sweeps: what a cell's digest depends on, each cell exactly once, what is shared, and what a kill costs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save

from dpconvert.runtime import locks
from dpconvert.runtime.progress import Reporter
from mtrain.cli import group
from mtrain.config import FitConfig
from mtrain.data.kept import keeping
from mtrain.data.pool import open_pool
from mtrain.disk.atomic import write_json
from mtrain.errors import RunError, UsageError
from mtrain.evaluation.selecting import selection
from mtrain.model.weight_files.weights import state_digest
from mtrain.runs.run_folder import Run
from mtrain.sweep import cell_run, sweep_cost
from mtrain.sweep import cells as cells_module
from mtrain.sweep.cells import Cell, cells_of, part_of, training_digest, warmup_config
from mtrain.sweep.combination import Combination
from mtrain.sweep.engines import claims, local_engine
from mtrain.sweep.left_out import left_out_sets
from mtrain.sweep.spec import Transfer, load_sweep
from mtrain.sweep.store import Store
from mtrain.train.fit import fit
from tests.forked import Forked
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.sweeps import changed_sweep, write_result
from tests.mtrain.test_fit import Notes
from tests.small_networks import whole_networks

QUIET = Reporter(quiet=True)
TINY = """
leave_out = ["Alpha", "Gamma"]
seeds = [0]

[grid]
backbone = ["shufflenet_v2_x0_5"]
lr = [1e-2, 1e-3]
warmup = [true, false]

[fit]
weights = "random"
iterations = 6
warmup = 3
batch = 8
size = 32
adapt_batches = 1
workers = 0
checkpoint_every = 2
device = "cpu"
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"), sizes={"train": 16, "val": 8, "test": 4})


@pytest.fixture
def tiny(tmp_path: Path, shards: Path) -> Callable[..., list[Cell]]:
    """The cells of the tiny sweep, with lines of its file changed."""

    def cells(*changes: tuple[str, str], shards: Path = shards) -> list[Cell]:
        sweep = changed_sweep(TINY, changes, tmp_path / "tiny.toml", shards)
        return cells_of(sweep, left_out_sets(sweep))

    return cells


def digests(cells: list[Cell]) -> set[str]:
    return {cell.digest for cell in cells}


def test_scores_of_replaced_shards_are_said(tmp_path: Path, shards: Path) -> None:
    """Of a task that was converted again, and is not scored anew."""
    place, store = tmp_path / "shards", Store(tmp_path / "tiny")
    shutil.copytree(shards, place)
    sweep = changed_sweep(TINY, [], tmp_path / "tiny.toml", place)
    cells = cells_of(sweep, left_out_sets(sweep))
    store.write_plan(sweep, cells)
    for cell in cells:
        write_result(store, cell, score=0.5)
    said = [note for note in selection.select(store).notes if "not of the shards" in note]
    assert said == []
    shutil.rmtree(place / "Gamma")
    write_task(place / "Gamma", classes=2, sizes={"train": 16, "val": 8}, seed=5)
    said = [note for note in selection.select(store).notes if "not of the shards" in note]
    again = "run the sweep again to replace them"
    stale = f"the scores of Gamma are not of the shards that are in {place} now, or of an earlier version of mtrain"
    assert said == [f"{stale}; {again}"]
    shutil.rmtree(place)
    assert not [note for note in selection.select(store).notes if "not of the shards" in note]


# --- the file ---


def test_tuning_and_layer_decay_are_axes(tiny: Callable[..., list[Cell]]) -> None:
    plain = tiny()
    wide = tiny(("[grid]", '[grid]\ntune = ["all", "lora:2"]\nlayer_decay = [1.0, 0.5]'))
    assert len(wide) == 4 * len(plain)
    assert digests(plain) <= digests(wide)  # what is not tuned is the same cell as before
    assert {(cell.config.tune, cell.config.layer_decay) for cell in wide} == {
        ("all", None),
        ("all", 0.5),
        ("lora:2", None),
        ("lora:2", 0.5),
    }
    assert all(Combination.of(cell.config) == cell.combination for cell in wide)
    names = {str(cell.combination) for cell in wide}
    assert len(names) == len(wide) // len({(cell.tasks, cell.config.seed) for cell in wide})
    assert any(name.endswith("warm-up tune lora:2 layer decay 0.5") for name in names)


def test_how_gradients_are_combined_is_an_axis_that_does_not_enter_the_warmup(
    tiny: Callable[..., list[Cell]],
) -> None:
    wide = tiny(("[grid]", '[grid]\ngradients = ["mean", "upgrad"]'))
    assert len(wide) == 2 * len(tiny())
    assert digests(tiny()) <= digests(wide)
    assert {cell.warmup for cell in wide} == {cell.warmup for cell in tiny()}
    assert {cell.config.gradients for cell in wide} == {"mean", "upgrad"}
    assert any(str(cell.combination).endswith("warm-up gradients upgrad") for cell in wide)
    in_common = tiny(("iterations = 6", 'iterations = 6\ngradients = "pcgrad"'))
    assert {cell.combination.gradients for cell in in_common} == {"pcgrad"}
    with pytest.raises(UsageError, match="gradients"):
        tiny(("[grid]", '[grid]\ngradients = ["sum"]'))


def test_layer_decay_does_not_enter_the_warmup_but_tuning_does(tiny: Callable[..., list[Cell]]) -> None:
    decays = tiny(("[grid]", "[grid]\nlayer_decay = [1.0, 0.5]"))
    assert {cell.warmup for cell in decays} == {cell.warmup for cell in tiny()}
    tunes = tiny(("[grid]", '[grid]\ntune = ["all", "lora:2"]'))
    assert len({cell.warmup for cell in tunes if cell.warmup}) == 2 * len({c.warmup for c in decays if c.warmup})


def test_a_setting_stands_in_the_grid_or_beside_it(tiny: Callable[..., list[Cell]]) -> None:
    cells = tiny(("iterations = 6", 'iterations = 6\ntune = "heads"\nlayer_decay = 0.5'))
    assert {(cell.config.tune, cell.config.layer_decay, cell.combination.tune) for cell in cells} == {
        ("heads", 0.5, "heads")
    }
    with pytest.raises(UsageError, match=r"fit\.tune: grid\.tune sets it too"):
        tiny(("iterations = 6", 'iterations = 6\ntune = "heads"'), ("[grid]", '[grid]\ntune = ["all"]'))


def test_the_papers_sweep_is_that_of_the_paper() -> None:
    sweep = load_sweep("manifests/sweeps/paper.toml")
    assert len(list(sweep.trainings())) == 1920
    assert len(sweep.leave_out) == 8
    assert len({task for tasks in sweep.leave_out for task in tasks}) == 10
    assert len(sweep.grid.combinations()) == 48
    configs = [sweep.config(c, tasks, seed) for seed, tasks, c in sweep.trainings()]
    assert {(c.iterations, c.batch, c.momentum, c.warmup_lr) for c in configs} == {(50_000, 64, 0.9, 1e-3)}
    assert {c.warmup for c in configs} == {0, 5_000}


def test_the_sweeps_that_come_with_the_program_can_be_named() -> None:
    for name in ("paper", "workstation", "real-small"):
        assert load_sweep(name).name == name
    assert len(load_sweep("real-small").leave_out) >= 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [0]", "seeds = []", "seeds: holds too few values: 0, at least 1"),
        ("seeds = [0]", "seeds = [0, 0]", "seeds: 0 is listed twice"),
        ("lr = [1e-2, 1e-3]", "lr = [0]", "grid.lr.0: must be greater than 0; found 0"),
        ("lr = [1e-2, 1e-3]", "rate = [1]", "grid.rate: is not known here"),
        ("iterations = 6", "iterations = 6\nlr = 1", "fit: lr has no place here: give it in [grid]"),
        ("[grid]", "[grid]\nweights = 1", "grid: weights has no place here: give it in [fit]"),
        ("[grid]", '[grid]\ntune = ["all", "lora"]', "grid.tune: neither all, heads, norms"),
        ("[grid]", "[grid]\nlayer_decay = [2.0]", "grid.layer_decay.0: must be at most 1"),
        ("iterations = 6", 'iterations = 6\ntune = "some"', "fit.tune: neither all, heads, norms"),
        ("iterations = 6", "iterations = 6\nlayer_decay = 0", "fit.layer_decay: must be greater than 0"),
        ("iterations = 6", "epochs = 6", "fit.epochs: is not known here"),
        ("warmup = 3", "warmup = 7", "fit.warmup: longer than the training of 6 iterations; found 7"),
        ("seeds = [0]", "seeds = [0", "not TOML: "),
        ('leave_out = ["Alpha", "Gamma"]', "", "leave_out: is missing"),
    ],
)
def test_mistakes_in_the_file_are_reported_in_one_line(
    tiny: Callable[..., list[Cell]], old: str, new: str, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        tiny((old, new))
    assert f"tiny.toml: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_files_and_tasks_name_what_there_is(tiny: Callable[..., list[Cell]]) -> None:
    with pytest.raises(UsageError, match="papr: no such sweep file; give a TOML file, or one of paper"):
        load_sweep("papr")
    with pytest.raises(UsageError, match="no task 'Alpja' in the pool; did you mean Alpha"):
        tiny(('"Alpha"', '"Alpja"'))


def test_a_sweep_file_that_is_named_without_its_ending_is_found_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("")
    with pytest.raises(UsageError, match=r"mine: no such sweep file; did you mean mine\.toml\?"):
        load_sweep("mine")


def test_a_warmup_of_no_length_and_sets_that_coincide_are_refused(
    tiny: Callable[..., list[Cell]], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="lasts 0 iterations"):
        tiny(("warmup = 3", "warmup = 0"))
    related = write_pool(tmp_path / "related", ("Alpha", "Beta"), sizes={"train": 4})
    write_task(related / "Gamma", related=["Alpha"], sizes={"train": 4})
    with pytest.raises(UsageError, match="two left-out sets become Alpha, Gamma once related tasks leave"):
        tiny(shards=related)


# --- cells and digests ---


def test_cells_are_all_combinations_and_share_warmups_by_set_network_and_seed(tiny: Callable[..., list[Cell]]) -> None:
    cells = tiny(("seeds = [0]", "seeds = [5, 6]"), ("[fit]", "tau = [1, 10]\n\n[fit]"))
    assert len(digests(cells)) == len(cells) == 2 * 2 * (2 * 2 * 2)
    assert len({cell.training for cell in cells}) == len(cells)
    assert [cell.config.seed for cell in cells] == [5] * 16 + [6] * 16
    warm = [cell for cell in cells if cell.warmup]
    assert len({cell.warmup for cell in warm}) == 4
    assert all(cell.config.warmup == (3 if cell.combination.warmup else 0) for cell in cells)
    assert {cell.tasks for cell in cells} == {("Alpha",), ("Gamma",)}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("iterations = 6", "iterations = 7"),
        ("batch = 8", "batch = 9"),
        ("size = 32", "size = 33"),
        ("adapt_batches = 1", "adapt_batches = 2"),
        ("seeds = [0]", "seeds = [1]"),
        ("lr = [1e-2, 1e-3]", "lr = [1]"),
        ("batch = 8", "batch = 8\nmomentum = 0.8"),
        ("batch = 8", "batch = 8\nweight_decay = 0.1"),
        ("[fit]", "tau = [6]\n\n[fit]"),
        ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0"),
        ('weights = "random"', 'weights = "imagenet"'),
        ('"Alpha", "Gamma"', '"Beta"'),
        ("[fit]", '[transfer]\nsolver = "sklearn"\n\n[fit]'),
    ],
)
def test_what_determines_a_result_changes_every_digest(tiny: Callable[..., list[Cell]], old: str, new: str) -> None:
    assert not digests(tiny()) & digests(tiny((old, new)))


@pytest.mark.parametrize(("old", "new"), [("warmup = 3", "warmup = 2"), ("batch = 8", "batch = 8\nwarmup_lr = 0.01")])
def test_what_determines_the_warmup_changes_the_digests_of_those_that_have_one(
    tiny: Callable[..., list[Cell]], old: str, new: str
) -> None:
    before, after = tiny(), tiny((old, new))
    for one, other in zip(before, after, strict=True):
        if one.warmup:
            assert one.digest != other.digest
            assert one.warmup != other.warmup


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("workers = 0", "workers = 5"),
        ("checkpoint_every = 2", "checkpoint_every = 3\nlog_every = 9"),
        ('device = "cpu"', 'device = "auto"'),
        ("iterations = 6", "iterations = 6\nvalidate_every = 2"),
        ('"Alpha", "Gamma"', '["gamma"], "alpha"'),
        ("seeds = [0]", 'name = "other"\nseeds = [0]'),
        ("lr = [1e-2, 1e-3]", "lr = [0.001, 0.01]"),
        ("batch = 8", "batch = 8\nmomentum = 0.9"),
    ],
)
def test_what_does_not_enter_a_result_changes_no_digest(tiny: Callable[..., list[Cell]], old: str, new: str) -> None:
    assert digests(tiny()) == digests(tiny((old, new)))


def test_other_images_of_a_task_change_digests_of_those_who_train_on_it_or_are_scored_by_it(
    tiny: Callable[..., list[Cell]], tmp_path: Path
) -> None:
    other = write_pool(tmp_path / "other", sizes={"train": 16, "val": 8, "test": 4})
    assert digests(tiny()) == digests(tiny(shards=other))
    write_task(other / "Alpha", seed=9, sizes={"train": 16, "val": 8, "test": 4})
    same = {cell.tasks: cell for cell in tiny()}
    for cell in tiny(shards=other):
        assert cell.digest not in digests(tiny())
        assert (cell.training in {one.training for one in tiny()}) == (cell.tasks == ("Alpha",))
    assert set(same) == {("Alpha",), ("Gamma",)}


def test_a_weights_file_counts_by_its_content(tiny: Callable[..., list[Cell]], tmp_path: Path) -> None:
    found = []
    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        (tmp_path / name).write_bytes(save({"weight": torch.tensor(value)}))
        found.append(digests(tiny(('weights = "random"', f'weights = "{tmp_path / name}"'))))
    assert found[0] == found[1]
    assert not found[0] & found[2]
    with pytest.raises(RunError, match="no such weights file"):
        tiny(('weights = "random"', f'weights = "{tmp_path / "d"}"'))


def test_other_rules_of_training_or_transfer_change_every_digest(
    tiny: Callable[..., list[Cell]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(tiny())
    for part in ("training", "transfer"):
        with monkeypatch.context() as patch:
            patch.setitem(cells_module.RULES, part, cells_module.RULES[part] + 1)
            assert not before & digests(tiny())


KEY = {
    "backbone": "resnet50",
    "weights": "imagenet",
    "iterations": 100,
    "warmup": 10,
    "warmup_lr": 1e-3,
    "lr": 1e-3,
    "tau": 5.0,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "batch": 64,
    "size": 224,
    "adapt_batches": 20,
    "seed": 3,
    "train_on": "train+val",
}


def test_what_enters_a_key_is_pinned() -> None:
    """Results that are there are found by it. A choice that is added must be off by default and then not enter; what
    changes a result under the same settings raises `RULES`. Only then are these values to be changed."""
    assert cells_module.RULES == {"training": 1, "transfer": 1}
    config = FitConfig(
        shards="/any",
        leave_out=("Lung",),
        backbone="resnet50",
        lr=1e-3,
        tau=5,
        iterations=100,
        warmup=10,
        seed=3,
        workers=7,
        device="cpu",
        checkpoint_every=9,
        validate_every=9,
        log_every=9,
    )
    assert config.determining() == KEY
    by_hand = json.dumps({"config": KEY, "pool": "pool", "rules": 1}, sort_keys=True, separators=(",", ":"))
    assert training_digest(config, "pool", "imagenet") == hashlib.sha256(by_hand.encode()).hexdigest()[:24]
    assert training_digest(config, "pool", "imagenet") == "acfdf5bf4d72788485492fef"
    assert training_digest(warmup_config(config), "pool", "imagenet") == "5d879da615fa53eca8794b6f"
    assert Transfer().determining() == {"mode": "svm", "solver": "batched"}


def test_adding_a_seed_a_value_or_a_set_keeps_the_cells_that_are_there(tiny: Callable[..., list[Cell]]) -> None:
    before = digests(tiny())
    for change, new in [
        (("seeds = [0]", "seeds = [1, 0]"), 8),
        (("lr = [1e-2, 1e-3]", "lr = [1e-2, 1e-1, 1e-3]"), 4),
        (('"Alpha", "Gamma"', '"Alpha", "Beta", "Gamma"'), 4),
    ]:
        after = digests(tiny(change))
        assert before < after
        assert len(after - before) == new


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 8, 11])
def test_parts_hold_every_cell_once(tiny: Callable[..., list[Cell]], parts: int) -> None:
    cells = tiny()
    assert [cell for number in range(1, parts + 1) for cell in part_of(cells, (number, parts))] == cells


# --- running ---


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> tuple[Store, list[Cell], list[str]]:
    """The tiny sweep, run; and the trainings in the order in which they were run."""
    path = tmp_path_factory.mktemp("sweep") / "tiny.toml"
    path.write_text(TINY)
    sweep = load_sweep(str(path)).model_copy(update={"shards": str(shards)})
    cells, store, trained = cells_of(sweep, left_out_sets(sweep)), Store(path.parent / "sweeps" / "tiny"), []

    def counted(config: FitConfig, run: Run, report: Reporter) -> Any:
        trained.append(run.name)
        return fit(config, run, report)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_run, "fit", counted)
        store.write_plan(sweep, cells)
        assert local_engine.run(store, cells, 1, QUIET) == "finished"
    return store, cells, trained


def test_lines_name_runs_by_what_they_are_and_repeat_nothing(tiny: Callable[..., list[Cell]], tmp_path: Path) -> None:
    cells = tiny()[:2]
    assert cells[0].warmup is not None
    said = Notes()
    for cell in cells:
        cell_run.attempt(Store(tmp_path / "sweep"), cell, said)
    assert not [line for line in said.said for cell in cells if cell.training in line or str(cell.warmup) in line]
    assert f"{cells[0]}: resumed after iteration {cells[0].config.warmup} of {cells[0].config.iterations}" in said.said
    assert len(set(said.said)) == len(said.said)
    assert said.said[0].startswith(f"{cells[0].combination.backbone}, warm-up, seed 0, left out: {cells[0].tasks[0]}: ")


def test_every_cell_is_trained_once_and_every_warmup_once(done: tuple[Store, list[Cell], list[str]]) -> None:
    store, cells, trained = done
    assert sorted(trained) == sorted([cell.training for cell in cells] + list({c.warmup for c in cells if c.warmup}))
    results = store.results(store.planned())
    assert set(results) == digests(cells)
    for cell in cells:
        result = results[cell.digest]
        assert (result.state, result.combination, result.seed) == ("scored", cell.combination, 0)
        assert {task: score.set for task, score in result.scores.items()} == dict.fromkeys(cell.tasks, "val")
        assert not store.run(cell.training).checkpoints.exists()


def test_a_cell_run_alone_ends_with_the_same_weights(done: tuple[Store, list[Cell], list[str]], tmp_path: Path) -> None:
    store, cells, _ = done
    warm = [cell for cell in cells if cell.warmup]
    assert len({cell.training for cell in warm[:2]}) == 2
    for cell in warm[:2]:
        alone = Run(tmp_path / cell.training)
        assert fit(cell.config, alone, QUIET) == "finished"
        assert weights(alone) == weights(store.run(cell.training))
        assert alone.weights.read_bytes() == store.run(cell.training).weights.read_bytes()
    assert weights(store.run(warm[0].training)) != weights(store.run(warm[1].training))


def weights(run: Run) -> str:
    return state_digest(load_file(run.weights))


def test_running_again_runs_nothing_and_a_hole_is_filled(
    done: tuple[Store, list[Cell], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, cells, trained = done
    before = {cell.digest: store.result_path(cell.digest).read_bytes() for cell in cells}
    count = len(trained)
    assert local_engine.run(store, cells, 1, QUIET) == "finished"
    assert len(trained) == count
    store.result_path(cells[3].digest).unlink()
    assert local_engine.run(store, cells, 1, QUIET) == "finished"
    after = {cell.digest: store.result_path(cell.digest).read_bytes() for cell in cells}
    hole = cells[3].digest
    assert {key: value for key, value in after.items() if key != hole} == {k: v for k, v in before.items() if k != hole}
    assert json.loads(after[hole])["scores"] == json.loads(before[hole])["scores"]


def test_a_warmup_whose_end_was_removed_is_done_by_the_cell_itself(
    done: tuple[Store, list[Cell], list[str]], tmp_path: Path
) -> None:
    store, cells, _ = done
    cell = next(cell for cell in cells if cell.warmup)
    other = Store(tmp_path / "other")
    shutil.copytree(store.run(str(cell.warmup)).path, other.run(str(cell.warmup)).path)
    shutil.rmtree(other.run(str(cell.warmup)).checkpoints)
    assert local_engine.work(other, [cell], QUIET) == "finished"
    assert weights(other.run(cell.training)) == weights(store.run(cell.training))


def test_the_plan_is_written_once_and_again_when_it_changes(tiny: Callable[..., list[Cell]], tmp_path: Path) -> None:
    store, cells, sweep = Store(tmp_path / "sweep"), tiny(), load_sweep(str(tmp_path / "tiny.toml"))
    store.write_plan(sweep, cells)
    path = store.path / "sweep.json"
    os.utime(path, ns=(1, 1))
    store.write_plan(sweep, cells)
    assert path.stat().st_mtime_ns == 1
    store.write_plan(sweep, cells[:3])
    assert [one.cell for one in store.planned()] == [cell.digest for cell in cells[:3]]


def test_a_diverged_training_is_a_result(tiny: Callable[..., list[Cell]], tmp_path: Path) -> None:
    cells = [c for c in tiny(("lr = [1e-2, 1e-3]", "lr = [1e30]")) if not c.warmup][:1]
    store = Store(tmp_path / "sweep")
    assert local_engine.work(store, cells, QUIET) == "finished"
    content = json.loads(store.result_path(cells[0].digest).read_text())
    assert content["state"] == "diverged"
    assert all("the training has diverged" in reason for reason in content["failures"].values())
    assert list(content["failures"]) == list(cells[0].tasks)


@pytest.mark.parametrize("changed", ["Alpha", "Beta"], ids=["scored", "trained on"])
def test_no_cell_is_trained_on_other_shards_than_it_was_planned_for(
    changed: str, tiny: Callable[..., list[Cell]], tmp_path: Path
) -> None:
    pool, store = write_pool(tmp_path / "other", sizes={"train": 16, "val": 8, "test": 4}), Store(tmp_path / "sweep")
    cell = next(cell for cell in tiny(shards=pool) if cell.tasks == ("Alpha",))
    with keeping():
        open_pool(pool)
        write_task(pool / changed, seed=9, sizes={"train": 16, "val": 8, "test": 4})
        with pytest.raises(RunError, match="the shards have changed since the sweep began; run the same command again"):
            cell_run.attempt(store, cell, QUIET)
    assert not store.has(cell)
    assert not store.run(cell.training).exists


def test_what_another_process_has_is_left_to_it(tiny: Callable[..., list[Cell]], tmp_path: Path) -> None:
    store, cell = Store(tmp_path / "sweep"), next(cell for cell in tiny() if cell.warmup)
    assert cell.warmup is not None
    for name in (cell.digest, cell.warmup):
        with store.claimed(name) as ours:
            assert ours
            assert cell_run.attempt(store, cell, QUIET) == "busy"
    assert not store.run(cell.training).exists


def test_a_cell_that_another_process_ends_while_it_is_being_claimed_is_not_done_again(
    tiny: Callable[..., list[Cell]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, cell, claimed = Store(tmp_path / "sweep"), tiny()[0], Store.claimed

    def done_meanwhile(*given: Any) -> Any:
        write_result(store, cell)
        return claimed(*given)

    monkeypatch.setattr(Store, "claimed", done_meanwhile)
    assert cell_run.attempt(store, cell, QUIET) == "done"
    assert not store.run(cell.training).exists


def test_what_a_living_process_has_stays_its_own_and_what_a_dead_node_had_is_taken_over(
    tiny: Callable[..., list[Cell]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that is gone without its file system knowing: its locks stand, and nobody touches them any more."""
    store, cell = Store(tmp_path / "sweep"), tiny()[1]
    run = store.run(cell.training)
    run.path.mkdir(parents=True)
    path = store.path / ".locks" / cell.digest
    with store.claimed(cell.digest), locks.held(run.lock):
        assert cell_run.attempt(store, cell, QUIET) == "busy"
        os.utime(path, (0, time.time() - claims.DEAD + 60))
        assert cell_run.attempt(store, cell, QUIET) == "busy"
        os.utime(path, (0, time.time() - claims.DEAD - 60))
        assert cell_run.attempt(store, cell, QUIET) == "done"
    assert store.has(cell)
    monkeypatch.setattr(claims, "BEAT", 0.01)
    with store.claimed("other"):
        os.utime(store.path / ".locks" / "other", (0, 0))
        wait_for(lambda: not claims.abandoned(store.path / ".locks" / "other"))
    os.utime(store.path / ".locks" / "other", (0, 0))
    assert not claims.abandoned(store.path / ".locks" / "other")  # an old file, and nobody's


def test_a_cell_of_another_process_is_waited_for(
    tiny: Callable[..., list[Cell]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, cells, ran = Store(tmp_path / "sweep"), tiny()[:3], []
    answers = iter(["busy", "done", "done", "busy", "done"])

    def attempt(_store: Store, cell: Cell, _report: Reporter) -> str:
        ran.append(cell.digest)
        return next(answers)

    monkeypatch.setattr(local_engine, "attempt", attempt)
    monkeypatch.setattr(local_engine, "POLL", 0)
    assert local_engine.work(store, cells, QUIET) == "finished"
    assert ran == [*(cell.digest for cell in cells), cells[0].digest, cells[0].digest]


def wait_for(what: Callable[[], Any], process: Forked | None = None) -> Any:
    """Wait until something is there. process: who is to make it; when it has ended, waiting is in vain."""
    end = time.monotonic() + 120
    while not (found := what()):
        if process is not None and process.poll() is not None and not what():
            pytest.fail(f"it has ended with {process.returncode}: {process.communicate()[1]}")
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
    return found


@pytest.fixture
def slow_toml(tmp_path: Path) -> Path:
    """Four cells, two with a warm-up, of trainings long enough to be killed in the midst of."""
    text = TINY.replace('"Alpha", "Gamma"', '"Gamma"').replace("iterations = 6", "iterations = 24")
    path = tmp_path / "slow.toml"
    path.write_text(text.replace("checkpoint_every = 2", "checkpoint_every = 4"))
    return path


def test_after_sigkill_nothing_but_the_cell_in_hand_is_begun_again(
    slow_toml: Path, shards: Path, tmp_path: Path
) -> None:
    sweep = load_sweep(str(slow_toml)).model_copy(update={"shards": str(shards)})
    cells, store = cells_of(sweep, left_out_sets(sweep))[:3], Store(tmp_path / "sweeps" / "slow")
    process = Forked(
        ["sweep", str(slow_toml), "--shards", str(shards), "--sweeps", str(store.path.parent), "--jobs", "1", "--quiet"]
    )
    try:
        wait_for(lambda: store.has(cells[0]), process)
        second = store.run(cells[1].training)
        wait_for(lambda: list(second.checkpoints.glob("*.safetensors")) or store.has(cells[1]), process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    there = {cell.digest: store.result_path(cell.digest).read_bytes() for cell in cells if store.has(cell)}
    assert 1 <= len(there) < len(cells)
    said: list[str] = []
    report = Reporter(quiet=True)
    report.note = said.append  # type: ignore[method-assign]
    assert local_engine.run(store, cells, 1, report) == "finished"
    assert all(store.result_path(name).read_bytes() == content for name, content in there.items())
    if cells[1].digest not in there:
        assert any(text.startswith(f"{cells[1]}: resumed after iteration") for text in said)
    alone = Run(tmp_path / "alone")
    fit(cells[1].config, alone, QUIET)
    assert weights(alone) == weights(second)


@pytest.mark.stress
@whole_networks()  # processes that are started anew
def test_a_killed_process_costs_its_own_cell_and_ctrl_c_stops_the_others_with_a_checkpoint(
    slow_toml: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_engine, "POLL", 0.05)
    sweep = load_sweep(str(slow_toml)).model_copy(update={"shards": str(shards)})
    cells, store = cells_of(sweep, left_out_sets(sweep)), Store(tmp_path / "sweeps" / "slow")
    hired: list[Any] = []
    plain = local_engine._hired

    def recorded(*given: Any) -> Any:
        hired.extend(plain(*given))
        return hired

    def checkpoints() -> list[Path]:
        return list(store.path.glob("runs/*/checkpoints/*.safetensors"))

    def disturb() -> None:
        wait_for(lambda: len({path.parent for path in checkpoints()}) > 1)  # of two trainings: there is most to do
        hired[0].process.kill()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(local_engine, "_hired", recorded)
    with (tmp_path / "said").open("w") as stream:
        thread = threading.Thread(target=disturb)
        thread.start()
        assert local_engine.run(store, cells, 2, Reporter(stream=stream)) == "stopped"
        thread.join()
    killed, stopped = (job.process.exitcode for job in hired)
    assert killed == -signal.SIGKILL
    assert stopped in (0, -signal.SIGTERM)  # the latter of one that was still starting, and had nothing to save
    assert checkpoints()
    assert sum(store.has(cell) for cell in cells) < len(cells)
    assert local_engine.run(store, cells, 1, QUIET) == "finished"
    assert all(store.has(cell) for cell in cells)


def test_what_processes_answer_is_what_the_sweep_ends_with(tiny: Callable[..., list[Cell]], tmp_path: Path) -> None:
    store, cells = Store(tmp_path / "sweep"), tiny()
    failed = UsageError("no room")
    with pytest.raises(UsageError, match="no room"):
        local_engine.outcome_of(store, cells, ["stopped", failed], stopped=False)
    with pytest.raises(RunError, match="8 cells missing: processes were killed"):
        local_engine.outcome_of(store, cells, ["finished", None], stopped=False)
    assert local_engine.outcome_of(store, cells, [None, "stopped"], stopped=True) == "stopped"
    assert local_engine.outcome_of(store, [], ["finished", None], stopped=False) == "finished"


def test_a_killed_process_is_reported_even_if_the_others_have_run_its_cells(
    tiny: Callable[..., list[Cell]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended:
        def is_alive(self) -> bool:
            return False

        def poll(self) -> bool:
            return False

    def hired(*_: object) -> list[Any]:
        for cell in cells:
            write_result(store, cell)
        return [local_engine._CellProcess(Ended(), Ended(), said) for said in ("finished", None)]  # type: ignore[arg-type]

    store, cells, notes = Store(tmp_path / "sweep"), tiny(), Notes()
    monkeypatch.setattr(local_engine, "_hired", hired)
    assert local_engine.run(store, cells, 2, notes) == "finished"
    assert "sweep: 1 process of 2 was killed; the others ran the cells (if for lack of memory, give fewer --jobs)" in (
        notes.said
    )


# --- the command ---


def test_the_plan_counts_what_is_there_and_what_sharing_saves(
    done: tuple[Store, list[Cell], list[str]], shards: Path, tmp_path: Path
) -> None:
    store, cells, _ = done
    pace = sweep_cost.Pace(step=3600, warm=360, image=36, weights_bytes=10**9, features=0)
    sweep = load_sweep(str(store.path.parent.parent / "tiny.toml")).model_copy(update={"shards": str(shards)})
    sets = list(left_out_sets(sweep).values())
    nothing = Store(tmp_path / "nothing")
    found = sweep_cost.plan(nothing, cells, sets, {("shufflenet_v2_x0_5", False, "mean"): pace})
    # 4 cells with 3 iterations after 2 warm-ups of 3, 4 cells with 6; 24 images each
    assert (found.cells, found.finished, found.begun, found.warmups, found.warmups_alone) == (8, 0, 0, 2, 4)
    assert found.hours_warmups == pytest.approx(2 * 3 * 0.1)
    assert found.hours_features == pytest.approx(8 * 24 * 0.01)
    assert found.hours == pytest.approx(4 * 3 + 4 * 6 + 0.6 + 1.92)
    assert found.hours_alone == pytest.approx(4 * 3 + 4 * 6 + 4 * 0.3 + 1.92)
    assert found.disk_gb == pytest.approx(8)
    assert "sharing saves 36 min (1.5%)" in found.lines("tiny")[3]
    # one training is at iteration 4, behind its warm-up of 3: 2 of its 6 are left, and its warm-up is done either way
    begun = next(cell for cell in cells if cell.warmup)
    nothing.run(begun.training).path.mkdir(parents=True)
    nothing.run(begun.training).write("state.json", {"state": "stopped", "iteration": 4})
    found = sweep_cost.plan(nothing, cells, sets, {("shufflenet_v2_x0_5", False, "mean"): pace})
    assert found.begun == 1
    assert found.hours_warmups == pytest.approx(2 * 3 * 0.1)  # another cell still needs the same one
    assert found.hours == pytest.approx(3 * 3 + 2 + 4 * 6 + 0.6 + 1.92)
    assert found.hours_alone == pytest.approx(3 * 3 + 2 + 4 * 6 + 3 * 0.3 + 1.92)
    assert sweep_cost.plan(store, cells, sets, {}).lines("tiny") == ["tiny: 8 cells, all finished"]


def test_the_command_plans_with_measured_times_and_runs_a_part(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_cost, "STEPS", 2)
    (tmp_path / "tiny.toml").write_text(TINY)
    command = ["sweep", str(tmp_path / "tiny.toml"), "--shards", str(shards), "--sweeps", str(tmp_path / "sweeps")]
    answer = CliRunner().invoke(group, [*command, "--plan"])
    assert answer.exit_code == 0, answer.output
    assert "tiny: 8 cells, 0 finished, 8 to run" in answer.output
    assert "shared: 2 warm-ups for 4 cells, 0 finished" in answer.output
    assert json.loads(CliRunner().invoke(group, [*command, "--plan", "--json"]).output)["hours"] > 0
    ran: list[str] = []
    monkeypatch.setattr(local_engine, "attempt", lambda _store, cell, _report: ran.append(cell.digest) or "done")
    assert CliRunner().invoke(group, [*command, "--quiet", "--part", "2/3"]).exit_code == 0
    assert len(ran) == 3
    wrong = CliRunner().invoke(group, [*command, "--part", "4/3"])
    assert str(wrong.exception) == "--part is I/N with I from 1 to N; found 4/3; for example --part 1/8"


@pytest.mark.parametrize("content", [{}, {"cell": "DIGEST"}, {"cell": "DIGEST", "scores": []}])
def test_a_cell_that_holds_no_result_is_run_again(
    tiny: Callable[..., list[Cell]], tmp_path: Path, content: dict[str, Any]
) -> None:
    store, cell, said = Store(tmp_path / "sweep"), tiny()[0], list[str]()
    write_json(store.result_path(cell.digest), content | ({"cell": cell.digest} if content else {}))
    assert store.known(cell.digest, said.append) is None
    assert not store.has(cell)
    assert "not what a sweep writes: " in said[0]
    assert said[0].endswith("; the cell is run again")
    write_result(store, cell)
    assert store.has(cell)


def test_a_part_fails_only_for_its_own_cells(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    command = ["sweep", str(tmp_path / "tiny.toml"), "--shards", str(shards), "--sweeps", str(tmp_path / "sweeps")]
    failures = {"Gamma": "no room"}

    def attempt(store: Store, cell: Cell, _report: Reporter) -> str:
        write_result(store, cell, failures)
        return "done"

    monkeypatch.setattr(local_engine, "attempt", attempt)
    answer = CliRunner().invoke(group, [*command, "--part", "1/8"])
    assert answer.exit_code == 1
    assert "Gamma in 1 cell: no room" in answer.stderr
    failures.clear()
    answer = CliRunner().invoke(group, [*command, "--part", "2/8"])
    assert answer.exit_code == 0, answer.stderr
    assert answer.stdout == f"tiny: 2 of 8 cells, 1 of them failed -> {tmp_path / 'sweeps' / 'tiny'}\n"
    CliRunner().invoke(group, command)
    plan = CliRunner().invoke(group, [*command, "--plan"])
    assert plan.exit_code == 0, plan.exc_info
    assert plan.stdout.splitlines() == [
        "tiny: 8 cells, all finished",
        "1 cell of these failed; --retry-failed runs failed cells again",
    ]


def test_the_slurm_script_asks_for_each_part_and_is_queued_again_when_stopped(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    command = ["sweep", str(tmp_path / "tiny.toml"), "--shards", str(shards), "--sweeps", str(tmp_path / "sweeps")]
    script = tmp_path / "job.sh"
    assert CliRunner().invoke(group, [*command, "--sbatch", str(script), "--parts", "3"]).exit_code == 0
    assert "#SBATCH --array=1-3\n" in script.read_text()
    CliRunner().invoke(group, [*command, "--sbatch", str(tmp_path / "other.sh")])
    assert "#SBATCH --array=1-2\n" in (tmp_path / "other.sh").read_text()  # two left-out sets
    for name, body in (("srun", 'echo "$@" >> asked; exit 130'), ("scontrol", 'echo "$@" >> queued')):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\ncd {tmp_path}\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    slurm = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "77", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    assert subprocess.run(["bash", str(script)], env=os.environ | slurm, check=False).returncode == 130
    assert (tmp_path / "queued").read_text() == "requeue 77_2\n"
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:4] == [sys.executable, "-m", "mtrain.cli", "sweep"]
    assert asked[-2:] == ["--part", "2/3"]
    assert str(shards) in asked


def test_the_warmup_as_a_training_of_its_own_uses_no_rate_of_the_cell(shards: Path) -> None:
    config = FitConfig(shards=str(shards), iterations=10, warmup=4, lr=0.5, tau=3.0)
    alone = warmup_config(config)
    assert (alone.iterations, alone.warmup, alone.lr, alone.tau) == (4, 4, 1e-4, 5.0)


def test_every_sweep_file_is_toml_with_a_head_that_shows_the_command() -> None:
    for path in (Path(__file__).parents[2] / "manifests" / "sweeps").glob("*.toml"):
        assert path.read_text().startswith(f"# mtrain sweep manifests/sweeps/{path.name}\n")
        assert tomllib.loads(path.read_text())["grid"]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The processes that the tests start compute as this one does."""
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    return
