"""Transfers by svm: what is scored on what, what is computed once, and what is never read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrain.config import FitConfig
from mtrain.data.batches.image_batches import ordered_batches
from mtrain.data.batches.images import Images
from mtrain.data.pool import find_task, open_pool
from mtrain.data.task import Task, open_task
from mtrain.disk.documents import read_document, write_document
from mtrain.errors import RunError, ShardError, UsageError
from mtrain.evaluation.evaluate import opened
from mtrain.model.frozen import weights_digest
from mtrain.model.network import SharedNetwork, shared_network
from mtrain.model.weight_files.weights import save_weights
from mtrain.report.pages.run_page import write_report
from mtrain.runs.run_folder import Run
from mtrain.scoring.metrics import accuracy
from mtrain.train.fit import fit
from mtrain.transfers import features as features_module
from mtrain.transfers.features import features
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.request import targets
from mtrain.transfers.results import results
from mtrain.transfers.transfer import TransferOptions, result_path, source_of, transfer
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.test_fit import Notes
from tests.small_networks import whole_networks

SMALL = "shufflenet_v2_x0_5"
SIZE = 32


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards/ and the finished run runs/toy, which left Gamma (three classes) out."""
    folder = tmp_path_factory.mktemp("trained")
    write_pool(folder / "shards")
    settings = FitConfig(
        shards=str(folder / "shards"),
        leave_out=("Gamma",),
        backbone=SMALL,
        weights="random",
        iterations=3,
        batch=4,
        size=SIZE,
        adapt_batches=2,
        workers=0,
        validate_every=0,
        device="cpu",
        train_on="train",
    )
    fit(settings, Run(folder / "runs" / "toy"), Notes())
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """A copy of the finished run."""
    shutil.copytree(trained / "runs" / "toy", tmp_path / "runs" / "toy")
    return Run(tmp_path / "runs" / "toy")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits whose features are computed, as they are."""
    seen: list[str] = []
    plain = features_module._computed

    def computed(network: SharedNetwork, task: Task, split: str, *rest: Any) -> Any:
        seen.append(f"{task.name} {split}")
        return plain(network, task, split, *rest)

    monkeypatch.setattr(features_module, "_computed", computed)
    return seen


def svm(run: Run, weights: str = "run", task: str = "Gamma", **options: Any) -> dict[str, Any]:
    """As the command does it: the test set is opened for the final transfer."""
    (target,) = targets(run, None, [task])
    (target,) = opened([target]) if options.get("final") else [target]
    return transfer(source_of(run, weights), target, TransferOptions(workers=0, **options), Notes())


def feature_options(folder: Path) -> dict[str, Any]:
    return {"size": SIZE, "cache": folder, "workers": 0, "report": Notes()}


# --- features ---


def test_features_are_the_networks_output_for_each_image_in_order(trained: Path, tmp_path: Path) -> None:
    task = find_task(open_pool(trained / "shards"), "Gamma")
    network = source_of(Run(trained / "runs" / "toy"), "run").network.train()
    found = features(network, task, "val", **feature_options(tmp_path))
    images = torch.cat([i for i, _ in ordered_batches(task, task.rows["val"], size=SIZE, batch=3, workers=0)])
    with torch.inference_mode():
        expected = network.eval()(network.normalize(images)).numpy()
    assert found.shape == (8, network.num_features)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_features_are_computed_once_and_anew_when_weights_shards_split_or_size_change(
    trained: Path, tmp_path: Path, passes: list[str]
) -> None:
    task = open_task(write_task(tmp_path / "s" / "Gamma", seed=2))
    network, options = source_of(Run(trained / "runs" / "toy"), "run").network, feature_options(tmp_path / "cache")
    first = np.array(features(network, task, "val", **options))
    assert np.array_equal(features(network, task, "val", **options), first)
    assert len(passes) == 1
    other_shards = open_task(write_task(tmp_path / "t" / "Gamma", seed=3))
    assert not np.array_equal(features(network, other_shards, "val", **options), first)
    features(network, task, "train", **options)
    features(network, task, "val", **(options | {"size": 48}))
    with torch.no_grad():
        next(network.parameters()).add_(1)
    assert not np.array_equal(features(network, task, "val", **options), first)
    assert len(passes) == 5


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not an array at all"])
def test_a_damaged_cache_is_computed_anew(trained: Path, tmp_path: Path, passes: list[str], content: bytes) -> None:
    task = find_task(open_pool(trained / "shards"), "Gamma")
    network = shared_network(SMALL, "random")
    first = np.array(features(network, task, "val", **feature_options(tmp_path)))
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert np.array_equal(features(network, task, "val", **feature_options(tmp_path)), first)
    assert len(passes) == 2


def test_names_of_tasks_and_samples_are_of_any_script(trained: Path, tmp_path: Path) -> None:
    write_task(tmp_path / "Brust Größe")
    (task,) = open_pool(tmp_path).tasks
    assert not task.rows["val"].key[0].isascii()
    images = Images([(task, task.rows["val"])])
    assert images.key[0].decode() == task.rows["val"].key[0]
    assert images.decode(0).shape == (40, 32, 3)


def test_the_digest_of_weights_tells_networks_and_buffers_apart() -> None:
    networks = [shared_network(SMALL, "random") for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    assert weights_digest(networks[0]) == weights_digest(networks[1])
    for change in (lambda n: n.mean.add_(0.1), lambda n: next(n.body.buffers()).add_(1)):
        change(networks[1])
        assert weights_digest(networks[0]) != weights_digest(networks[1])
        change(networks[0])
        assert weights_digest(networks[0]) == weights_digest(networks[1])


# --- svm ---


def test_the_validation_set_scores_what_the_training_set_trained(run: Run, passes: list[str]) -> None:
    result = svm(run)
    assert passes == ["Gamma train", "Gamma val"]
    assert (result["task"], result["set"], result["metric"]) == ("Gamma", "val", "accuracy")
    assert result["trained_on"] == {"train": 24}
    assert result["C"] in [float(cost) for cost in result["cv"]]
    kept = np.load(run.path / "transfer" / "Gamma-svm-run.npz")
    (task,) = targets(run, None, ())
    assert list(kept["key"]) == list(task.rows["val"].key)
    assert result["score"] == accuracy(kept["label"], kept["decisions"].argmax(1))
    assert result["score"] >= 0.75  # the colour of a toy image tells its class
    assert results(run) == [result]


def test_two_classes_are_scored_by_the_area_under_the_curve(run: Run) -> None:
    result = svm(run, task="Alpha")
    assert (result["metric"], result["score"]) == ("roc_auc", result["scores"]["roc_auc"])


def test_the_test_set_is_read_in_the_final_transfer_and_only_there(trained: Path, run: Run, tmp_path: Path) -> None:
    """Its images are no images here: reading one is an error."""
    shutil.copytree(trained / "shards" / "Gamma", tmp_path / "Gamma")
    for path in (tmp_path / "Gamma").glob("test-*.tar"):
        path.write_bytes(bytes(path.stat().st_size))
    assert svm(run, task=str(tmp_path / "Gamma"))["set"] == "val"
    with pytest.raises(ShardError, match="cannot read image gamma-test-"):
        svm(run, task=str(tmp_path / "Gamma"), final=True)


def test_the_final_transfer_trains_on_train_and_val_and_scores_test(run: Run, passes: list[str]) -> None:
    result = svm(run, final=True)
    assert passes == ["Gamma train", "Gamma val", "Gamma test"]
    assert result["set"] == "test"
    assert result["trained_on"] == {"train": 24, "val": 8}
    assert {path.name for path in (run.path / "transfer").iterdir()} == {
        "Gamma-svm-run-final.json",
        "Gamma-svm-run-final.npz",
    }


def test_a_result_is_recognised_and_not_computed_again(run: Run, passes: list[str]) -> None:
    first, notes = svm(run), Notes()
    shutil.rmtree(run.path.parent / ".features")
    passes.clear()
    (task,) = targets(run, None, ())
    assert transfer(source_of(run, "run"), task, TransferOptions(workers=0), notes) == first
    assert passes == []
    assert "existing result reused" in notes.said[0]
    svm(run, solver="sklearn")
    assert passes == ["Gamma train", "Gamma val"]


def test_a_known_result_names_the_weights_that_were_given(run: Run, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        shutil.copy(run.weights, tmp_path / name / "copy.safetensors")
        path = str(tmp_path / name / "copy.safetensors")
        found = transfer(source_of(run, path), targets(run, None, ())[0], TransferOptions("knn", workers=0), Notes())
        assert found["weights"] == path


def test_a_damaged_result_is_computed_again(run: Run) -> None:
    first = svm(run)
    path = run.path / "transfer" / "Gamma-svm-run.json"
    path.write_bytes(path.read_bytes()[:50])
    again = svm(run)
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", None])
def test_damaged_predictions_are_said_and_made_again(run: Run, damage: bytes | None, tmp_path: Path) -> None:
    first = svm(run)
    path = run.path / "transfer" / "Gamma-svm-run.npz"
    whole = path.read_bytes()
    path.unlink() if damage is None else path.write_bytes(damage)
    said = Notes()
    page, _ = write_report(run, tmp_path / "page.html", report=said)
    assert "predictions that are gone, or changed since they were written; what needs them is not shown" in said.said[0]
    assert "the predictions of Gamma-svm-run are gone or damaged" in page.read_text()
    assert {**svm(run), "seconds": 0} == {**first, "seconds": 0}
    assert path.read_bytes() == whole


def test_a_task_without_a_validation_set_is_scored_by_cross_validation_and_says_so(run: Run, tmp_path: Path) -> None:
    write_task(tmp_path / "Omega", classes=3, sizes={"train": 24, "test": 6})
    result = svm(run, task=str(tmp_path / "Omega"))
    assert result["set"] == "cv"
    assert result["score"] == result["cv"][str(result["C"])]
    assert any("no val set" in note for note in result["notes"])
    write_task(tmp_path / "Psi", sizes={"train": 8})
    with pytest.raises(UsageError, match="no test set"):
        svm(run, task=str(tmp_path / "Psi"), final=True)


def test_a_score_that_is_not_defined_is_null_and_noted(run: Run, tmp_path: Path) -> None:
    """A validation set of one image has one class: no area under a curve."""
    write_task(tmp_path / "Omega", sizes={"train": 24, "val": 1})
    result = svm(run, task=str(tmp_path / "Omega"))
    assert result["score"] is None
    assert any("one class only" in note for note in result["notes"])
    assert "NaN" not in (run.path / "transfer" / "Omega-svm-run.json").read_text()


def test_classes_that_no_training_sample_has_are_counted(run: Run, tmp_path: Path) -> None:
    task = open_task(write_task(tmp_path / "Omega", classes=3, sizes={"train": 2, "val": 3, "test": 8}))
    options = TransferOptions("knn", workers=0)
    found = transfer(source_of(run, "run"), task, options, Notes())
    said = [note for note in found["notes"] if "cannot be right" in note]
    assert said == ["Omega has no training sample of 'class-2': 1 sample of the val set cannot be right"]
    curve = transfer(source_of(run, "run"), task, replace(options, mode="fewshot"), Notes())
    assert [note for note in curve["notes"] if "cannot be right" in note] == said
    (final,) = opened([task])  # whose validation set is trained on too
    found = transfer(source_of(run, "run"), final, replace(options, final=True), Notes())
    assert not any("cannot be right" in note for note in found["notes"])


def test_a_result_of_other_held_out_samples_is_computed_again(run: Run, tmp_path: Path) -> None:
    """Earlier versions held out the first fold, here all samples of a class."""
    task = open_task(write_task(tmp_path / "Omega", classes=3, sizes={"train": 36}))
    rows = task.rows["train"]
    groups = ["alone" if c == 2 else group for c, group in zip(rows.label, rows.group, strict=True)]
    alone = replace(task, rows=task.rows | {"train": replace(rows, group=np.array(groups, object))})
    options = TransferOptions("finetune", workers=0, recipe=Recipe(epochs=1, rates=(1e-3,), batch=8, device="cpu"))
    for one, fold in ((task, 0), (alone, 1)):
        first = transfer(source_of(run, "run"), one, options, Notes())
        assert first["identity"].get("fold", 0) == fold
        path = result_path(source_of(run, "run"), one, options)
        earlier = read_document(path, "")
        earlier["identity"].pop("fold", None)
        write_document(path, earlier | {"score": 0.125})
        again = transfer(source_of(run, "run"), one, options, Notes())
        assert again["score"] == (first["score"] if fold else 0.125)
        path.unlink()


# --- whose weights ---


def test_imagenet_weights_are_those_of_the_package(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not downloaded here: a stand-in for torchvision's download answers."""
    with whole_networks():  # that download has the weights of all layers
        stand_in = shared_network(SMALL, "random").body.state_dict() | {
            "fc.weight": torch.zeros(1000, 1024),
            "fc.bias": torch.zeros(1000),
        }
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_a, **_k: stand_in)
        found = source_of(run, "imagenet").network.body.state_dict()
        assert all(torch.equal(tensor, stand_in[name]) for name, tensor in found.items())
        assert svm(run, "imagenet")["weights"] == "imagenet"


