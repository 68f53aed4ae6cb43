"""The tasks of a pool can be chosen, by name or by a file of influence, and the run says how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtrain.config import FitConfig
from mtrain.data.pool import find_task, open_pool
from mtrain.disk.documents import write_document
from mtrain.errors import RunError, UsageError, UserError
from mtrain.export import export
from mtrain.runs.run_folder import Run
from mtrain.settings import check_names, fit_config
from mtrain.train.fit import fit
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.transfer import TransferOptions, source_of, transfer
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.test_fit import Notes
from tests.small_programs import call

SETTINGS = {"backbone": "shufflenet_v2_x0_5", "weights": "random", "iterations": 1, "warmup": 0, "batch": 4}
SETTINGS |= {"adapt_batches": 0, "size": 32, "workers": 0, "device": "cpu"}
SAW = {"Delta": ["train", "val"], "Alpha": ["train"]}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alpha, Beta, Gamma, Delta; and Epsilon, which is related to Delta."""
    names = ["Alpha", "Beta", "Gamma", "Delta"]
    folder = write_pool(tmp_path_factory.mktemp("pool") / "shards", names, sizes={"train": 12, "val": 8})
    write_task(folder / "Epsilon", seed=5, sizes={"train": 12, "val": 8}, related=["delta"])
    return folder


def trained(shards: Path, path: Path, notes: Notes | None = None, **changed: Any) -> Run:
    run = Run(path)
    config = FitConfig(**{**SETTINGS, "shards": str(shards)} | changed)
    assert fit(config, run, notes or Notes()) == "finished"
    return run


def advice(path: Path, **changed: Any) -> str:
    write_document(path, {"target": "Delta", "leave_out": ["Beta"], "saw": SAW} | changed)
    return str(path)


def test_a_run_trains_on_the_named_tasks_alone_and_says_so(shards: Path, tmp_path: Path) -> None:
    notes = Notes()
    run = trained(shards, tmp_path / "runs" / "a", notes, tasks=("gamma", "ALPHA"), leave_out=("Delta",))
    assert list(run.about()["pool"]) == ["Alpha", "Gamma"]
    assert run.left_out() == ["Delta", "Epsilon"]
    choice = run.choice()
    assert choice is not None
    assert (choice.kept, choice.dropped, choice.tasks) == (("Alpha", "Gamma"), ("Beta",), ("Alpha", "Gamma"))
    assert "chosen: Alpha, Gamma; not used: Beta" in notes.said
    card = tmp_path / "card"
    export(run, "safetensors", card, accepted=True)
    assert "Tasks that were not chosen: Beta." in (card / "README.md").read_text()


def test_a_run_without_a_choice_records_none(shards: Path, tmp_path: Path) -> None:
    run = trained(shards, tmp_path / "runs" / "a", leave_out=("Delta",))
    assert "choice" not in run.about()
    assert run.choice() is None


def test_a_file_of_influence_leaves_tasks_out_and_the_run_records_what_it_saw(shards: Path, tmp_path: Path) -> None:
    notes, file = Notes(), advice(tmp_path / "Delta.json")
    run = trained(shards, tmp_path / "runs" / "a", notes, drop=file, leave_out=("Delta",))
    assert list(run.about()["pool"]) == ["Alpha", "Gamma"]
    choice = run.choice()
    assert choice is not None
    assert (choice.target, choice.saw, choice.dropped) == ("Delta", SAW, ("Beta",))
    assert any("chosen for Delta on its sets train and val" in note for note in notes.said)
    card = tmp_path / "card"
    export(run, "safetensors", card, accepted=True)
    assert "an estimate of influence that saw: train, val of Delta" in (card / "README.md").read_text()


def test_a_score_on_the_set_that_the_choice_saw_says_so(shards: Path, tmp_path: Path) -> None:
    run = trained(shards, tmp_path / "runs" / "a", drop=advice(tmp_path / "Delta.json"), leave_out=("Delta",))
    options = TransferOptions(mode="knn", workers=0, recipe=Recipe(device="cpu"))
    task = find_task(open_pool(shards), "Delta")
    found = transfer(source_of(run, "run"), task, options, Notes())
    assert "the tasks of this run were chosen on the val set of Delta: this score is optimistic" in found["notes"]
    assert not any("chosen" in note for note in transfer(source_of(run, "random"), task, options, Notes())["notes"])


def test_a_run_goes_on_without_its_file_but_not_with_another_one(shards: Path, tmp_path: Path) -> None:
    file = advice(tmp_path / "Delta.json")
    run = trained(shards, tmp_path / "runs" / "a", drop=file, leave_out=("Delta",))
    run.weights.unlink()
    Path(file).unlink()
    again = trained(shards, run.path, drop=file, leave_out=("Delta",))
    assert list(again.about()["pool"]) == ["Alpha", "Gamma"]
    advice(Path(file), leave_out=["Gamma"])
    with pytest.raises(RunError, match="this file has changed since the run began"):
        trained(shards, run.path, drop=file, leave_out=("Delta",))


