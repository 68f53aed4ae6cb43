"""Files of another run, cell or network in the place of one's own: each is whole, and none is taken for one's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtrain import load_network
from mtrain.config import FitConfig
from mtrain.data.batches.batch import Batch
from mtrain.errors import RunError
from mtrain.model.frozen import weights_digest
from mtrain.runs import belonging
from mtrain.runs.event_log import append, cut, events
from mtrain.runs.run_folder import Run
from mtrain.train import checkpoint
from mtrain.train.fit import fit
from mtrain.train.trainer import Training
from mtrain.transfers.transfer import source_of
from tests.mtrain.pools import write_pool
from tests.mtrain.sweeps import write_sweep
from tests.mtrain.test_damage import SETTINGS, line, mtrain, transfer
from tests.mtrain.test_fit import Notes

TOY, OTHER = Path("runs/toy"), Path("runs/other")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """shards/ of three tasks, and runs/ of two trainings, whose weights differ, with a transfer each."""
    place = tmp_path_factory.mktemp("made")
    write_pool(place / "shards", sizes={"train": 12, "val": 8, "test": 4})
    for name, seed in (("other", 1), ("toy", 0)):
        settings = {**SETTINGS, "shards": str(place / "shards"), "leave_out": ("Gamma",), "seed": seed}
        fit(FitConfig.model_validate(settings), Run(place / "runs" / name), Notes())
        assert transfer("--runs", str(place / "runs"), "--run", name, "--shards", str(place / "shards")).exit_code == 0
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    return tmp_path / "p"


def result_of(run: Path) -> Path:
    (path,) = (run / "transfer").glob("*.json")
    return path


def test_the_weights_state_the_digest_of_the_network_that_they_make(place: Path) -> None:
    run = Run(TOY)
    stated = belonging.header(run.weights)
    assert stated["network_digest"] == weights_digest(source_of(run, "run").network)
    assert stated["settings"] == belonging.settings_digest(run) != belonging.settings_digest(Run(OTHER))


def test_the_result_of_another_run_is_not_reported_and_is_made_again(place: Path) -> None:
    own = json.loads(result_of(TOY).read_text())
    for path in (OTHER / "transfer").iterdir():
        shutil.copy(path, TOY / "transfer")
    told = line(mtrain("report", "--run", "toy"))
    assert told.startswith(f"{result_of(TOY)}: a result of other weights than this run has now; remove it; `mtrain")
    assert transfer("--run", "toy").exit_code == 0
    again = json.loads(result_of(TOY).read_text())
    assert {**again, "seconds": 0, "sha256": ""} == {**own, "seconds": 0, "sha256": ""}


def test_the_result_of_another_task_is_not_reported(place: Path) -> None:
    path = result_of(TOY)
    path.rename(path.with_name(path.name.replace("Gamma", "Alpha")))
    assert "a result of Gamma under another name" in line(mtrain("report", "--run", "toy"))


@pytest.mark.parametrize("changed", [{"backbone": "resnet18"}, {"identity": {"size": 64}}])
def test_a_result_of_another_network_or_size(place: Path, changed: dict[str, object]) -> None:
    content = {"weights": "imagenet", "backbone": SETTINGS["backbone"], "identity": {"size": 32}}
    assert belonging.fault_of_result(Run(TOY), content) is None
    assert str(belonging.fault_of_result(Run(TOY), content | changed)).startswith("a result ")


@pytest.mark.parametrize("name", ["config.json", "shared.safetensors"])
def test_settings_and_weights_of_two_runs(place: Path, name: str) -> None:
    shutil.copy(OTHER / name, TOY)
    told = "runs/toy: config.json and shared.safetensors belong to different runs"
    for found in (transfer("--run", "toy"), mtrain("export", "toy"), mtrain("report", "--run", "toy")):
        assert line(found).startswith(told)
    with pytest.raises(RunError, match=told):
        load_network(TOY)


def test_weights_that_another_program_saved_are_refused_and_made_again_from_the_checkpoint(place: Path) -> None:
    path = TOY / "shared.safetensors"
    own = path.read_bytes()
    changed = {name: 2 * tensor if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()}
    save_file(changed, path)
    told = "runs/toy: shared.safetensors is not the file that this run wrote"
    for found in (transfer("--run", "toy"), mtrain("export", "toy")):
        assert line(found).startswith(told)
    with pytest.raises(RunError, match=told):
        load_network(TOY)
    assert mtrain("fit", "--run", "toy").exit_code == 0
    assert path.read_bytes() == own


def test_heads_of_another_run_are_refused_and_made_again_from_the_checkpoint(place: Path) -> None:
    path = TOY / "heads.safetensors"
    own = path.read_bytes()
    shutil.copy(OTHER / path.name, TOY)
    told = line(mtrain("export", "toy", "--task", "Alpha"))
    assert told.startswith("runs/toy: heads.safetensors and shared.safetensors belong to different runs")
    again = mtrain("fit", "--run", "toy")
    assert "runs/toy/heads.safetensors: heads.safetensors and shared" in again.stderr
    assert path.read_bytes() == own


def test_weights_of_another_run_are_made_again_from_the_checkpoint(place: Path) -> None:
    path = TOY / "shared.safetensors"
    own = path.read_bytes()
    shutil.copy(OTHER / path.name, TOY)
    assert mtrain("fit", "--run", "toy").exit_code == 0
    assert path.read_bytes() == own


def test_the_checkpoint_of_another_run_is_passed_over(place: Path) -> None:
    (path,) = checkpoint.newest(Run(TOY).checkpoints)
    shutil.copy(Run(OTHER).checkpoints / path.name, path)
    own = (TOY / "shared.safetensors").read_bytes()
    (TOY / "shared.safetensors").unlink()
    again = mtrain("fit", "--run", "toy")
    told = "not a readable checkpoint: it belongs to another training run; no other exists: "
    assert f"{told}training starts from the beginning" in again.stderr
    assert (TOY / "shared.safetensors").read_bytes() == own


def test_features_under_another_name_are_computed_again(place: Path) -> None:
    first, *others = sorted(Path("runs/.features").glob("Gamma-val-*"))
    assert others, "each network has its own"
    shutil.copy(others[0], first)
    for run in (TOY, OTHER):
        score = json.loads(result_of(run).read_text())["score"]
        shutil.rmtree(run / "transfer")
        said = transfer("--run", run.name).stderr
        assert json.loads(result_of(run).read_text())["score"] == score
        assert ("features of other images or another network" in said) == (said.count("computed again") == 1)


# --- sweeps


def test_the_result_of_another_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = write_sweep(tmp_path / "sweeps" / "toy", lambda c, _task, _seed: 0.5 + c.lr)
    cell, other = (store.result_path(f"{number:024}") for number in (0, 1))
    shutil.copy(other, cell)
    assert line(mtrain("select")).startswith(f"{cell.relative_to(tmp_path)}: the result of another cell; run the sweep")
    said: list[str] = []
    assert store.known(cell.stem, said.append) is None
    assert said == [f"{cell}: the result of another cell; the cell is run again"]


def test_the_selection_of_another_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path / "sweeps" / "large", lambda c, _task, _seed: 0.5 + c.lr, seeds=(0, 1, 2))
    write_sweep(tmp_path / "sweeps" / "small", lambda c, _task, _seed: 0.5 - c.lr, seeds=(0,))
    for name in ("large", "small"):
        assert mtrain("select", "--sweep", name).exit_code == 0
    shutil.copy("sweeps/large/selected.json", "sweeps/small")
    told = line(mtrain("evaluate", "--sweep", "small"))
    assert told.startswith("sweeps/small/selected.json: the selection of another sweep; found cell 0")


# --- log.jsonl


@pytest.mark.parametrize("torn", ["", '{"event": "st'])
def test_the_log_is_cut_to_the_iteration_from_which_a_training_goes_on(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "log.jsonl"
    kinds = ("cosines", "step", "validation", "skipped")
    for iteration in (1, 2, 3):
        for kind in kinds:
            append(path, {"event": kind, "iteration": iteration})
    before = path.read_text().splitlines()
    with path.open("a") as file:
        file.write(torn)
    cut(path, 2)
    assert path.read_text().splitlines() == before[: 2 * len(kinds)]
    assert [(event["event"], event["iteration"]) for event in events(path)][-1] == ("skipped", 2)
    cut(tmp_path / "absent.jsonl", 2)


def test_a_training_that_was_cut_off_has_the_log_of_an_undisturbed_one(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut off in iteration 5, after its cosines were logged, and resumes from its checkpoint of iteration 3."""
    settings = {
        **SETTINGS,
        "shards": str(made / "shards"),
        "iterations": 5,
        "log_cosines": 1,
        "log_every": 2,
        "validate_every": 1,
        "checkpoint_every": 3,
        "warmup": 0,
        "train_on": "train",
    }
    config, run, step = FitConfig.model_validate(settings), Run(tmp_path / "toy"), Training.step

    def cut_off(training: Training, *parts: Batch) -> Tensor:
        if training.iteration == 4:
            raise KeyboardInterrupt
        return step(training, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", cut_off)
        with pytest.raises(KeyboardInterrupt):
            fit(config, run, Notes())
    assert events(run.path / "log.jsonl")[-1]["iteration"] == 5
    fit(config, run, Notes())
    fit(config, undisturbed := Run(tmp_path / "undisturbed"), Notes())
    found, expected = logged(run), logged(undisturbed)
    assert [(event["event"], event["iteration"]) for event in expected if event["event"] != "cosines"] == [
        ("validation", 1),
        ("step", 2),
        ("validation", 2),
        ("validation", 3),
        ("step", 4),
        ("validation", 4),
        ("step", 5),
        ("validation", 5),
    ]
    assert found == expected


def logged(run: Run) -> list[dict[str, Any]]:
    """All records of the log, without what is measured on the clock or the machine."""
    lines = (run.path / "log.jsonl").read_text().splitlines()
    measured = ("images_per_s", "wait", "memory")
    return [{name: of for name, of in json.loads(line).items() if name not in measured} for line in lines]