def test_random_weights_depend_on_the_seed_of_the_run_alone(run: Run) -> None:
    torch.manual_seed(123)
    assert source_of(run, "random").digest == source_of(run, "random").digest != source_of(run, "run").digest


def test_files_of_one_name_do_not_overwrite_each_others_results(run: Run, tmp_path: Path) -> None:
    (task,) = targets(run, None, ())
    for number in range(2):
        torch.manual_seed(number)
        path = tmp_path / str(number) / "weights.safetensors"
        path.parent.mkdir()
        save_weights(shared_network(SMALL, "random").body, path, SMALL)
        svm(run, str(path))
    kept = sorted((run.path / "transfer").glob("*.json"))
    assert len(kept) == 2
    assert all(path.name.startswith("Gamma-svm-weights-") for path in kept)
    assert {json.loads(path.read_bytes())["weights"] for path in kept} == {
        str(tmp_path / "0" / "weights.safetensors"),
        str(tmp_path / "1" / "weights.safetensors"),
    }
    source = source_of(run, str(tmp_path / "0" / "weights.safetensors"))
    assert result_path(source, task, TransferOptions()) in kept


# --- what goes wrong ---


def test_an_unfinished_run_is_refused_with_how_to_go_on(run: Run) -> None:
    (run.path / "state.json").write_text(json.dumps({"state": "running", "iteration": 2}))
    with pytest.raises(RunError, match=r"this run is not finished; resume it with: mtrain fit .*--run toy"):
        source_of(run, "run")
    assert source_of(run, "random").weights == "random"


def test_a_run_that_left_nothing_out_needs_a_target(run: Run) -> None:
    about = run.about() | {"left_out": []}
    run.write("config.json", about)
    with pytest.raises(UsageError, match="left no task out; name one with --target TASK"):
        targets(run, None, ())
    assert [task.name for task in targets(run, None, ["alpha"])] == ["Alpha"]