def test_a_run_goes_on_with_its_file_in_another_place_but_not_with_another_content(
    shards: Path, tmp_path: Path
) -> None:
    run = trained(shards, tmp_path / "runs" / "a", drop=advice(tmp_path / "Delta.json"), leave_out=("Delta",))
    run.weights.unlink()
    (tmp_path / "elsewhere").mkdir()
    moved = advice(tmp_path / "elsewhere" / "Delta.json")
    assert list(trained(shards, run.path, drop=moved, leave_out=("Delta",)).about()["pool"]) == ["Alpha", "Gamma"]
    run.weights.unlink()
    other = advice(tmp_path / "other.json", leave_out=["Gamma"])
    with pytest.raises(RunError, match="this run has other settings: drop"):
        trained(shards, run.path, drop=other, leave_out=("Delta",))


def digests(shards: Path) -> dict[str, str]:
    return {task.name: task.card.digest for task in open_pool(shards).tasks}


def test_a_choice_that_was_made_on_other_shards_of_its_target_is_refused(shards: Path, tmp_path: Path) -> None:
    of_others = digests(shards) | {"Delta": "0" * 64}
    with pytest.raises(UsageError, match=r"other shards of its target Delta, whose .*; write it with"):
        trained(shards, tmp_path / "runs" / "a", drop=advice(tmp_path / "Delta.json", pool=of_others))
    with pytest.raises(UsageError, match=r"of another pool: Zeta is not in this one; found Alpha"):
        trained(shards, tmp_path / "runs" / "a", drop=advice(tmp_path / "Delta.json", leave_out=["Zeta"]))
    assert not (tmp_path / "runs" / "a").exists()


def test_sources_that_the_estimate_does_not_know_are_named(shards: Path, tmp_path: Path) -> None:
    known = {name: digest for name, digest in digests(shards).items() if name != "Gamma"} | {"Alpha": "0" * 64}
    notes, file = Notes(), advice(tmp_path / "Delta.json", pool=known)
    run = trained(shards, tmp_path / "runs" / "a", notes, drop=file, leave_out=("Delta",))
    assert list(run.about()["pool"]) == ["Alpha", "Gamma"]
    assert "that file has no estimate for these tasks, which are kept: Gamma" in notes.said
    assert "that file was estimated on other shards of Alpha: make it again to be sure" in notes.said


@pytest.mark.parametrize("saw", [{"delta": ["train", "test"]}, {"Alpha": ["train"]}, {}])
def test_a_choice_that_has_seen_the_test_set_of_its_target_is_refused(
    shards: Path, tmp_path: Path, saw: dict[str, list[str]]
) -> None:
    with pytest.raises(UsageError, match="it has seen the test set of its target"):
        trained(shards, tmp_path / "runs" / "a", drop=advice(tmp_path / "Delta.json", saw=saw), leave_out=("Delta",))
    assert not (tmp_path / "runs" / "a").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": ("Alpha", "Betta")}, "no task 'Betta' in the pool"),
        ({"tasks": ("Alpha", "Delta"), "leave_out": ("delta",)}, "Delta is both chosen and left out"),
        ({"tasks": ("Epsilon",), "leave_out": ("Delta",)}, "Epsilon is both chosen and left out"),
        ({"tasks": ("Beta",), "drop": "Delta.json"}, "no task remains to train on"),
        ({"drop": "none.json"}, "no such file of influence"),
        ({"drop": "other.json"}, "not a file of influence"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused_before_torch_is_loaded(
    shards: Path, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    advice(tmp_path / "Delta.json")
    write_document(tmp_path / "other.json", {"target": "Delta"})
    given = given | ({"drop": str(tmp_path / given["drop"])} if "drop" in given else {})
    with pytest.raises(UserError, match=message):
        check_names(fit_config(None, {"shards": str(shards), "weights": "random", **given}))


def test_names_are_given_with_commas_or_one_by_one(shards: Path, tmp_path: Path) -> None:
    words = ["fit", "--shards", str(shards), "--runs", str(tmp_path), "--run", "a", "--tasks", "alpha, Beta"]
    words += ["--tasks", "Gamma", "--backbone", "shufflenet_v2_x0_5", "--weights", "random", "--iterations", "1"]
    assert call("mtrain", [*words, "--batch", "4", "--size", "32", "--adapt-batches", "0", "--device", "cpu"]) == 0
    assert list(Run(tmp_path / "a").about()["pool"]) == ["Alpha", "Beta", "Gamma"]
